"""Signed-in browsers."""

from datetime import datetime

from sqlalchemy import ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from portal.db.base import Base


class SignIn(Base):
    """A signed-in browser. The cookie holds a 256-bit token; its SHA-256 is the key here."""

    __tablename__ = "sign_ins"
    __table_args__ = (Index("ix_sign_ins_person_id_ended_at", "person_id", "ended_at"),)

    token_sha256: Mapped[str] = mapped_column(primary_key=True)
    public_id: Mapped[str] = mapped_column(unique=True)
    """Names the row on pages, where the token must not appear."""
    person_id: Mapped[str] = mapped_column(ForeignKey("people.id"))
    account_id: Mapped[str | None] = mapped_column(ForeignKey("accounts.id"))
    """The account that a customer has chosen."""
    created_at: Mapped[datetime]
    last_seen_at: Mapped[datetime]
    reauthenticated_at: Mapped[datetime]
    factor_passed_at: Mapped[datetime | None]
    """When the second factor was given; staff pages need it."""
    expires_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
    end_reason: Mapped[str | None]
    address: Mapped[str]
    user_agent: Mapped[str]
