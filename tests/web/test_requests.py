"""Customers ask: evaluations by policy or by staff, pilots by staff; nothing can be skipped."""

import re
from datetime import timedelta

import pytest

from licensing.license import License as LicensePayload
from portal.db.accounts import Account
from portal.db.entitlements import Entitlement
from portal.db.licenses import License
from portal.db.requests import Request
from portal.db.terms_of_use import TermsOfUseAcceptance
from portal.domain.requests import RequestKind
from portal.services.context import Actor, Policy, Transactions
from tests.factories.accounts import make_customer, make_deployment, make_staff
from tests.factories.acts import make_annual
from tests.factories.requests import ask_for_pilot
from tests.fakes import FakeClock
from tests.web.conftest import Office, StaffMaker, sign_in
from tests.web.visitor import Page, Served, Visitor

COMMAND = Actor("command")
NEW = "/account/requests/new/evaluation"
ANSWERS: dict[str, str | list[str] | None] = {
    "purpose": "See whether it routes our support desk.",
    "terms": "y",
    "deployment_name": "Berlin",
}
PILOT: dict[str, str | list[str] | None] = {
    **ANSWERS,
    "goals": "Half the cost.",
    "volume_tokens": "2000000",
    "contacts": "Kim, kim@newco.example",
}


def ask(visitor: Visitor, path: str = NEW, **changes: str | list[str] | None) -> Page:
    """Fill in a request, check the answers, send it."""
    answers = {**(PILOT if path.endswith("pilot") else ANSWERS), **changes}
    page = visitor.send(visitor.get(path), answers)
    assert page.title.startswith("Check your answers"), page.errors
    return visitor.send(page, button="Send the request")


def requests_made(transactions: Transactions) -> list[Request]:
    with transactions.reading(COMMAND) as context:
        return context.session.query(Request).order_by(Request.created_at).all()


def test_an_evaluation_is_granted_and_issued_within_one_step_of_the_worker(
    customer: Visitor, office: Office, transactions: Transactions
) -> None:
    office.work()
    page = ask(customer, mode="lease", features=["routing"])
    assert page.path.startswith("/account/licenses/")
    assert "being signed" in page.text
    assert page.response.headers["Refresh"] == "1"
    office.worker.run_once()
    page = customer.get(page.path)
    assert "Refresh" not in page.response.headers
    with transactions.reading(COMMAND) as context:
        row = context.session.query(License).one()
        assert row.payload is not None
        payload = LicensePayload.parse(row.payload)
        assert (payload.sku, payload.mode) == ("eval-72h", "lease")
        assert payload.expires_at - payload.issued_at == 72 * 3600
        assert payload.features == ("routing",) or list(payload.features) == ["routing"]
        accepted = context.session.query(TermsOfUseAcceptance).filter_by(occasion="request").all()
        assert len(accepted) == 1
    mails = office.mails("jo@newco.example")
    assert "license" in mails[-1].subject.lower()
    assert page.path in mails[-1].text
    assert row.envelope is not None
    assert row.envelope.decode() not in mails[-1].text


def test_answers_are_checked_before_anything_counts(
    customer: Visitor, transactions: Transactions
) -> None:
    page = customer.send(customer.get(NEW), ANSWERS)
    assert "Berlin" in page.text
    assert requests_made(transactions) == []
    again = customer.send(page, button="Change something")
    assert again.form().fields["purpose"] == [ANSWERS["purpose"]]
    assert again.form().fields["deployment_name"] == ["Berlin"]
    assert requests_made(transactions) == []


@pytest.mark.asvs("2.3.1")
@pytest.mark.parametrize("left_out", ["purpose", "terms", "mode"])
def test_the_check_cannot_be_skipped_with_answers_missing(
    customer: Visitor, transactions: Transactions, left_out: str
) -> None:
    fields = {**ANSWERS, "mode": "offline", "step": "send", "deployment": "new"}
    fields["features"] = ["routing"]
    del fields[left_out]
    answer = customer.post(NEW, **fields)
    assert answer.status_code == 400
    assert requests_made(transactions) == []


@pytest.mark.asvs("8.2.3", "2.3.2")
def test_fields_nobody_offered_change_nothing(
    customer: Visitor, office: Office, transactions: Transactions
) -> None:
    answer = customer.post(
        NEW,
        **ANSWERS,
        step="send",
        deployment="new",
        mode="offline",
        features=["routing"],
        days="3650",
        sku="enterprise-annual",
        state="approved",
        account_id="cus_00000000000000000000000000",
        max_instances="500",
    )
    assert answer.status_code == 302
    office.work()
    with transactions.reading(COMMAND) as context:
        row = context.session.query(License).one()
        assert row.sku == "eval-72h"
        assert row.document is not None
        assert row.document.limits.max_instances == 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"features": []}, "at least one feature"),
        ({"bind": "y", "fingerprint": "short"}, "8 to 128"),
        ({"bind": "y", "fingerprint": "with space in it"}, "8 to 128"),
        ({"deployment_name": "\u202e" * 80}, "at most 200 bytes"),
        ({"purpose": "x" * 2001}, "2000"),
    ],
)
def test_unfit_answers_are_told_at_their_field(
    customer: Visitor, changes: dict[str, str], words: str, transactions: Transactions
) -> None:
    at_once = not {"features", "deployment_name"} & set(changes)
    page = customer.send(customer.get(NEW), {**ANSWERS, **changes}, status=400 if at_once else 200)
    if not at_once:
        page = customer.send(page, button="Send the request", status=400)
    assert any(words in each for each in page.errors), page.errors
    assert (
        page.form()
        .fields["purpose"][0]
        .startswith(str(changes.get("purpose", ANSWERS["purpose"]))[:50])
    )
    assert requests_made(transactions) == []


def test_a_features_or_deployments_name_out_of_nowhere_is_refused(
    customer: Visitor, transactions: Transactions
) -> None:
    for more in ({"features": ["private_upstreams"]}, {"deployment": "dep_1"}, {"mode": "magic"}):
        fields = {"mode": "offline", "deployment": "new", "features": ["routing"], **more}
        answer = customer.post(NEW, **ANSWERS, step="send", **fields)
        assert answer.status_code == 400
    assert requests_made(transactions) == []


@pytest.mark.parametrize(
    ("email", "reason"),
    [("kim@gmail.com", "free mailboxes"), ("kim@acme.co.uk", None)],
)
def test_free_mail_waits_for_staff_and_a_company_does_not(
    app: Served, transactions: Transactions, office: Office, email: str, reason: str | None
) -> None:
    make_staff(transactions)
    make_customer(transactions, email, "Kim")
    visitor = Visitor(app.test_client())
    sign_in(visitor, email)
    page = ask(visitor)
    if reason is None:
        assert page.path.startswith("/account/licenses/")
        return
    assert page.path.startswith("/account/requests/")
    assert "You will have an answer by" in page.text
    assert requests_made(transactions)[0].policy["reasons"][0].endswith(f"{reason}.")
    assert any("evaluation" in mail.subject.lower() for mail in office.mails("ann@vendor.test"))
    assert office.mails(email)[-1].subject
    with transactions.reading(COMMAND) as context:
        assert context.session.query(License).count() == 0


@pytest.mark.asvs("2.3.2")
def test_one_evaluation_in_180_days_for_an_account_and_a_registrable_domain(
    app: Served, customer: Visitor, transactions: Transactions, clock: FakeClock
) -> None:
    assert ask(customer).path.startswith("/account/licenses/")
    page = ask(customer, deployment="new", deployment_name="Paris")
    assert page.path.startswith("/account/requests/")
    make_customer(transactions, "eve@mail.dev.newco.example", "NewCo development")
    eve = Visitor(app.test_client())
    sign_in(eve, "eve@mail.dev.newco.example")
    assert ask(eve).path.startswith("/account/requests/")
    reasons = requests_made(transactions)[-1].policy["reasons"]
    said = (
        f"Somebody at newco.example had an evaluation on {clock.at:%Y-%m-%d}; "
        "the interval is 180 days."
    )
    assert reasons == [said]
    clock.advance(days=180, seconds=-1)
    jo = Visitor(app.test_client())
    sign_in(jo, "jo@newco.example")
    assert ask(jo, deployment="new", deployment_name="Rome").path.startswith("/account/requests/")
    clock.advance(seconds=1)
    assert ask(jo, deployment="new", deployment_name="Oslo").path.startswith("/account/licenses/")


def test_an_evaluation_offers_no_deployment_with_a_contract_and_refuses_it(
    customer: Visitor, transactions: Transactions
) -> None:
    with transactions.reading(COMMAND) as context:
        account = context.session.query(Account).one()
    taken = make_deployment(transactions, account)
    bare = make_deployment(transactions, account, "Berlin")
    annual = make_annual(transactions, taken, make_staff(transactions).id)
    form = customer.get(NEW)
    assert taken.id not in form.html
    assert bare.id in form.html
    answer = customer.post(
        NEW, **ANSWERS, step="send", deployment=taken.id, mode="offline", features=["routing"]
    )
    assert answer.status_code == 409
    assert "enterprise-annual until" in answer.text
    assert str(ANSWERS["purpose"]) in answer.text, "what was typed stays"
    with transactions.reading(COMMAND) as context:
        assert context.session.query(License).one().id == annual.id
        assert context.session.query(Entitlement).one().ended_at is None
    assert requests_made(transactions) == []


def test_a_denied_domain_waits_for_staff(customer: Visitor, transactions: Transactions) -> None:
    policy = transactions.policy
    denied = Policy(**{**vars(policy), "denied_domains": frozenset({"newco.example"})})
    object.__setattr__(transactions, "policy", denied)
    assert ask(customer).path.startswith("/account/requests/")


def test_a_fingerprint_is_made_or_brought(
    customer: Visitor, office: Office, transactions: Transactions
) -> None:
    ask(customer, bind="y", fingerprint="")
    office.work()
    with transactions.reading(COMMAND) as context:
        row = context.session.query(License).one()
        assert row.document is not None
        (fingerprint,) = row.document.binding.fingerprints
    assert fingerprint.startswith("fp_")
    page = customer.get(f"/account/licenses/{row.id}")
    assert f"--fingerprint {fingerprint}" in page.text
    assert f'instance_fingerprint: "{fingerprint}"' in page.html.replace("&#34;", '"')


def test_a_pilot_goes_to_staff_and_back(
    customer: Visitor, staff: StaffMaker, office: Office, transactions: Transactions
) -> None:
    ann = staff("approver")
    page = ask(customer, "/account/requests/new/pilot", features=["routing", "usage_reporting"])
    request_id = requests_made(transactions)[0].id
    assert request_id in page.text
    arrived = office.mails("ann@vendor.test")[-1]
    assert f"/staff/requests/{request_id}" in arrived.text
    queue = ann.get("/staff/requests")
    assert f"/staff/requests/{request_id}" in queue.links
    seen = ann.get(f"/staff/requests/{request_id}")
    assert "Half the cost." in seen.text
    assert "kim@newco.example" in seen.text
    form = ann.get(f"/staff/requests/{request_id}/approve")
    assert form.form().fields["days"] == ["30"]
    check = ann.send(form, {"days": "14", "max_instances": "2", "note": "Two weeks, then we talk."})
    assert "30 days" in check.text
    assert "14 days" in check.text
    with transactions.reading(COMMAND) as context:
        assert context.session.query(Entitlement).count() == 0
    done = ann.send(check, {})
    assert done.path == f"/staff/requests/{request_id}"
    mail = office.mails("jo@newco.example")[-1]
    assert "Two weeks, then we talk." in mail.text
    assert "Length: requested 30 days, granted 14 days" in mail.text
    assert re.search(r"Start it by \d+ [A-Z][a-z]+ \d{4}, \d\d:\d\d UTC", mail.text)
    page = customer.get(f"/account/requests/{request_id}")
    assert "14 days" in page.text
    assert "30 days" in page.text
    assert "Two weeks, then we talk." in page.text
    with transactions.reading(COMMAND) as context:
        assert context.session.query(License).count() == 0
    page = customer.send(page, action=f"/account/requests/{request_id}/start")
    assert page.path.startswith("/account/licenses/")
    office.work()
    with transactions.reading(COMMAND) as context:
        row = context.session.query(License).one()
        assert row.expires_at is not None
        assert row.not_before_at is not None
        assert row.document is not None
        assert row.expires_at - row.not_before_at == timedelta(days=14)
        assert row.document.limits.max_instances == 2
        assert row.document.limits.tokens_per_window == 10_000_000, "the wish caps nothing"


def test_the_check_of_an_approval_leads_back_to_its_form(
    customer: Visitor, staff: StaffMaker, transactions: Transactions
) -> None:
    ann = staff("approver")
    request_id = ask_for_pilot(transactions)
    form = ann.get(f"/staff/requests/{request_id}/approve")
    check = ann.send(form, {"days": "14", "note": "Two weeks."})
    again = ann.send(check, button="Change something")
    assert again.form().fields["days"] == ["14"]
    assert again.form().fields["note"] == ["Two weeks."]
    assert requests_made(transactions)[0].state == "open"


def test_staff_see_plan_wish_and_grant_and_the_customer_the_difference(
    customer: Visitor, staff: StaffMaker, office: Office, transactions: Transactions
) -> None:
    ann = staff("approver")
    request_id = ask_for_pilot(transactions, expected_tokens=50_000_000)
    form = ann.get(f"/staff/requests/{request_id}/approve")
    row = "Volume 10,000,000 tokens in any 7 days 50,000,000 tokens in any 7 days"
    assert row in form.text
    assert form.form().fields["volume_tokens"] == ["10000000"], "the wish is not the cap"
    check = ann.send(form, {"volume_tokens": "20000000", "days": "14"})
    assert f"{row} 20,000,000 tokens in any 7 days" in check.text
    assert "Length 30 days 30 days 14 days" in check.text
    ann.send(check)
    mail = office.mails("jo@newco.example")[-1].text
    told = (
        "Volume: requested 50,000,000 tokens in any 7 days, granted 20,000,000 tokens in any 7 days"
    )
    assert told in mail
    assert "Length: requested 30 days, granted 14 days" in mail
    page = customer.get(f"/account/requests/{request_id}").text
    for words in ("50,000,000 tokens in any 7 days", "20,000,000 tokens in any 7 days", "14 days"):
        assert words in page
    with transactions.reading(COMMAND) as context:
        granted = context.session.query(Entitlement).one()
        assert granted.terms.limits.tokens_per_window == 20_000_000


@pytest.mark.parametrize("kind", ["replacement"])
def test_kinds_that_are_not_offered_yet_can_be_shown_and_decided(
    customer: Visitor, staff: StaffMaker, transactions: Transactions, kind: str
) -> None:
    ann = staff("approver")
    request_id = ask_for_pilot(transactions)
    with transactions.writing(COMMAND) as context:
        context.session.get_one(Request, request_id).kind = RequestKind(kind)
    assert kind.capitalize() in ann.get(f"/staff/requests/{request_id}").title
    check = ann.send(ann.get(f"/staff/requests/{request_id}/approve"))
    assert ann.send(check).path == f"/staff/requests/{request_id}"
    assert requests_made(transactions)[0].state == "approved"


def test_a_declined_pilot_says_why_in_mail_and_page(
    customer: Visitor, staff: StaffMaker, office: Office, transactions: Transactions
) -> None:
    ann = staff("approver")
    request_id = ask_for_pilot(transactions)
    page = ann.get(f"/staff/requests/{request_id}/decline")
    empty = ann.send(page, {"note": ""}, status=400)
    assert empty.errors
    ann.send(empty, {"note": "We do not serve this yet. Try the evaluation."})
    assert "Try the evaluation." in office.mails("jo@newco.example")[-1].text
    assert "Try the evaluation." in customer.get(f"/account/requests/{request_id}").text
    assert requests_made(transactions)[0].state == "declined"


@pytest.mark.asvs("2.3.4")
def test_the_second_decision_is_told_that_there_was_one(
    customer: Visitor, staff: StaffMaker, transactions: Transactions
) -> None:
    ann, bob = staff("approver"), staff("approver", email="bob@vendor.test")
    request_id = ask_for_pilot(transactions)
    path = f"/staff/requests/{request_id}"
    check = ann.send(ann.get(f"{path}/approve"))
    bobs = bob.get(f"{path}/decline")
    ann.send(check)
    page = bob.send(bobs, {"note": "No."}, status=409)
    assert "already been approved" in page.text
    assert requests_made(transactions)[0].state == "approved"


def test_a_withdrawn_request_cannot_be_approved(
    customer: Visitor, staff: StaffMaker, transactions: Transactions
) -> None:
    ann = staff("approver")
    request_id = ask_for_pilot(transactions)
    check = ann.send(ann.get(f"/staff/requests/{request_id}/approve"))
    page = customer.get(f"/account/requests/{request_id}")
    customer.send(page, action=f"/account/requests/{request_id}/withdraw")
    ann.send(check, status=409)


def test_notes_stay_inside_and_questions_go_out(
    customer: Visitor, staff: StaffMaker, office: Office, transactions: Transactions
) -> None:
    ann = staff("support")
    request_id = ask_for_pilot(transactions)
    path = f"/staff/requests/{request_id}"
    before = len(office.mails("jo@newco.example"))
    page = ann.send(
        ann.get(path), {"audience": "staff", "text": "Careful."}, action=f"{path}/messages"
    )
    unmarked = ann.send(
        page, {"audience": None, "text": "Which?"}, action=f"{path}/messages", status=400
    )
    assert unmarked.errors
    ann.send(page, {"audience": "customer", "text": "Which models?"}, action=f"{path}/messages")
    seen = customer.get(f"/account/requests/{request_id}")
    assert "Which models?" in seen.text
    assert "Careful." not in seen.html
    mails = office.mails("jo@newco.example")[before:]
    assert len(mails) == 1
    assert "Which models?" in mails[0].text
    customer.send(seen, {"text": "All of them."}, action=f"/account/requests/{request_id}/messages")
    assert "All of them." in ann.get(path).text
    assert "Careful." in ann.get(path).text


def test_a_staff_grant_waits_thirty_days_for_its_start(
    customer: Visitor, staff: StaffMaker, transactions: Transactions, clock: FakeClock
) -> None:
    ann = staff("approver")
    request_id = ask_for_pilot(transactions)
    ann.send(ann.send(ann.get(f"/staff/requests/{request_id}/approve")))
    page = customer.get(f"/account/requests/{request_id}")
    clock.advance(days=13)
    customer.get("/account")
    clock.advance(days=13)
    customer.send(
        customer.get("/sign-in"),
        {"email": "jo@newco.example", "password": "nobody expects this horse"},
    )
    clock.advance(days=4, seconds=1)
    page = customer.get(f"/account/requests/{request_id}")
    assert "Start now" not in page.text
    answer = customer.post(f"/account/requests/{request_id}/start")
    assert answer.status_code == 409
    with transactions.reading(COMMAND) as context:
        assert context.session.query(License).count() == 0


def test_starting_twice_issues_one_license(
    customer: Visitor, staff: StaffMaker, transactions: Transactions
) -> None:
    ann = staff("approver")
    request_id = ask_for_pilot(transactions)
    ann.send(ann.send(ann.get(f"/staff/requests/{request_id}/approve")))
    page = customer.get(f"/account/requests/{request_id}")
    first = customer.send(page, action=f"/account/requests/{request_id}/start")
    second = customer.send(page, action=f"/account/requests/{request_id}/start")
    assert first.path == second.path
    with transactions.reading(COMMAND) as context:
        assert context.session.query(License).count() == 1


def test_five_open_requests_are_enough(customer: Visitor, transactions: Transactions) -> None:
    for number in range(5):
        ask_for_pilot(transactions, deployment_name=f"Site {number}")
    page = customer.send(
        customer.get("/account/requests/new/pilot"), {**PILOT, "deployment_name": "Site 6"}
    )
    page = customer.send(page, button="Send the request", status=400)
    assert page.errors
    assert page.form().fields["goals"] == ["Half the cost."]


def test_the_deployment_a_customer_has_is_offered(app: Served, transactions: Transactions) -> None:
    account, _ = make_customer(transactions)
    deployment = make_deployment(transactions, account, "Frankfurt")
    visitor = Visitor(app.test_client())
    sign_in(visitor, "jo@newco.example")
    page = ask(visitor, deployment=deployment.id)
    assert "Frankfurt" in page.text


def test_a_contract_is_never_replaced_by_an_evaluation(
    app: Served, office: Office, transactions: Transactions
) -> None:
    account, _ = make_customer(transactions)
    taken, free = (make_deployment(transactions, account, name) for name in ("Prod", "Lab"))
    annual = make_annual(transactions, taken, make_staff(transactions, "bea@vendor.test").id)
    visitor = Visitor(app.test_client())
    sign_in(visitor, "jo@newco.example")
    page = visitor.get(NEW)
    assert free.id in page.response.text
    assert taken.id not in page.response.text
    # Whoever sends it nevertheless is told what is there.
    fields = {**ANSWERS, "mode": "offline", "features": ["routing"], "deployment": taken.id}
    answer = visitor.post(NEW, **fields, step="send")
    assert answer.status_code == 409
    assert "enterprise-annual until" in answer.text
    assert requests_made(transactions) == []
    office.work()
    with transactions.reading(COMMAND) as context:
        (only,) = context.session.query(License).filter_by(deployment_id=taken.id)
        assert (only.id, only.superseded_at) == (annual.id, None)
