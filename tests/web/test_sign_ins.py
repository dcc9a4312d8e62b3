"""Signing in: sessions that live on the server, second factors, and limits."""

import re

import pytest
from sqlalchemy import delete

from portal.db.people import Person, StaffRole, person_by_email
from portal.db.second_factors import SecondFactor
from portal.services.context import Actor, Transactions
from tests.factories.accounts import PASSWORD, make_customer, make_staff
from tests.factories.requests import ask_for_pilot
from tests.fakes import FakeClock
from tests.web.conftest import Office, StaffMaker, current_code, set_up_factor, sign_in
from tests.web.visitor import Served, Visitor

COMMAND = Actor("command")
OWNER = "jo@newco.example"


def cookie(visitor: Visitor) -> str:
    """Return the session cookie a browser holds."""
    found = visitor.client.get_cookie("session")
    assert found is not None
    return str(found.value)


def with_cookie(app: Served, value: str) -> Visitor:
    """Make another browser that holds a copy of a cookie."""
    client = app.test_client()
    client.set_cookie("session", value)
    return Visitor(client)


def inside(visitor: Visitor) -> bool:
    """Say whether a browser gets into the account."""
    return visitor.get("/account").path == "/account"


def test_sign_in_leads_where_one_wanted_to_go(visitor: Visitor, transactions: Transactions) -> None:
    make_customer(transactions)
    page = visitor.get("/account/requests/new/pilot?x=1")
    assert page.path == "/sign-in?next=/account/requests/new/pilot?x%3D1"
    page = visitor.send(page, {"email": OWNER, "password": PASSWORD})
    assert page.path == "/account/requests/new/pilot?x=1"


@pytest.mark.asvs("3.7.2")
@pytest.mark.parametrize(
    "target",
    [
        "https://evil.example/",
        "//evil.example/",
        "/\\evil.example",
        "/%09/evil.example",
        "\thttps://evil.example",
        "javascript:alert(1)",
        "/\r\nSet-Cookie: a=b",
        "",
    ],
)
def test_next_stays_on_the_site(visitor: Visitor, transactions: Transactions, target: str) -> None:
    make_customer(transactions)
    page = visitor.client.get("/sign-in", query_string={"next": target})
    token = re.search(r'name="csrf_token" value="([^"]+)"', page.text)
    assert token is not None
    answer = visitor.client.post(
        "/sign-in",
        query_string={"next": target},
        data={"csrf_token": token.group(1), "email": OWNER, "password": PASSWORD},
    )
    assert answer.status_code == 302
    assert answer.headers["Location"].startswith("/")
    assert not answer.headers["Location"].startswith(("//", "/\\"))


@pytest.mark.asvs("7.2.4", "7.4.1")
def test_the_token_rotates_and_a_copied_cookie_is_dead_after_sign_out(
    app: Served, visitor: Visitor, transactions: Transactions
) -> None:
    make_customer(transactions)
    visitor.get("/sign-in")
    before = cookie(visitor)
    page = sign_in(visitor, OWNER)
    signed_in = cookie(visitor)
    assert signed_in != before
    copy = with_cookie(app, signed_in)
    assert inside(copy)
    visitor.send(page, action="/sign-out")
    assert not inside(visitor)
    assert not inside(copy)
    assert not inside(with_cookie(app, signed_in))


@pytest.mark.asvs("7.4.2", "7.4.3")
def test_a_new_password_ends_the_other_sign_ins_at_once(
    app: Served, customer: Visitor, transactions: Transactions, office: Office
) -> None:
    other = Visitor(app.test_client())
    sign_in(other, OWNER)
    page = customer.get("/account/security/password")
    refused = customer.send(
        page, {"password": "wrong", "new_password": "another horse in the barn"}, status=400
    )
    assert refused.errors == ["The current password is wrong."]
    customer.send(page, {"password": PASSWORD, "new_password": "another horse in the barn"})
    assert inside(customer)
    assert not inside(other)
    assert "password" in office.mails(OWNER)[-1].subject.lower()
    assert "Unknown browser" not in customer.get("/account/security").text


@pytest.mark.asvs("7.3.1")
def test_an_idle_staff_session_ends(staff: StaffMaker, clock: FakeClock) -> None:
    ann = staff("approver")
    clock.advance(hours=2, seconds=1)
    page = ann.get("/staff/requests")
    assert page.path == "/sign-in?next=/staff/requests"
    assert "session has ended" in page.html


@pytest.mark.asvs("7.5.2")
def test_people_see_and_end_their_sign_ins(
    app: Served, customer: Visitor, transactions: Transactions
) -> None:
    other = Visitor(app.test_client())
    other.client.environ_base["HTTP_USER_AGENT"] = "A browser far away"
    sign_in(other, OWNER)
    page = customer.get("/account/security")
    assert "A browser far away" in page.text
    ends = [form for form in page.forms() if form.action.endswith("/end")]
    assert len(ends) == 1, "one's own session ends by signing out"
    customer.send(page, action=ends[0].action)
    assert not inside(other)
    assert inside(customer)


@pytest.mark.asvs("6.3.3", "6.5.1")
def test_staff_must_set_up_a_second_factor_first(
    app: Served, transactions: Transactions, office: Office, clock: FakeClock
) -> None:
    make_staff(transactions)
    visitor = Visitor(app.test_client())
    page = sign_in(visitor, "ann@vendor.test")
    assert page.path.startswith("/sign-in/set-up-second-factor")
    for path in ("/staff", "/staff/requests", "/staff/audit", "/account/security"):
        assert visitor.get(path).path.startswith("/sign-in/set-up-second-factor")
    wrong = visitor.send(page, {"code": "000000"}, status=400)
    assert wrong.errors
    before = cookie(visitor)
    code = current_code(transactions, "ann@vendor.test")
    codes = visitor.send(wrong, {"code": code})
    assert cookie(visitor) != before
    recovery = re.findall(r"[0-9A-Z]{4}(?:-[0-9A-Z]{4}){3}", codes.html)
    assert len(set(recovery)) == 10
    assert visitor.get("/staff").path == "/staff"
    assert any("second factor" in mail.subject for mail in office.mails("ann@vendor.test"))
    # The step that set it up is used; the next sign-in needs another.
    again = Visitor(app.test_client())
    asked = sign_in(again, "ann@vendor.test")
    asked = again.send(asked, {"code": code}, status=400)
    clock.advance(seconds=30)
    now = current_code(transactions, "ann@vendor.test")
    assert again.send(asked, {"code": now}).path == "/staff"
    third = Visitor(app.test_client())
    asked = sign_in(third, "ann@vendor.test")
    asked = third.send(asked, {"code": now}, status=400)
    assert third.send(asked, {"code": recovery[0].lower()}).path == "/staff"
    fourth = Visitor(app.test_client())
    asked = sign_in(fourth, "ann@vendor.test")
    fourth.send(asked, {"code": recovery[0]}, status=400)
    assert any("recovery" in mail.subject.lower() for mail in office.mails("ann@vendor.test"))


@pytest.mark.asvs("6.6.3", "6.3.1")
def test_codes_and_passwords_cannot_be_guessed_through(
    app: Served, transactions: Transactions, clock: FakeClock
) -> None:
    person = make_staff(transactions)
    set_up_factor(transactions, person.id)
    visitor = Visitor(app.test_client())
    page = sign_in(visitor, person.email)
    for _ in range(8):
        page = visitor.send(page, {"code": "000000"}, status=400)
    good = {"code": current_code(transactions, person.email)}
    answer = visitor.client.post(page.path, data={**page.form().fields, **good})
    assert answer.status_code == 429
    assert 0 < int(answer.headers["Retry-After"]) <= 901
    clock.advance(minutes=16)
    page = visitor.get("/sign-in/second-factor")
    assert visitor.send(page, {"code": current_code(transactions, person.email)}).status == 200

    guesser = Visitor(app.test_client())
    page = guesser.get("/sign-in")
    guess = {**page.form().fields, "email": person.email, "password": "wrong"}
    statuses = [guesser.client.post("/sign-in", data=guess).status_code for _ in range(12)]
    assert statuses[:9] == [400] * 9
    assert statuses[-1] == 429


@pytest.mark.asvs("8.3.2")
def test_a_changed_role_counts_from_the_next_request(
    staff: StaffMaker, transactions: Transactions
) -> None:
    ann = staff("approver")
    ann.get("/staff")
    with transactions.writing(COMMAND) as context:
        person = person_by_email(context.session, "ann@vendor.test")
        assert person is not None
        context.session.execute(delete(StaffRole).where(StaffRole.person_id == person.id))
    ann.get("/staff", 403)


@pytest.mark.asvs("7.5.1")
def test_removing_a_factor_needs_the_password_again(
    app: Served, transactions: Transactions, clock: FakeClock, office: Office
) -> None:
    _, owner = make_customer(transactions)
    set_up_factor(transactions, owner.id)
    visitor = Visitor(app.test_client())
    page = sign_in(visitor, owner.email)
    visitor.send(page, {"code": current_code(transactions, owner.email)})
    clock.advance(minutes=16)
    page = visitor.get("/account/security")
    page = visitor.send(page, action="/account/security/second-factor/remove")
    assert page.path.startswith("/sign-in/again")
    page = visitor.send(page, {"password": PASSWORD})
    assert page.path == "/account/security"
    with transactions.reading(COMMAND) as context:
        assert context.session.get(SecondFactor, owner.id) is not None, "a form acted by itself"
    page = visitor.get("/account/security")
    visitor.send(page, action="/account/security/second-factor/remove")
    with transactions.reading(COMMAND) as context:
        assert context.session.get(SecondFactor, owner.id) is None
    assert "removed" in office.mails(owner.email)[-1].subject


def test_a_weak_hash_is_made_anew_at_sign_in(visitor: Visitor, transactions: Transactions) -> None:
    _, owner = make_customer(transactions)

    class Stronger:
        """Passwords whose parameters were raised since."""

        def hash(self, password: str) -> str:
            return f"fake:{password}"

        def verify(self, encoded: str, password: str) -> bool:
            return encoded in (f"old:{password}", f"fake:{password}")

        def verify_nothing(self, password: str) -> None:
            return None

        def needs_rehash(self, encoded: str) -> bool:
            return encoded.startswith("old:")

    object.__setattr__(transactions.ports, "passwords", Stronger())
    with transactions.writing(COMMAND) as context:
        context.session.get_one(Person, owner.id).password_hash = f"old:{PASSWORD}"
    assert sign_in(visitor, OWNER).path == "/account"
    with transactions.reading(COMMAND) as context:
        assert context.session.get_one(Person, owner.id).password_hash == f"fake:{PASSWORD}"


def test_an_ended_session_keeps_what_was_typed(customer: Visitor, clock: FakeClock) -> None:
    page = customer.get("/account/deployments/new")
    clock.advance(days=14, seconds=1)
    page = customer.send(page, {"name": "Frankfurt"})
    assert page.path.startswith("/sign-in?next=")
    assert "has been kept" in page.html
    page = customer.send(page, {"email": OWNER, "password": PASSWORD})
    assert page.form("/account/deployments/new").fields["name"] == ["Frankfurt"]


def test_a_message_typed_into_a_page_is_kept_too(
    staff: StaffMaker, customer: Visitor, transactions: Transactions, clock: FakeClock
) -> None:
    request_id = ask_for_pilot(transactions)
    ann = staff("approver")
    page = ann.get(f"/staff/requests/{request_id}")
    clock.advance(hours=3)
    page = ann.send(
        page,
        {"audience": "staff", "text": "Called them: all is well."},
        action=f"/staff/requests/{request_id}/messages",
    )
    page = ann.send(page, {"email": "ann@vendor.test", "password": PASSWORD})
    page = ann.send(page, {"code": current_code(transactions, "ann@vendor.test")})
    form = page.form(f"/staff/requests/{request_id}/messages")
    assert form.fields["text"] == ["Called them: all is well."]
    assert form.fields["audience"] == ["staff"]


@pytest.mark.asvs("3.5.1")
def test_a_stale_token_loses_no_text(customer: Visitor) -> None:
    page = customer.get("/account/deployments/new")
    answer = customer.client.post(
        "/account/deployments/new", data={"csrf_token": "stale", "name": "Frankfurt"}
    )
    assert answer.status_code == 400
    assert "Frankfurt" in answer.text
    assert page.status == 200
    retry = re.search(r'name="csrf_token" value="([^"]+)"', answer.text)
    assert retry is not None
    again = customer.client.post(
        "/account/deployments/new", data={"csrf_token": retry.group(1), "name": "Frankfurt"}
    )
    assert again.status_code == 302
