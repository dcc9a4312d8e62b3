"""Requests: evaluations that a policy may grant, pilots that staff decide.

Invariants: a request is decided once, by a conditional UPDATE. The caps per account and per domain
are judged while the account's and the domain's turn is held, so that two requests at once cannot
both pass. What a customer asked is never changed; what was granted stands beside it.
"""

from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any, Final

from sqlalchemy import select, update

from licensing.encoding import crockford
from portal.db.accounts import Account, lock_account
from portal.db.deployments import Deployment, deployments_of
from portal.db.entitlements import Entitlement
from portal.db.people import Person
from portal.db.requests import Request, RequestMessage
from portal.db.turns import take_turn
from portal.domain.catalog import CATALOG, DAY_S
from portal.domain.email_addresses import parse_email
from portal.domain.errors import Conflict, Invalid, LimitReached, NotFound
from portal.domain.evaluations import (
    Applicant,
    Decision,
    Difference,
    check_features,
    check_start,
    decide_evaluation,
    differences,
    promised_answer,
)
from portal.domain.identifiers import MESSAGE, REQUEST, new_id
from portal.services.audit import record
from portal.services.context import Context
from portal.services.deployments import account_deployment, create_deployment
from portal.services.emails import queue_email, tell_members, tell_staff
from portal.services.entitlements import approve_entitlement, propose_entitlement
from portal.services.licenses import request_issue
from portal.services.sign_ups import accept_terms

MOST_OPEN: Final = 5
"""Undecided requests an account may have at once."""
EVALUATION: Final = "eval-72h"
PILOT: Final = "pilot-30d"
SKU_OF: Final = {"evaluation": EVALUATION, "pilot": PILOT}
MAX_TEXT: Final = 4000


@dataclass(frozen=True)
class Ask:
    """What every request says."""

    deployment_id: str | None
    """None: a new deployment named `deployment_name`."""
    deployment_name: str
    purpose: str
    features: tuple[str, ...]
    mode: str
    bind: bool
    """Whether the license shall be bound to one fingerprint."""
    fingerprint: str | None
    """The customer's own; None lets the portal make one when `bind` is set."""


@dataclass(frozen=True)
class PilotAsk(Ask):
    """What a pilot request says besides."""

    goals: str = ""
    starts_on: date | None = None
    volume_tokens: int = 0
    """Tokens expected in a week."""
    contacts: str = ""


@dataclass(frozen=True)
class GrantedTerms:
    """What staff grant."""

    mode: str
    days: int
    volume_tokens: int | None
    max_instances: int | None
    features: tuple[str, ...]
    fingerprint: str | None = None


@dataclass(frozen=True)
class DecisionFacts:
    """What staff see beside a request."""

    accounts_of_domain: list[Account] = field(default_factory=list)
    earlier: list[Request] = field(default_factory=list)
    entitlements: list[Entitlement] = field(default_factory=list)


def submit_evaluation(context: Context, *, account_id: str, person_id: str, ask: Ask) -> Request:
    """Take a request for an evaluation; where the policy allows, grant and issue at once.

    Raises:
        Invalid, NotFound, LimitReached: what was asked cannot be.
    """
    request = _submit(context, account_id, person_id, "evaluation", ask, {})
    decision = _judge(context, request)
    request.policy = {"granted": decision.granted, "reasons": list(decision.reasons)}
    if decision.granted:
        terms = _terms_asked(request)
        entitlement = _grant(context, request, terms, staff_id=None, reason="evaluation policy")
        request.state = "approved"
        request.decided_at = context.at
        request.granted = _plain(terms)
        request_issue(context, entitlement.id, cause="start")
        record(
            context,
            "request.granted-by-policy",
            "request",
            request.id,
            account_id=account_id,
            entitlement_id=entitlement.id,
        )
        context.session.flush()
        return request
    _announce(context, request)
    return request


def submit_pilot(context: Context, *, account_id: str, person_id: str, ask: PilotAsk) -> Request:
    """Take a request for a pilot; staff decide.

    Raises:
        Invalid, NotFound, LimitReached: what was asked cannot be.
    """
    if not ask.goals.strip():
        raise Invalid("Say what the pilot should show.", field="goals")
    if ask.starts_on is not None:
        check_start(ask.starts_on, context.at.date())
    if not 1 <= ask.volume_tokens <= 10**12:
        raise Invalid("Enter the tokens you expect in a week.", field="volume_tokens")
    more = {
        "goals": _text(ask.goals, "goals"),
        "starts_on": None if ask.starts_on is None else ask.starts_on.isoformat(),
        "volume_tokens": ask.volume_tokens,
        "contacts": _text(ask.contacts, "contacts"),
        "days": CATALOG[PILOT].term_s // DAY_S if CATALOG[PILOT].term_s else 0,
        "max_instances": CATALOG[PILOT].limits["max_instances"],
    }
    request = _submit(context, account_id, person_id, "pilot", ask, more)
    request.policy = {"granted": False, "reasons": ["Staff decide on every pilot."]}
    _announce(context, request)
    return request


def _text(text: str, name: str) -> str:
    if len(text) > MAX_TEXT:
        raise Invalid(f"Use at most {MAX_TEXT:,} characters.", field=name)
    return text.strip()


def _submit(
    context: Context,
    account_id: str,
    person_id: str,
    kind: str,
    ask: Ask,
    more: dict[str, Any],
) -> Request:
    sku = SKU_OF[kind]
    features = check_features(sku, ask.features)
    if ask.mode not in CATALOG[sku].modes:
        raise Invalid("Choose offline or leased.", field="mode")
    if not ask.purpose.strip():
        raise Invalid("Say what it is for.", field="purpose")
    account = lock_account(context.session, account_id)
    if account is None or account.closed_at is not None:
        raise NotFound("There is no such account.")
    open_ones = context.session.scalars(
        select(Request).where(Request.account_id == account_id, Request.state == "open")
    ).all()
    if len(open_ones) >= MOST_OPEN:
        raise LimitReached(
            f"{MOST_OPEN} of your requests wait for an answer; more can follow once one has it."
        )
    deployment = _deployment(context, account_id, ask)
    if any(each.kind == kind and each.deployment_id == deployment.id for each in open_ones):
        raise Conflict(f"A request for this deployment waits for an answer already ({kind}).")
    person = context.session.get_one(Person, person_id)
    address = parse_email(person.email)
    request = Request(
        id=new_id(REQUEST, context.ports.randomness),
        kind=kind,
        state="open",
        account_id=account_id,
        deployment_id=deployment.id,
        person_id=person_id,
        email_domain=address.domain,
        registrable_domain=address.registrable_domain,
        asked={
            "purpose": _text(ask.purpose, "purpose"),
            "features": features,
            "mode": ask.mode,
            "fingerprint": _fingerprint(context, ask),
            **more,
        },
        policy={},
        created_at=context.at,
        promised_at=promised_answer(context.at, context.policy.answer_within),
    )
    context.session.add(request)
    context.session.flush()
    accept_terms(context, person_id, account_id, "request", request.id)
    record(
        context,
        "request.made",
        "request",
        request.id,
        account_id=account_id,
        kind=kind,
        deployment_id=deployment.id,
    )
    return request


def _deployment(context: Context, account_id: str, ask: Ask) -> Deployment:
    if ask.deployment_id is not None:
        return account_deployment(context, account_id, ask.deployment_id)
    known = [
        each
        for each in deployments_of(context.session, account_id)
        if each.name == ask.deployment_name.strip()
    ]
    if known:
        return known[0]
    return create_deployment(context, account_id=account_id, name=ask.deployment_name)


def _fingerprint(context: Context, ask: Ask) -> str | None:
    if not ask.bind:
        return None
    return ask.fingerprint or f"fp_{crockford(context.ports.randomness.token(16))}"


def _judge(context: Context, request: Request) -> Decision:
    """Judge an evaluation request while nobody else of its domain is judged."""
    domain = request.registrable_domain
    take_turn(context.session, f"evaluation:{domain}")
    person = context.session.get_one(Person, request.person_id)
    address = parse_email(person.email)
    return decide_evaluation(
        Applicant(
            email_confirmed=person.email_confirmed_at is not None,
            domain=address.domain,
            registrable_domain=domain,
            is_free_mail=address.is_free_mail,
            is_denied=bool({address.domain, domain} & context.policy.denied_domains),
            last_of_account=_last_granted(context, Request.account_id == request.account_id),
            last_of_domain=(
                None
                if domain is None
                else _last_granted(context, Request.registrable_domain == domain)
            ),
        ),
        context.at,
        context.policy.evaluation_interval,
    )


def _last_granted(context: Context, whose: Any) -> datetime | None:
    return context.session.scalar(
        select(Request.decided_at)
        .where(Request.kind == "evaluation", Request.state == "approved", whose)
        .order_by(Request.decided_at.desc())
        .limit(1)
    )


def _terms_asked(request: Request) -> GrantedTerms:
    asked = request.asked
    template = CATALOG[SKU_OF[request.kind]]
    return GrantedTerms(
        mode=asked["mode"],
        days=(template.term_s or 0) // DAY_S,
        volume_tokens=asked.get("volume_tokens"),
        max_instances=template.limits.get("max_instances"),
        features=tuple(asked["features"]),
        fingerprint=asked.get("fingerprint"),
    )


def _plain(terms: GrantedTerms) -> dict[str, Any]:
    return {
        "mode": terms.mode,
        "days": terms.days,
        "volume_tokens": terms.volume_tokens,
        "max_instances": terms.max_instances,
        "features": sorted(terms.features),
        "fingerprint": terms.fingerprint,
    }


def _grant(
    context: Context, request: Request, terms: GrantedTerms, *, staff_id: str | None, reason: str
) -> Entitlement:
    sku = SKU_OF[request.kind]
    limits: dict[str, int] = {}
    if terms.max_instances is not None:
        limits["max_instances"] = terms.max_instances
    if request.kind == "pilot" and terms.volume_tokens is not None:
        limits |= {"tokens_per_window": terms.volume_tokens, "window_s": 7 * DAY_S}
    if request.kind == "evaluation" and terms.mode == "offline":
        limits["max_instances"] = 1
    entitlement = propose_entitlement(
        context,
        deployment_id=request.deployment_id,
        sku=sku,
        mode=terms.mode,
        term_s=terms.days * DAY_S,
        limits=limits,
        features=terms.features,
        fingerprints=[terms.fingerprint] if terms.fingerprint else [],
        reason=reason,
        created_by=staff_id,
        request_id=request.id,
    )
    return approve_entitlement(context, entitlement.id, approved_by=staff_id)


def _announce(context: Context, request: Request) -> None:
    """Tell staff that a request waits, and the customer what happens next."""
    account = context.session.get_one(Account, request.account_id)
    facts = {
        "kind": request.kind,
        "account": account.name,
        "request_id": request.id,
        "promised_at": request.promised_at.isoformat(),
    }
    tell_staff(
        context,
        "request-arrived",
        {**facts, "url": f"{context.policy.origin}/staff/requests/{request.id}"},
        "approver",
    )
    person = context.session.get_one(Person, request.person_id)
    queue_email(
        context,
        "request-received",
        person.email,
        {
            **facts,
            "name": person.name,
            "url": f"{context.policy.origin}/account/requests/{request.id}",
        },
        account_id=request.account_id,
        person_id=person.id,
    )


def account_requests(context: Context, account_id: str) -> list[Request]:
    """Return an account's requests, newest first."""
    return list(
        context.session.scalars(
            select(Request)
            .where(Request.account_id == account_id)
            .order_by(Request.created_at.desc(), Request.id)
        )
    )


def account_request(context: Context, account_id: str, request_id: str) -> Request:
    """Return a request of this account.

    Raises:
        NotFound: there is none, or it is another account's (the two answer alike).
    """
    request = context.session.get(Request, request_id)
    if request is None or request.account_id != account_id:
        raise NotFound("There is no such request in this account.")
    return request


def entitlement_of(context: Context, request: Request) -> Entitlement | None:
    """Return what a request was granted as."""
    return context.session.scalar(select(Entitlement).where(Entitlement.request_id == request.id))


def changes(request: Request) -> list[Difference]:
    """Say what staff granted otherwise than asked."""
    return differences(request.asked, request.granted) if request.granted else []


def messages_of(context: Context, request: Request, *audiences: str) -> list[RequestMessage]:
    """Return a request's messages for these audiences, oldest first."""
    return list(
        context.session.scalars(
            select(RequestMessage)
            .where(RequestMessage.request_id == request.id, RequestMessage.audience.in_(audiences))
            .order_by(RequestMessage.created_at, RequestMessage.id)
        )
    )


def request_queue(
    context: Context, *, kind: str | None = None, state: str = "open"
) -> list[tuple[Request, Account]]:
    """Return requests of a state for staff, oldest first."""
    query = (
        select(Request, Account)
        .join(Account, Account.id == Request.account_id)
        .where(Request.state == state)
        .order_by(Request.created_at, Request.id)
        .limit(200)
    )
    if kind is not None:
        query = query.where(Request.kind == kind)
    return [(request, account) for request, account in context.session.execute(query)]


def staff_request(context: Context, request_id: str) -> Request:
    """Return any request, for staff.

    Raises:
        NotFound: there is none.
    """
    request = context.session.get(Request, request_id)
    if request is None:
        raise NotFound("There is no such request.")
    return request


def decision_facts(context: Context, request: Request) -> DecisionFacts:
    """Return what helps staff decide: the domain's accounts, earlier requests, what is live."""
    domain = request.registrable_domain
    accounts = (
        []
        if domain is None
        else list(
            context.session.scalars(
                select(Account)
                .where(Account.registrable_domain == domain)
                .order_by(Account.created_at)
            )
        )
    )
    earlier = context.session.scalars(
        select(Request)
        .where(
            (Request.account_id == request.account_id)
            | (Request.registrable_domain == (domain or "")),
            Request.id != request.id,
        )
        .order_by(Request.created_at.desc())
        .limit(20)
    )
    entitlements = context.session.scalars(
        select(Entitlement)
        .where(Entitlement.account_id == request.account_id)
        .order_by(Entitlement.created_at.desc())
        .limit(20)
    )
    return DecisionFacts(accounts, list(earlier), list(entitlements))


def take_request(context: Context, request_id: str, staff_id: str) -> Request:
    """Say that one looks at a request; the latest to say so has it.

    Raises:
        NotFound, Conflict: there is none, or it is decided.
    """
    request = staff_request(context, request_id)
    _require_open(request)
    request.taken_by = staff_id
    record(context, "request.taken", "request", request.id, account_id=request.account_id)
    return request


def approve_request(
    context: Context, request_id: str, *, staff_id: str, terms: GrantedTerms, note: str | None
) -> Entitlement:
    """Approve a request with these terms; the customer starts it within 30 days.

    Raises:
        NotFound, Conflict, Invalid: there is none, it is decided, or the terms cannot be.
    """
    request = staff_request(context, request_id)
    granted = _plain(terms)
    _decide(context, request, "approved", staff_id, note, granted)
    entitlement = _grant(
        context, request, terms, staff_id=staff_id, reason=note or "approved as asked"
    )
    record(
        context,
        "request.approved",
        "request",
        request.id,
        account_id=request.account_id,
        entitlement_id=entitlement.id,
        changed=[each.term for each in changes(request)],
    )
    start_by = entitlement.start_by_at or context.at + timedelta(days=30)
    _tell_decision(context, request, "request-approved", {"start_by_at": start_by.isoformat()})
    return entitlement


def decline_request(context: Context, request_id: str, *, staff_id: str, note: str) -> Request:
    """Decline a request with words to the customer.

    Raises:
        NotFound, Conflict, Invalid: there is none, it is decided, or there are no words.
    """
    if not note.strip():
        raise Invalid("Tell the customer why, and what they can do.", field="note")
    request = staff_request(context, request_id)
    _decide(context, request, "declined", staff_id, note, None)
    record(context, "request.declined", "request", request.id, account_id=request.account_id)
    _tell_decision(context, request, "request-declined", {})
    return request


def withdraw_request(context: Context, request: Request) -> None:
    """Take a request back.

    Raises:
        Conflict: it is decided.
    """
    _decide(context, request, "withdrawn", None, None, None)
    record(context, "request.withdrawn", "request", request.id, account_id=request.account_id)


def _require_open(request: Request) -> None:
    if request.state != "open":
        raise Conflict(f"The request was {request.state} meanwhile.")


def _decide(
    context: Context,
    request: Request,
    state: str,
    staff_id: str | None,
    note: str | None,
    granted: dict[str, Any] | None,
) -> None:
    moved = context.session.execute(
        update(Request)
        .where(Request.id == request.id, Request.state == "open")
        .values(
            state=state,
            decided_at=context.at,
            decided_by=staff_id,
            decision_note=None if note is None else _text(note, "note") or None,
            granted=granted,
        )
        .returning(Request.id)
    ).first()
    context.session.refresh(request)
    if moved is None:
        _require_open(request)


def _tell_decision(context: Context, request: Request, template: str, more: dict[str, Any]) -> None:
    tell_members(
        context,
        request.account_id,
        template,
        {
            "kind": request.kind,
            "request_id": request.id,
            "note": request.decision_note or "",
            "changes": [
                {"term": each.term, "asked": each.asked, "granted": each.granted}
                for each in changes(request)
            ],
            "url": f"{context.policy.origin}/account/requests/{request.id}",
            **more,
        },
        "owner",
        "operator",
    )


def post_message(
    context: Context, request: Request, *, author_id: str, audience: str, text: str
) -> RequestMessage:
    """Add a message: to staff alone, or between staff and customer (who is mailed).

    Raises:
        Invalid: it is empty or too long.
    """
    if not text.strip():
        raise Invalid("Write something.", field="text")
    message = RequestMessage(
        id=new_id(MESSAGE, context.ports.randomness),
        request_id=request.id,
        author_id=author_id,
        audience=audience,
        text=_text(text, "text"),
        created_at=context.at,
    )
    context.session.add(message)
    record(
        context,
        "request.message-posted",
        "request",
        request.id,
        account_id=request.account_id,
        audience=audience,
    )
    author = context.session.get_one(Person, author_id)
    if audience == "customer" and author.kind == "staff":
        _tell_decision(context, request, "request-question", {"note": message.text})
    elif audience == "customer":
        account = context.session.get_one(Account, request.account_id)
        tell_staff(
            context,
            "request-answered",
            {
                "account": account.name,
                "kind": request.kind,
                "request_id": request.id,
                "url": f"{context.policy.origin}/staff/requests/{request.id}",
            },
            "approver",
        )
    return message


def require_entitlement(context: Context, request: Request) -> Entitlement:
    """Return what a request was granted as.

    Raises:
        Conflict: it was not granted.
    """
    entitlement = entitlement_of(context, request)
    if entitlement is None:
        raise Conflict("This request was not granted.")
    return entitlement


def authors(context: Context, messages: list[RequestMessage]) -> dict[str, Person]:
    """Return who wrote these messages."""
    people = context.session.scalars(
        select(Person).where(Person.id.in_({message.author_id for message in messages}))
    )
    return {person.id: person for person in people}
