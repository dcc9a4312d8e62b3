"""Signed-in browsers: how long they last, and what ends them."""

from datetime import timedelta

import pyotp
import pytest

from portal.db.accounts import Account, Member
from portal.db.people import Person
from portal.db.sign_ins import SignIn
from portal.domain.errors import NotFound
from portal.services.context import Actor, Transactions
from portal.services.keys import unix
from portal.services.second_factors import start_setup
from portal.services.sign_ins import (
    begin,
    credentials,
    end,
    end_all,
    end_one,
    load,
    open_sign_ins,
    pass_factor,
    person_of_token,
    rotate,
    set_up_factor,
    switch_account,
    touch,
)
from tests.factories.accounts import COMMAND, PASSWORD, make_customer, make_staff
from tests.fakes import FakeClock

OWNER = "jo@newco.example"


def sign_in(transactions: Transactions, person: Person, user_agent: str = "tests") -> str:
    with transactions.writing(Actor("anonymous", address="192.0.2.1")) as context:
        return begin(context, person.id, user_agent=user_agent)


def is_in(transactions: Transactions, token: str) -> bool:
    with transactions.reading(COMMAND) as context:
        return load(context, token) is not None


def test_the_row_holds_a_hash_where_from_and_a_short_browser_name(
    transactions: Transactions,
) -> None:
    _, owner = make_customer(transactions)
    token = sign_in(transactions, owner, "x" * 300)
    assert len(token) >= 43
    with transactions.reading(COMMAND) as context:
        row = context.session.query(SignIn).one()
        assert token not in str(vars(row))
        assert (row.address, row.user_agent) == ("192.0.2.1", "x" * 200)


def test_who_cannot_sign_in_has_no_credentials(transactions: Transactions) -> None:
    _, owner = make_customer(transactions)
    with transactions.reading(COMMAND) as context:
        known = credentials(context, " JO@newco.example ")
        assert known is not None
        assert (known.person_id, known.confirmed) == (owner.id, True)
        assert known.password_hash == f"fake:{PASSWORD}"
        assert credentials(context, "nobody@newco.example") is None
    for change in (
        {"password_hash": None},
        {"password_hash": "x", "disabled_at": owner.created_at},
    ):
        with transactions.writing(COMMAND) as context:
            person = context.session.get_one(Person, owner.id)
            for name, value in change.items():
                setattr(person, name, value)
        with transactions.reading(COMMAND) as context:
            assert credentials(context, OWNER) is None


@pytest.mark.asvs("7.3.1", "7.3.2")
def test_staff_are_out_after_two_idle_hours_and_after_twelve(
    transactions: Transactions, clock: FakeClock
) -> None:
    staff = make_staff(transactions)
    idle, busy = sign_in(transactions, staff), sign_in(transactions, staff)
    for _ in range(6):
        clock.advance(minutes=119)
        with transactions.writing(COMMAND) as context:
            touch(context, busy)
        assert is_in(transactions, busy)
    assert not is_in(transactions, idle)
    clock.advance(minutes=6)
    assert not is_in(transactions, busy)


@pytest.mark.asvs("7.3.2")
def test_customers_are_out_after_fourteen_days(
    transactions: Transactions, clock: FakeClock
) -> None:
    _, owner = make_customer(transactions)
    token = sign_in(transactions, owner)
    clock.advance(days=14, seconds=-1)
    assert is_in(transactions, token)
    with transactions.writing(COMMAND) as context:
        touch(context, token)
    clock.advance(seconds=1)
    assert not is_in(transactions, token)


@pytest.mark.asvs("7.2.4")
def test_a_rotated_token_is_dead_at_once(transactions: Transactions, clock: FakeClock) -> None:
    _, owner = make_customer(transactions)
    old = sign_in(transactions, owner)
    clock.advance(minutes=16)
    with transactions.writing(COMMAND) as context:
        who = load(context, old)
        assert who is not None
        assert not who.is_fresh(context.at)
        new = rotate(context, old, reauthenticated=True)
    assert not is_in(transactions, old)
    with transactions.writing(COMMAND) as context:
        who = load(context, new)
        assert who is not None
        assert who.is_fresh(context.at)
        with pytest.raises(NotFound):
            rotate(context, old)


def test_signing_out_ends_one_and_a_new_password_all(transactions: Transactions) -> None:
    _, owner = make_customer(transactions)
    one, two, three = (sign_in(transactions, owner) for _ in range(3))
    with transactions.writing(COMMAND) as context:
        end(context, one)
        end(context, one)
        end(context, "never was")
    assert [is_in(transactions, each) for each in (one, two, three)] == [False, True, True]
    with transactions.writing(COMMAND) as context:
        end_all(context, owner.id, "new password")
    assert not is_in(transactions, two)
    with transactions.reading(COMMAND) as context:
        assert open_sign_ins(context, owner.id) == []
        assert person_of_token(context, two) == owner.id, "what was typed can still be kept"
        assert person_of_token(context, "never was") is None


def test_people_end_their_own_sign_ins_alone(transactions: Transactions, clock: FakeClock) -> None:
    _, owner = make_customer(transactions)
    staff = make_staff(transactions)
    sign_in(transactions, owner, "first")
    clock.advance(seconds=1)
    sign_in(transactions, owner, "second")
    with transactions.writing(COMMAND) as context:
        newest, oldest = open_sign_ins(context, owner.id)
        assert (newest.user_agent, oldest.user_agent) == ("second", "first")
        with pytest.raises(NotFound):
            end_one(context, staff.id, oldest.public_id)
        end_one(context, owner.id, oldest.public_id)
    with transactions.reading(COMMAND) as context:
        assert [each.user_agent for each in open_sign_ins(context, owner.id)] == ["second"]


@pytest.mark.asvs("7.4.2")
def test_a_disabled_person_is_out_at_once(transactions: Transactions) -> None:
    _, owner = make_customer(transactions)
    token = sign_in(transactions, owner)
    with transactions.writing(COMMAND) as context:
        context.session.get_one(Person, owner.id).disabled_at = context.at
    assert not is_in(transactions, token)


def test_one_looks_at_an_account_one_belongs_to(transactions: Transactions) -> None:
    first, owner = make_customer(transactions)
    second, _ = make_customer(transactions, OWNER, "Widgets")
    stranger, _ = make_customer(transactions, "kim@else.example", "Else")
    token = sign_in(transactions, owner)
    with transactions.writing(COMMAND) as context:
        switch_account(context, token, owner.id, second.id)
        with pytest.raises(NotFound):
            switch_account(context, token, owner.id, stranger.id)
    with transactions.reading(COMMAND) as context:
        who = load(context, token)
    assert who is not None
    assert who.place is not None
    assert [each.name for each in who.places] == ["NewCo", "Widgets"]
    assert who.place.account_id == second.id
    with transactions.writing(COMMAND) as context:
        context.session.get_one(Account, second.id).closed_at = context.at
        context.session.query(Member).filter_by(account_id=first.id).one().role = "viewer"
    with transactions.reading(COMMAND) as context:
        who = load(context, token)
    assert who is not None
    assert who.place is not None
    assert (who.place.account_id, who.permissions) == (first.id, frozenset({"account.read"}))


@pytest.mark.asvs("6.3.3")
def test_staff_owe_a_second_factor_until_they_gave_it(
    transactions: Transactions, clock: FakeClock
) -> None:
    staff = make_staff(transactions)
    token = sign_in(transactions, staff)
    with transactions.writing(COMMAND) as context:
        who = load(context, token)
        assert who is not None
        assert (who.factor_wanted, who.factor_is_set_up) == (True, False)
        secret = start_setup(context, staff.id)
        assert set_up_factor(context, who, "000000") is None
        done = set_up_factor(context, who, pyotp.TOTP(secret).at(unix(context.at)))
        assert done is not None
        who = load(context, done[0])
        assert who is not None
        assert (who.factor_wanted, who.factor_is_set_up) == (False, True)
    assert not is_in(transactions, token)
    again = sign_in(transactions, staff)
    clock.at += timedelta(seconds=30)
    with transactions.writing(COMMAND) as context:
        who = load(context, again)
        assert who is not None
        assert who.factor_wanted
        assert pass_factor(context, who, "000000") is None
        passed = pass_factor(context, who, pyotp.TOTP(secret).at(unix(context.at)))
        assert passed is not None
        who = load(context, passed)
    assert who is not None
    assert not who.factor_wanted
