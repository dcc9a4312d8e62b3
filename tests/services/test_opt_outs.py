"""Declining reminders: the link is worth what it was made for, and nothing else."""

import pytest

from portal.db.audit import AuditRow
from portal.domain.errors import NotFound
from portal.services.context import Transactions
from portal.services.emails import open_letter, queue_email
from portal.services.opt_outs import opt_out_of, switch_reminders, unsubscribe_link
from tests.factories.accounts import COMMAND, make_customer


def token_of(transactions: Transactions, person_id: str, account_id: str) -> str:
    with transactions.reading(COMMAND) as context:
        return unsubscribe_link(context, person_id, account_id).rpartition("/")[2]


def test_a_link_switches_off_and_on_and_each_change_is_recorded_once(
    transactions: Transactions,
) -> None:
    account, owner = make_customer(transactions)
    token = token_of(transactions, owner.id, account.id)
    for off in (True, True, False):
        with transactions.writing(COMMAND) as context:
            assert switch_reminders(context, token, off=off).is_off is off
        with transactions.reading(COMMAND) as context:
            assert opt_out_of(context, token).is_off is off
    with transactions.reading(COMMAND) as context:
        acts = [
            (each.action, each.subject_id, each.account_id)
            for each in context.session.query(AuditRow).order_by(AuditRow.id)
            if each.action.startswith("person.reminders")
        ]
    assert acts == [
        ("person.reminders-stopped", owner.id, account.id),
        ("person.reminders-resumed", owner.id, account.id),
    ]


def test_a_link_that_was_not_made_here_opens_nothing(transactions: Transactions) -> None:
    account, owner = make_customer(transactions)
    other, _ = make_customer(transactions, "kim@widgets.example", "Widgets")
    token = token_of(transactions, owner.id, account.id)
    changed = ("A" if token[40] != "A" else "B").join((token[:40], token[41:]))
    with transactions.reading(COMMAND) as context:
        # Another secret of the same key is no such link, nor is one for an account one is not in.
        secret = context.ports.secrets.seal(f"{owner.id} {account.id}".encode(), owner.id).hex()
        elsewhere = unsubscribe_link(context, owner.id, other.id).rpartition("/")[2]
        for bad in (changed, token[:-3], secret, elsewhere, "", "é", "=" * 50, "A" * 10_000):
            with pytest.raises(NotFound):
                opt_out_of(context, bad)


def test_reminders_alone_carry_the_link_and_it_is_not_stored(transactions: Transactions) -> None:
    account, owner = make_customer(transactions)
    with transactions.writing(COMMAND) as context:
        made = {
            template: queue_email(
                context, template, owner.email, {}, account_id=account.id, person_id=owner.id
            )
            for template in ("license-expiring", "license-expired")
        }
    with transactions.reading(COMMAND) as context:
        reminder = open_letter(context, made["license-expiring"].id)
        news = open_letter(context, made["license-expired"].id)
        assert reminder is not None
        assert news is not None
        link = str(reminder.facts["unsubscribe_url"])
        assert reminder.headers == {"List-Unsubscribe": f"<{link}>"}
        assert opt_out_of(context, link.rpartition("/")[2]).account_name == "NewCo"
        assert news.headers == {}
        assert "unsubscribe_url" not in news.facts
    assert "unsubscribe" not in str(made["license-expiring"].facts)
