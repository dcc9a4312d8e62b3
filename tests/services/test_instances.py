"""Instances: how they are at an instant, whose they are, and giving them up."""

from datetime import timedelta

import pytest

from portal.db.audit import AuditRow
from portal.db.instances import Instance
from portal.db.licenses import License
from portal.domain.errors import NotFound
from portal.services.context import Transactions
from portal.services.enrollments import enroll
from portal.services.instances import instance_health, instance_page, retire_instance
from portal.services.keys import unix
from tests.factories.accounts import COMMAND, make_customer
from tests.factories.instances import make_code, make_router
from tests.factories.licenses import make_lease_license
from tests.fakes import FakeClock


@pytest.fixture
def license_(transactions: Transactions) -> License:
    return make_lease_license(transactions)


@pytest.fixture
def instance(transactions: Transactions, license_: License) -> Instance:
    code = make_code(transactions, license_)
    with transactions.writing(COMMAND) as context:
        asked = make_router(license_).enrollment(code, at=unix(context.at))
        answered = enroll(context, asked)
        return context.session.get_one(Instance, answered.instance_id)


def test_a_silent_router_goes_from_serving_to_lapsed(
    transactions: Transactions, instance: Instance, clock: FakeClock
) -> None:
    second = timedelta(seconds=1)
    states = []
    for at in (
        instance.renew_latest_at,
        instance.renew_latest_at + second,
        instance.lease_expires_at,
        instance.lease_grace_until_at - second,
        instance.lease_grace_until_at,
    ):
        clock.at = at
        with transactions.reading(COMMAND) as context:
            health = instance_health(context, instance)
        states.append(health.state)
        assert (health.advice is None) == (health.state == "serving")
    assert states == ["serving", "overdue", "in-grace", "in-grace", "lapsed"]


@pytest.mark.parametrize("status", ["suspended", "revoked", "superseded", "ended"])
def test_a_router_that_was_told_to_stop_is_said_to_be(
    transactions: Transactions, instance: Instance, status: str
) -> None:
    instance.lease_status = status
    with transactions.reading(COMMAND) as context:
        health = instance_health(context, instance)
    assert health.state == status
    assert health.advice is not None


def test_it_is_retired_once_and_its_page_says_so(
    transactions: Transactions, instance: Instance, license_: License, clock: FakeClock
) -> None:
    at = clock.now()
    for reason in ("the host burned", "again"):
        with transactions.writing(COMMAND) as context:
            retire_instance(context, instance.id, reason=reason)
        clock.advance(hours=1)
    with transactions.reading(COMMAND) as context:
        page = instance_page(context, license_.account_id, instance.id)
        acts = context.session.query(AuditRow).filter_by(action="instance.retired").all()
    assert (page.health.state, page.instance.retired_at) == ("retired", at)
    assert page.instance.slot_free_at is not None
    assert (page.deployment.id, page.forks) == (license_.deployment_id, ())
    assert [each.reason for each in acts] == ["the host burned"]


def test_another_accounts_instance_is_as_absent_as_none(
    transactions: Transactions, instance: Instance
) -> None:
    other, _ = make_customer(transactions, "kim@widgets.example", "Widgets")
    with transactions.writing(COMMAND) as context:
        for instance_id in (instance.id, "ins_00000000000000000000000000"):
            with pytest.raises(NotFound, match="no such instance in this account"):
                instance_page(context, other.id, instance_id)
        with pytest.raises(NotFound):
            retire_instance(context, "ins_00000000000000000000000000", reason="none")
