"""Entitlements: the approved records licenses are issued from."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from portal.db.base import Base
from portal.db.types import one_of


class Entitlement(Base):
    """What a deployment may have. Its terms are fixed when it is made; its state moves forward.

    `proposed` waits for approval; `approved` may be issued (or waits for *Start now* until
    `start_by_at`); `live` has been issued from; `ended` no longer counts.
    """

    __tablename__ = "entitlements"
    __table_args__ = (
        one_of("state", "proposed", "approved", "live", "ended"),
        one_of("source", "evaluation", "pilot", "order", "subscription", "contract", "marketplace"),
        one_of("mode", "offline", "lease"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    account_id: Mapped[str] = mapped_column(ForeignKey("accounts.id"), index=True)
    deployment_id: Mapped[str] = mapped_column(ForeignKey("deployments.id"), index=True)
    request_id: Mapped[str | None] = mapped_column(ForeignKey("requests.id"), unique=True)
    source: Mapped[str]
    sku: Mapped[str]
    state: Mapped[str]
    mode: Mapped[str]
    term_s: Mapped[int | None]
    """Seconds from the start to the end; None for packs on top of a base."""
    features: Mapped[list[str]]
    limits: Mapped[dict[str, Any]]
    """`tokens_per_window`, `window_s`, `max_concurrency`, `max_instances`, `max_seats`."""
    tokens_total: Mapped[int | None] = mapped_column(BigInteger)
    """The budget in tokens; None when the license has no budget."""
    budget_id: Mapped[str | None]
    fingerprints: Mapped[list[str]]
    support_tier: Mapped[str | None]
    reason: Mapped[str]
    created_at: Mapped[datetime]
    created_by: Mapped[str | None] = mapped_column(ForeignKey("people.id"))
    """The staff person who proposed it; None for what a policy or a payment made."""
    approved_at: Mapped[datetime | None]
    approved_by: Mapped[str | None] = mapped_column(ForeignKey("people.id"))
    start_by_at: Mapped[datetime | None]
    """A grant that waits for the customer's *Start now* lapses at this instant."""
    starts_at: Mapped[datetime | None]
    ends_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
    end_reason: Mapped[str | None]
