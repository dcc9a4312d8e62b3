"""Revoke: end all that a line lives from and every license of it that has not expired. Final."""

from typing import Final

from sqlalchemy import func, select

from portal.db.acts import Act
from portal.db.entitlements import Entitlement
from portal.db.licenses import License
from portal.db.turns import take_turn
from portal.domain.acts import REVOKING_ALONE, REVOKING_SPAN, ActState
from portal.domain.entitlements import EndCause, EntitlementState
from portal.domain.errors import Conflict
from portal.domain.notices import NoticeKind
from portal.domain.roles import HOLDS_MANAGE
from portal.domain.standing import RevokedReason
from portal.services.acts.kinds import Ask, Kind, Outcome, Params
from portal.services.acts.scenes import has_contract, license_scene, line_of, show_line
from portal.services.audit import record
from portal.services.context import Context
from portal.services.lines import end_grant
from portal.services.notices import tell_license_changed

REVOKING: Final = ("revoke", "end")
"""The kinds of act that can revoke licenses."""


class Revoke(Params, frozen=True, kw_only=True):
    """What the bundle says of it."""

    because: RevokedReason = RevokedReason.WITHDRAWN


def run(context: Context, ask: Ask) -> Outcome:
    """Revoke a license and the line it belongs to.

    Raises:
        NotFound: no such license.
        Conflict: there is nothing left to revoke.
    """
    assert isinstance(ask.params, Revoke)
    license_, _ = line_of(context, ask)
    states = (EntitlementState.LIVE, EntitlementState.APPROVED)
    coming = context.session.scalars(
        select(Entitlement.id).where(
            Entitlement.deployment_id == license_.deployment_id, Entitlement.state.in_(states)
        )
    ).all()
    for entitlement_id in coming:
        end_grant(context, entitlement_id, EndCause.REVOKED)
    context.session.flush()
    revoked = revoke_licenses(context, license_.deployment_id, ask.params.because, ask.reason)
    if not revoked and not coming:
        raise Conflict("The license is revoked or over already; nothing is left to revoke.")
    return Outcome("revoked", {"licenses": revoked})


def revoke_licenses(
    context: Context, deployment_id: str, because: RevokedReason, reason: str
) -> int:
    """Revoke every license of a line that has not expired; return how many there were."""
    rows = context.session.scalars(
        select(License)
        .where(
            License.deployment_id == deployment_id,
            License.revoked_at.is_(None),
            License.expires_at.is_(None) | (License.expires_at > context.at),
        )
        .execution_options(populate_existing=True)
    ).all()
    for row in rows:
        row.revoked_at = context.at
        row.revoked_reason = because
        record(
            context,
            "license.revoked",
            "license",
            row.id,
            account_id=row.account_id,
            reason=reason,
            because=because.value,
        )
        if row.released_at is not None and row.superseded_by is None:
            tell_license_changed(context, row, NoticeKind.REVOKED)
    context.session.flush()
    return len(rows)


def needs_two(context: Context, ask: Ask) -> bool:
    """Whether a second person is needed: for a contract, and for one person's tenth in a day."""
    if ask.by is None:
        return False
    _, line = line_of(context, ask)
    return has_contract(line) or has_revoked_much(context, ask.by)


def has_revoked_much(context: Context, person_id: str) -> bool:
    """Say whether somebody made all the revocations that one person may make in a day."""
    take_turn(context.session, f"revoking:{person_id}")
    made = context.session.scalar(
        select(func.count()).where(
            Act.kind.in_(REVOKING),
            Act.submitted_by == person_id,
            Act.state == ActState.DONE,
            Act.decided_at > context.at - REVOKING_SPAN,
        )
    )
    return (made or 0) >= REVOKING_ALONE


REVOKE: Final = Kind(
    name="revoke",
    needs_proof=False,
    params=Revoke,
    permission=HOLDS_MANAGE,
    scene=license_scene,
    run=run,
    shows=show_line,
    needs_two=needs_two,
)
