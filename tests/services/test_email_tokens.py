"""Secrets sent by mail: one use, a short life, a few tries."""

import pytest

from portal.db.email_tokens import EmailToken
from portal.db.emails import Email
from portal.db.people import Person
from portal.services.context import Transactions
from portal.services.email_tokens import (
    CONFIRM_EMAIL,
    MAX_CODE_ATTEMPTS,
    RESET_PASSWORD,
    SET_PASSWORD,
    code_matches,
    live_token,
    send_token,
    use_token,
)
from tests.factories.accounts import COMMAND, make_customer
from tests.factories.emails import mailed_token
from tests.fakes import FakeClock


@pytest.fixture
def person(transactions: Transactions) -> Person:
    return make_customer(transactions)[1]


def send(transactions: Transactions, person: Person, purpose: str) -> tuple[str, str]:
    """Send a token; return the link's token and the code that the mail carries."""
    with transactions.writing(COMMAND) as context:
        send_token(context, person, purpose)
    with transactions.reading(COMMAND) as context:
        return mailed_token(context, purpose)


def test_the_database_holds_neither_token_nor_code(
    transactions: Transactions, person: Person
) -> None:
    token, code = send(transactions, person, CONFIRM_EMAIL)
    assert len(code) == 8
    with transactions.reading(COMMAND) as context:
        for row in (*context.session.query(EmailToken), *context.session.query(Email)):
            assert token not in str(vars(row))
            assert code not in str(vars(row))


def test_a_token_is_used_once_and_for_its_purpose(
    transactions: Transactions, person: Person
) -> None:
    token, code = send(transactions, person, RESET_PASSWORD)
    assert code == "", "a code opens no new password"
    with transactions.writing(COMMAND) as context:
        assert live_token(context, token, CONFIRM_EMAIL) is None
        assert live_token(context, token + "x", RESET_PASSWORD) is None
        row = live_token(context, token, RESET_PASSWORD, SET_PASSWORD)
        assert row is not None
        assert use_token(context, row)
        assert not use_token(context, row)
        assert live_token(context, token, RESET_PASSWORD) is None


def test_a_new_token_kills_the_one_before(transactions: Transactions, person: Person) -> None:
    first, _ = send(transactions, person, RESET_PASSWORD)
    second, _ = send(transactions, person, RESET_PASSWORD)
    with transactions.reading(COMMAND) as context:
        assert live_token(context, first, RESET_PASSWORD) is None
        assert live_token(context, second, RESET_PASSWORD) is not None
        assert context.session.query(EmailToken).filter_by(used_at=None).count() == 2, (
            "the link to set a first password is of another purpose"
        )


@pytest.mark.parametrize(
    ("purpose", "hours"), [(CONFIRM_EMAIL, 24), (RESET_PASSWORD, 1), (SET_PASSWORD, 72)]
)
def test_a_token_dies_after_its_time(
    transactions: Transactions, person: Person, clock: FakeClock, purpose: str, hours: int
) -> None:
    token, code = send(transactions, person, purpose)
    clock.advance(hours=hours, seconds=-1)
    with transactions.reading(COMMAND) as context:
        assert live_token(context, token, purpose) is not None
    clock.advance(seconds=1)
    with transactions.writing(COMMAND) as context:
        assert live_token(context, token, purpose) is None
        assert code_matches(context, person.id, code) is None


def test_a_code_dies_after_a_few_wrong_tries(transactions: Transactions, person: Person) -> None:
    _, code = send(transactions, person, CONFIRM_EMAIL)
    wrong = f"{(int(code) + 1) % 10**8:08d}"
    for _ in range(MAX_CODE_ATTEMPTS - 1):
        with transactions.writing(COMMAND) as context:
            assert code_matches(context, person.id, wrong) is None
    with transactions.writing(COMMAND) as context:
        assert code_matches(context, person.id, f"{code[:4]} {code[4:]}") is not None
        assert code_matches(context, person.id, wrong) is None
    with transactions.writing(COMMAND) as context:
        assert code_matches(context, person.id, code) is None
