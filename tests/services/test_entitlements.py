"""Starting what was granted: who can, until when, and what lapses."""

import pytest

from portal.db.entitlements import Entitlement
from portal.domain.catalog import fill_terms
from portal.domain.entitlements import EntitlementState
from portal.domain.errors import Conflict, NotFound
from portal.domain.roles import account_permissions
from portal.domain.terms import Mode
from portal.services.context import SYSTEM, Transactions
from portal.services.entitlements import (
    approve_entitlement,
    can_start,
    end_lapsed,
    find_entitlement,
    propose_entitlement,
    start_entitlement,
    waiting_to_start,
)
from portal.services.licenses import issue_license
from tests.factories.accounts import COMMAND, make_customer, make_deployment, make_staff
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
        assert context.session.get_one(Entitlement, granted.id).state == "live"


def test_what_is_proposed_is_kept_as_it_is(transactions: Transactions) -> None:
    ann = make_staff(transactions)
    account, _ = make_customer(transactions)
    deployment = make_deployment(transactions, account)
    terms = fill_terms("pilot-30d", mode=Mode.LEASE, limits={"tokens_total": 7})
    with transactions.writing(COMMAND) as context:
        made = propose_entitlement(
            context,
            deployment_id=deployment.id,
            terms=terms,
            reason="contract 7",
            created_by=ann.id,
        )
    with transactions.reading(COMMAND) as context:
        stored = find_entitlement(context, made.id)
        assert (stored.terms, stored.state, stored.account_id) == (terms, "proposed", account.id)
        assert stored.budget_id is not None
        assert stored.grant() is None
        with pytest.raises(NotFound):
            find_entitlement(context, "ent_0")


def test_nothing_is_proposed_for_a_deployment_that_is_not_there(
    transactions: Transactions,
) -> None:
    with transactions.writing(COMMAND) as context, pytest.raises(NotFound):
        propose_entitlement(
            context,
            deployment_id="dep_0",
            terms=fill_terms("eval-72h"),
            reason="x",
            created_by=None,
        )


@pytest.mark.parametrize("state", ["proposed", "approved", "live", "ended"])
def test_the_state_follows_from_the_instants_in_code_and_in_queries(
    transactions: Transactions, granted: Entitlement, state: str
) -> None:
    with transactions.writing(COMMAND) as context:
        row = context.session.get_one(Entitlement, granted.id)
        row.approved_at = None if state == "proposed" else context.at
        row.starts_at = context.at if state in ("live", "ended") else None
        row.ended_at = context.at if state == "ended" else None
    with transactions.reading(COMMAND) as context:
        assert context.session.get_one(Entitlement, granted.id).state == state
        for asked in EntitlementState:
            found = context.session.query(Entitlement).filter(Entitlement.state == asked).count()
            assert found == (1 if asked == state else 0)


def test_what_ended_is_neither_approved_nor_issued(
    transactions: Transactions, granted: Entitlement, clock: FakeClock
) -> None:
    clock.advance(days=30)
    with transactions.writing(SYSTEM) as context:
        assert end_lapsed(context) == 1
    with transactions.writing(COMMAND) as context:
        with pytest.raises(Conflict, match="has ended"):
            approve_entitlement(context, granted.id, approved_by=None)
        with pytest.raises(Conflict, match="cannot be started"):
            start_entitlement(context, account_id=granted.account_id, entitlement_id=granted.id)
        with pytest.raises(NotFound):
            start_entitlement(context, account_id="cus_0", entitlement_id=granted.id)


def test_approving_twice_changes_nothing(transactions: Transactions, granted: Entitlement) -> None:
    with transactions.writing(COMMAND) as context:
        again = approve_entitlement(context, granted.id, approved_by=None)
        assert (again.approved_at, again.start_by_at) == (granted.approved_at, granted.start_by_at)
