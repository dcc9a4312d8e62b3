"""Published keysets, and where the private keys are held."""

from datetime import datetime

from sqlalchemy import LargeBinary, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from portal.db.base import Base


class KeysetVersion(Base):
    """One signed keyset, exactly as published."""

    __tablename__ = "keyset_versions"

    version: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    payload_sha256: Mapped[str]
    envelope: Mapped[bytes] = mapped_column(LargeBinary)
    published_at: Mapped[datetime]


class SigningKey(Base):
    """Where a private key is held. The key itself is never in the database."""

    __tablename__ = "signing_keys"

    keyid: Mapped[str] = mapped_column(primary_key=True)
    role: Mapped[str]
    uri: Mapped[str]
    """`file:NAME` below the key directory, or another signer's URI."""
    public_key: Mapped[bytes | None] = mapped_column(LargeBinary)
    """32 raw bytes, of a key that no keyset lists yet; keysets say it of the others."""
    created_at: Mapped[datetime]
    taken_by: Mapped[str | None]
    """The key change that publishes it: an interrupted one goes on with the same key."""
    stopped_at: Mapped[datetime | None]
    """Since when it signs nothing, because somebody said that it is compromised."""


class KeyChange(Base):
    """A key change that is being run, or was: what an interrupted one goes on from."""

    __tablename__ = "key_changes"

    act_id: Mapped[str] = mapped_column(primary_key=True)
    payload: Mapped[bytes] = mapped_column(LargeBinary)
    """The keyset it publishes, fixed before anything is signed."""
    keyset_version: Mapped[int]
    started_at: Mapped[datetime]
    published_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]


def latest_keyset(session: Session) -> KeysetVersion | None:
    """Return the newest published keyset."""
    return session.scalar(select(KeysetVersion).order_by(KeysetVersion.version.desc()).limit(1))


def hold_keysets(session: Session) -> KeysetVersion | None:
    """Keep other publishers of keysets waiting until the commit; return the newest one."""
    session.execute(
        select(KeysetVersion.version)
        .order_by(KeysetVersion.version.desc())
        .limit(1)
        .with_for_update()
    )
    # Asked again: whoever held the lock before has published one since.
    return latest_keyset(session)


def stopped_keyids(session: Session) -> frozenset[str]:
    """Return the keys that sign nothing although their keyset would let them."""
    return frozenset(
        session.scalars(select(SigningKey.keyid).where(SigningKey.stopped_at.is_not(None)))
    )


def key_taken_by(session: Session, act_id: str) -> SigningKey | None:
    """Return the new key that a key change publishes, once it has one."""
    return session.scalar(select(SigningKey).where(SigningKey.taken_by == act_id))


def free_key(session: Session, role: str) -> SigningKey | None:
    """Return the oldest key of a role that was added and that no keyset lists yet."""
    return session.scalar(
        select(SigningKey)
        .where(
            SigningKey.role == role,
            SigningKey.public_key.is_not(None),
            SigningKey.taken_by.is_(None),
        )
        .order_by(SigningKey.created_at, SigningKey.keyid)
        .limit(1)
    )
