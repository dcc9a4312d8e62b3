"""Entitlements from before custody, and ones that lost their seal: an operator reviews them.

Their licenses go on verifying. Nothing new is signed from them until they are adopted.

Source: "Custody".
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from sqlalchemy import func, select

from portal.db.audit import AuditRow
from portal.db.entitlements import Entitlement
from portal.db.licenses import License
from portal.domain.causes import (
    Cause,
    CauseKind,
    EntitlementSeal,
)
from portal.domain.entitlements import EntitlementState
from portal.domain.errors import Conflict
from portal.services.audit import record
from portal.services.causes import locked_entitlement
from portal.services.context import Context
from portal.services.seals import CAUSE_SEALED, Sealed, latest_cause, seal_entitlement


@dataclass(frozen=True)
class Unadopted:
    """An entitlement without a statement, for an operator to review."""

    entitlement: Entitlement
    licenses: tuple[License, ...]
    """Those issued from it."""


SETTLED: Final = timedelta(minutes=5)
"""Longer than the worker needs to prove an approval."""


def count_unadopted(context: Context) -> int:
    """Count live and approved entitlements that nobody ever sealed; any process can ask."""
    return (
        context.session.scalar(
            select(func.count())
            .select_from(Entitlement)
            .where(
                (Entitlement.state == EntitlementState.LIVE)
                | (
                    (Entitlement.state == EntitlementState.APPROVED)
                    & (Entitlement.approved_at <= context.at - SETTLED)
                    & (Entitlement.start_by_at > context.at)
                ),
                ~select(AuditRow.id)
                .where(AuditRow.action == CAUSE_SEALED, AuditRow.subject_id == Entitlement.id)
                .exists(),
            )
        )
        or 0
    )


def unadopted(context: Context) -> list[Unadopted]:
    """Return the entitlements without a statement that something was or could be signed from."""
    rows = context.session.scalars(
        select(Entitlement)
        .where(
            Entitlement.state.in_((EntitlementState.APPROVED, EntitlementState.LIVE))
            | select(License.id)
            .where(License.entitlement_id == Entitlement.id, License.released_at.is_not(None))
            .exists()
        )
        .order_by(Entitlement.created_at, Entitlement.id)
    ).all()
    return [
        Unadopted(row, _licenses_of(context, row.id))
        for row in rows
        if latest_cause(context, row) is None
    ]


def _licenses_of(context: Context, entitlement_id: str) -> tuple[License, ...]:
    return tuple(
        context.session.scalars(
            select(License)
            .where(License.entitlement_id == entitlement_id, License.released_at.is_not(None))
            .order_by(License.revision)
        )
    )


def adopt(
    context: Context, entitlement_ids: Sequence[str], *, reason: str, by: str
) -> list[Sealed[EntitlementSeal]]:
    """Seal entitlements that are older than custody, after an operator reviewed them.

    Raises:
        NotFound: there is no such entitlement.
        Conflict: one is sealed already, or was never approved.
    """
    adopted = []
    for entitlement_id in entitlement_ids:
        entitlement = locked_entitlement(context, entitlement_id)
        if latest_cause(context, entitlement) is not None:
            raise Conflict(f"{entitlement_id} is sealed already.")
        if entitlement.approved_at is None:
            raise Conflict(f"{entitlement_id} was never approved; approve it instead.")
        licenses = _licenses_of(context, entitlement_id)
        adopted.append(
            seal_entitlement(
                context,
                entitlement,
                Cause(kind=CauseKind.ADOPTED, by=(by,)),
                licenses=[each.payload_sha256 for each in licenses if each.payload_sha256],
            )
        )
        record(
            context,
            "entitlement.adopted",
            "entitlement",
            entitlement_id,
            account_id=entitlement.account_id,
            reason=reason,
            audience="staff",
            by=by,
        )
    return adopted
