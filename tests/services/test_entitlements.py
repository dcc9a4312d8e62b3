"""Starting what was granted: who can, until when, and what lapses."""

import pytest

from portal.db.entitlements import Entitlement
from portal.domain.roles import account_permissions
from portal.services.context import SYSTEM, Transactions
from portal.services.entitlements import (
    can_start,
    end_lapsed,
    start_entitlement,
    waiting_to_start,
)
from portal.services.licenses import issue_license
from tests.factories.accounts import COMMAND, make_customer, make_deployment
from tests.factories.licenses import make_entitlement
from tests.fakes import FakeClock

OPERATOR = account_permissions("operator")


@pytest.fixture
def granted(transactions: Transactions) -> Entitlement:
    account, _ = make_customer(transactions)
    return make_entitlement(transactions, make_deployment(transactions, account))


def waits(transactions: Transactions, granted: Entitlement) -> bool:
    """Say whether a grant is offered; the list and the judgment of one must agree."""
    with transactions.reading(COMMAND) as context:
        listed = [each.id for each in waiting_to_start(context, granted.account_id)]
        assert (listed == [granted.id]) == can_start(context, granted, OPERATOR)
    return bool(listed)


def test_those_who_make_requests_can_start_what_waits(
    transactions: Transactions, granted: Entitlement
) -> None:
    assert waits(transactions, granted)
    with transactions.reading(COMMAND) as context:
        for role, can in (
            ("owner", True),
            ("operator", True),
            ("billing", False),
            ("viewer", False),
        ):
            assert can_start(context, granted, account_permissions(role)) is can
        assert not can_start(context, None, OPERATOR)


def test_a_started_grant_is_offered_no_more_also_while_its_license_is_issued(
    transactions: Transactions, granted: Entitlement
) -> None:
    with transactions.writing(COMMAND) as context:
        license_ = start_entitlement(
            context, account_id=granted.account_id, entitlement_id=granted.id
        )
    assert not waits(transactions, granted)
    issue_license(transactions, license_.id, SYSTEM)
    assert not waits(transactions, granted)


def test_a_grant_nobody_starts_is_offered_until_it_lapses(
    transactions: Transactions, granted: Entitlement, clock: FakeClock
) -> None:
    clock.advance(days=30, seconds=-1)
    assert waits(transactions, granted)
    with transactions.writing(SYSTEM) as context:
        assert end_lapsed(context) == 0
    clock.advance(seconds=1)
    assert not waits(transactions, granted)
    for ended in (1, 0):
        with transactions.writing(SYSTEM) as context:
            assert end_lapsed(context) == ended
    with transactions.reading(COMMAND) as context:
        row = context.session.get_one(Entitlement, granted.id)
        assert (row.state, row.end_reason) == ("ended", "not started")


def test_what_was_started_in_time_does_not_lapse_before_its_license_is_issued(
    transactions: Transactions, granted: Entitlement, clock: FakeClock
) -> None:
    clock.advance(days=30, seconds=-1)
    with transactions.writing(COMMAND) as context:
        start_entitlement(context, account_id=granted.account_id, entitlement_id=granted.id)
    clock.advance(seconds=2)
    with transactions.writing(SYSTEM) as context:
        assert end_lapsed(context) == 0
    with transactions.reading(COMMAND) as context:
        assert context.session.get_one(Entitlement, granted.id).state == "approved"
