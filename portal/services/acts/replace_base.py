"""Replace the base: staff put another approved base in place of a live one, whatever its rank."""

from typing import Final

from portal.db.entitlements import Entitlement
from portal.domain.catalog import CATALOG
from portal.domain.entitlements import EntitlementState
from portal.domain.errors import Conflict, Invalid, NotFound
from portal.domain.roles import ENTITLEMENTS_APPROVE
from portal.services.acts.kinds import Ask, Kind, Outcome, Params
from portal.services.acts.scenes import asked_for, is_of_contract, license_scene, line_of, show_line
from portal.services.context import Context
from portal.services.lines import begin, follow


class ReplaceBase(Params, frozen=True, kw_only=True):
    """What takes the place."""

    entitlement_id: str


def run(context: Context, ask: Ask) -> Outcome:
    """Start an approved base in place of the live one.

    Raises:
        NotFound: no such license, or no such entitlement of its deployment.
        Conflict: no base is live, or the entitlement is not approved.
        Invalid: it is a pack.
    """
    assert isinstance(ask.params, ReplaceBase)
    license_, line = line_of(context, ask)
    new = context.session.get(Entitlement, ask.params.entitlement_id, populate_existing=True)
    if new is None or new.deployment_id != license_.deployment_id:
        raise NotFound(f"The license's deployment has no entitlement {ask.params.entitlement_id}.")
    if CATALOG[new.terms.sku].is_pack:
        raise Invalid(f"{new.terms.sku} is no base; top up instead.", field="entitlement")
    if line.base is None:
        raise Conflict("No base is live; start the entitlement instead.")
    if new.state is not EntitlementState.APPROVED:
        raise Conflict(f"The entitlement is {new.state}; only an approved one can start.")
    begin(context, new, replaces=line.base.id)
    outcome = asked_for(follow(context, license_.deployment_id))
    return Outcome(outcome.status, {"entitlement_id": new.id, **outcome.facts})


REPLACE_BASE: Final = Kind(
    name="replace-base",
    params=ReplaceBase,
    permission=ENTITLEMENTS_APPROVE,
    scene=license_scene,
    run=run,
    shows=show_line,
    needs_two=is_of_contract,
)
