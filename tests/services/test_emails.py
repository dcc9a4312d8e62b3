"""Mail: whom it goes to, and its secret, which is opened to be sent and then erased."""

from portal.db.emails import Email
from portal.db.jobs import Job
from portal.db.people import Person
from portal.services.context import Transactions
from portal.services.emails import (
    note_sent,
    note_undelivered,
    open_letter,
    queue_email,
    tell_members,
    tell_staff,
)
from tests.factories.accounts import COMMAND, add_member, make_customer, make_staff


def test_a_letter_carries_its_secret_until_it_was_sent(transactions: Transactions) -> None:
    with transactions.writing(COMMAND) as context:
        email = queue_email(context, "t", "a@b.example", {"name": "A"}, secret="s3cret")
    with transactions.writing(COMMAND) as context:
        assert b"s3cret" not in (email.sealed_secret or b"")
        note_undelivered(context, email.id, "no " * 500)
    with transactions.writing(COMMAND) as context:
        row = context.session.get_one(Email, email.id)
        assert (row.state, len(row.last_error or "")) == ("failed", 500)
        letter = open_letter(context, email.id)
        assert letter is not None
        assert (letter.to_address, letter.template) == ("a@b.example", "t")
        sent_at = context.at.isoformat()
        assert letter.facts == {"name": "A", "secret": "s3cret", "sent_at": sent_at}
        assert letter.headers == {}
        assert "s3cret" not in repr(letter)
        note_sent(context, email.id)
    with transactions.reading(COMMAND) as context:
        row = context.session.get_one(Email, email.id)
        assert (row.state, row.sent_at) == ("sent", context.at)
        assert (row.sealed_secret, row.last_error, row.attempts) == (None, None, 2)
        assert open_letter(context, email.id) is None
        job = context.session.query(Job).one()
        assert (job.kind, job.payload) == ("send-email", {"email_id": email.id})


def test_members_and_staff_are_told_by_role_while_they_are_there(
    transactions: Transactions,
) -> None:
    account, owner = make_customer(transactions)
    other, _ = make_customer(transactions, "kim@widgets.example", "Widgets")
    operator = add_member(transactions, account.id, "operator", "op@newco.example")
    add_member(transactions, account.id, "viewer", "v@newco.example")
    add_member(transactions, other.id, "operator", "op@widgets.example")
    make_staff(transactions, "ann@vendor.test", "approver", "admin")
    make_staff(transactions, "bob@vendor.test", "support")
    gone = make_staff(transactions, "cat@vendor.test", "approver")
    with transactions.writing(COMMAND) as context:
        for person in (gone, operator):
            context.session.get_one(Person, person.id).disabled_at = context.at
    with transactions.writing(COMMAND) as context:
        tell_members(context, account.id, "m", {}, "owner", "operator")
        tell_staff(context, "s", {}, "approver", "admin")
    with transactions.reading(COMMAND) as context:
        sent = {each.template: each.to_address for each in context.session.query(Email)}
        rows = context.session.query(Email).filter(Email.template.in_(["m", "s"])).count()
    assert (sent["m"], sent["s"], rows) == (owner.email, "ann@vendor.test", 2)
