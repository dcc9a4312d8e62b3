"""Suspend: open a hold. A staff or abuse hold stops the line; one of commerce, what was paid."""

from typing import Final

from portal.db.entitlements import Entitlement
from portal.db.licenses import Hold, open_holds
from portal.domain.errors import Conflict, Forbidden, NotFound
from portal.domain.identifiers import HOLD, new_id
from portal.domain.notices import NoticeKind
from portal.domain.roles import HOLDS_MANAGE
from portal.domain.standing import COMMERCE_CAUSES, HoldCause
from portal.services.acts.kinds import Ask, Kind, Outcome, Params
from portal.services.acts.scenes import license_scene, line_of, show_line
from portal.services.audit import record
from portal.services.context import Context
from portal.services.lines import follow
from portal.services.notices import tell_license_changed


class Suspend(Params, frozen=True, kw_only=True):
    """What a hold is for."""

    cause: HoldCause
    entitlement_id: str | None = None
    """Of a commerce hold: what was paid. None: what the license was issued from."""


def run(context: Context, ask: Ask) -> Outcome:
    """Open a hold; a commerce hold that is open already stays as it is.

    Raises:
        NotFound: no such license, or the entitlement is another deployment's.
        Forbidden: a person opens a commerce hold.
        Conflict: nothing is live, or the line is on hold for this cause already.
    """
    assert isinstance(ask.params, Suspend)
    cause = ask.params.cause
    if ask.by is not None and cause in COMMERCE_CAUSES:
        raise Forbidden(f"A hold for {cause} is opened by what happens to the payment.")
    license_, line = line_of(context, ask)
    if not line.live and line.coming is None:
        raise Conflict("Nothing of this license is live any more; there is nothing to suspend.")
    on = context.session.get(Entitlement, ask.params.entitlement_id or license_.entitlement_id)
    if on is None or on.deployment_id != license_.deployment_id:
        raise NotFound("There is no such entitlement in this license's deployment.")
    for each in open_holds(context.session, license_.deployment_id):
        if each.cause is not cause:
            continue
        if cause not in COMMERCE_CAUSES:
            raise Conflict(f"The license is on hold for {cause} already ({each.id}).")
        if each.entitlement_id == on.id:
            return Outcome("suspended", {"hold_id": each.id})
    hold = Hold(
        id=new_id(HOLD, context.ports.randomness),
        entitlement_id=on.id,
        cause=cause,
        reason=ask.reason,
        opened_at=context.at,
        opened_by=ask.by,
    )
    context.session.add(hold)
    record(
        context,
        "hold.opened",
        "hold",
        hold.id,
        account_id=license_.account_id,
        reason=ask.reason,
        cause=cause.value,
        license_id=license_.id,
        entitlement_id=on.id,
        deployment_id=on.deployment_id,
    )
    context.session.flush()
    follow(context, license_.deployment_id)
    if hold.suspends_line:
        tell_license_changed(
            context, license_, NoticeKind.SUSPENDED, subject_id=hold.id, cause=cause
        )
    return Outcome("suspended", {"hold_id": hold.id})


SUSPEND: Final = Kind(
    name="suspend",
    needs_proof=False,
    params=Suspend,
    permission=HOLDS_MANAGE,
    scene=license_scene,
    run=run,
    shows=show_line,
)
