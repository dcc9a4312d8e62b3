"""Renew: a base that goes on from the one before, from its end or, when that has passed, at once.

One license now has the new end; until the old one it grants the wider of both terms.
"""

from typing import Final

from msgspec import structs

from portal.db.entitlements import Entitlement
from portal.db.requests import Request
from portal.domain.catalog import CATALOG
from portal.domain.entitlements import EndCause, Grant, Line, check_terms, judge_start
from portal.domain.errors import Conflict, Invalid, NotFound
from portal.domain.identifiers import BUDGET, ENTITLEMENT, new_id
from portal.domain.requests import RequestKind, RequestState
from portal.domain.roles import ENTITLEMENTS_APPROVE
from portal.domain.terms import Terms
from portal.services.acts.kinds import Ask, Kind, Outcome, Params
from portal.services.acts.scenes import asked_for, has_contract, license_scene, line_of, show_line
from portal.services.audit import record
from portal.services.causes import approvals_of, ask_for_proof, before_change
from portal.services.context import Context
from portal.services.lines import follow, set_term, take_place
from portal.services.request_decisions import changes, decide, record_request, tell_decision


class Renew(Params, frozen=True, kw_only=True):
    """What the renewal grants."""

    term_s: int | None = None
    """Seconds; None: as long as the base before."""
    terms: Terms | None = None
    """None: those of the base before."""
    request_id: str | None = None
    """The customer's request that this grants."""
    note: str = ""
    """Words to the customer who asked."""


def renewable(line: Line) -> Grant:
    """Return the base that can be renewed now.

    Raises:
        Conflict: there is none, or it was renewed already; the message says what to do.
    """
    if line.coming is not None:
        raise Conflict(
            f"It is renewed already, until {line.coming.ends_at:%Y-%m-%d}; that begins first."
        )
    base = line.base or (line.bases[-1] if line.bases else None)
    if base is None:
        raise Conflict("A credit pack is not renewed; top up instead.")
    if CATALOG[base.terms.sku].source == "evaluation":
        raise Conflict("An evaluation is not renewed; ask for a pilot or buy instead.")
    if base.end_cause not in (None, EndCause.TERM_OVER):
        raise Conflict(f"{base.terms.sku} was {base.end_cause}; it cannot be renewed.")
    return base


def run(context: Context, ask: Ask) -> Outcome:
    """Renew the base of a license's line.

    Raises:
        NotFound: no such license.
        Conflict: nothing can be renewed, or the request was decided meanwhile.
        Invalid: terms that the catalog does not permit, or of another SKU.
    """
    assert isinstance(ask.params, Renew)
    license_, line = line_of(context, ask)
    base = renewable(line)
    terms = _terms(base, ask.params)
    before = context.session.get_one(Entitlement, base.id)
    made = Entitlement(
        id=new_id(ENTITLEMENT, context.ports.randomness),
        account_id=before.account_id,
        deployment_id=before.deployment_id,
        request_id=ask.params.request_id,
        terms=terms,
        budget_id=None if terms.tokens_total is None else new_id(BUDGET, context.ports.randomness),
        renews=base.id,
        reason=ask.reason,
        created_at=context.at,
        created_by=ask.by,
        approved_at=context.at,
        approved_by=ask.by,
        start_by_at=context.at,
    )
    if line.is_live(base) and base.ends_at is not None:
        set_term(made, base.ends_at)
    else:
        judge_start(line, terms)
        set_term(made, context.at)
    take_place(context, made)
    context.session.add(made)
    if ask.params.request_id is not None:
        _grant(context, ask, made)
    record(
        context,
        "entitlement.renewed",
        "entitlement",
        made.id,
        account_id=made.account_id,
        reason=ask.reason,
        renews=base.id,
        sku=terms.sku,
        term_s=terms.term_s,
    )
    context.session.flush()
    before_change(context, before)
    ask_for_proof(context, made, *approvals_of(made))
    outcome = asked_for(follow(context, license_.deployment_id))
    return Outcome(outcome.status, {"entitlement_id": made.id, **outcome.facts})


def _terms(base: Grant, params: Renew) -> Terms:
    terms = params.terms or base.terms
    if terms.sku != base.terms.sku:
        raise Invalid(f"A renewal of {base.terms.sku} stays {base.terms.sku}.", field="sku")
    if params.term_s is not None:
        terms = structs.replace(terms, term_s=params.term_s)
    check_terms(terms)
    return terms


def _grant(context: Context, ask: Ask, made: Entitlement) -> None:
    """Decide the request that is granted, and tell those who asked.

    Raises:
        NotFound, Conflict: there is none for this deployment, or somebody decided on it.
    """
    assert isinstance(ask.params, Renew)
    request = context.session.get(Request, ask.params.request_id)
    fits = request is not None and request.kind is RequestKind.RENEWAL
    if request is None or not fits or request.deployment_id != made.deployment_id:
        raise NotFound("There is no such renewal request for this deployment.")
    decide(
        context,
        request,
        RequestState.APPROVED,
        staff_id=ask.by,
        note=ask.params.note,
        granted=made.terms,
    )
    record_request(
        context,
        "request.approved",
        request,
        entitlement_id=made.id,
        changed=[each.term for each in changes(request)],
    )
    tell_decision(context, request, "request-approved", start_by_at="")


def needs_two(context: Context, ask: Ask) -> bool:
    """Whether a second person is needed: for a contract, live or over."""
    _, line = line_of(context, ask)
    last = line.bases[-1] if line.bases else None
    return has_contract(line) or (last is not None and CATALOG[last.terms.sku].two_person)


RENEW: Final = Kind(
    name="renew",
    params=Renew,
    permission=ENTITLEMENTS_APPROVE,
    scene=license_scene,
    run=run,
    shows=show_line,
    needs_two=needs_two,
)
