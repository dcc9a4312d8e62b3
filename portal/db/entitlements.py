"""Entitlements: the approved records that licenses are issued from."""

from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, ForeignKey, case, type_coerce
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import Mapped, mapped_column

from portal.db.base import Base
from portal.db.types import Word
from portal.domain.entitlements import EntitlementState, Grant
from portal.domain.terms import Terms


class Entitlement(Base):
    """What a deployment may have. Its terms are fixed at creation; its instants tell its state.

    `ends_at` is the start and the term together; it is stored because the worker looks for
    entitlements by it.
    """

    __tablename__ = "entitlements"

    id: Mapped[str] = mapped_column(primary_key=True)
    account_id: Mapped[str] = mapped_column(ForeignKey("accounts.id"), index=True)
    deployment_id: Mapped[str] = mapped_column(ForeignKey("deployments.id"), index=True)
    request_id: Mapped[str | None] = mapped_column(ForeignKey("requests.id"), unique=True)
    terms: Mapped[Terms]
    budget_id: Mapped[str | None]
    """The id of the budget; None if the terms have none."""
    reason: Mapped[str]
    created_at: Mapped[datetime]
    created_by: Mapped[str | None] = mapped_column(ForeignKey("people.id"))
    """The staff person who proposed it; None if a policy or a payment did."""
    approved_at: Mapped[datetime | None]
    approved_by: Mapped[str | None] = mapped_column(ForeignKey("people.id"))
    start_by_at: Mapped[datetime | None]
    """A grant that waits for the customer's *Start now* lapses at this instant."""
    starts_at: Mapped[datetime | None]
    ends_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
    end_reason: Mapped[str | None]

    @hybrid_property
    def state(self) -> EntitlementState:
        """Its state."""
        if self.ended_at is not None:
            return EntitlementState.ENDED
        if self.starts_at is not None:
            return EntitlementState.LIVE
        if self.approved_at is not None:
            return EntitlementState.APPROVED
        return EntitlementState.PROPOSED

    @state.inplace.expression
    @classmethod
    def _state(cls) -> ColumnElement[Any]:
        words = case(
            (cls.ended_at.is_not(None), EntitlementState.ENDED.value),
            (cls.starts_at.is_not(None), EntitlementState.LIVE.value),
            (cls.approved_at.is_not(None), EntitlementState.APPROVED.value),
            else_=EntitlementState.PROPOSED.value,
        )
        return type_coerce(words, Word(EntitlementState))

    def grant(self) -> Grant | None:
        """Return what it grants; None before it has started."""
        if self.starts_at is None:
            return None
        return Grant(self.terms, self.budget_id, self.starts_at, self.ends_at)
