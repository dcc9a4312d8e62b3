"""Requests: what customers ask staff for, and the messages about it."""

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from portal.db.base import Base
from portal.db.types import one_of
from portal.domain.requests import Audience, Background, RequestKind, RequestState
from portal.domain.terms import Terms


class Request(Base):
    """One request. `asked` never changes; the terms that were granted are in `granted`."""

    __tablename__ = "requests"
    __table_args__ = (
        one_of("kind", *RequestKind),
        one_of("state", *RequestState),
        Index("ix_requests_state_created_at", "state", "created_at"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[RequestKind]
    state: Mapped[RequestState]
    account_id: Mapped[str] = mapped_column(ForeignKey("accounts.id"), index=True)
    deployment_id: Mapped[str] = mapped_column(ForeignKey("deployments.id"), index=True)
    person_id: Mapped[str] = mapped_column(ForeignKey("people.id"))
    """Who asked."""
    email_domain: Mapped[str | None]
    registrable_domain: Mapped[str | None] = mapped_column(index=True)
    """Of the person's address when they asked; the cap per domain counts these."""
    background: Mapped[Background]
    """What the customer said besides the terms."""
    asked: Mapped[Terms]
    granted: Mapped[Terms | None]
    """What was granted, by staff or by the policy; the entitlement may be amended later."""
    policy: Mapped[dict[str, Any]]
    """The policy's decision: `granted` and `reasons`."""
    created_at: Mapped[datetime]
    promised_at: Mapped[datetime]
    """When an answer was promised by."""
    taken_by: Mapped[str | None] = mapped_column(ForeignKey("people.id"))
    decided_at: Mapped[datetime | None]
    decided_by: Mapped[str | None] = mapped_column(ForeignKey("people.id"))
    """None on a decided request means that the policy decided."""
    decision_note: Mapped[str | None]
    """The message to the customer."""


class RequestMessage(Base):
    """One message on a request: to or from the customer, or internal to staff."""

    __tablename__ = "request_messages"
    __table_args__ = (one_of("audience", *Audience),)

    id: Mapped[str] = mapped_column(primary_key=True)
    request_id: Mapped[str] = mapped_column(ForeignKey("requests.id"), index=True)
    author_id: Mapped[str] = mapped_column(ForeignKey("people.id"))
    audience: Mapped[Audience]
    text: Mapped[str]
    created_at: Mapped[datetime]
