"""Secrets sent by mail; only their hashes are kept."""

from datetime import datetime

from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from portal.db.base import Base
from portal.db.types import one_of


class EmailToken(Base):
    """A secret sent by mail: confirms an address, resets a password or sets a first one."""

    __tablename__ = "email_tokens"
    __table_args__ = (one_of("purpose", "confirm-email", "reset-password", "set-password"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    person_id: Mapped[str] = mapped_column(ForeignKey("people.id"), index=True)
    purpose: Mapped[str]
    token_sha256: Mapped[str] = mapped_column(unique=True)
    code_sha256: Mapped[str | None]
    """The short code a person types instead of following the link, hashed with the row's id."""
    code_attempts: Mapped[int] = mapped_column(default=0)
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    used_at: Mapped[datetime | None]
