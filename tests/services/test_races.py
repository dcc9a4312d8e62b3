"""Two at once: one wins, the other is told; caps hold. Real threads on real databases."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Barrier
from typing import TypeVar

import pyotp
import pytest

from portal.db.entitlements import Entitlement
from portal.db.instances import Instance
from portal.db.licenses import License
from portal.db.requests import Request
from portal.db.second_factors import RecoveryCode
from portal.domain.catalog import fill_terms
from portal.domain.errors import Conflict, PortalError
from portal.services.context import Actor, Transactions
from portal.services.enrollments import enroll
from portal.services.keys import unix
from portal.services.licenses import request_issue
from portal.services.requests import (
    approve_request,
    decline_request,
    submit_request,
    withdraw_request,
)
from portal.services.second_factors import check_code, confirm_setup, start_setup
from tests.factories.accounts import make_customer, make_deployment, make_staff
from tests.factories.instances import make_code, make_router
from tests.factories.licenses import make_entitlement, make_lease_license
from tests.factories.requests import ask_for_pilot, evaluation_ask
from tests.fakes import FakeClock

COMMAND = Actor("command")
T = TypeVar("T")
EVALUATION = evaluation_ask()
TERMS = fill_terms("pilot-30d", limits={"tokens_per_window": 5}, features=("usage_reporting",))


def at_once(*acts: Callable[[], T]) -> list[T | PortalError]:
    """Run acts in threads that start together; a refusal is a result."""
    barrier = Barrier(len(acts))

    def run(act: Callable[[], T]) -> T | PortalError:
        barrier.wait(10)
        try:
            return act()
        except PortalError as error:
            return error

    with ThreadPoolExecutor(len(acts)) as threads:
        return list(threads.map(run, acts))


@pytest.mark.asvs("2.3.4")
def test_a_domain_gets_one_evaluation_however_many_ask_at_once(transactions: Transactions) -> None:
    people = [
        make_customer(transactions, f"{name}@newco.example", f"NewCo {name}") for name in "abcd"
    ]

    def ask(account_id: str, person_id: str) -> str:
        with transactions.writing(COMMAND) as context:
            made = submit_request(
                context, account_id=account_id, person_id=person_id, ask=EVALUATION
            )
            return made.state

    acts = [
        lambda account=account, owner=owner: ask(account.id, owner.id) for account, owner in people
    ]
    assert sorted(map(str, at_once(*acts))) == ["approved", "open", "open", "open"]
    with transactions.reading(COMMAND) as context:
        assert context.session.query(License).count() == 1


@pytest.mark.asvs("2.3.4")
def test_an_offer_and_an_evaluation_at_once_leave_the_offer(
    transactions: Transactions,
) -> None:
    account, owner = make_customer(transactions)
    deployment = make_deployment(transactions, account)
    offer = make_entitlement(
        transactions, deployment, sku="marketplace-seat", term_s=365 * 86400, features=["routing"]
    )

    def start() -> str:
        with transactions.writing(COMMAND) as context:
            return request_issue(context, offer.id, cause="start").sku

    def evaluate() -> str:
        ask = replace(EVALUATION, deployment_id=deployment.id)
        with transactions.writing(COMMAND) as context:
            return submit_request(
                context, account_id=account.id, person_id=owner.id, ask=ask
            ).state.value

    started, _ = at_once(start, evaluate)
    assert started == "marketplace-seat"
    with transactions.reading(COMMAND) as context:
        live = context.session.query(Entitlement).filter(
            Entitlement.starts_at.is_not(None), Entitlement.ended_at.is_(None)
        )
        assert [each.id for each in live] == [offer.id]


@pytest.mark.asvs("2.3.4")
def test_approve_decline_and_withdraw_at_once_leave_one_decision(
    transactions: Transactions,
) -> None:
    make_customer(transactions)
    ann, bob = make_staff(transactions), make_staff(transactions, "bob@vendor.test")
    for round_ in range(4):
        request_id = ask_for_pilot(transactions, deployment_name=f"Site {round_}")

        def approve(request_id: str = request_id) -> str:
            with transactions.writing(COMMAND) as context:
                approve_request(context, request_id, staff_id=ann.id, terms=TERMS, note=None)
            return "approved"

        def decline(request_id: str = request_id) -> str:
            with transactions.writing(COMMAND) as context:
                decline_request(context, request_id, staff_id=bob.id, note="No.")
            return "declined"

        def withdraw(request_id: str = request_id) -> str:
            with transactions.writing(COMMAND) as context:
                withdraw_request(context, context.session.get_one(Request, request_id))
            return "withdrawn"

        results = at_once(approve, decline, withdraw)
        refused = [each for each in results if isinstance(each, PortalError)]
        assert len(refused) == 2
        assert all(isinstance(each, Conflict) for each in refused)
        (won,) = [each for each in results if isinstance(each, str)]
        with transactions.reading(COMMAND) as context:
            assert context.session.get_one(Request, request_id).state == won
            granted = context.session.query(Entitlement).filter_by(request_id=request_id).count()
            assert granted == (1 if won == "approved" else 0)


def test_issuing_asked_for_at_once_makes_one_license(transactions: Transactions) -> None:
    account, _ = make_customer(transactions)
    entitlement = make_entitlement(transactions, make_deployment(transactions, account))

    def ask() -> str:
        with transactions.writing(COMMAND) as context:
            return request_issue(context, entitlement.id, cause="start").id

    assert len(set(at_once(ask, ask, ask, ask))) == 1
    with transactions.reading(COMMAND) as context:
        assert context.session.query(License).count() == 1


@pytest.mark.asvs("2.3.4")
def test_instances_and_code_uses_hold_under_a_race(transactions: Transactions) -> None:
    license_ = make_lease_license(transactions, sku="pilot-30d", term_s=30 * 86400)
    code = make_code(transactions, license_, uses=5)

    def join(name: str) -> str:
        router = make_router(license_, name)
        with transactions.writing(COMMAND) as context:
            asked = router.enrollment(code, at=unix(context.at))
            return enroll(context, asked).instance_id

    acts = [lambda number=number: join(f"router {number}") for number in range(6)]
    results = at_once(*acts)
    assert sum(isinstance(each, str) for each in results) == 3
    assert all(isinstance(each, (str, PortalError)) for each in results)
    with transactions.reading(COMMAND) as context:
        assert context.session.query(Instance).count() == 3


@pytest.mark.asvs("6.5.1", "6.5.2")
def test_a_code_passes_once_however_many_browsers_send_it(
    transactions: Transactions, clock: FakeClock
) -> None:
    person = make_staff(transactions)
    with transactions.writing(COMMAND) as context:
        secret = start_setup(context, person.id)
        codes = confirm_setup(context, person.id, pyotp.TOTP(secret).at(unix(context.at)))
    assert codes is not None
    clock.advance(seconds=30)
    current = pyotp.TOTP(secret).at(unix(clock.now()))

    def send(code: str) -> bool:
        with transactions.writing(COMMAND) as context:
            return check_code(context, person.id, code)

    for code in (current, codes[0]):
        assert sorted(map(bool, at_once(*[lambda code=code: send(code)] * 4))) == [
            False,
            False,
            False,
            True,
        ]
    with transactions.reading(COMMAND) as context:
        used = context.session.query(RecoveryCode).filter(RecoveryCode.used_at.is_not(None))
        assert used.count() == 1
