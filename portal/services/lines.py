"""The line of a deployment: what was granted to it, its holds, and the license that follows.

Invariants: whoever changes a line holds its deployment's row. After each change `follow` is called
in the same transaction: it ends what is over, says which holds suspend the line, and asks for a
license when the newest one says something else than what is live. So the license follows the
entitlements, whoever changed them.
"""

from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import func, select

from portal.db.deployments import Deployment, lock_deployment
from portal.db.entitlements import Entitlement
from portal.db.licenses import License, open_holds
from portal.domain.entitlements import (
    PACK_TERM,
    EndCause,
    EntitlementState,
    Line,
    compute_terms,
    judge_start,
)
from portal.domain.errors import NotFound
from portal.domain.identifiers import LICENSE, new_id
from portal.domain.standing import COMMERCE_CAUSES
from portal.domain.succession import Hurry, is_said_by
from portal.services.audit import record
from portal.services.context import Context
from portal.services.jobs import enqueue
from portal.services.keys import unix

ISSUE_LICENSE: Final = "issue-license"
FOLLOW_LINE: Final = "follow-line"


def load_line(context: Context, deployment_id: str) -> Line:
    """Return everything a deployment was granted, as it stands at this unit's instant."""
    held: dict[str, datetime] = {}
    for hold in open_holds(context.session, deployment_id):
        if hold.cause in COMMERCE_CAUSES:
            held.setdefault(hold.entitlement_id, hold.opened_at)
    rows = context.session.scalars(
        select(Entitlement)
        .where(Entitlement.deployment_id == deployment_id, Entitlement.starts_at.is_not(None))
        .order_by(Entitlement.place, Entitlement.created_at, Entitlement.id)
        .execution_options(populate_existing=True)
    )
    grants = (row.grant(held.get(row.id)) for row in rows)
    return Line(tuple(grant for grant in grants if grant is not None), context.at)


def lock_line(context: Context, deployment_id: str) -> Line:
    """Hold a deployment's row until the unit ends, and return its line.

    Raises:
        NotFound: there is no such deployment.
    """
    if lock_deployment(context.session, deployment_id) is None:
        raise NotFound(f"There is no deployment {deployment_id}.")
    return load_line(context, deployment_id)


def newest_license(context: Context, deployment_id: str) -> License | None:
    """Return the license that was asked for last, whatever became of it."""
    return context.session.scalar(
        select(License)
        .where(License.deployment_id == deployment_id)
        .order_by(License.created_at.desc(), License.revision.desc().nulls_first(), License.id)
        .limit(1)
        .execution_options(populate_existing=True)
    )


def begin(context: Context, entitlement: Entitlement, *, replaces: str | None = None) -> None:
    """Start an approved entitlement now, ending what it takes the place of.

    Raises:
        Conflict: it cannot start beside what is live; the message names that.
    """
    line = lock_line(context, entitlement.deployment_id)
    for grant in judge_start(line, entitlement.terms, replaces=replaces):
        end_grant(context, grant.id, EndCause.REPLACED)
    set_term(entitlement, context.at)
    take_place(context, entitlement)
    context.session.flush()


def take_place(context: Context, entitlement: Entitlement) -> None:
    """Let an entitlement follow all that its deployment started before."""
    last = context.session.scalar(
        select(func.max(Entitlement.place)).where(
            Entitlement.deployment_id == entitlement.deployment_id
        )
    )
    entitlement.place = 1 + (last or 0)


def set_term(entitlement: Entitlement, at: datetime) -> None:
    """Let an entitlement's term begin at an instant."""
    term_s = entitlement.terms.term_s
    entitlement.starts_at = at.replace(microsecond=0)
    entitlement.ends_at = (
        None if term_s is None else entitlement.starts_at + timedelta(seconds=term_s)
    )


def end_grant(
    context: Context, entitlement_id: str, cause: EndCause, at: datetime | None = None
) -> None:
    """End an entitlement, now or at the instant at which it was over."""
    row = context.session.get_one(Entitlement, entitlement_id)
    row.ended_at = at or context.at
    row.end_reason = cause.value
    record(
        context,
        "entitlement.ended",
        "entitlement",
        row.id,
        account_id=row.account_id,
        reason=cause.value,
    )


def follow(
    context: Context, deployment_id: str, *, hurry: Hurry = Hurry.NONE, key: str | None = None
) -> License | None:
    """Bring the license of a deployment to what its live entitlements grant.

    `key` names a cause for which a license is issued whatever the last one says. Returns the
    license that was asked for, or that waits to be issued and will say it; None when the newest
    says it already, or nothing grants one.
    """
    line = _end_what_is_over(context, lock_line(context, deployment_id))
    _settle_holds(context, line, deployment_id)
    _come_again(context, line, deployment_id)
    computed = compute_terms(line)
    if computed is None:
        return None
    newest = newest_license(context, deployment_id)
    if newest is not None and newest.revoked_at is None:
        if newest.payload is None:
            newest.hurry = max(newest.hurry, hurry, key=list(Hurry).index)
            return newest
        said = newest.document is not None and is_said_by(computed, newest.document)
        if said and key is None:
            return None
    if computed.shortfall:
        record(
            context,
            "line.budget-short",
            "deployment",
            deployment_id,
            account_id=context.session.get_one(Deployment, deployment_id).account_id,
            tokens=computed.shortfall,
        )
    key = key or f"after:{deployment_id if newest is None else newest.id}"
    return ask_license(context, computed.entitlement_id, key, hurry)


def ask_license(context: Context, entitlement_id: str, key: str, hurry: Hurry) -> License:
    """Ask for a license: a row in state `issuing`, and a job.

    The same key again gives the same license.
    """
    present = context.session.scalar(select(License).where(License.issue_key == key))
    if present is not None:
        return present
    entitlement = context.session.get_one(Entitlement, entitlement_id)
    license_ = License(
        id=new_id(LICENSE, context.ports.randomness),
        account_id=entitlement.account_id,
        deployment_id=entitlement.deployment_id,
        entitlement_id=entitlement.id,
        issue_key=key,
        sku=entitlement.terms.sku,
        mode=entitlement.terms.mode,
        created_at=context.at,
        hurry=hurry,
    )
    context.session.add(license_)
    enqueue(context, ISSUE_LICENSE, license_.id, {"license_id": license_.id})
    record(
        context,
        "license.requested",
        "license",
        license_.id,
        account_id=license_.account_id,
        entitlement_id=entitlement.id,
        deployment_id=license_.deployment_id,
    )
    context.session.flush()
    return license_


def _end_what_is_over(context: Context, line: Line) -> Line:
    over = _over(line)
    if not over:
        return line
    for entitlement_id, moment in over:
        end_grant(context, entitlement_id, EndCause.TERM_OVER, moment)
    deployment_id = context.session.get_one(Entitlement, over[0][0]).deployment_id
    return load_line(context, deployment_id)


def _over(line: Line) -> list[tuple[str, datetime]]:
    """Return what is over and not noted as ended, with when it was over."""
    moments = ((e.id, line.over_at(e)) for e in line.grants if e.ended_at is None)
    return [(each, moment) for each, moment in moments if moment and moment <= line.at]


def _settle_holds(context: Context, line: Line, deployment_id: str) -> None:
    """Write down which open holds suspend the line; one of staff or for abuse always does."""
    suspending = line.suspending
    for hold in open_holds(context.session, deployment_id):
        suspends = hold.cause not in COMMERCE_CAUSES or hold.entitlement_id in suspending
        if hold.suspends_line != suspends:
            hold.suspends_line = suspends
    context.session.flush()


def _come_again(context: Context, line: Line, deployment_id: str) -> None:
    """Have the worker look again when the next grant ends or begins."""
    moment = line.next_change_at
    if moment is not None:
        payload: dict[str, Any] = {"deployment_id": deployment_id}
        key = f"{deployment_id}:{unix(moment)}"
        enqueue(context, FOLLOW_LINE, key, payload, run_at=moment)


def look_after_lines(context: Context) -> int:
    """Have every line looked at in which something is over; return how many there are.

    Known ends are looked at by themselves (`follow`); this finds what was missed.
    """
    packs = Entitlement.ends_at.is_(None) & (Entitlement.starts_at <= context.at - PACK_TERM)
    candidates = context.session.scalars(
        select(Entitlement.deployment_id)
        .where(
            Entitlement.state == EntitlementState.LIVE, (Entitlement.ends_at <= context.at) | packs
        )
        .distinct()
    ).all()
    due = [each for each in candidates if _over(load_line(context, each))]
    for deployment_id in due:
        key = f"{deployment_id}:{unix(context.at)}"
        enqueue(context, FOLLOW_LINE, key, {"deployment_id": deployment_id})
    return len(due)
