"""What was refused: recorded by the signer, told to staff, and reviewed by an operator.

Invariants: a refusal stands on the health page until an operator's review is sealed. A review that
somebody wrote into the database does not count where the `seal` key is.

Source: "Custody".
"""

from datetime import datetime
from typing import Final

from sqlalchemy import func, select

from portal.db.audit import AuditRow
from portal.domain.causes import (
    ReviewSeal,
)
from portal.services.audit import record
from portal.services.context import Context
from portal.services.emails import tell_staff
from portal.services.keys import unix
from portal.services.seals import sealed_statements, write_statement

REVIEWED: Final = "custody.reviewed"

ALARMS: Final = (
    "bundle.entry-kept",
    "cause.refused",
    "hold.lift-refused",
    "license.refused",
)
"""Acts that say somebody tried, or something broke: on the health page until reviewed."""

TOLD_OF_REFUSALS: Final = ("approver", "keys", "admin")


def refuse(
    context: Context, action: str, subject: tuple[str, str], account_id: str | None, why: str
) -> None:
    """Record that something was not signed or sealed, and tell staff the first time."""
    earlier = context.session.scalar(
        select(func.count())
        .select_from(AuditRow)
        .where(AuditRow.action == action, AuditRow.subject_id == subject[1])
    )
    record(context, action, *subject, account_id=account_id, reason=why, audience="staff")
    if earlier:
        return
    tell_staff(
        context,
        "refused-to-sign",
        {
            "what": f"{subject[0]} {subject[1]}",
            "why": why,
            "url": f"{context.policy.origin}/staff/audit?q={subject[1]}",
        },
        *TOLD_OF_REFUSALS,
    )


def unreviewed_alarms(context: Context, *, holds_seal: bool) -> list[AuditRow]:
    """Return what was refused or kept since an operator last reviewed it, newest first.

    A process without the seal key (`holds_seal` is false) cannot tell a forged review.
    """
    query = select(AuditRow).where(AuditRow.action.in_(ALARMS)).order_by(AuditRow.id.desc())
    reviewed: datetime | None
    if holds_seal:
        reviews = sealed_statements(context, REVIEWED, ReviewSeal)
        latest = max((each.statement.sealed_at for each in reviews), default=None)
        reviewed = None if latest is None else datetime.fromtimestamp(latest, context.at.tzinfo)
    else:
        reviewed = context.session.scalar(
            select(func.max(AuditRow.at)).where(AuditRow.action == REVIEWED)
        )
    if reviewed is not None:
        query = query.where(AuditRow.at > reviewed)
    return list(context.session.scalars(query.limit(100)))


def review_alarms(context: Context, *, reason: str, by: str) -> int:
    """Seal that an operator looked into what was refused; return how many there were."""
    alarms = unreviewed_alarms(context, holds_seal=True)
    statement = ReviewSeal(sealed_at=unix(context.at), by=by)
    write_statement(
        context, REVIEWED, ("custody", "alarms"), statement, reason=reason, alarms=len(alarms)
    )
    return len(alarms)
