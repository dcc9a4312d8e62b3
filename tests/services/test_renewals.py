"""Renewals that customers ask for: what may be asked, and what granting one does."""

import pytest
from msgspec import structs

from portal.db.accounts import Account
from portal.db.acts import Act
from portal.db.deployments import Deployment
from portal.db.entitlements import Entitlement
from portal.db.licenses import License
from portal.db.people import Person
from portal.db.requests import Request
from portal.domain.acts import ActState
from portal.domain.errors import Conflict, Invalid, NotFound
from portal.domain.requests import Background, RequestKind, RequestState
from portal.domain.terms import Mode, Terms
from portal.services.acts.machinery import Stale
from portal.services.context import Actor, Transactions
from portal.services.licenses import issue_pending
from portal.services.renewals import (
    can_ask_to_renew,
    grant_renewal,
    preview_renewal,
    renewal_offer,
    waiting_act,
)
from portal.services.requests import (
    Ask,
    approve_request,
    member_request_page,
    submit_request,
    withdraw_request,
)
from tests.factories.accounts import make_customer, make_deployment, make_staff
from tests.factories.acts import agree, make_annual, newest
from tests.factories.licenses import issue, make_entitlement
from tests.fakes import FakeClock

COMMAND = Actor("command")
DAY_S = 86400


class Desk:
    """An account with a deployment, and two staff."""

    def __init__(self, transactions: Transactions) -> None:
        self.transactions = transactions
        self.account: Account
        self.owner: Person
        self.account, self.owner = make_customer(transactions)
        self.deployment: Deployment = make_deployment(transactions, self.account)
        self.ann = make_staff(transactions).id
        self.ben = make_staff(transactions, "ben@vendor.test").id

    def pilot(self) -> License:
        """Issue a pilot's license."""
        return issue(
            self.transactions, make_entitlement(self.transactions, self.deployment, sku="pilot-30d")
        )

    def offer(self, license_: License) -> Terms:
        """Return what a renewal is pre-filled from."""
        with self.transactions.reading(COMMAND) as context:
            return renewal_offer(context, self.account.id, license_.id).terms

    def ask(self, terms: Terms) -> Request:
        """Ask to renew with these terms."""
        with self.transactions.writing(COMMAND) as context:
            return submit_request(
                context,
                account_id=self.account.id,
                person_id=self.owner.id,
                ask=Ask(
                    kind=RequestKind.RENEWAL,
                    deployment_id=self.deployment.id,
                    terms=terms,
                    background=Background(purpose=""),
                ),
            )

    def grant(self, request: Request, terms: Terms, seen: str | None = None) -> Act:
        """Look at what a renewal does, and grant it."""
        with self.transactions.writing(COMMAND) as context:
            shown = preview_renewal(
                context, request, staff_id=self.ann, terms=terms, note="As agreed."
            )
        with self.transactions.writing(COMMAND) as context:
            act = grant_renewal(
                context,
                context.session.get_one(Request, request.id),
                staff_id=self.ann,
                terms=terms,
                note="As agreed.",
                seen=seen or shown.fingerprint,
            )
        issue_pending(self.transactions, self.deployment.id, COMMAND)
        return act

    def state(self, request: Request) -> RequestState:
        """Return what became of a request."""
        with self.transactions.reading(COMMAND) as context:
            return context.session.get_one(Request, request.id).state


@pytest.fixture
def desk(transactions: Transactions) -> Desk:
    return Desk(transactions)


def test_a_pilot_is_renewed_from_its_end_with_what_was_granted(desk: Desk) -> None:
    first = desk.pilot()
    now = desk.offer(first)
    request = desk.ask(structs.replace(now, term_s=20 * DAY_S))
    assert request.state is RequestState.OPEN
    desk.grant(request, structs.replace(now, term_s=10 * DAY_S))
    renewed = newest(desk.transactions, desk.deployment.id)
    assert renewed.document is not None
    assert first.document is not None
    assert renewed.document.expires_at == first.document.expires_at + 10 * DAY_S
    with desk.transactions.reading(COMMAND) as context:
        page = member_request_page(context, desk.account.id, request.id, frozenset({"*"}))
        assert page.license is not None
        assert page.license.id == renewed.id
        assert [(each.asked, each.granted) for each in page.changes] == [("20 days", "10 days")]
        assert (page.request.decided_by, page.request.decision_note) == (desk.ann, "As agreed.")
        assert page.granted is not None
        assert page.granted.renews == first.entitlement_id
        assert not page.can_start


def test_a_contract_waits_for_a_second_person_and_the_request_with_it(desk: Desk) -> None:
    annual = make_annual(desk.transactions, desk.deployment, desk.ben)
    request = desk.ask(desk.offer(annual))
    act = desk.grant(request, request.asked)
    assert act.state is ActState.PENDING
    assert desk.state(request) is RequestState.OPEN
    with desk.transactions.reading(COMMAND) as context:
        waiting = waiting_act(context, request)
        assert waiting is not None
        assert waiting.id == act.id
    with pytest.raises(Conflict, match="waits for a second person already"):
        desk.grant(request, request.asked)
    agree(desk.transactions, act, desk.ben)
    assert desk.state(request) is RequestState.APPROVED
    assert newest(desk.transactions, desk.deployment.id).revision == 2


def test_what_was_withdrawn_meanwhile_is_not_granted_by_the_second_person(desk: Desk) -> None:
    annual = make_annual(desk.transactions, desk.deployment, desk.ben)
    request = desk.ask(desk.offer(annual))
    act = desk.grant(request, request.asked)
    with desk.transactions.writing(COMMAND) as context:
        withdraw_request(context, context.session.get_one(Request, request.id))
    with pytest.raises(Conflict, match="already been withdrawn"):
        agree(desk.transactions, act, desk.ben)
    with desk.transactions.reading(COMMAND) as context:
        assert context.session.query(Entitlement).count() == 1


def test_a_renewal_is_not_approved_past_its_act(desk: Desk) -> None:
    request = desk.ask(desk.offer(desk.pilot()))
    with pytest.raises(Conflict, match="by its act"), desk.transactions.writing(COMMAND) as context:
        approve_request(context, request.id, staff_id=desk.ann, terms=request.asked, note=None)
    with pytest.raises(Stale):
        desk.grant(request, request.asked, seen="0" * 64)
    assert desk.state(request) is RequestState.OPEN


@pytest.mark.parametrize(
    "changes",
    [
        {"mode": Mode.LEASE},
        {"sku": "enterprise-annual"},
        {"fingerprints": ("fp_another_1",)},
        {"support_tier": "gold"},
        {"features": ()},
        {"term_s": 0},
    ],
)
def test_a_renewal_asks_for_no_other_kind_of_license(
    desk: Desk, changes: dict[str, object]
) -> None:
    now = desk.offer(desk.pilot())
    with pytest.raises(Invalid):
        desk.ask(structs.replace(now, **changes))


@pytest.mark.parametrize("sku", ["eval-72h", "credit-pack-5m", "lease-monthly"])
def test_what_is_not_renewed_by_request_says_so(desk: Desk, sku: str) -> None:
    mode = "lease" if sku == "lease-monthly" else "offline"
    made = make_entitlement(desk.transactions, desk.deployment, sku=sku, mode=mode)
    license_ = issue(desk.transactions, made)
    with desk.transactions.reading(COMMAND) as context:
        assert not can_ask_to_renew(context, license_)
    with pytest.raises(Conflict):
        desk.offer(license_)
    with pytest.raises(Conflict):
        desk.ask(made.terms)


def test_one_that_expired_can_still_be_renewed_and_begins_at_once(
    desk: Desk, clock: FakeClock
) -> None:
    first = desk.pilot()
    clock.advance(days=31)
    request = desk.ask(desk.offer(first))
    with desk.transactions.writing(COMMAND) as context:
        shown = preview_renewal(
            context, request, staff_id=desk.ann, terms=request.asked, note=""
        ).shown
    (issued,) = shown["licenses"]["issued"]
    assert issued["not_before"] == f"{clock.at:%Y-%m-%dT%H:%M:%SZ}"


def test_another_accounts_license_is_as_absent_as_none(desk: Desk) -> None:
    other, _ = make_customer(desk.transactions, "eve@other.example", "Other")
    license_ = desk.pilot()
    with desk.transactions.reading(COMMAND) as context:
        for license_id in (license_.id, "lic_00000000000000000000000000"):
            with pytest.raises(NotFound, match="no such license in this account"):
                renewal_offer(context, other.id, license_id)
