"""Accounts: who owns them, who belongs to them, and finding them."""

import pytest

from portal.db.emails import Email
from portal.db.people import Person
from portal.domain.errors import Conflict, Invalid, NotFound
from portal.services.accounts import create_account, find_account, members_of, search_accounts
from portal.services.context import Transactions
from tests.factories.accounts import COMMAND, add_member, make_customer, make_staff


def test_a_new_owner_is_mailed_a_link_and_a_known_one_is_not(transactions: Transactions) -> None:
    for name in ("NewCo", "NewCo East"):
        with transactions.writing(COMMAND) as context:
            create_account(context, name=name, owner_email="Jo@newco.example")
    with transactions.reading(COMMAND) as context:
        assert context.session.query(Person).one().name == "jo"
        assert [each.template for each in context.session.query(Email)] == ["set-password"]


def test_staff_own_no_account(transactions: Transactions) -> None:
    staff = make_staff(transactions)
    with pytest.raises(Conflict, match="Staff cannot"), transactions.writing(COMMAND) as context:
        create_account(context, name="NewCo", owner_email=staff.email)


@pytest.mark.parametrize(("name", "email"), [(" ", "jo@newco.example"), ("NewCo", "jo")])
def test_an_unfit_name_or_address_makes_nothing(
    transactions: Transactions, name: str, email: str
) -> None:
    with pytest.raises(Invalid), transactions.writing(COMMAND) as context:
        create_account(context, name=name, owner_email=email)
    with transactions.reading(COMMAND) as context:
        assert search_accounts(context, "") == []
        assert context.session.query(Person).count() == 0


def test_members_are_listed_by_name_without_those_who_left(transactions: Transactions) -> None:
    account, _ = make_customer(transactions)
    add_member(transactions, account.id, "viewer", "a@newco.example")
    gone = add_member(transactions, account.id, "billing", "b@newco.example")
    with transactions.writing(COMMAND) as context:
        for member, person in members_of(context, account.id):
            if person.id == gone.id:
                member.removed_at = context.at
    with transactions.reading(COMMAND) as context:
        listed = members_of(context, account.id)
    assert [(person.name, member.role) for member, person in listed] == [
        ("Jo Owner", "owner"),
        ("Viewer", "viewer"),
    ]


def test_accounts_are_found_by_id_name_and_domain_as_plain_text(transactions: Transactions) -> None:
    first, _ = make_customer(transactions)
    second, _ = make_customer(transactions, "kim@100%.example".replace("%", "pc"), "100% Ltd")
    with transactions.reading(COMMAND) as context:
        for words, found in (
            (first.id, [first.id]),
            ("newCO", [first.id]),
            ("100pc.example", [second.id]),
            ("%", [second.id]),
            ("nobody", []),
        ):
            assert [each.id for each in search_accounts(context, words)] == found, words
        assert find_account(context, second.id).name == "100% Ltd"
        with pytest.raises(NotFound):
            find_account(context, "cus_0")
