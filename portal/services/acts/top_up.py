"""Top up: a credit pack for a license's deployment, paid or granted with a reason."""

from typing import Final

from portal.domain.catalog import fill_terms, template_of
from portal.domain.entitlements import compute_terms
from portal.domain.errors import Conflict, Invalid
from portal.domain.roles import ENTITLEMENTS_APPROVE
from portal.services.acts.kinds import Ask, Kind, Outcome, Params
from portal.services.acts.scenes import asked_for, license_scene, line_of, show_line
from portal.services.context import Context
from portal.services.entitlements import approve_entitlement, propose_entitlement
from portal.services.lines import begin, follow, load_line


class TopUp(Params, frozen=True, kw_only=True):
    """Which pack."""

    sku: str


def run(context: Context, ask: Ask) -> Outcome:
    """Add a pack to a license's line; it ends an evaluation.

    Raises:
        NotFound: no such license.
        Invalid: no such pack.
        Conflict: the line is over, or its base has no budget.
    """
    assert isinstance(ask.params, TopUp)
    license_, line = line_of(context, ask)
    if not template_of(ask.params.sku).is_pack:
        raise Invalid(f"{ask.params.sku} is no credit pack.", field="sku")
    if license_.revoked_at is not None:
        raise Conflict("The license is revoked; nothing can be added to it.")
    now = compute_terms(line)
    terms = fill_terms(
        ask.params.sku,
        mode=license_.mode if now is None else now.terms.mode,
        fingerprints=() if now is None else now.terms.fingerprints,
    )
    made = propose_entitlement(
        context,
        deployment_id=license_.deployment_id,
        terms=terms,
        reason=ask.reason,
        created_by=ask.by,
    )
    approve_entitlement(context, made.id, approved_by=ask.by)
    begin(context, made)
    outcome = asked_for(follow(context, license_.deployment_id))
    after = compute_terms(load_line(context, license_.deployment_id))
    budget = None if after is None else after.budget
    facts = {"entitlement_id": made.id, **outcome.facts}
    if budget is not None:
        facts |= {"budget_id": budget.budget_id, "carry_over_from": budget.carry_over_from}
    return Outcome(outcome.status, facts)


TOP_UP: Final = Kind(
    name="top-up",
    params=TopUp,
    permission=ENTITLEMENTS_APPROVE,
    scene=license_scene,
    run=run,
    shows=show_line,
)
