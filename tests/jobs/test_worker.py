"""The worker: nothing lost, nothing done twice at once, one failure never stops another job."""

import json
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from portal.db.audit import AuditSeal
from portal.db.bundles import Bundle
from portal.db.emails import Email
from portal.db.entitlements import Entitlement
from portal.db.heartbeats import last_beat
from portal.db.jobs import Job
from portal.db.licenses import License
from portal.domain.errors import Conflict
from portal.domain.ports import Rendered
from portal.jobs.handlers import Handlers
from portal.jobs.worker import Schedule, Worker
from portal.services.audit_seals import sealing_is_late, verify_chain
from portal.services.context import SYSTEM, Actor, Transactions
from portal.services.emails import queue_email
from portal.services.jobs import enqueue
from portal.services.licenses import request_issue
from tests.databases import write_at_once
from tests.factories.accounts import make_customer, make_deployment
from tests.factories.licenses import make_entitlement
from tests.fakes import BusySigners, FakeClock, FakeMailer

COMMAND = Actor("command")


class Templates:
    """Renders a mail as the names of its parts."""

    def render(self, template: str, facts: Mapping[str, object]) -> Rendered:
        return Rendered(template, f"{sorted(facts)}", f"<p>{template}</p>")


@pytest.fixture
def mailer() -> FakeMailer:
    return FakeMailer()


@pytest.fixture
def worker(transactions: Transactions, mailer: FakeMailer) -> Worker:
    handlers = Handlers(transactions, Templates(), mailer)
    return Worker(transactions, handlers.by_kind(), handlers.schedules(), "worker one")


def drain(worker: Worker) -> None:
    while worker.run_once():
        pass


def test_it_issues_what_was_asked_and_tells_the_customer(
    worker: Worker, transactions: Transactions, mailer: FakeMailer
) -> None:
    account, owner = make_customer(transactions)
    entitlement = make_entitlement(transactions, make_deployment(transactions, account))
    with transactions.writing(COMMAND) as context:
        asked = request_issue(context, entitlement.id, cause="start")
    drain(worker)
    with transactions.reading(COMMAND) as context:
        assert context.session.get_one(License, asked.id).released_at is not None
        assert last_beat(context.session, "worker") is not None
    assert [mail.subject for mail in mailer.sent if mail.to == owner.email] == [
        "set-password",
        "license-issued",
    ]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_nobody_waits_for_a_worker_that_signs_or_mails(
    transactions: Transactions, clock: FakeClock, database_url: str
) -> None:
    """SQLite has one write lock; the worker holds it for statements alone."""
    written: list[str] = []

    def write(during: str) -> None:
        write_at_once(database_url)
        written.append(during)

    signers = BusySigners(transactions.ports.signers, lambda: write("signature"))
    mailer = FakeMailer(meanwhile=lambda: write("mail"))
    opened = Transactions(
        transactions.database, replace(transactions.ports, signers=signers), transactions.policy
    )
    handlers = Handlers(opened, Templates(), mailer)
    worker = Worker(opened, handlers.by_kind(), handlers.schedules(), "worker one")
    account, _ = make_customer(transactions)
    entitlement = make_entitlement(transactions, make_deployment(transactions, account))
    with transactions.writing(COMMAND) as context:
        request_issue(context, entitlement.id, cause="start")
    clock.advance(days=1, seconds=1)
    drain(worker)
    assert written.count("signature") == 2, "of the license, and of the bundle that is due"
    assert written.count("mail") == len(mailer.sent) == 2


def test_a_poison_job_is_retried_then_parked_and_stops_nobody(
    transactions: Transactions, clock: FakeClock
) -> None:
    done: list[str] = []

    def poison(_payload: Mapping[str, Any]) -> None:
        raise RuntimeError("no luck")

    def good(_payload: Mapping[str, Any]) -> None:
        done.append("good")

    def refused(_payload: Mapping[str, Any]) -> None:
        raise Conflict("never")

    worker = Worker(transactions, {"poison": poison, "good": good, "refused": refused}, [], "one")
    with transactions.writing(COMMAND) as context:
        enqueue(context, "poison", "p")
        enqueue(context, "refused", "r")
        enqueue(context, "good", "g")
        enqueue(context, "unheard-of", "u")
    drain(worker)
    assert done == ["good"]
    for _ in range(30):
        clock.advance(hours=2)
        drain(worker)
    with transactions.reading(COMMAND) as context:
        jobs = {job.kind: job for job in context.session.query(Job)}
    assert jobs["good"].done_at is not None
    assert jobs["poison"].attempts == 25
    assert jobs["poison"].parked_at is not None
    assert jobs["poison"].last_error == "RuntimeError: no luck"
    assert jobs["refused"].attempts == 1
    assert jobs["refused"].parked_at is not None
    assert jobs["unheard-of"].parked_at is not None


def test_mail_waits_for_the_mail_server_and_forgets_its_secret(
    worker: Worker, transactions: Transactions, mailer: FakeMailer, clock: FakeClock
) -> None:
    mailer.broken = True
    with transactions.writing(COMMAND) as context:
        email = queue_email(context, "t", "a@b.example", {"name": "A"}, secret="s3cret")
    drain(worker)
    with transactions.reading(COMMAND) as context:
        row = context.session.get_one(Email, email.id)
        assert (row.state, row.sealed_secret is None) == ("failed", False)
        assert b"s3cret" not in (row.sealed_secret or b"")
    mailer.broken = False
    clock.advance(hours=2)
    drain(worker)
    with transactions.reading(COMMAND) as context:
        row = context.session.get_one(Email, email.id)
        assert (row.state, row.sealed_secret) == ("sent", None)
    assert len(mailer.sent) == 1


def test_committed_rows_are_sealed_and_the_chain_holds(
    worker: Worker, transactions: Transactions, clock: FakeClock
) -> None:
    worker.run_once()
    make_customer(transactions, "ann@newco.example")
    with transactions.reading(COMMAND) as context:
        assert not sealing_is_late(context)
    clock.advance(seconds=61)
    with transactions.reading(COMMAND) as context:
        assert sealing_is_late(context)
    worker.run_once()
    make_customer(transactions)
    clock.advance(seconds=2)
    worker.run_once()
    with transactions.reading(COMMAND) as context:
        assert context.session.query(AuditSeal).count() == 3
        assert verify_chain(context) is None
        assert not sealing_is_late(context)


def test_a_bundle_is_published_daily_and_names_the_newest_seal(
    worker: Worker, transactions: Transactions, clock: FakeClock
) -> None:
    worker.run_once()
    with transactions.reading(COMMAND) as context:
        assert context.session.query(Bundle).count() == 1
    clock.advance(seconds=86_401)
    if transactions.database.engine.dialect.name == "postgresql":
        clock.advance(seconds=1)
    worker.run_once()
    with transactions.reading(COMMAND) as context:
        first, second = context.session.query(Bundle).order_by(Bundle.version)
        assert second.version > first.version
        assert b"audit_seal" in b64decode(json.loads(second.envelope)["payload"])


def test_terms_that_are_over_end(
    worker: Worker, transactions: Transactions, clock: FakeClock
) -> None:
    account, _ = make_customer(transactions)
    entitlement = make_entitlement(transactions, make_deployment(transactions, account))
    clock.advance(days=31)
    worker.run_once()
    with transactions.reading(SYSTEM) as context:
        assert context.session.get_one(Entitlement, entitlement.id).state == "ended"


def test_a_schedule_that_fails_waits_and_the_next_one_runs(
    transactions: Transactions, clock: FakeClock
) -> None:
    ran: list[str] = []

    def fail() -> None:
        ran.append("fail")
        raise RuntimeError("no luck")

    schedules = [
        Schedule("fails", timedelta(seconds=1), fail),
        Schedule("works", timedelta(seconds=1), lambda: ran.append("works")),
    ]
    worker = Worker(transactions, {}, schedules, "one")
    worker.run_once()
    clock.advance(seconds=1)
    worker.run_once()
    assert ran == ["fail", "works", "works"]
    clock.advance(seconds=2)
    worker.run_once()
    assert ran.count("fail") == 2
