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
    created_at: Mapped[datetime]


def latest_keyset(session: Session) -> KeysetVersion | None:
    """Return the newest published keyset."""
    return session.scalar(select(KeysetVersion).order_by(KeysetVersion.version.desc()).limit(1))
