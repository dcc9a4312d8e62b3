"""Acts at once: one winner, the other told why; no deployment with two bases."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import func, select

from portal.db.acts import Act
from portal.db.entitlements import Entitlement
from portal.db.licenses import License
from portal.domain.entitlements import EntitlementState
from portal.domain.errors import Conflict, PortalError
from portal.domain.standing import HoldCause
from portal.services.acts.kinds import Kind
from portal.services.acts.machinery import approve, require_fresh, submit
from portal.services.acts.renew import RENEW
from portal.services.acts.replace import REPLACE
from portal.services.acts.revoke import REVOKE
from portal.services.acts.suspend import SUSPEND
from portal.services.acts.top_up import TOP_UP
from portal.services.context import Transactions
from portal.services.licenses import issue_pending, request_issue
from portal.services.lines import load_line
from portal.services.requests import submit_request
from tests.factories.accounts import COMMAND, make_deployment
from tests.factories.acts import ask, do, make_annual, newest, state_of
from tests.factories.licenses import issue, make_budgeted_pilot, make_entitlement
from tests.factories.requests import evaluation_ask
from tests.services.acts.conftest import Site
from tests.services.test_races import at_once

Attempt = Callable[[], Any]


@pytest.fixture
def pilot(transactions: Transactions, site: Site) -> License:
    return issue(transactions, make_budgeted_pilot(transactions, site.deployment))


def attempt(
    transactions: Transactions, kind: Kind, license_id: str, by: str | None, **params: Any
) -> Attempt:
    """Return an act to be submitted."""

    def run() -> Act:
        with transactions.writing(COMMAND) as context:
            return submit(context, kind, ask(kind, license_id, by, **params))

    return run


def count(transactions: Transactions, *conditions: Any) -> int:
    with transactions.reading(COMMAND) as context:
        return context.session.scalar(select(func.count()).where(*conditions)) or 0


def test_two_renewals_at_once_make_one(
    transactions: Transactions, site: Site, pilot: License
) -> None:
    outcomes = at_once(
        attempt(transactions, RENEW, pilot.id, site.ann),
        attempt(transactions, RENEW, pilot.id, site.ben),
    )
    assert sorted(type(each).__name__ for each in outcomes) == ["Act", "Conflict"]
    assert count(transactions, Entitlement.renews == pilot.entitlement_id) == 1


def test_a_hold_and_a_renewal_at_once_both_stand_and_nothing_serves(
    transactions: Transactions, site: Site, pilot: License
) -> None:
    outcomes = at_once(
        attempt(transactions, RENEW, pilot.id, site.ann),
        attempt(transactions, SUSPEND, pilot.id, site.ben, cause=HoldCause.STAFF),
    )
    assert all(isinstance(each, Act) for each in outcomes)
    issue_pending(transactions, site.deployment.id, COMMAND)
    assert state_of(transactions, pilot.id) == "suspended"
    assert state_of(transactions, newest(transactions, site.deployment.id).id) == "suspended"


def test_approving_a_renewal_while_it_is_revoked_leaves_nothing_live(
    transactions: Transactions, site: Site
) -> None:
    annual = make_annual(transactions, site.deployment, site.ben)
    renewal = do(transactions, RENEW, annual.id, site.ann)
    revocation = do(transactions, REVOKE, annual.id, site.ann)

    def decide(act: Act) -> Attempt:
        def run() -> Act:
            with transactions.writing(COMMAND) as context:
                decided = approve(context, act.id, by=site.ben)
            return require_fresh(decided)

        return run

    outcomes = at_once(decide(renewal), decide(revocation))
    assert sum(isinstance(each, Act) for each in outcomes) == 1
    assert sum(isinstance(each, Conflict) for each in outcomes) == 1
    issue_pending(transactions, site.deployment.id, COMMAND)
    with transactions.reading(COMMAND) as context:
        line = load_line(context, site.deployment.id)
    if isinstance(outcomes[1], Act):
        assert (line.live, line.coming) == ((), None)
        assert state_of(transactions, newest(transactions, site.deployment.id).id) == "revoked"
    else:
        assert line.coming is not None


@pytest.mark.parametrize("_round", range(3))
def test_a_top_up_while_it_is_revoked_leaves_nothing_live(
    transactions: Transactions, site: Site, pilot: License, _round: int
) -> None:
    outcomes = at_once(
        attempt(transactions, TOP_UP, pilot.id, site.ann, sku="credit-pack-5m"),
        attempt(transactions, REVOKE, pilot.id, site.ben),
    )
    assert isinstance(outcomes[1], Act)
    issue_pending(transactions, site.deployment.id, COMMAND)
    with transactions.reading(COMMAND) as context:
        assert load_line(context, site.deployment.id).live == ()
    assert state_of(transactions, newest(transactions, site.deployment.id).id) == "revoked"


@pytest.mark.parametrize("_round", range(3))
def test_an_evaluation_and_a_contract_at_once_leave_the_contract(
    transactions: Transactions, site: Site, _round: int
) -> None:
    """A customer asks for an evaluation at the moment at which the contract is issued."""
    contract = make_entitlement(
        transactions, site.deployment, sku="marketplace-seat", term_s=86400, features=["routing"]
    )

    def evaluate() -> Any:
        with transactions.writing(COMMAND) as context:
            return submit_request(
                context,
                account_id=site.account.id,
                person_id=site.owner,
                ask=evaluation_ask_for(site.deployment.id),
            ).state

    def start() -> Any:
        with transactions.writing(COMMAND) as context:
            return request_issue(context, contract.id, cause="start").id

    outcomes = at_once(evaluate, start)
    assert not isinstance(outcomes[1], PortalError)
    issue_pending(transactions, site.deployment.id, COMMAND)
    with transactions.reading(COMMAND) as context:
        base = load_line(context, site.deployment.id).base
        assert base is not None
        assert base.id == contract.id
    live = Entitlement.state == EntitlementState.LIVE
    assert count(transactions, Entitlement.deployment_id == site.deployment.id, live) == 1
    assert newest(transactions, site.deployment.id).sku == "marketplace-seat"


def evaluation_ask_for(deployment_id: str) -> Any:
    return replace(evaluation_ask(), deployment_id=deployment_id)


def test_two_evaluations_of_one_deployment_at_once_are_one(
    transactions: Transactions, site: Site
) -> None:
    granted = [make_entitlement(transactions, site.deployment) for _ in range(2)]

    def start(entitlement_id: str) -> Attempt:
        def run() -> str:
            with transactions.writing(COMMAND) as context:
                return request_issue(context, entitlement_id, cause="start").id

        return run

    outcomes = at_once(*(start(each.id) for each in granted))
    assert sum(isinstance(each, Conflict) for each in outcomes) == 1
    issue_pending(transactions, site.deployment.id, COMMAND)
    assert count(transactions, License.deployment_id == site.deployment.id) == 1


def test_four_replacements_at_once_are_three_for_a_customer(
    transactions: Transactions, site: Site, pilot: License
) -> None:
    outcomes = at_once(*(attempt(transactions, REPLACE, pilot.id, site.owner) for _ in range(4)))
    assert sum(isinstance(each, Act) for each in outcomes) == 3
    assert sum(isinstance(each, PortalError) for each in outcomes) == 1


def test_revoking_ten_at_once_needs_two_for_the_tenth(
    transactions: Transactions, site: Site
) -> None:
    licenses = [
        issue(
            transactions,
            make_entitlement(transactions, make_deployment(transactions, site.account, f"{n}")),
        )
        for n in range(10)
    ]
    outcomes = at_once(*(attempt(transactions, REVOKE, each.id, site.ann) for each in licenses))
    states = sorted(each.state for each in outcomes if isinstance(each, Act))
    assert states == ["done"] * 9 + ["pending"]


def test_an_evaluation_beside_an_annual_contract_is_refused_and_names_it(
    transactions: Transactions, site: Site
) -> None:
    annual = make_annual(transactions, site.deployment, site.ben)
    with (
        pytest.raises(Conflict, match="enterprise-annual"),
        transactions.writing(COMMAND) as context,
    ):
        submit_request(
            context,
            account_id=site.account.id,
            person_id=site.owner,
            ask=evaluation_ask_for(site.deployment.id),
        )
    assert state_of(transactions, annual.id) == "issued"
    assert newest(transactions, site.deployment.id).id == annual.id
