"""Requests: what customers ask staff for, and what was said about them."""

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from portal.db.base import Base
from portal.db.types import one_of


class Request(Base):
    """One request. `asked` is never changed; what staff granted instead stands in `granted`."""

    __tablename__ = "requests"
    __table_args__ = (
        one_of("kind", "evaluation", "pilot", "renewal", "replacement"),
        one_of("state", "open", "approved", "declined", "withdrawn"),
        Index("ix_requests_state_created_at", "state", "created_at"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str]
    state: Mapped[str]
    account_id: Mapped[str] = mapped_column(ForeignKey("accounts.id"), index=True)
    deployment_id: Mapped[str] = mapped_column(ForeignKey("deployments.id"), index=True)
    person_id: Mapped[str] = mapped_column(ForeignKey("people.id"))
    """Who asked."""
    email_domain: Mapped[str | None]
    registrable_domain: Mapped[str | None] = mapped_column(index=True)
    """Of the person's address when they asked: the cap per domain counts these."""
    asked: Mapped[dict[str, Any]]
    """`purpose`, `features`, `mode`, `fingerprint`, and for pilots `goals`, `starts_on`,
    `volume_tokens`, `contacts`."""
    granted: Mapped[dict[str, Any] | None]
    """The terms staff approved, when the request was approved."""
    policy: Mapped[dict[str, Any]]
    """What the policy said: `granted` and `reasons`."""
    created_at: Mapped[datetime]
    promised_at: Mapped[datetime]
    """When the customer was told to have an answer by."""
    taken_by: Mapped[str | None] = mapped_column(ForeignKey("people.id"))
    decided_at: Mapped[datetime | None]
    decided_by: Mapped[str | None] = mapped_column(ForeignKey("people.id"))
    """None on a decided request: the policy decided."""
    decision_note: Mapped[str | None]
    """The words to the customer."""


class RequestMessage(Base):
    """One message on a request: to or from the customer, or internal to staff."""

    __tablename__ = "request_messages"
    __table_args__ = (one_of("audience", "customer", "staff"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    request_id: Mapped[str] = mapped_column(ForeignKey("requests.id"), index=True)
    author_id: Mapped[str] = mapped_column(ForeignKey("people.id"))
    audience: Mapped[str]
    text: Mapped[str]
    created_at: Mapped[datetime]
