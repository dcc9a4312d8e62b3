"""Joining: sign-up, confirmation, forgotten passwords. Strangers learn nothing."""

import re

import pytest

from portal.db.accounts import Account
from portal.db.people import Person, person_by_email
from portal.db.terms_of_use import TermsOfUseAcceptance
from portal.gateways.mail import make_message
from portal.services.context import Actor, Transactions
from tests.factories.accounts import PASSWORD, make_customer
from tests.fakes import FakeClock, FakePasswords
from tests.web.conftest import Office, set_up_factor, sign_in
from tests.web.visitor import Page, Visitor

COMMAND = Actor("command")
SIGN_UP = {
    "email": "kim@widgets.example",
    "name": "Kim Lee",
    "company": "Widgets",
    "password": PASSWORD,
    "terms": "y",
}


def sign_up(visitor: Visitor, **changes: str) -> Page:
    return visitor.send(visitor.get("/sign-up"), {**SIGN_UP, **changes})


def code_in(text: str) -> str:
    found = re.search(r"\b(\d{3}\s?\d{3}|\d{6,8})\b", text)
    assert found is not None, text
    return found.group(1)


def test_sign_up_confirm_by_code_sign_in(
    visitor: Visitor, office: Office, transactions: Transactions
) -> None:
    page = sign_up(visitor)
    assert page.path == "/confirm-email"
    assert "kim@widgets.example" in page.text
    (mail,) = office.mails("kim@widgets.example")
    page = visitor.send(page, {"code": code_in(mail.text)})
    assert page.path == "/sign-in"
    page = sign_in(visitor, "kim@widgets.example")
    assert page.path == "/account"
    assert "evaluation" in page.text
    with transactions.reading(COMMAND) as context:
        person = person_by_email(context.session, "kim@widgets.example")
        assert person is not None
        accepted = context.session.query(TermsOfUseAcceptance).filter_by(person_id=person.id).one()
        assert (accepted.occasion, accepted.version) == (
            "sign-up",
            context.policy.terms_of_use_version,
        )


def test_a_link_confirms_by_its_button_and_once(
    visitor: Visitor, office: Office, transactions: Transactions
) -> None:
    sign_up(visitor)
    link = office.link("kim@widgets.example", "/confirm-email")
    for _ in range(3):
        page = visitor.get(link)
    with transactions.reading(COMMAND) as context:
        person = person_by_email(context.session, "kim@widgets.example")
        assert person is not None
        assert person.email_confirmed_at is None, "a scanner that opens links confirmed"
    page = visitor.send(page)
    assert page.path == "/sign-in"
    assert sign_in(visitor, "kim@widgets.example").path == "/account"
    again = visitor.send(visitor.get(link), {})
    assert "used or has expired" in again.html


def test_an_unconfirmed_address_has_no_account_and_cannot_sign_in(
    visitor: Visitor, office: Office, transactions: Transactions
) -> None:
    sign_up(visitor)
    page = sign_in(visitor, "kim@widgets.example")
    assert page.path == "/confirm-email"
    assert visitor.get("/account").path.startswith("/sign-in")
    with transactions.reading(COMMAND) as context:
        assert context.session.query(Account).count() == 0
    assert len(office.mails("kim@widgets.example")) == 2


@pytest.mark.asvs("6.3.8")
def test_a_known_address_gets_the_same_answer_and_another_mail(
    app: object, visitor: Visitor, office: Office, transactions: Transactions
) -> None:
    make_customer(transactions, "kim@widgets.example")
    before = len(office.mails("kim@widgets.example"))
    known = sign_up(visitor)
    other = visitor.somebody_else()
    unknown = sign_up(other, email="lee@widgets.example")
    same = known.html.replace("kim@", "lee@")

    def plain(html: str) -> str:
        return re.sub(r'value="[^"]{60,}"|[0-9a-f]{24}', "", html)

    assert plain(same) == plain(unknown.html)
    assert known.path == unknown.path
    mails = office.mails("kim@widgets.example")[before:]
    assert len(mails) == 1
    assert "/confirm-email" not in mails[0].text
    with transactions.reading(COMMAND) as context:
        person = person_by_email(context.session, "kim@widgets.example")
        assert person is not None
        assert person.name == "Jo Owner", "a stranger changed a name"


@pytest.mark.asvs("6.3.8")
def test_sign_in_and_reset_answer_alike_and_cost_alike(
    visitor: Visitor, transactions: Transactions, office: Office
) -> None:
    make_customer(transactions)
    passwords = transactions.ports.passwords
    assert isinstance(passwords, FakePasswords)
    answers = []
    for email in ("jo@newco.example", "nobody@newco.example"):
        spent = passwords.spent
        page = visitor.send(
            visitor.get("/sign-in"), {"email": email, "password": "not my password"}, status=400
        )
        assert passwords.spent - spent == 1
        answers.append((page.errors, page.title))
    assert answers[0] == answers[1]
    resets = [
        visitor.send(visitor.get("/forgot-password"), {"email": email}).text.replace(email, "")
        for email in ("jo@newco.example", "nobody@newco.example")
    ]
    assert resets[0] == resets[1]
    assert office.mails("nobody@newco.example") == []


def test_mistakes_keep_what_was_typed_and_say_how_to_mend_it(visitor: Visitor) -> None:
    page = visitor.send(
        visitor.get("/sign-up"), {**SIGN_UP, "email": "kim", "terms": None}, status=400
    )
    assert len(page.errors) == 1
    assert page.form().fields["name"] == ["Kim Lee"]
    assert page.form().fields["company"] == ["Widgets"]
    assert PASSWORD not in page.html
    page = visitor.send(page, {"password": PASSWORD, "terms": "y"}, status=400)
    assert len(page.errors) == 1
    assert "@" in page.errors[0]


@pytest.mark.parametrize("password", ["kim lee widgets", "x" * 201])
def test_an_unfit_password_is_said_to_be(visitor: Visitor, password: str) -> None:
    page = visitor.send(visitor.get("/sign-up"), {**SIGN_UP, "password": password}, status=400)
    assert len(page.errors) == 1
    assert password not in page.html


def test_a_forgotten_password_is_set_anew_and_ends_every_sign_in(
    visitor: Visitor, customer: Visitor, office: Office, clock: FakeClock
) -> None:
    visitor.send(visitor.get("/forgot-password"), {"email": "jo@newco.example"})
    link = office.link("jo@newco.example", "/reset-password/")
    page = visitor.get(link)
    page = visitor.send(page, {"password": "another horse in the barn"})
    assert page.path == "/sign-in"
    assert customer.get("/account").path.startswith("/sign-in")
    failed = visitor.send(
        visitor.get("/sign-in"), {"email": "jo@newco.example", "password": PASSWORD}, status=400
    )
    assert failed.errors
    assert sign_in(visitor, "jo@newco.example", "another horse in the barn").path == "/account"
    visitor.get(link, 404)
    told = office.mails("jo@newco.example")[-1]
    assert "password" in told.subject.lower()


@pytest.mark.asvs("6.4.3")
def test_a_reset_does_not_skip_the_second_factor(
    visitor: Visitor, office: Office, transactions: Transactions
) -> None:
    _, owner = make_customer(transactions)
    set_up_factor(transactions, owner.id)
    visitor.send(visitor.get("/forgot-password"), {"email": owner.email})
    visitor.send(
        visitor.get(office.link(owner.email, "/reset-password/")),
        {"password": "another horse in the barn"},
    )
    page = sign_in(visitor, owner.email, "another horse in the barn")
    assert page.path.startswith("/sign-in/second-factor")
    assert visitor.get("/account").path.startswith("/sign-in/second-factor")


@pytest.mark.asvs("1.3.11", "1.2.1")
def test_markup_and_line_breaks_in_names_stay_text(
    visitor: Visitor, office: Office, transactions: Transactions
) -> None:
    evil = '<b onclick="x">{{7*7}}</b>'
    page = sign_up(visitor, name=evil, company=f"{evil} Ltd")
    (mail,) = office.mails(SIGN_UP["email"])
    assert "<b onclick" not in mail.html
    assert "\n" not in mail.subject
    visitor.send(page, {"code": code_in(mail.text)})
    page = sign_in(visitor, SIGN_UP["email"])
    assert "<b onclick" not in page.html
    assert "{{7*7}}" in page.html
    broken = visitor.somebody_else()
    broken.send(
        broken.get("/sign-up"),
        {**SIGN_UP, "email": "x@widgets.example", "name": "Kim\r\nBcc: all@widgets.example"},
    )
    (mail,) = office.mails("x@widgets.example")
    message = make_message(mail, "licenses@localhost", FakeClock())
    assert message["Bcc"] is None
    assert "\n" not in mail.subject


@pytest.mark.asvs("2.4.1", "6.3.1")
def test_sign_ups_and_resets_are_limited(visitor: Visitor, transactions: Transactions) -> None:
    for _ in range(5):
        sign_up(visitor)
    page = visitor.get("/sign-up")
    answer = visitor.client.post(
        "/sign-up", data={**SIGN_UP, "csrf_token": page.form().fields["csrf_token"]}
    )
    assert answer.status_code == 429
    assert int(answer.headers["Retry-After"]) > 0
    with transactions.reading(COMMAND) as context:
        assert context.session.query(Person).count() == 1


@pytest.mark.asvs("4.1.3")
def test_a_poisoned_host_makes_no_link(
    visitor: Visitor, transactions: Transactions, office: Office
) -> None:
    make_customer(transactions)
    answer = visitor.client.post(
        "/forgot-password", data={"email": "jo@newco.example"}, headers={"Host": "evil.example"}
    )
    assert answer.status_code == 400
    page = visitor.get("/forgot-password")
    visitor.client.post(
        "/forgot-password",
        data={"email": "jo@newco.example", "csrf_token": page.form().fields["csrf_token"]},
        headers={"X-Forwarded-Host": "evil.example", "Forwarded": "host=evil.example"},
    )
    assert "evil.example" not in office.mails("jo@newco.example")[-1].text
