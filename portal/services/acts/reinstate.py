"""Reinstate: lift one hold. Others stay, and only the side that opened a hold lifts it."""

from typing import Final

from portal.db.entitlements import Entitlement
from portal.db.licenses import Hold
from portal.domain.errors import Conflict, Forbidden, NotFound
from portal.domain.notices import NoticeKind
from portal.domain.roles import HOLDS_MANAGE
from portal.domain.standing import COMMERCE_CAUSES
from portal.services.acts.kinds import Ask, Kind, Outcome, Params
from portal.services.acts.scenes import license_scene, line_of, show_line
from portal.services.audit import record
from portal.services.causes import Approval, ask_for_lift
from portal.services.context import Context
from portal.services.lines import follow
from portal.services.notices import tell_license_changed


class Reinstate(Params, frozen=True, kw_only=True):
    """Which hold is lifted."""

    hold_id: str


def run(context: Context, ask: Ask) -> Outcome:
    """Lift a hold.

    Raises:
        NotFound: no such license, or no such hold of its deployment.
        Forbidden: a person lifts a commerce hold, or commerce one of staff.
        Conflict: it was lifted already.
    """
    assert isinstance(ask.params, Reinstate)
    license_, _ = line_of(context, ask)
    hold = context.session.get(Hold, ask.params.hold_id, populate_existing=True)
    on = None if hold is None else context.session.get_one(Entitlement, hold.entitlement_id)
    if hold is None or on is None or on.deployment_id != license_.deployment_id:
        raise NotFound(f"The license has no hold {ask.params.hold_id}.")
    if hold.lifted_at is not None:
        raise Conflict("The hold was lifted already.")
    if (hold.cause in COMMERCE_CAUSES) != (ask.by is None):
        raise Forbidden(f"A hold for {hold.cause} is lifted by what opened it.")
    hold.lifted_at = context.at
    hold.lifted_by = ask.by
    record(
        context,
        "hold.lifted",
        "hold",
        hold.id,
        account_id=license_.account_id,
        reason=ask.reason,
        cause=hold.cause.value,
        license_id=license_.id,
    )
    context.session.flush()
    ask_for_lift(context, hold, *(() if ask.by is None else (Approval(ask.by, context.at),)))
    follow(context, license_.deployment_id)
    if hold.suspends_line:
        tell_license_changed(
            context, license_, NoticeKind.REINSTATED, subject_id=hold.id, cause=hold.cause
        )
    return Outcome("reinstated", {"hold_id": hold.id})


REINSTATE: Final = Kind(
    name="reinstate",
    params=Reinstate,
    permission=HOLDS_MANAGE,
    scene=license_scene,
    run=run,
    shows=show_line,
)
