"""Requests: evaluations that a policy may grant, and pilots that staff decide.

Invariants: a request is decided once, by a conditional UPDATE. The caps per account and per domain
are checked while the account's and the domain's turns are held, so that two requests at once cannot
both pass. What a customer asked for never changes; what was granted is stored beside it.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from msgspec.structs import replace
from sqlalchemy import ColumnElement, func, select

from licensing.encoding import crockford
from portal.db.accounts import Account, lock_account
from portal.db.acts import Act
from portal.db.deployments import Deployment, deployments_of
from portal.db.entitlements import Entitlement
from portal.db.licenses import License
from portal.db.people import Person, people_of
from portal.db.requests import Request, RequestMessage
from portal.db.turns import take_turn
from portal.domain.catalog import fill_terms, template_of
from portal.domain.email_addresses import EmailAddress, parse_email
from portal.domain.entitlements import EntitlementState, check_terms, judge_start
from portal.domain.errors import Conflict, Invalid, LimitReached, NotFound
from portal.domain.evaluations import Applicant, Decision, decide_evaluation, promised_answer
from portal.domain.identifiers import MESSAGE, REQUEST, new_id
from portal.domain.requests import (
    Audience,
    Background,
    RequestKind,
    RequestState,
    clean_background,
    clean_text,
    offered_features,
)
from portal.domain.terms import Comparison, Terms, differences
from portal.services.causes import staff_approve_here
from portal.services.context import Context
from portal.services.deployments import account_deployment, create_deployment
from portal.services.emails import queue_email, tell_staff
from portal.services.entitlements import (
    approve_entitlement,
    can_start,
    propose_entitlement,
    start_entitlement,
    waiting_to_start,
)
from portal.services.licenses import license_of, request_issue
from portal.services.lines import lock_line, newest_license
from portal.services.renewals import check_renewal, waiting_act
from portal.services.request_decisions import (
    changes,
    decide,
    record_request,
    require_open,
    tell_decision,
)
from portal.services.sign_ups import accept_terms_of_use

MOST_OPEN: Final = 5
"""The most undecided requests an account may have."""
CHOSEN_BY_CUSTOMERS: Final = {
    RequestKind.EVALUATION: {"mode", "features", "fingerprints"},
    RequestKind.PILOT: {"mode", "features", "fingerprints"},
}
"""The terms in which a request may differ from the SKU's template."""
STAFF_DECIDE: Final = {
    RequestKind.PILOT: Decision(("Staff decide on every pilot.",)),
    RequestKind.RENEWAL: Decision(("Staff decide on every renewal.",)),
}


@dataclass(frozen=True, kw_only=True)
class Ask:
    """What a customer asks for."""

    kind: RequestKind
    deployment_id: str | None
    """None for a new deployment named `deployment_name`."""
    deployment_name: str = ""
    terms: Terms
    background: Background
    bind: bool = False
    """Whether the portal creates a fingerprint if the terms name none."""


def submit_request(context: Context, *, account_id: str, person_id: str, ask: Ask) -> Request:
    """Accept a request. An evaluation that the policy allows is granted and issued immediately.

    Raises:
        Invalid, NotFound, LimitReached, Conflict: what was asked cannot be. An evaluation is for a
            deployment that has nothing; the message names what there is.
    """
    terms = _asked_terms(context, ask)
    background = clean_background(ask.background, ask.kind, context.at.date())
    account = lock_account(context.session, account_id)
    if account is None or account.closed_at is not None:
        raise NotFound("There is no such account.")
    deployment = _deployment(context, account_id, ask)
    if ask.kind is RequestKind.EVALUATION:
        judge_start(lock_line(context, deployment.id), terms)
    elif ask.kind is RequestKind.RENEWAL:
        check_renewal(context, deployment.id, terms)
    address = parse_email(context.session.get_one(Person, person_id).email)
    request = Request(
        id=new_id(REQUEST, context.ports.randomness),
        kind=ask.kind,
        state=RequestState.OPEN,
        account_id=account_id,
        deployment_id=deployment.id,
        person_id=person_id,
        email_domain=address.domain,
        registrable_domain=address.registrable_domain,
        background=background,
        asked=terms,
        policy={},
        created_at=context.at,
        promised_at=promised_answer(context.at, context.policy.answer_within),
    )
    context.session.add(request)
    context.session.flush()
    accept_terms_of_use(context, person_id, account_id, "request", request.id)
    record_request(
        context, "request.made", request, kind=request.kind.value, deployment_id=deployment.id
    )
    judged = ask.kind is RequestKind.EVALUATION
    decision = _judge(context, request, address) if judged else STAFF_DECIDE[ask.kind]
    request.policy = {"granted": decision.granted, "reasons": list(decision.reasons)}
    if decision.granted:
        decide(context, request, RequestState.APPROVED, granted=terms)
        entitlement = _grant(context, request, reason="evaluation policy")
        request_issue(context, entitlement.id, cause="start")
        record_request(context, "request.granted-by-policy", request, entitlement_id=entitlement.id)
    else:
        _announce(context, request)
    return request


def _asked_terms(context: Context, ask: Ask) -> Terms:
    """Return the terms asked for, which are the SKU's but for what customers may choose.

    What a renewal asks for is compared with the terms that it renews.
    """
    if ask.kind is RequestKind.RENEWAL:
        check_terms(ask.terms)
        return ask.terms
    if template_of(ask.terms.sku).source != ask.kind.value:
        raise Invalid(f"{ask.terms.sku} cannot be requested here.", field="sku")
    others = {each.term for each in differences(fill_terms(ask.terms.sku), ask.terms)}
    if not others <= CHOSEN_BY_CUSTOMERS[ask.kind]:
        raise Invalid("Only staff can change these terms.", field="terms")
    terms = replace(ask.terms, features=offered_features(ask.terms.sku, ask.terms.features))
    if ask.bind and not terms.fingerprints:
        fingerprint = f"fp_{crockford(context.ports.randomness.token(16))}"
        terms = replace(terms, fingerprints=(fingerprint,))
    check_terms(terms)
    return terms


def _deployment(context: Context, account_id: str, ask: Ask) -> Deployment:
    """Return the deployment a request is for; create it if the request asks for a new one."""
    open_ones = context.session.scalars(
        select(Request).where(Request.account_id == account_id, Request.state == RequestState.OPEN)
    ).all()
    if len(open_ones) >= MOST_OPEN:
        raise LimitReached(
            f"{MOST_OPEN} of your requests are waiting. You can send more after one is answered."
        )
    if ask.deployment_id is not None:
        deployment = account_deployment(context, account_id, ask.deployment_id)
    else:
        named = ask.deployment_name.strip()
        known = (e for e in deployments_of(context.session, account_id) if e.name == named)
        deployment = next(known, None) or create_deployment(
            context, account_id=account_id, name=ask.deployment_name
        )
    if any(each.kind == ask.kind and each.deployment_id == deployment.id for each in open_ones):
        raise Conflict(
            f"A request for this deployment is already waiting for an answer ({ask.kind})."
        )
    return deployment


def _judge(context: Context, request: Request, address: EmailAddress) -> Decision:
    """Judge an evaluation request; requests of the same domain are judged one at a time."""
    domain = request.registrable_domain
    take_turn(context.session, f"evaluation:{domain}")
    person = context.session.get_one(Person, request.person_id)
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


def _last_granted(context: Context, whose: ColumnElement[bool]) -> datetime | None:
    return context.session.scalar(
        select(func.max(Request.decided_at)).where(
            Request.kind == RequestKind.EVALUATION, Request.state == RequestState.APPROVED, whose
        )
    )


def _grant(context: Context, request: Request, *, reason: str) -> Entitlement:
    """Make the entitlement of a request that was approved.

    Raises:
        Conflict: an evaluation of a deployment that has something by now.
    """
    if request.granted is None:
        raise Conflict("This request was not granted.")
    if request.kind is RequestKind.EVALUATION:
        judge_start(lock_line(context, request.deployment_id), request.granted)
    entitlement = propose_entitlement(
        context,
        deployment_id=request.deployment_id,
        terms=request.granted,
        reason=reason,
        created_by=request.decided_by,
        request_id=request.id,
    )
    if request.decided_by is not None and not staff_approve_here(context):
        # It waits for `portal entitlement approve`, which seals it.
        return entitlement
    return approve_entitlement(context, entitlement.id, approved_by=request.decided_by)


def _announce(context: Context, request: Request) -> None:
    """Tell staff that a request is waiting, and the customer what happens next."""
    _tell_staff(context, request, "request-arrived")
    person = context.session.get_one(Person, request.person_id)
    queue_email(
        context,
        "request-received",
        person.email,
        {
            "name": person.name,
            "kind": request.kind.value,
            "request_id": request.id,
            "promised_at": request.promised_at.isoformat(),
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
        NotFound: there is none, or it belongs to another account (both look the same).
    """
    request = context.session.get(Request, request_id)
    if request is None or request.account_id != account_id:
        raise NotFound("There is no such request in this account.")
    return request


def staff_request(context: Context, request_id: str) -> Request:
    """Return any request, for staff.

    Raises:
        NotFound: there is none.
    """
    request = context.session.get(Request, request_id)
    if request is None:
        raise NotFound("There is no such request.")
    return request


def entitlement_of(context: Context, request: Request) -> Entitlement | None:
    """Return the terms a request was granted with."""
    return context.session.scalar(select(Entitlement).where(Entitlement.request_id == request.id))


@dataclass(frozen=True)
class RequestRow:
    """A request in its account's list."""

    request: Request
    deployment: Deployment
    waits_to_start: bool


def request_list(context: Context, account_id: str) -> list[RequestRow]:
    """Return an account's requests, newest first."""
    waiting = {each.request_id for each in waiting_to_start(context, account_id)}
    rows = context.session.execute(
        select(Request, Deployment)
        .join(Deployment, Deployment.id == Request.deployment_id)
        .where(Request.account_id == account_id)
        .order_by(Request.created_at.desc(), Request.id)
    )
    return [RequestRow(each, deployment, each.id in waiting) for each, deployment in rows]


def request_queue(
    context: Context, *, kind: RequestKind | None = None, state: RequestState = RequestState.OPEN
) -> list[tuple[Request, Account]]:
    """Return the requests in a state for staff, oldest first."""
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


@dataclass(frozen=True, kw_only=True)
class RequestPage:
    """The facts of a request's page."""

    request: Request
    account: Account
    deployment: Deployment
    people: dict[str, Person]
    """The people who asked, took, decided and wrote, by id."""
    messages: tuple[RequestMessage, ...]
    """The messages that the reader may see, oldest first."""
    changes: tuple[Comparison, ...]
    granted: Entitlement | None
    license: License | None
    """The newest license issued from the grant."""


@dataclass(frozen=True, kw_only=True)
class MemberRequestPage(RequestPage):
    """The facts of a request's page for members."""

    can_start: bool
    """Whether the reader can press *Start now*."""


@dataclass(frozen=True, kw_only=True)
class StaffRequestPage(RequestPage):
    """The facts of a request's page for staff, with what helps them decide."""

    accounts_of_domain: tuple[Account, ...]
    earlier: tuple[Request, ...]
    """Other requests of the account or its domain, newest first."""
    approve_here: bool
    """Whether an approval on this page counts; if not, the command approves."""
    entitlements: tuple[Entitlement, ...]
    """Of the account, newest first."""
    waiting: Act | None
    """The act by which somebody granted it, while that waits for a second person."""


def member_request_page(
    context: Context, account_id: str, request_id: str, permissions: frozenset[str]
) -> MemberRequestPage:
    """Return the facts of a request's page for a member with these permissions.

    Raises:
        NotFound: there is none in this account.
    """
    request = account_request(context, account_id, request_id)
    facts = _page_facts(context, request, Audience.CUSTOMER)
    return MemberRequestPage(**facts, can_start=can_start(context, facts["granted"], permissions))


def staff_request_page(context: Context, request_id: str) -> StaffRequestPage:
    """Return the facts of a request's page for staff.

    Raises:
        NotFound: there is none.
    """
    request = staff_request(context, request_id)
    # People without a domain have nothing in common.
    domain = request.registrable_domain or ""
    of_domain = select(Account).where(Account.registrable_domain == domain)
    earlier = select(Request).where(
        (Request.account_id == request.account_id) | (Request.registrable_domain == domain),
        Request.id != request.id,
    )
    entitlements = select(Entitlement).where(Entitlement.account_id == request.account_id)
    session = context.session
    return StaffRequestPage(
        **_page_facts(context, request, *Audience),
        approve_here=staff_approve_here(context),
        accounts_of_domain=tuple(session.scalars(of_domain.order_by(Account.created_at))),
        earlier=tuple(session.scalars(earlier.order_by(Request.created_at.desc()).limit(20))),
        entitlements=tuple(
            session.scalars(entitlements.order_by(Entitlement.created_at.desc()).limit(20))
        ),
        waiting=waiting_act(context, request),
    )


def _page_facts(context: Context, request: Request, *audiences: Audience) -> dict[str, Any]:
    messages = context.session.scalars(
        select(RequestMessage)
        .where(RequestMessage.request_id == request.id, RequestMessage.audience.in_(audiences))
        .order_by(RequestMessage.created_at, RequestMessage.id)
    ).all()
    named = {request.person_id, request.taken_by, request.decided_by}
    granted = entitlement_of(context, request)
    license_ = None if granted is None else license_of(context, granted.id)
    if granted is not None and request.kind is RequestKind.RENEWAL:
        # Until the old term ends, the license bears the entitlement that goes on.
        license_ = newest_license(context, request.deployment_id)
    return {
        "request": request,
        "account": context.session.get_one(Account, request.account_id),
        "deployment": context.session.get_one(Deployment, request.deployment_id),
        "people": people_of(context.session, named | {each.author_id for each in messages}),
        "messages": tuple(messages),
        "changes": changes(request),
        "granted": granted,
        "license": license_,
    }


def take_request(context: Context, request_id: str, staff_id: str) -> Request:
    """Record that a staff person is working on a request; the last one to take it has it.

    Raises:
        NotFound, Conflict: there is none, or it is already decided.
    """
    request = staff_request(context, request_id)
    require_open(request)
    request.taken_by = staff_id
    record_request(context, "request.taken", request)
    return request


def approve_request(
    context: Context, request_id: str, *, staff_id: str, terms: Terms, note: str | None
) -> Entitlement:
    """Approve a request with these terms; the customer starts it within 30 days.

    Raises:
        NotFound, Conflict, Invalid: there is none, it is already decided, or the terms cannot be
            granted.
    """
    request = staff_request(context, request_id)
    if request.kind is RequestKind.RENEWAL:
        raise Conflict("A renewal is granted by its act, which shows first what it does.")
    decide(context, request, RequestState.APPROVED, staff_id=staff_id, note=note, granted=terms)
    entitlement = _grant(context, request, reason=note or "approved as asked")
    record_request(
        context,
        "request.approved",
        request,
        entitlement_id=entitlement.id,
        changed=[each.term for each in changes(request)],
    )
    announce_approval(context, entitlement)
    return entitlement


def announce_approval(context: Context, entitlement: Entitlement) -> None:
    """Mail the customer what was granted, once it is approved for good and answers a request."""
    if entitlement.request_id is None or entitlement.state is not EntitlementState.APPROVED:
        return
    start_by_at = entitlement.start_by_at
    tell_decision(
        context,
        staff_request(context, entitlement.request_id),
        "request-approved",
        start_by_at="" if start_by_at is None else start_by_at.isoformat(),
    )


def decline_request(context: Context, request_id: str, *, staff_id: str, note: str) -> Request:
    """Decline a request, with a message to the customer.

    Raises:
        NotFound, Conflict, Invalid: there is none, it is already decided, or the message is empty.
    """
    if not note.strip():
        raise Invalid("Tell the customer why, and what they can do instead.", field="note")
    request = staff_request(context, request_id)
    decide(context, request, RequestState.DECLINED, staff_id=staff_id, note=note)
    record_request(context, "request.declined", request)
    tell_decision(context, request, "request-declined")
    return request


def withdraw_request(context: Context, request: Request) -> None:
    """Withdraw a request.

    Raises:
        Conflict: it is already decided.
    """
    decide(context, request, RequestState.WITHDRAWN)
    record_request(context, "request.withdrawn", request)


def start_granted(context: Context, account_id: str, request_id: str) -> License:
    """Start what a request was granted; repeating it gives the same license.

    Raises:
        NotFound: there is no such request in this account.
        Conflict: it was not granted, or the time to start it has passed.
    """
    granted = entitlement_of(context, account_request(context, account_id, request_id))
    if granted is None:
        raise Conflict("This request was not granted.")
    return start_entitlement(context, account_id=account_id, entitlement_id=granted.id)


def post_message(
    context: Context, request: Request, *, author_id: str, audience: Audience, text: str
) -> RequestMessage:
    """Add a message: to staff only, or between staff and customer (the other side is e-mailed).

    Raises:
        Invalid: it is empty or too long.
    """
    if not text.strip():
        raise Invalid("Write a message.", field="text")
    message = RequestMessage(
        id=new_id(MESSAGE, context.ports.randomness),
        request_id=request.id,
        author_id=author_id,
        audience=audience,
        text=clean_text(text, "text"),
        created_at=context.at,
    )
    context.session.add(message)
    record_request(context, "request.message-posted", request, audience=audience.value)
    if audience is Audience.STAFF:
        return message
    if context.session.get_one(Person, author_id).kind == "staff":
        tell_decision(context, request, "request-question", note=message.text)
    else:
        _tell_staff(context, request, "request-answered")
    return message


def _tell_staff(context: Context, request: Request, template: str) -> None:
    tell_staff(
        context,
        template,
        {
            "kind": request.kind.value,
            "account": context.session.get_one(Account, request.account_id).name,
            "request_id": request.id,
            "promised_at": request.promised_at.isoformat(),
            "url": f"{context.policy.origin}/staff/requests/{request.id}",
        },
        "approver",
    )
