"""Notices in time: once each whatever happens, none that is outdated, none to who declined."""

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from threading import Barrier

import pytest
from sqlalchemy import event, select, update

from portal.db.emails import Email
from portal.db.entitlements import Entitlement
from portal.db.instances import Instance
from portal.db.licenses import License
from portal.db.notices import Notice
from portal.domain.errors import Unavailable
from portal.domain.notices import NoticeKind
from portal.services.acts.machinery import submit
from portal.services.acts.replace import REPLACE
from portal.services.context import Transactions
from portal.services.enrollments import enroll
from portal.services.keys import unix
from portal.services.licenses import mark_installed
from portal.services.notices import tell_license_changed
from portal.services.opt_outs import switch_reminders, unsubscribe_link
from portal.services.reminders import contracts_ending, tell_due, why_outdated
from tests.factories.accounts import (
    COMMAND,
    add_member,
    make_customer,
    make_deployment,
    make_staff,
)
from tests.factories.acts import ask, do, newest
from tests.factories.instances import make_code, make_router
from tests.factories.licenses import issue, make_entitlement, make_lease_license, make_license
from tests.factories.requests import ask_for_pilot
from tests.fakes import FakeClock

SECRETS = ("confirm-email", "set-password", "license-issued")


def shift(transactions: Transactions, license_: License, **back: float) -> None:
    """Make a license as old as if it had been issued that much earlier.

    The clock stands: on PostgreSQL it must agree with the server's.
    """
    with transactions.writing(COMMAND) as context:
        row = context.session.get_one(License, license_.id)
        assert row.released_at is not None
        assert row.expires_at is not None
        assert row.issued_at is not None
        for name in ("released_at", "expires_at", "issued_at", "created_at"):
            setattr(row, name, getattr(row, name) - timedelta(**back))


def mails(transactions: Transactions) -> Counter[str]:
    with transactions.reading(COMMAND) as context:
        rows = context.session.scalars(select(Email.template))
        return Counter(each for each in rows if each not in SECRETS)


def told(transactions: Transactions) -> set[str]:
    with transactions.reading(COMMAND) as context:
        return set(context.session.scalars(select(Notice.kind))) - {"issued", "contracts-ending"}


def test_a_reminder_is_mailed_once_to_owners_and_operators(transactions: Transactions) -> None:
    license_ = make_license(transactions, sku="pilot-30d")
    for role in ("operator", "billing", "viewer"):
        add_member(transactions, license_.account_id, role, f"{role}@newco.example")
    shift(transactions, license_, days=16, hours=1)
    for _ in range(3):
        tell_due(transactions)
    assert told(transactions) == {"expires-14d"}
    with transactions.reading(COMMAND) as context:
        rows = context.session.scalars(
            select(Email).where(Email.template == "license-expiring")
        ).all()
        assert sorted(each.to_address for each in rows) == [
            "jo@newco.example",
            "operator@newco.example",
        ]
        assert rows[0].facts["url"].endswith(f"/account/licenses/{license_.id}")


def test_a_late_worker_sends_the_last_step_alone_and_an_early_clock_brings_none_back(
    transactions: Transactions,
) -> None:
    license_ = make_lease_license(transactions, sku="pilot-30d")
    shift(transactions, license_, days=29, hours=1)
    tell_due(transactions)
    assert told(transactions) == {"expires-1d"}
    shift(transactions, license_, days=-20)
    tell_due(transactions)
    shift(transactions, license_, days=13)
    tell_due(transactions)
    assert mails(transactions) == {"license-expiring": 1}
    shift(transactions, license_, days=8)
    tell_due(transactions)
    tell_due(transactions)
    assert mails(transactions) == {"license-expiring": 1, "license-expired": 1}
    shift(transactions, license_, days=-1)
    tell_due(transactions)
    assert mails(transactions) == {"license-expiring": 1, "license-expired": 1}


def test_licenses_that_expired_long_ago_are_no_news(transactions: Transactions) -> None:
    license_ = make_license(transactions)
    shift(transactions, license_, days=30)
    tell_due(transactions)
    assert told(transactions) == set()


def test_two_workers_at_once_tell_once(transactions: Transactions) -> None:
    license_ = make_lease_license(transactions)
    shift(transactions, license_, hours=50)
    together = Barrier(2)

    def work(_: int) -> int:
        together.wait()
        return tell_due(transactions)

    with ThreadPoolExecutor(2) as pool:
        # One of them also notes that the week has no contracts to list.
        assert sum(pool.map(work, range(2))) <= 2
    assert mails(transactions) == {"license-expiring": 1}


class Killed(BaseException):
    """What ends a worker in the middle of a statement."""


def killed_at(transactions: Transactions, point: int) -> bool:
    """Tell what is due, and end before the nth statement; True when there was an nth."""
    left = iter(range(point))

    def reach(*_: object) -> None:
        if next(left, None) is None:
            raise Killed

    engine = transactions.database.engine
    event.listen(engine, "before_cursor_execute", reach)
    try:
        tell_due(transactions)
    except Killed:
        return True
    finally:
        event.remove(engine, "before_cursor_execute", reach)
    return False


def test_a_worker_that_ends_at_any_statement_tells_once_in_the_end(
    transactions: Transactions,
) -> None:
    license_ = make_lease_license(transactions)
    shift(transactions, license_, hours=50)
    point = 0
    while killed_at(transactions, point):
        point += 1
        assert mails(transactions) in ({}, {"license-expiring": 1})
    tell_due(transactions)
    assert point > 10
    assert mails(transactions) == {"license-expiring": 1}


def test_a_clock_that_disagrees_with_the_databases_tells_nothing(
    transactions: Transactions, clock: FakeClock
) -> None:
    make_license(transactions)
    if transactions.database.is_postgresql:
        clock.advance(days=1)
    else:
        # SQLite has no clock of its own; what was issued last still shows one that went back.
        clock.advance(hours=-1)
    with pytest.raises(Unavailable, match="clock"):
        tell_due(transactions)
    assert mails(transactions) == {}


def successor_of(transactions: Transactions, license_: License) -> License:
    do(transactions, REPLACE, license_.id, None)
    return newest(transactions, license_.deployment_id)


def test_a_replaced_license_is_told_of_no_more_and_waiting_mails_are_withdrawn(
    transactions: Transactions,
) -> None:
    license_ = make_lease_license(transactions)
    shift(transactions, license_, hours=50)
    tell_due(transactions)
    with transactions.reading(COMMAND) as context:
        email = context.session.scalars(
            select(Email).where(Email.template == "license-expiring")
        ).one()
        assert why_outdated(context, email.id) is None
    newer = successor_of(transactions, license_)
    shift(transactions, license_, hours=20)
    tell_due(transactions)
    assert mails(transactions) == {"license-expiring": 1, "license-replaced": 1}
    with transactions.reading(COMMAND) as context:
        assert why_outdated(context, email.id) == "The license was replaced meanwhile."
        row = context.session.scalars(
            select(Email).where(Email.template == "license-replaced")
        ).one()
        assert row.facts["license_id"] == newer.id
        assert row.facts["old_ends_at"] is not None
        assert why_outdated(context, row.id) is None


def test_what_is_being_issued_silences_the_one_before(transactions: Transactions) -> None:
    license_ = make_lease_license(transactions)
    shift(transactions, license_, hours=50)
    with transactions.writing(COMMAND) as context:
        submit(context, REPLACE, ask(REPLACE, license_.id, None))
    tell_due(transactions)
    assert told(transactions) == set()


def test_an_offline_site_is_reminded_until_it_is_marked(transactions: Transactions) -> None:
    license_ = make_license(transactions, sku="pilot-30d")
    shift(transactions, license_, days=3, hours=1)
    tell_due(transactions)
    assert mails(transactions) == {"license-install": 1}
    with transactions.writing(COMMAND) as context:
        mark_installed(context, license_.account_id, license_.id)
    with transactions.reading(COMMAND) as context:
        email = context.session.scalars(
            select(Email).where(Email.template == "license-install")
        ).one()
        assert why_outdated(context, email.id) == "The license was marked as installed meanwhile."


def use_tokens(transactions: Transactions, license_: License, tokens: int, name: str) -> None:
    """Let a router that is enrolled with the license report usage of its budget."""
    code = make_code(transactions, license_)
    with transactions.writing(COMMAND) as context:
        asked = make_router(license_, name).enrollment(code, at=unix(context.at))
        instance_id = enroll(context, asked).instance_id
        document = license_.document
        assert document is not None
        assert document.budget is not None
        context.session.execute(
            update(Instance)
            .where(Instance.id == instance_id)
            .values(usage_budget_id=document.budget.budget_id, usage_tokens=tokens)
        )


def test_a_budget_is_told_over_all_routers_and_once_for_the_whole_line(
    transactions: Transactions,
) -> None:
    license_ = make_lease_license(transactions, limits={"max_instances": 2})
    use_tokens(transactions, license_, 500_000, "one")
    tell_due(transactions)
    assert mails(transactions) == {}
    use_tokens(transactions, license_, 310_000, "two")
    tell_due(transactions)
    assert mails(transactions) == {"license-budget-low": 1}
    with transactions.reading(COMMAND) as context:
        row = context.session.scalars(
            select(Email).where(Email.template == "license-budget-low")
        ).one()
        assert (row.facts["tokens_used"], row.facts["tokens_total"]) == (810_000, 1_000_000)
    successor_of(transactions, license_)
    tell_due(transactions)
    assert mails(transactions)["license-budget-low"] == 1, "the budget is the same"


def test_who_declined_or_left_gets_no_reminder_but_learns_what_has_happened(
    transactions: Transactions,
) -> None:
    license_ = make_lease_license(transactions)
    operator = add_member(transactions, license_.account_id, "operator", "op@newco.example")
    shift(transactions, license_, hours=50)
    tell_due(transactions)
    with transactions.writing(COMMAND) as context:
        link = unsubscribe_link(context, operator.id, license_.account_id)
        switch_reminders(context, link.rpartition("/")[2], off=True)
        waiting = {
            each.to_address: why_outdated(context, each.id)
            for each in context.session.scalars(
                select(Email).where(Email.template == "license-expiring")
            )
        }
    assert waiting["jo@newco.example"] is None
    assert waiting["op@newco.example"] is not None
    shift(transactions, license_, hours=18.5)
    tell_due(transactions)
    assert mails(transactions)["license-expiring"] == 3
    shift(transactions, license_, hours=4)
    tell_due(transactions)
    assert mails(transactions)["license-expired"] == 2


def test_a_reminder_leads_to_what_was_asked_already(transactions: Transactions) -> None:
    license_ = make_lease_license(transactions)
    asked = ask_for_pilot(transactions, deployment_id=license_.deployment_id)
    shift(transactions, license_, hours=50)
    tell_due(transactions)
    with transactions.reading(COMMAND) as context:
        email = context.session.scalars(
            select(Email).where(Email.template == "license-expiring")
        ).one()
        assert email.facts["url"].endswith(f"/account/requests/{asked}")
        assert "is open" in email.facts["step"]


def test_an_act_is_told_once_a_hold_and_falls_with_its_transaction(
    transactions: Transactions,
) -> None:
    license_ = make_lease_license(transactions)

    def tell(kind: NoticeKind, subject_id: str | None) -> bool:
        with transactions.writing(COMMAND) as context:
            row = context.session.get_one(License, license_.id)
            return tell_license_changed(context, row, kind, subject_id=subject_id)

    assert tell(NoticeKind.SUSPENDED, "hld_1")
    assert not tell(NoticeKind.SUSPENDED, "hld_1")
    assert tell(NoticeKind.REINSTATED, "hld_1")
    assert tell(NoticeKind.SUSPENDED, "hld_2")
    with pytest.raises(Killed):
        tell_and_fail(transactions, license_)
    assert mails(transactions) == {"license-suspended": 2, "license-reinstated": 1}
    assert tell(NoticeKind.REVOKED, None)


def tell_and_fail(transactions: Transactions, license_: License) -> None:
    """Tell of an act that does not come about."""
    with transactions.writing(COMMAND) as context:
        row = context.session.get_one(License, license_.id)
        assert tell_license_changed(context, row, NoticeKind.REVOKED)
        raise Killed


def at_day(transactions: Transactions, week_day: int, hour: int) -> Transactions:
    """Return units of work with a clock of their own, on a day of the coming week."""
    now = transactions.ports.clock.now()
    moment = (now + timedelta(days=week_day - now.isoweekday() + 7)).replace(hour=hour)
    ports = replace(transactions.ports, clock=FakeClock(moment))
    return Transactions(transactions.database, ports, transactions.policy)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_approvers_get_the_contracts_that_end_within_60_days_once_a_week(
    transactions: Transactions,
) -> None:
    ann = make_staff(transactions, "ann@vendor.test", "approver")
    bob = make_staff(transactions, "bob@vendor.test", "approver")
    make_staff(transactions, "sue@vendor.test", "support")
    license_ = contract(transactions, ann.id, bob.id)
    with transactions.reading(COMMAND) as context:
        assert contracts_ending(context) == []
    shift(transactions, license_, days=306)
    tell_due(at_day(transactions, 1, 5))
    assert mails(transactions)["contracts-ending"] == 0
    for week_day, hour in ((1, 6), (1, 7), (2, 0), (7, 23)):
        tell_due(at_day(transactions, week_day, hour))
    with transactions.reading(COMMAND) as context:
        rows = context.session.scalars(
            select(Email).where(Email.template == "contracts-ending")
        ).all()
        assert sorted(each.to_address for each in rows) == ["ann@vendor.test", "bob@vendor.test"]
        (listed,) = rows[0].facts["contracts"]
    assert listed["account"] == "NewCo"
    assert listed["url"].endswith(f"/staff/licenses/{license_.id}")
    assert listed["has_asked"] is False


def contract(transactions: Transactions, proposer: str, approver: str) -> License:
    """Issue an annual license; its entitlement is proposed by one and approved by another."""
    license_ = make_lease_license(transactions)
    with transactions.writing(COMMAND) as context:
        row = context.session.get_one(License, license_.id)
        row.sku = "enterprise-annual"
        row.expires_at = context.at + timedelta(days=365)
        entitlement = context.session.get_one(Entitlement, row.entitlement_id)
        entitlement.created_by, entitlement.approved_by = proposer, approver
    return license_


def test_looking_for_what_is_due_takes_as_many_statements_for_many(
    transactions: Transactions,
) -> None:
    def count(make: Callable[[], object]) -> int:
        make()
        tell_due(transactions)
        seen: list[None] = []
        engine = transactions.database.engine

        def note(*_: object) -> None:
            seen.append(None)

        event.listen(engine, "before_cursor_execute", note)
        try:
            tell_due(transactions)
        finally:
            event.remove(engine, "before_cursor_execute", note)
        return len(seen)

    license_ = make_lease_license(transactions)
    few = count(lambda: None)
    many = count(lambda: twins(transactions, license_, 5))
    assert few == many > 0


def twins(transactions: Transactions, license_: License, count: int) -> None:
    """Add deployments with licenses like this one's."""
    for number in range(count):
        twin(transactions, license_, number)


def twin(transactions: Transactions, license_: License, number: int) -> None:
    """Add a deployment with a license like this one's."""
    account, _ = make_customer(transactions, f"kim@site{number}.example", f"Company {number}")
    deployment = make_deployment(transactions, account)
    made = issue(transactions, make_entitlement(transactions, deployment, mode="lease"))
    assert made.account_id != license_.account_id
