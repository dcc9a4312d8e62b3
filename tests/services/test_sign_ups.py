"""Joining: what is stored, what is mailed, and what a stranger cannot change."""

import pytest

from portal.db.accounts import Account, Member
from portal.db.emails import Email
from portal.db.people import Person, person_by_email
from portal.db.terms_of_use import TermsOfUseAcceptance
from portal.domain.errors import Conflict, Invalid
from portal.services.context import Transactions
from portal.services.sign_ins import begin, open_sign_ins
from portal.services.sign_ups import (
    change_password,
    confirm_by_code,
    confirm_by_token,
    email_of_reset,
    request_reset,
    send_confirmation_again,
    set_password_by_token,
    sign_up,
)
from tests.factories.accounts import COMMAND, PASSWORD, make_customer, make_staff
from tests.factories.emails import mailed_token

EMAIL = "kim@widgets.example"


def join(transactions: Transactions, email: str = EMAIL, name: str = "Kim Lee") -> None:
    with transactions.writing(COMMAND) as context:
        sign_up(context, email=email, name=name, company="Widgets", password_hash=f"h:{name}")


def mailed(transactions: Transactions, address: str) -> list[str]:
    with transactions.reading(COMMAND) as context:
        rows = context.session.query(Email).filter_by(to_address=address)
        return sorted(each.template for each in rows)


def test_a_confirmed_address_opens_the_account_that_was_named(transactions: Transactions) -> None:
    join(transactions)
    with transactions.reading(COMMAND) as context:
        assert context.session.query(Account).count() == 0
        token, _ = mailed_token(context, "confirm-email")
    for confirmed in (True, False):
        with transactions.writing(COMMAND) as context:
            assert confirm_by_token(context, token) is confirmed
    with transactions.reading(COMMAND) as context:
        account, member = context.session.query(Account).one(), context.session.query(Member).one()
        accepted = context.session.query(TermsOfUseAcceptance).one()
        assert (account.name, account.registrable_domain) == ("Widgets", "widgets.example")
        assert (member.account_id, member.role) == (account.id, "owner")
        assert (accepted.id[:4], accepted.occasion) == ("acc_", "sign-up")
        assert accepted.version == context.policy.terms_of_use_version


def test_the_code_confirms_as_the_link_does(transactions: Transactions) -> None:
    join(transactions)
    with transactions.writing(COMMAND) as context:
        _, code = mailed_token(context, "confirm-email")
        assert not confirm_by_code(context, "nobody@widgets.example", code)
        assert confirm_by_code(context, EMAIL, code)
        assert not confirm_by_code(context, EMAIL, code)
    with transactions.writing(COMMAND) as context:
        send_confirmation_again(context, EMAIL)
        send_confirmation_again(context, "nobody@widgets.example")
    assert mailed(transactions, EMAIL) == ["confirm-email"], "there is nothing left to confirm"


def test_a_later_sign_up_replaces_an_unconfirmed_one_and_no_other(
    transactions: Transactions,
) -> None:
    join(transactions, name="A Stranger")
    join(transactions)
    with transactions.writing(COMMAND) as context:
        person = person_by_email(context.session, EMAIL)
        assert person is not None
        assert (person.name, person.password_hash) == ("Kim Lee", "h:Kim Lee")
        person.email_confirmed_at = context.at
    join(transactions, name="A Stranger")
    with transactions.reading(COMMAND) as context:
        person = person_by_email(context.session, EMAIL)
        assert person is not None
        assert (person.name, person.password_hash) == ("Kim Lee", "h:Kim Lee")
    assert mailed(transactions, EMAIL) == ["confirm-email", "confirm-email", "sign-up-again"]


def test_staff_do_not_join_as_customers(transactions: Transactions) -> None:
    staff = make_staff(transactions)
    with transactions.writing(COMMAND) as context:
        context.session.get_one(Person, staff.id).email_confirmed_at = None
    join(transactions, staff.email, "A Stranger")
    with transactions.reading(COMMAND) as context:
        assert context.session.get_one(Person, staff.id).name == staff.name
    assert mailed(transactions, staff.email) == []


@pytest.mark.parametrize("changes", [{"email": "kim"}, {"name": " "}, {"company": "x" * 201}])
def test_what_is_unfit_is_refused(transactions: Transactions, changes: dict[str, str]) -> None:
    values = {"email": EMAIL, "name": "Kim", "company": "Widgets", "password_hash": "h", **changes}
    with pytest.raises(Invalid), transactions.writing(COMMAND) as context:
        sign_up(context, **values)


def test_a_reset_sets_the_password_once_and_ends_every_sign_in(transactions: Transactions) -> None:
    _, owner = make_customer(transactions)
    with transactions.writing(COMMAND) as context:
        begin(context, owner.id, user_agent="tests")
        request_reset(context, owner.email)
        request_reset(context, "nobody@newco.example")
    with transactions.reading(COMMAND) as context:
        token, _ = mailed_token(context, "reset-password")
        assert email_of_reset(context, token) == owner.email
        assert email_of_reset(context, "never was") is None
    with transactions.writing(COMMAND) as context:
        set_password_by_token(context, token, "h:new")
    with transactions.writing(COMMAND) as context:
        assert context.session.get_one(Person, owner.id).password_hash == "h:new"
        assert open_sign_ins(context, owner.id) == []
        assert email_of_reset(context, token) is None
        with pytest.raises(Conflict, match="used or has expired"):
            set_password_by_token(context, token, "h:newer")
    assert "password-changed" in mailed(transactions, owner.email)


def test_a_disabled_person_gets_no_reset(transactions: Transactions) -> None:
    _, owner = make_customer(transactions)
    with transactions.writing(COMMAND) as context:
        context.session.get_one(Person, owner.id).disabled_at = context.at
        context.session.flush()
        request_reset(context, owner.email)
    assert "reset-password" not in mailed(transactions, owner.email)


def test_a_password_is_changed_from_the_one_that_was_checked(transactions: Transactions) -> None:
    _, owner = make_customer(transactions)
    with transactions.writing(COMMAND) as context:
        change_password(context, owner.id, f"fake:{PASSWORD}", "h:new")
    with pytest.raises(Conflict), transactions.writing(COMMAND) as context:
        change_password(context, owner.id, f"fake:{PASSWORD}", "h:newer")
    with transactions.reading(COMMAND) as context:
        assert context.session.get_one(Person, owner.id).password_hash == "h:new"
