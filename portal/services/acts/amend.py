"""Amend: other features, limits, fingerprints, tier or mode of a live base; the same budget."""

from typing import Any, Final

from msgspec import structs

from licensing.names import LIMITS
from portal.db.entitlements import Entitlement
from portal.domain.entitlements import Grant, Line, compute_terms
from portal.domain.errors import Conflict, Invalid
from portal.domain.roles import ENTITLEMENTS_APPROVE
from portal.domain.terms import Mode
from portal.services.acts.kinds import Ask, Kind, Outcome, Params
from portal.services.acts.scenes import (
    asked_for,
    change_terms,
    is_of_contract,
    license_scene,
    line_of,
    show_line,
)
from portal.services.audit import record
from portal.services.context import Context
from portal.services.instances import instances_of
from portal.services.lines import follow, load_line


class Amend(Params, frozen=True, kw_only=True):
    """What changes; None or nothing: as it is."""

    features: tuple[str, ...] | None = None
    limits: dict[str, int] | None = None
    """Those that change, by name; the others stay."""
    fingerprints: tuple[str, ...] | None = None
    mode: Mode | None = None
    support_tier: str | None = None


def run(context: Context, ask: Ask) -> Outcome:
    """Amend the live base of a license's line, and its coming renewal alike.

    Raises:
        NotFound: no such license.
        Conflict: no base is live, or several routers are enrolled and it shall work offline.
        Invalid: nothing changes, or the catalog does not permit the terms.
    """
    assert isinstance(ask.params, Amend)
    license_, line = line_of(context, ask)
    base = line.base
    if base is None:
        raise Conflict("No base of this license is live; there are no terms to amend.")
    if ask.params == Amend():
        raise Invalid("Say what changes.", field="feature")
    if ask.params.mode is Mode.OFFLINE and base.terms.mode is Mode.LEASE:
        _leave_the_network(context, license_.deployment_id, line)
    for grant in (base, line.coming):
        change_terms(context, grant, **_changes(grant, ask.params))
    record(
        context,
        "entitlement.amended",
        "entitlement",
        base.id,
        account_id=license_.account_id,
        reason=ask.reason,
        changed=sorted(
            name for name, value in structs.asdict(ask.params).items() if value is not None
        ),
    )
    context.session.flush()
    return asked_for(follow(context, license_.deployment_id))


def _changes(grant: Grant | None, params: Amend) -> dict[str, Any]:
    if grant is None:
        return {}
    given = structs.asdict(params)
    limits = dict(given.pop("limits") or {})
    unknown = sorted(set(limits) - set(LIMITS))
    if unknown:
        raise Invalid(
            f"{unknown[0]} is not amended; known are {', '.join(LIMITS)}."
            " A budget changes by a top-up.",
            field="limit",
        )
    if params.mode is Mode.OFFLINE and grant.terms.tokens_total is not None:
        # One state file counts an offline budget.
        limits.setdefault("max_instances", 1)
    changes = {name: value for name, value in given.items() if value is not None}
    if limits:
        changes["limits"] = structs.replace(grant.terms.limits, **limits)
    return changes


def _leave_the_network(context: Context, deployment_id: str, line: Line) -> None:
    """Require at most one router, and take what others used out of the budget: one file counts it.

    Raises:
        Conflict: several routers are enrolled.
    """
    rows = instances_of(context, deployment_id)
    enrolled = [row for row in rows if row.retired_at is None]
    if len(enrolled) > 1:
        raise Conflict(
            f"{len(enrolled)} routers are enrolled. Retire all but one first:"
            " an offline license with a budget has one."
        )
    computed = compute_terms(line)
    if computed is None or computed.budget is None:
        return
    budget_id = computed.budget.budget_id
    stays = {row.id for row in enrolled}
    spent = sum(
        row.usage_tokens for row in rows if row.id not in stays and row.usage_budget_id == budget_id
    )
    if spent:
        newest = next(
            e for e in load_line(context, deployment_id).grants if e.budget_id == budget_id
        )
        own = context.session.get_one(Entitlement, newest.id)
        own.taken_tokens += spent
        own.taken_at = context.at


AMEND: Final = Kind(
    name="amend",
    params=Amend,
    permission=ENTITLEMENTS_APPROVE,
    scene=license_scene,
    run=run,
    shows=show_line,
    needs_two=is_of_contract,
)
