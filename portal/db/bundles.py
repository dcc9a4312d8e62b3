"""Revocation bundles, as published."""

from datetime import datetime

from sqlalchemy import BigInteger, LargeBinary, func, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from portal.db.base import Base


class Bundle(Base):
    """One signed revocation bundle, exactly as published."""

    __tablename__ = "bundles"

    version: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    payload_sha256: Mapped[str]
    entries_sha256: Mapped[str]
    """Of the entries alone: tells whether a new version would differ."""
    envelope: Mapped[bytes] = mapped_column(LargeBinary)
    key_id: Mapped[str]
    issued_at: Mapped[datetime]
    expires_at: Mapped[datetime]


def latest_bundle(session: Session) -> Bundle | None:
    """Return the newest published bundle."""
    return session.scalar(select(Bundle).order_by(Bundle.version.desc()).limit(1))


def hold_publishing(session: Session) -> int | None:
    """Make other publishers of bundles wait until the commit; return the newest version."""
    session.execute(
        select(Bundle.version).order_by(Bundle.version.desc()).limit(1).with_for_update()
    )
    # Read again: the previous holder of the lock may have published one.
    return session.scalar(select(func.max(Bundle.version)))
