"""Second factors: sealed for their person, used once, gone when removed."""

import re

import pyotp
import pytest

from portal.db.emails import Email
from portal.db.people import Person
from portal.db.second_factors import RecoveryCode, SecondFactor
from portal.domain.errors import Conflict, Forbidden
from portal.domain.ports import SealBroken
from portal.services.context import Transactions
from portal.services.keys import unix
from portal.services.second_factors import (
    check_code,
    confirm_setup,
    new_recovery_codes,
    remove_factor,
    start_setup,
    unused_recovery_codes,
)
from tests.factories.accounts import COMMAND, make_customer, make_staff
from tests.fakes import FakeClock


def set_up(transactions: Transactions, person: Person) -> tuple[str, list[str]]:
    """Set up a factor; return its secret and the recovery codes."""
    with transactions.writing(COMMAND) as context:
        secret = start_setup(context, person.id)
        codes = confirm_setup(context, person.id, pyotp.TOTP(secret).at(unix(context.at)))
    assert codes is not None
    return secret, codes


def test_the_secret_stays_the_same_until_it_is_confirmed(transactions: Transactions) -> None:
    _, owner = make_customer(transactions)
    with transactions.writing(COMMAND) as context:
        secret = start_setup(context, owner.id)
        assert start_setup(context, owner.id) == secret
        assert confirm_setup(context, owner.id, "000000") is None
        assert not check_code(context, owner.id, pyotp.TOTP(secret).at(unix(context.at)))
    set_up(transactions, owner)
    with pytest.raises(Conflict), transactions.writing(COMMAND) as context:
        start_setup(context, owner.id)


@pytest.mark.asvs("6.5.1")
def test_a_step_passes_once_and_a_little_early_or_late(
    transactions: Transactions, clock: FakeClock
) -> None:
    _, owner = make_customer(transactions)
    totp = pyotp.TOTP(set_up(transactions, owner)[0])
    clock.advance(seconds=90)
    now = unix(clock.now())
    with transactions.writing(COMMAND) as context:
        for at, passes in ((now - 60, False), (now - 30, True), (now - 30, False), (now, True)):
            assert check_code(context, owner.id, totp.at(at)) is passes
        assert not check_code(context, owner.id, totp.at(now - 30)), "an older step is dead too"
        assert check_code(context, owner.id, f" {totp.at(now + 30)[:3]} {totp.at(now + 30)[3:]}")
        for text in ("", "٠١٢٣٤٥", "x"):
            assert not check_code(context, owner.id, text)


@pytest.mark.asvs("6.5.2")
def test_a_recovery_code_stands_in_once_and_new_ones_replace_it(
    transactions: Transactions,
) -> None:
    _, owner = make_customer(transactions)
    other = make_staff(transactions)
    _, codes = set_up(transactions, owner)
    set_up(transactions, other)
    with transactions.writing(COMMAND) as context:
        assert not check_code(context, other.id, codes[0]), "a code is one person's"
        assert check_code(context, owner.id, codes[0].lower().replace("-", " "))
        assert not check_code(context, owner.id, codes[0])
        assert unused_recovery_codes(context, owner.id) == 9
        new_recovery_codes(context, owner.id)
        assert not check_code(context, owner.id, codes[1])
        assert unused_recovery_codes(context, owner.id) == 10


@pytest.mark.asvs("6.5.1", "6.5.2", "11.3.3")
def test_secrets_are_sealed_for_their_row_and_codes_hashed(transactions: Transactions) -> None:
    one, two = make_staff(transactions), make_staff(transactions, "bob@vendor.test")
    secret, codes = set_up(transactions, one)
    set_up(transactions, two)
    with transactions.reading(COMMAND) as context:
        first = context.session.get_one(SecondFactor, one.id)
        assert secret.encode() not in first.sealed_secret
        with pytest.raises(SealBroken):
            context.ports.secrets.open(first.sealed_secret, two.id)
        for row in context.session.query(RecoveryCode):
            assert re.fullmatch(r"[0-9a-f]{64}", row.code_sha256)
            assert row.code_sha256 not in codes


def test_a_customer_removes_a_factor_and_is_told_and_staff_cannot(
    transactions: Transactions,
) -> None:
    _, owner = make_customer(transactions)
    staff = make_staff(transactions)
    set_up(transactions, owner)
    set_up(transactions, staff)
    with transactions.writing(COMMAND) as context:
        remove_factor(context, owner.id)
        with pytest.raises(Forbidden):
            remove_factor(context, staff.id)
    with transactions.reading(COMMAND) as context:
        assert [each.person_id for each in context.session.query(SecondFactor)] == [staff.id]
        assert unused_recovery_codes(context, owner.id) == 0
        told = context.session.query(Email).filter_by(template="factor-removed").one()
        assert told.to_address == owner.email
