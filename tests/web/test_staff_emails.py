"""The log of e-mails: what staff find there, what is never shown, and sending one again."""

import pytest

from portal.db.audit import AuditRow
from portal.db.emails import Email
from portal.db.people import Person
from portal.services.context import Actor, Transactions
from portal.services.emails import PAGE, note_withdrawn, queue_email
from tests.factories.accounts import make_customer, make_deployment
from tests.factories.licenses import issue, make_entitlement
from tests.fakes import FakeClock
from tests.web.conftest import Office, StaffMaker
from tests.web.visitor import Visitor, elements, text_of

COMMAND = Actor("command")


def email_of(transactions: Transactions, template: str) -> Email:
    """Return the newest message of a template."""
    with transactions.reading(COMMAND) as context:
        found = context.session.query(Email).filter_by(template=template)
        newest = found.order_by(Email.created_at.desc(), Email.id.desc()).first()
        assert newest is not None
        return newest


@pytest.fixture
def told(transactions: Transactions, office: Office) -> Email:
    """A message about a license that was sent to the owner of NewCo."""
    account, _ = make_customer(transactions)
    issue(transactions, make_entitlement(transactions, make_deployment(transactions, account)))
    office.work()
    return email_of(transactions, "license-issued")


def test_the_log_is_filtered_by_state_message_and_recipient(
    told: Email, staff: StaffMaker, transactions: Transactions
) -> None:
    with transactions.writing(COMMAND) as context:
        queue_email(context, "license-expired", "kim@widgets.example", {})
    sue = staff("support")

    def found(query: str) -> list[str]:
        page = sue.get(f"/staff/emails?{query}")
        return [text_of(each) for each in elements(page.root, "th") if each.get("scope") == "row"]

    assert found("template=license-issued") == ["License ready"]
    assert found("q=widgets") == ["License expired"]
    assert found("state=queued&q=widgets") == ["License expired"]
    assert found("state=sent&q=widgets") == []
    assert found("state=sent&template=license-issued&q=JO@") == ["License ready"]
    assert found("state=failed") == []
    assert found("state=nonsense&template=nonsense&q=widgets") == ["License expired"]
    assert found("q=%25") == [], "what is typed is no pattern"
    assert "/staff/emails" in sue.get("/staff").links


def test_a_long_log_has_pages_that_miss_nothing(
    staff: StaffMaker, transactions: Transactions
) -> None:
    with transactions.writing(COMMAND) as context:
        for number in range(2 * PAGE + 1):
            queue_email(context, "license-expired", f"n{number}@site.example", {})
    sue = staff("support")
    seen: list[str] = []
    path = "/staff/emails?q=site.example"
    while path:
        page = sue.get(path)
        seen += [link for link in page.links if link.startswith("/staff/emails/")]
        path = next((link for link in page.links if "after=" in link), "")
    assert len(seen) == len(set(seen)) == 2 * PAGE + 1


def test_a_message_is_shown_as_it_was_sent(told: Email, staff: StaffMaker) -> None:
    page = staff("auditor").get(f"/staff/emails/{told.id}")
    assert "License ready: eval-72h" in page.text
    assert str(told.facts["license_id"]) in page.text
    assert "Taken by the mail server" in page.text
    assert "Attempts" in page.text
    assert all(action != f"/staff/emails/{told.id}/resend" for action in actions(page.html))


def actions(html: str) -> list[str]:
    return [part.split('"')[0] for part in html.split('action="')[1:]]


@pytest.mark.parametrize("sent", [True, False])
def test_a_secret_is_neither_shown_nor_sent_again(
    sent: bool, staff: StaffMaker, transactions: Transactions, office: Office
) -> None:
    make_customer(transactions)
    link = office.link("jo@newco.example", "/reset-password/") if sent else ""
    email = email_of(transactions, "set-password")
    sue = staff("support")
    page = sue.get(f"/staff/emails/{email.id}")
    assert "/reset-password/" not in page.html
    assert not link or link not in page.html
    assert "works once" in page.text
    assert sue.post(f"/staff/emails/{email.id}/resend").status_code == 409


def test_a_link_to_decline_reminders_is_not_shown(
    told: Email, staff: StaffMaker, transactions: Transactions
) -> None:
    with transactions.writing(COMMAND) as context:
        email = queue_email(
            context,
            "license-expiring",
            told.to_address,
            dict(told.facts),
            account_id=told.account_id,
            person_id=told.person_id,
        )
    page = staff("support").get(f"/staff/emails/{email.id}")
    assert "a link for the recipient alone" in page.text
    assert "/unsubscribe/" not in page.html


def test_a_message_whose_template_has_changed_is_not_shown(
    staff: StaffMaker, transactions: Transactions
) -> None:
    with transactions.writing(COMMAND) as context:
        email = queue_email(context, "license-expired", "a@b.example", {"fewer": "facts"})
        older = queue_email(context, "of-long-ago", "a@b.example", {})
    sue = staff("support")
    assert "template has changed" in sue.get(f"/staff/emails/{email.id}").text
    assert "nobody is shown it" in sue.get(f"/staff/emails/{older.id}").text


def test_what_was_sent_is_sent_again_once_to_the_address_of_today(
    told: Email, staff: StaffMaker, transactions: Transactions, office: Office
) -> None:
    with transactions.writing(COMMAND) as context:
        context.session.get_one(Person, told.person_id).email = "jo@new-name.example"
    sue = staff("support")
    page = sue.send(sue.get(f"/staff/emails/{told.id}"), action=f"/staff/emails/{told.id}/resend")
    assert page.path != f"/staff/emails/{told.id}"
    (mail,) = office.mails("jo@new-name.example")
    assert mail.subject.startswith("License ready")
    assert sue.post(f"/staff/emails/{told.id}/resend").status_code == 409
    with transactions.reading(COMMAND) as context:
        row = context.session.query(AuditRow).filter_by(action="email.resent").one()
        assert (row.subject_id, row.actor_kind, row.account_id) == (
            told.id,
            "staff",
            told.account_id,
        )
        assert "@" not in str(row.detail)


def test_what_never_arrived_is_tried_again_and_mends_the_health(
    told: Email,
    staff: StaffMaker,
    transactions: Transactions,
    office: Office,
    clock: FakeClock,
) -> None:
    office.mailer.broken = True
    with transactions.writing(COMMAND) as context:
        facts = {**told.facts, "note": ""}
        email = queue_email(context, "license-revoked", "a@b.example", facts)
    for _ in range(30):
        office.work()
        clock.advance(hours=2)
    sue = staff("support")
    page = sue.get(f"/staff/emails/{email.id}")
    assert "The worker gave up" in page.text
    assert "the mail server does not answer" in page.text
    office.mailer.broken = False
    sue.send(page, action=f"/staff/emails/{email.id}/resend")
    with transactions.reading(COMMAND) as context:
        assert context.session.get_one(Email, email.id).state == "queued"
    office.work()
    with transactions.reading(COMMAND) as context:
        assert context.session.get_one(Email, email.id).state == "sent"
        assert context.session.query(Email).filter_by(template="license-revoked").count() == 1


def test_nothing_goes_to_who_left_and_nothing_that_was_withdrawn(
    told: Email, staff: StaffMaker, transactions: Transactions
) -> None:
    sue = staff("support")
    with transactions.writing(COMMAND) as context:
        context.session.get_one(Person, told.person_id).disabled_at = context.at
        other = queue_email(context, "license-expired", "a@b.example", {})
        note_withdrawn(context, other.id, "The license was replaced meanwhile.")
    for email_id, why in ((told.id, "can no longer sign in"), (other.id, "no longer holds")):
        assert why in sue.get(f"/staff/emails/{email_id}").text
        assert sue.post(f"/staff/emails/{email_id}/resend").status_code == 409


@pytest.mark.parametrize("role", ["auditor", "keys", "admin"])
def test_who_may_only_read_cannot_send(told: Email, staff: StaffMaker, role: str) -> None:
    assert staff(role).post(f"/staff/emails/{told.id}/resend").status_code == 403


def test_the_link_in_a_reminder_stops_them_without_signing_in(
    told: Email, visitor: Visitor, transactions: Transactions, office: Office
) -> None:
    with transactions.writing(COMMAND) as context:
        queue_email(
            context,
            "license-expiring",
            told.to_address,
            dict(told.facts),
            account_id=told.account_id,
            person_id=told.person_id,
        )
    link = office.link(told.to_address, "/unsubscribe/")
    mail = office.mails(told.to_address)[-1]
    assert mail.headers["List-Unsubscribe"].endswith(f"{link}>")
    page = visitor.get(link)
    assert "NewCo" in page.text
    assert "Stop reminders" in visitor.get(link).text, "opening it changed nothing"
    page = visitor.send(page, action=link)
    assert "Reminders are off" in page.text
    page = visitor.send(page, action=f"{link}/resume")
    assert "You get reminders again" in page.text
    assert "incomplete" in visitor.get(f"{link[:-2]}", 404).text
