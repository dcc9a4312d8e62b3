"""Requests: what is taken, granted by policy, decided by staff, and told to whom."""

from dataclasses import replace
from datetime import date, timedelta

import pytest
from msgspec import structs

from licensing.license import Limits
from portal.db.accounts import Account
from portal.db.audit import AuditRow
from portal.db.deployments import Deployment
from portal.db.emails import Email
from portal.db.entitlements import Entitlement
from portal.db.jobs import Job
from portal.db.licenses import License
from portal.db.people import Person
from portal.db.requests import Request
from portal.db.terms_of_use import TermsOfUseAcceptance
from portal.domain.errors import Conflict, Invalid, LimitReached, NotFound
from portal.domain.requests import Audience, RequestKind, RequestState
from portal.domain.roles import account_permissions
from portal.domain.terms import Mode
from portal.services.context import Actor, Policy, Transactions
from portal.services.lines import ISSUE_LICENSE
from portal.services.requests import (
    Ask,
    account_request,
    approve_request,
    decline_request,
    member_request_page,
    post_message,
    request_list,
    request_queue,
    staff_request_page,
    start_granted,
    submit_request,
    take_request,
    withdraw_request,
)
from tests.factories.accounts import make_customer, make_deployment, make_staff
from tests.factories.acts import make_annual
from tests.factories.licenses import issue, make_entitlement
from tests.factories.requests import ask_for_pilot, evaluation_ask, pilot_ask
from tests.fakes import FakeClock

COMMAND = Actor("command")
OPERATOR = account_permissions("operator")


@pytest.fixture
def customer(transactions: Transactions) -> tuple[Account, Person]:
    """The account NewCo and its owner."""
    return make_customer(transactions)


def submit(transactions: Transactions, customer: tuple[Account, Person], ask: Ask) -> Request:
    """Send a request as the account's owner."""
    account, owner = customer
    with transactions.writing(COMMAND) as context:
        return submit_request(context, account_id=account.id, person_id=owner.id, ask=ask)


def mails(transactions: Transactions, template: str) -> list[Email]:
    """Return the mails of a template, oldest first."""
    with transactions.reading(COMMAND) as context:
        found = context.session.query(Email).filter_by(template=template).order_by(Email.id)
        return sorted(found, key=lambda each: each.to_address)


def test_an_evaluation_the_policy_allows_is_granted_as_asked(
    transactions: Transactions, customer: tuple[Account, Person]
) -> None:
    ask = evaluation_ask(mode=Mode.LEASE, fingerprints=("fp_12345678",))
    made = submit(transactions, customer, ask)
    assert (made.state, made.decided_by) == (RequestState.APPROVED, None)
    assert made.policy == {"granted": True, "reasons": []}
    with transactions.reading(COMMAND) as context:
        granted = context.session.query(Entitlement).one()
        assert made.asked == made.granted == granted.terms == ask.terms
        assert granted.state == "live"
        license_ = context.session.query(License).one()
        (job,) = context.session.query(Job).filter_by(kind=ISSUE_LICENSE)
        assert job.payload == {"license_id": license_.id}
        accepted = context.session.query(TermsOfUseAcceptance).filter_by(subject_id=made.id).one()
        assert accepted.id.startswith("acc_")
        acts = [row.action for row in context.session.query(AuditRow) if row.subject_id == made.id]
    assert sorted(acts) == ["request.granted-by-policy", "request.made"]
    assert mails(transactions, "request-arrived") == []


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"term_s": 4 * 86400}, "terms"),
        ({"tokens_total": 1_000_001}, "terms"),
        ({"limits": Limits(max_instances=2, max_concurrency=4)}, "terms"),
        ({"limits": Limits(max_instances=1)}, "terms"),
        ({"support_tier": "gold"}, "terms"),
        ({"features": ("routing", "audit_export")}, "features"),
        ({"features": ()}, "features"),
        ({"sku": "enterprise-annual"}, "sku"),
        ({"sku": "no-such-sku"}, "sku"),
    ],
)
def test_a_request_asks_for_no_more_than_its_sku(
    transactions: Transactions,
    customer: tuple[Account, Person],
    changes: dict[str, object],
    field: str,
) -> None:
    ask = evaluation_ask()
    with pytest.raises(Invalid) as refused:
        submit(transactions, customer, replace(ask, terms=structs.replace(ask.terms, **changes)))
    assert refused.value.field == field
    with transactions.reading(COMMAND) as context:
        assert context.session.query(Request).count() == 0


@pytest.mark.parametrize("by_name", [False, True])
def test_an_evaluation_never_takes_the_place_of_an_annual_contract(
    transactions: Transactions, customer: tuple[Account, Person], by_name: bool
) -> None:
    deployment = make_deployment(transactions, customer[0])
    make_annual(transactions, deployment, make_staff(transactions).id)
    ask = replace(evaluation_ask(), deployment_name=" Production ")
    if not by_name:
        ask = replace(ask, deployment_id=deployment.id)
    with pytest.raises(Conflict, match=r"enterprise-annual until .* UTC"):
        submit(transactions, customer, ask)
    with transactions.reading(COMMAND) as context:
        assert context.session.query(Request).count() == 0
        assert context.session.query(Entitlement).one().ended_at is None
        assert context.session.query(License).one().superseded_at is None


@pytest.mark.parametrize("sku", ["eval-72h", "pilot-30d", "credit-pack-5m", "lease-monthly"])
def test_an_evaluation_is_for_a_deployment_that_has_nothing(
    transactions: Transactions, customer: tuple[Account, Person], clock: FakeClock, sku: str
) -> None:
    deployment = make_deployment(transactions, customer[0])
    mode = "lease" if sku == "lease-monthly" else "offline"
    issue(transactions, make_entitlement(transactions, deployment, sku=sku, mode=mode))
    ask = replace(evaluation_ask(), deployment_id=deployment.id)
    with pytest.raises(Conflict, match=sku):
        submit(transactions, customer, ask)
    clock.advance(days=401)
    assert submit(transactions, customer, ask).state is RequestState.APPROVED


def test_staff_cannot_approve_an_evaluation_over_what_came_meanwhile(
    transactions: Transactions, customer: tuple[Account, Person]
) -> None:
    ann = make_staff(transactions)
    submit(transactions, customer, evaluation_ask())
    waiting = submit(transactions, customer, replace(evaluation_ask(), deployment_name="Berlin"))
    with transactions.reading(COMMAND) as context:
        deployment = context.session.get_one(Deployment, waiting.deployment_id)
    annual = make_annual(transactions, deployment, ann.id)
    with (
        pytest.raises(Conflict, match="enterprise-annual"),
        transactions.writing(COMMAND) as context,
    ):
        approve_request(context, waiting.id, staff_id=ann.id, terms=waiting.asked, note=None)
    with transactions.reading(COMMAND) as context:
        assert account_request(context, customer[0].id, waiting.id).state is RequestState.OPEN
        assert context.session.get_one(License, annual.id).superseded_at is None


def test_an_evaluation_approved_before_a_contract_began_cannot_start_over_it(
    transactions: Transactions, customer: tuple[Account, Person]
) -> None:
    ann = make_staff(transactions)
    submit(transactions, customer, evaluation_ask())
    waiting = submit(transactions, customer, replace(evaluation_ask(), deployment_name="Berlin"))
    with transactions.writing(COMMAND) as context:
        approve_request(context, waiting.id, staff_id=ann.id, terms=waiting.asked, note=None)
    with transactions.reading(COMMAND) as context:
        deployment = context.session.get_one(Deployment, waiting.deployment_id)
    annual = make_annual(transactions, deployment, ann.id)
    with (
        pytest.raises(Conflict, match="enterprise-annual"),
        transactions.writing(COMMAND) as context,
    ):
        start_granted(context, customer[0].id, waiting.id)
    with transactions.reading(COMMAND) as context:
        assert context.session.get_one(License, annual.id).superseded_at is None


def test_a_pilot_waits_for_staff_and_its_volume_is_a_wish(
    transactions: Transactions, customer: tuple[Account, Person]
) -> None:
    make_staff(transactions)
    made = submit(transactions, customer, pilot_ask())
    assert made.state is RequestState.OPEN
    assert made.background.expected_tokens == 2_000_000
    assert made.asked.limits.tokens_per_window == 10_000_000, "the plan's, not the wish"
    assert made.policy["reasons"] == ["Staff decide on every pilot."]
    (arrived,) = mails(transactions, "request-arrived")
    assert (arrived.to_address, arrived.facts["kind"]) == ("ann@vendor.test", "pilot")
    (received,) = mails(transactions, "request-received")
    assert received.to_address == "jo@newco.example"


def test_a_fingerprint_is_made_where_none_is_brought(
    transactions: Transactions, customer: tuple[Account, Person]
) -> None:
    made = submit(transactions, customer, replace(pilot_ask(), bind=True))
    (fingerprint,) = made.asked.fingerprints
    assert fingerprint.startswith("fp_")
    assert len(fingerprint) == 29


def test_a_known_deployment_is_found_by_its_name_and_a_new_one_made(
    transactions: Transactions, customer: tuple[Account, Person]
) -> None:
    first = submit(transactions, customer, evaluation_ask())
    same = submit(transactions, customer, pilot_ask(deployment_name=" Production "))
    other = submit(transactions, customer, pilot_ask(deployment_name="Berlin"))
    assert same.deployment_id == first.deployment_id
    assert other.deployment_id != first.deployment_id


def test_one_request_of_a_kind_waits_for_a_deployment_and_five_for_an_account(
    transactions: Transactions, customer: tuple[Account, Person]
) -> None:
    submit(transactions, customer, pilot_ask())
    with pytest.raises(Conflict, match="already waiting for an answer"):
        submit(transactions, customer, pilot_ask())
    for number in range(4):
        submit(transactions, customer, pilot_ask(deployment_name=f"Site {number}"))
    with pytest.raises(LimitReached):
        submit(transactions, customer, pilot_ask(deployment_name="Site 5"))


def test_a_closed_account_asks_for_nothing(
    transactions: Transactions, customer: tuple[Account, Person]
) -> None:
    with transactions.writing(COMMAND) as context:
        context.session.get_one(Account, customer[0].id).closed_at = context.at
    with pytest.raises(NotFound):
        submit(transactions, customer, evaluation_ask())


def test_a_denied_domain_waits_for_staff_with_the_reason(
    transactions: Transactions, customer: tuple[Account, Person]
) -> None:
    denied = Policy(origin=transactions.policy.origin, denied_domains=frozenset({"newco.example"}))
    strict = Transactions(transactions.database, transactions.ports, denied)
    made = submit(strict, customer, evaluation_ask())
    assert made.state is RequestState.OPEN
    assert made.policy == {"granted": False, "reasons": ["newco.example is on the deny list."]}


def test_what_staff_change_is_granted_recorded_and_told_alike(
    transactions: Transactions, customer: tuple[Account, Person]
) -> None:
    ann = make_staff(transactions)
    made = submit(transactions, customer, pilot_ask())
    terms = structs.replace(
        made.asked,
        term_s=14 * 86400,
        limits=structs.replace(made.asked.limits, max_instances=5),
    )
    with transactions.writing(COMMAND) as context:
        entitlement = approve_request(
            context, made.id, staff_id=ann.id, terms=terms, note="Two weeks."
        )
        assert (entitlement.terms, entitlement.created_by) == (terms, ann.id)
    changed = [("Length", "30 days", "14 days"), ("Instances", "3", "5")]
    with transactions.reading(COMMAND) as context:
        page = member_request_page(context, customer[0].id, made.id, OPERATOR)
        (act,) = context.session.query(AuditRow).filter_by(action="request.approved")
    assert [(each.title, each.asked, each.granted) for each in page.changes] == changed
    assert act.detail["changed"] == ["term_s", "max_instances"]
    (mail,) = mails(transactions, "request-approved")
    assert [tuple(each.values()) for each in mail.facts["changes"]] == changed
    assert mail.facts["note"] == "Two weeks."


@pytest.mark.parametrize(
    ("wish", "granted", "told"),
    [
        (2_000_000, 10_000_000, []),
        (2_000_000, 5_000_000, [("10,000,000", "5,000,000")]),
        (50_000_000, 50_000_000, []),
        (50_000_000, 10_000_000, [("50,000,000", "10,000,000")]),
    ],
)
def test_a_volume_that_is_less_than_wished_for_or_than_the_plan_is_told(
    transactions: Transactions,
    customer: tuple[Account, Person],
    wish: int,
    granted: int,
    told: list[tuple[str, str]],
) -> None:
    ann = make_staff(transactions)
    made = submit(transactions, customer, pilot_ask(expected_tokens=wish))
    limits = structs.replace(made.asked.limits, tokens_per_window=granted)
    with transactions.writing(COMMAND) as context:
        terms = structs.replace(made.asked, limits=limits)
        approve_request(context, made.id, staff_id=ann.id, terms=terms, note=None)
    words = [
        (f"{asked} tokens in any 7 days", f"{got} tokens in any 7 days") for asked, got in told
    ]
    with transactions.reading(COMMAND) as context:
        page = member_request_page(context, customer[0].id, made.id, OPERATOR)
    assert [(each.asked, each.granted) for each in page.changes] == words
    (mail,) = mails(transactions, "request-approved")
    assert [(each["asked"], each["granted"]) for each in mail.facts["changes"]] == words


def test_a_pilot_cannot_ask_for_a_volume_as_its_terms(
    transactions: Transactions, customer: tuple[Account, Person]
) -> None:
    ask = pilot_ask()
    more = structs.replace(ask.terms.limits, tokens_per_window=50_000_000)
    with pytest.raises(Invalid, match="Only staff"):
        submit(
            transactions,
            customer,
            replace(ask, terms=structs.replace(ask.terms, limits=more)),
        )


def test_a_shorter_evaluation_is_told_as_well(
    transactions: Transactions, customer: tuple[Account, Person]
) -> None:
    ann = make_staff(transactions)
    submit(transactions, customer, evaluation_ask())
    made = submit(transactions, customer, replace(evaluation_ask(), deployment_name="Berlin"))
    with transactions.writing(COMMAND) as context:
        shorter = structs.replace(made.asked, term_s=86400)
        approve_request(context, made.id, staff_id=ann.id, terms=shorter, note=None)
    (mail,) = mails(transactions, "request-approved")
    assert mail.facts["changes"] == [{"term": "Length", "asked": "72 hours", "granted": "24 hours"}]


def test_terms_that_cannot_be_are_not_granted(
    transactions: Transactions, customer: tuple[Account, Person]
) -> None:
    ann = make_staff(transactions)
    made = submit(transactions, customer, pilot_ask())
    terms = structs.replace(made.asked, features=("routing",))
    with (
        pytest.raises(Invalid, match="usage_reporting"),
        transactions.writing(COMMAND) as context,
    ):
        approve_request(context, made.id, staff_id=ann.id, terms=terms, note=None)
    with transactions.reading(COMMAND) as context:
        assert account_request(context, customer[0].id, made.id).state is RequestState.OPEN


def test_declining_needs_words_and_tells_them(
    transactions: Transactions, customer: tuple[Account, Person]
) -> None:
    ann = make_staff(transactions)
    made = submit(transactions, customer, pilot_ask())
    with pytest.raises(Invalid), transactions.writing(COMMAND) as context:
        decline_request(context, made.id, staff_id=ann.id, note="  ")
    with transactions.writing(COMMAND) as context:
        declined = decline_request(context, made.id, staff_id=ann.id, note=" Not now. ")
        assert (declined.state, declined.granted) == (RequestState.DECLINED, None)
    (mail,) = mails(transactions, "request-declined")
    assert (mail.facts["note"], mail.facts["changes"]) == ("Not now.", [])
    with pytest.raises(Conflict, match="already been declined"):
        with transactions.writing(COMMAND) as context:
            withdraw_request(context, account_request(context, customer[0].id, made.id))


def test_who_looks_at_a_request_is_the_latest_to_say_so(
    transactions: Transactions, customer: tuple[Account, Person]
) -> None:
    ann, bob = make_staff(transactions), make_staff(transactions, "bob@vendor.test")
    made = submit(transactions, customer, pilot_ask())
    for person in (ann, bob):
        with transactions.writing(COMMAND) as context:
            take_request(context, made.id, person.id)
    with transactions.writing(COMMAND) as context:
        page = staff_request_page(context, made.id)
        assert page.request.taken_by == bob.id
        withdraw_request(context, page.request)
        with pytest.raises(Conflict, match="already been withdrawn"):
            take_request(context, made.id, ann.id)


def test_messages_reach_the_other_side_and_notes_nobody(
    transactions: Transactions, customer: tuple[Account, Person], clock: FakeClock
) -> None:
    account, owner = customer
    ann = make_staff(transactions)
    request_id = ask_for_pilot(transactions)
    for author, audience, text in (
        (ann, Audience.STAFF, "Careful."),
        (ann, Audience.CUSTOMER, "Which models?"),
        (owner, Audience.CUSTOMER, " All of them. "),
    ):
        clock.advance(seconds=1)
        with transactions.writing(COMMAND) as context:
            request = account_request(context, account.id, request_id)
            post_message(context, request, author_id=author.id, audience=audience, text=text)
    assert [mail.facts["note"] for mail in mails(transactions, "request-question")] == [
        "Which models?"
    ]
    assert [mail.to_address for mail in mails(transactions, "request-answered")] == [ann.email]
    with transactions.reading(COMMAND) as context:
        seen = member_request_page(context, account.id, request_id, OPERATOR)
        known = staff_request_page(context, request_id)
    assert [each.text for each in seen.messages] == ["Which models?", "All of them."]
    assert [each.text for each in known.messages] == ["Careful.", "Which models?", "All of them."]
    assert {each.author_id for each in known.messages} <= set(known.people)


@pytest.mark.parametrize("text", ["  ", "x" * 4001])
def test_a_message_says_something_and_not_too_much(
    transactions: Transactions, customer: tuple[Account, Person], text: str
) -> None:
    request_id = ask_for_pilot(transactions)
    with transactions.writing(COMMAND) as context:
        request = account_request(context, customer[0].id, request_id)
        with pytest.raises(Invalid):
            post_message(
                context, request, author_id=customer[1].id, audience=Audience.STAFF, text=text
            )


def test_a_grant_is_started_once_and_only_where_there_is_one(
    transactions: Transactions, customer: tuple[Account, Person], clock: FakeClock
) -> None:
    account, _ = customer
    ann = make_staff(transactions)
    made = submit(transactions, customer, pilot_ask())
    with pytest.raises(Conflict, match="not granted"), transactions.writing(COMMAND) as context:
        start_granted(context, account.id, made.id)
    with transactions.writing(COMMAND) as context:
        approve_request(context, made.id, staff_id=ann.id, terms=made.asked, note=None)
    with transactions.reading(COMMAND) as context:
        (row,) = request_list(context, account.id)
        page = member_request_page(context, account.id, made.id, OPERATOR)
        assert row.waits_to_start
        assert page.can_start
        viewer = account_permissions("viewer")
        assert not member_request_page(context, account.id, made.id, viewer).can_start
    clock.advance(days=29)
    started = set()
    for _ in range(2):
        with transactions.writing(COMMAND) as context:
            started.add(start_granted(context, account.id, made.id).id)
    with transactions.reading(COMMAND) as context:
        (row,) = request_list(context, account.id)
        page = member_request_page(context, account.id, made.id, OPERATOR)
    assert page.license is not None
    assert started == {page.license.id}
    assert not row.waits_to_start
    assert not page.can_start


def test_another_accounts_requests_are_not_there(
    transactions: Transactions, customer: tuple[Account, Person]
) -> None:
    other, _ = make_customer(transactions, "kim@widgets.example", "Widgets")
    request_id = ask_for_pilot(transactions)
    with transactions.reading(COMMAND) as context:
        assert request_list(context, other.id) == []
        for asked in (request_id, "rqs_0"):
            with pytest.raises(NotFound):
                member_request_page(context, other.id, asked, OPERATOR)
    with transactions.reading(COMMAND) as context, pytest.raises(NotFound):
        staff_request_page(context, "rqs_0")


def test_the_queue_is_oldest_first_by_kind_and_state(
    transactions: Transactions, customer: tuple[Account, Person], clock: FakeClock
) -> None:
    ann = make_staff(transactions)
    first = submit(transactions, customer, pilot_ask())
    clock.advance(seconds=1)
    submit(transactions, customer, evaluation_ask())
    clock.advance(seconds=1)
    waiting = submit(transactions, customer, replace(evaluation_ask(), deployment_name="Berlin"))
    with transactions.reading(COMMAND) as context:
        assert [request.id for request, _ in request_queue(context)] == [first.id, waiting.id]
        (row,) = request_queue(context, kind=RequestKind.EVALUATION)
        assert (row[0].id, row[1].id) == (waiting.id, customer[0].id)
        assert request_queue(context, state=RequestState.DECLINED) == []
    with transactions.writing(COMMAND) as context:
        decline_request(context, first.id, staff_id=ann.id, note="No.")
    with transactions.reading(COMMAND) as context:
        ((declined, _),) = request_queue(context, state=RequestState.DECLINED)
        assert declined.id == first.id


def test_staff_see_what_helps_them_decide(
    transactions: Transactions, customer: tuple[Account, Person]
) -> None:
    same_domain, _ = make_customer(transactions, "kim@newco.example", "NewCo development")
    make_customer(transactions, "kim@widgets.example", "Widgets")
    earlier = submit(transactions, customer, evaluation_ask())
    later = ask_for_pilot(transactions, "kim@newco.example")
    ask_for_pilot(transactions, "kim@widgets.example")
    with transactions.reading(COMMAND) as context:
        page = staff_request_page(context, later)
    assert {each.id for each in page.accounts_of_domain} == {customer[0].id, same_domain.id}
    assert [each.id for each in page.earlier] == [earlier.id]
    assert page.entitlements == ()
    assert page.account.id == same_domain.id


def test_without_a_domain_there_is_nothing_in_common(
    transactions: Transactions, customer: tuple[Account, Person]
) -> None:
    first, second = (
        ask_for_pilot(transactions),
        ask_for_pilot(transactions, deployment_name="Berlin"),
    )
    make_customer(transactions, "kim@widgets.example", "Widgets")
    ask_for_pilot(transactions, "kim@widgets.example")
    with transactions.writing(COMMAND) as context:
        context.session.query(Request).update({"registrable_domain": None})
        context.session.query(Account).update({"registrable_domain": None})
    with transactions.reading(COMMAND) as context:
        page = staff_request_page(context, first)
    assert page.accounts_of_domain == ()
    assert [each.id for each in page.earlier] == [second]


def test_a_start_in_the_past_is_refused(
    transactions: Transactions, customer: tuple[Account, Person], clock: FakeClock
) -> None:
    yesterday: date = (clock.at - timedelta(days=1)).date()
    ask = pilot_ask()
    with pytest.raises(Invalid) as refused:
        submit(
            transactions,
            customer,
            replace(ask, background=structs.replace(ask.background, starts_on=yesterday)),
        )
    assert refused.value.field == "starts_on"
