"""E-mails: each message with its delivery state."""

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from portal.db.base import Base
from portal.db.types import one_of


class Email(Base):
    """One message: the template, its facts (no secret ones), and its delivery state."""

    __tablename__ = "emails"
    __table_args__ = (
        one_of("state", "queued", "sent", "failed", "withdrawn"),
        Index("ix_emails_created_at", "created_at", "id"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    account_id: Mapped[str | None] = mapped_column(ForeignKey("accounts.id"), index=True)
    person_id: Mapped[str | None] = mapped_column(ForeignKey("people.id"), index=True)
    to_address: Mapped[str]
    template: Mapped[str]
    facts: Mapped[dict[str, Any]]
    sealed_secret: Mapped[bytes | None]
    """A token the message must carry, encrypted for this row and erased once it is sent."""
    state: Mapped[str]
    created_at: Mapped[datetime]
    sent_at: Mapped[datetime | None]
    last_error: Mapped[str | None]
    """Why the last attempt failed, or why the message was withdrawn."""
    attempts: Mapped[int] = mapped_column(default=0, server_default="0")
    """How often it was handed to the mail system."""
    resent_from: Mapped[str | None]
    """The message that staff sent again as this one."""
