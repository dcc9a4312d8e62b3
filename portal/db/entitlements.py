"""Entitlements: the approved records that licenses are issued from."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, ForeignKey, case, type_coerce
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import Mapped, mapped_column

from portal.db.base import Base
from portal.db.types import Word
from portal.domain.entitlements import EndCause, EntitlementState, Grant
from portal.domain.terms import Terms


class Entitlement(Base):
    """What a deployment may have. Its terms change by an act alone; its instants tell its state.

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
    """Names the budget; None when the terms have none."""
    renews: Mapped[str | None] = mapped_column(ForeignKey("entitlements.id"))
    """The base that this one goes on from."""
    reason: Mapped[str]
    created_at: Mapped[datetime]
    created_by: Mapped[str | None] = mapped_column(ForeignKey("people.id"))
    """The staff person who proposed it; None if a policy or a payment did."""
    approved_at: Mapped[datetime | None]
    approved_by: Mapped[str | None] = mapped_column(ForeignKey("people.id"))
    start_by_at: Mapped[datetime | None]
    """A grant that waits for the customer's *Start now* lapses at this instant."""
    place: Mapped[int] = mapped_column(default=0, server_default="0")
    """In which order the entitlements of its deployment were started."""
    starts_at: Mapped[datetime | None]
    """A renewal's lies ahead until the base before it ends."""
    ends_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
    end_reason: Mapped[str | None]
    """An `EndCause`."""
    taken_tokens: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")
    """Paid back in part, or used by routers that an offline license no longer counts."""
    taken_at: Mapped[datetime | None]

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

    def grant(self, held_since: datetime | None = None) -> Grant | None:
        """Return what it grants; None before it has started.

        `held_since` says since when a hold is open on what was paid for it.
        """
        if self.starts_at is None:
            return None
        return Grant(
            id=self.id,
            terms=self.terms,
            budget_id=self.budget_id,
            starts_at=self.starts_at,
            ends_at=self.ends_at,
            renews=self.renews,
            ended_at=self.ended_at,
            end_cause=None if self.end_reason is None else EndCause(self.end_reason),
            held_since=held_since,
            taken_tokens=self.taken_tokens,
            taken_at=self.taken_at,
        )
