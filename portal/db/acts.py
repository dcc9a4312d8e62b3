"""Acts: what staff, customers, commerce or the command did to a license, or mean to do."""

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from portal.db.base import Base
from portal.db.types import one_of
from portal.domain.acts import ActState


class Act(Base):
    """One act: done when it was submitted, or waiting for a second person."""

    __tablename__ = "acts"
    __table_args__ = (
        one_of("state", *ActState),
        Index("ix_acts_state_submitted_at", "state", "submitted_at"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str]
    subject_id: Mapped[str] = mapped_column(index=True)
    """The license, entitlement or key it is done to."""
    account_id: Mapped[str | None] = mapped_column(ForeignKey("accounts.id"), index=True)
    deployment_id: Mapped[str | None] = mapped_column(ForeignKey("deployments.id"), index=True)
    params: Mapped[dict[str, Any]]
    reason: Mapped[str]
    state: Mapped[ActState]
    preview: Mapped[dict[str, Any]]
    """What its first person was shown, and what the second is shown."""
    fingerprint: Mapped[str]
    """Of all that the preview depends on."""
    outcome: Mapped[dict[str, Any] | None]
    """What came of it, once it is done."""
    submitted_at: Mapped[datetime]
    submitted_by: Mapped[str | None] = mapped_column(ForeignKey("people.id"))
    """The person it was submitted by; None for commerce and the worker."""
    lapses_at: Mapped[datetime | None]
    """When an act that waits for a second person lapses."""
    decided_at: Mapped[datetime | None]
    decided_by: Mapped[str | None] = mapped_column(ForeignKey("people.id"))
    decision_note: Mapped[str | None]
