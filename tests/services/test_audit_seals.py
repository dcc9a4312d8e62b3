"""Audit seals: each row gets one, each change is found, and neither costs more with time."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, event, text

from licensing.keys import ZERO_SHA256
from portal.db.audit import AuditRow, AuditSeal, SealedRow
from portal.db.bundles import latest_bundle
from portal.db.licenses import License
from portal.services.audit_seals import (
    BATCH,
    LEASE_SETTLED,
    ROWS_SETTLED,
    Broken,
    check_anchors,
    row_facts,
    rows_digest,
    seal_committed,
    seal_digest,
    unsealed_since,
    verify_chain,
)
from portal.services.bundles import publish_bundle
from portal.services.context import SYSTEM, Actor, Transactions
from portal.services.enrollments import enroll
from portal.services.keys import unix
from tests.factories.accounts import make_customer, make_deployment
from tests.factories.instances import make_code, make_router
from tests.factories.licenses import make_lease_license
from tests.fakes import FakeClock

COMMAND = Actor("command")


@pytest.fixture
def sealed(transactions: Transactions, clock: FakeClock) -> Transactions:
    """A trail of three seals, the last of them named by a published bundle.

    The triggers that refuse changes are gone: the attacker owns the database.
    """
    account, _ = make_customer(transactions)
    for name in ("One", "Two", "Three"):
        make_deployment(transactions, account, name)
        assert seal_committed(transactions) is not None
        clock.advance(seconds=1)
    publish_bundle(transactions, COMMAND)
    with transactions.writing(COMMAND) as context:
        _drop_guards(context.session)
    return transactions


def _drop_guards(session: object) -> None:
    execute = session.execute  # type: ignore[attr-defined]
    dialect = session.get_bind().dialect.name  # type: ignore[attr-defined]
    if dialect == "sqlite":
        names = execute(text("SELECT name FROM sqlite_master WHERE type = 'trigger'")).scalars()
        for name in names.all():
            execute(text(f'DROP TRIGGER "{name}"'))
    else:
        for table in ("audit_rows", "audit_seals", "sealed_rows"):
            execute(text(f"ALTER TABLE {table} DISABLE TRIGGER USER"))


def broken(transactions: Transactions) -> Broken | None:
    with transactions.reading(COMMAND) as context:
        return verify_chain(context)


def test_an_untouched_trail_holds(sealed: Transactions) -> None:
    assert broken(sealed) is None
    with sealed.reading(COMMAND) as context:
        assert check_anchors(context) is None


@pytest.mark.asvs("16.4.2", "16.4.3")
@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("actor_id", "per_00000000000000000000000000"),
        ("address", "203.0.113.66"),
        ("at", "2020-01-01 00:00:00+00"),
        ("action", "nothing.happened"),
        ("reason", "no reason"),
        ("subject_id", "dep_00000000000000000000000000"),
    ],
)
def test_a_changed_column_is_found(sealed: Transactions, column: str, value: str) -> None:
    with sealed.writing(COMMAND) as context:
        second = context.session.query(SealedRow).filter_by(seal_number=2).first()
        assert second is not None
        context.session.execute(
            text(f"UPDATE audit_rows SET {column} = :value WHERE id = :id"),
            {"value": value, "id": second.audit_row_id},
        )
    found = broken(sealed)
    assert found is not None
    assert found.seal_number == 2


def test_a_removed_row_and_a_removed_seal_are_found(sealed: Transactions) -> None:
    with sealed.writing(COMMAND) as context:
        third = context.session.query(SealedRow).filter_by(seal_number=3).first()
        assert third is not None
        row_id = third.audit_row_id
        context.session.execute(
            text("DELETE FROM sealed_rows WHERE audit_row_id = :i"), {"i": row_id}
        )
        context.session.execute(text("DELETE FROM audit_rows WHERE id = :i"), {"i": row_id})
    found = broken(sealed)
    assert found == Broken(3, "a row it covers was changed, removed or added")
    with sealed.writing(COMMAND) as context:
        context.session.execute(text("DELETE FROM sealed_rows WHERE seal_number = 2"))
        context.session.execute(text("DELETE FROM audit_seals WHERE number = 2"))
    found = broken(sealed)
    assert found == Broken(2, "the seal is missing")


@pytest.mark.asvs("16.4.3")
def test_a_chain_computed_anew_disagrees_with_a_published_bundle(sealed: Transactions) -> None:
    with sealed.reading(COMMAND) as context:
        stored = latest_bundle(context.session)
        assert stored is not None
        published = stored.envelope
    with sealed.writing(COMMAND) as context:
        first = context.session.query(SealedRow).filter_by(seal_number=1).first()
        assert first is not None
        context.session.execute(
            text("UPDATE audit_rows SET reason = 'another' WHERE id = :id"),
            {"id": first.audit_row_id},
        )
    _compute_anew(sealed)
    assert broken(sealed) is None, "a chain computed anew holds by itself"
    with sealed.reading(COMMAND) as context:
        found = check_anchors(context)
        assert found is not None
        assert "bundle" in found.why
    with sealed.writing(COMMAND) as context:
        context.session.execute(text("DELETE FROM bundles"))
    with sealed.reading(COMMAND) as context:
        assert check_anchors(context) is None
        assert check_anchors(context, [published]) is not None, "a bundle somebody kept tells"


def _compute_anew(transactions: Transactions) -> None:
    """Rewrite every seal, as whoever knows this code could."""
    with transactions.writing(COMMAND) as context:
        prev = ZERO_SHA256
        for seal in context.session.query(AuditSeal).order_by(AuditSeal.number):
            rows = (
                context.session.query(AuditRow)
                .join(SealedRow, SealedRow.audit_row_id == AuditRow.id)
                .filter(SealedRow.seal_number == seal.number)
                .all()
            )
            seal.rows_sha256 = rows_digest(map(row_facts, rows))
            seal.prev_sha256 = prev
            seal.seal_sha256 = prev = seal_digest(seal)


def _enroll(transactions: Transactions, license_: License, name: str, clock: FakeClock) -> None:
    """Enroll a router."""
    router = make_router(license_, name)
    code = make_code(transactions, license_)
    request = router.enrollment(code, at=unix(clock.now()))
    with transactions.writing(COMMAND) as context:
        enroll(context, request)


@pytest.mark.asvs("16.4.2")
@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE leases SET payload_sha256 = :zeros WHERE number = :number",
        "DELETE FROM leases WHERE number = :number",
        "UPDATE leases SET number = 77 WHERE number = :number",
    ],
)
def test_a_changed_or_removed_lease_is_found(
    transactions: Transactions, clock: FakeClock, statement: str
) -> None:
    license_ = make_lease_license(transactions, sku="pilot-30d", limits={"max_instances": 9})
    for name in ("one", "two", "three"):
        _enroll(transactions, license_, name, clock)
    seal_committed(transactions)
    clock.advance(seconds=LEASE_SETTLED.total_seconds() + 1)
    seal = seal_committed(transactions)
    assert seal is not None
    assert (seal.row_count, seal.lease_from, seal.lease_to) == (0, 0, 3)
    assert broken(transactions) is None
    with transactions.writing(COMMAND) as context:
        context.session.execute(text(statement), {"zeros": ZERO_SHA256, "number": 2})
    assert broken(transactions) == Broken(
        seal.number, "a lease it covers was changed, removed or added"
    )


def test_a_lease_is_sealed_though_one_of_a_later_number_is_older(
    transactions: Transactions, clock: FakeClock
) -> None:
    """Two web processes whose clocks differ."""
    license_ = make_lease_license(transactions, sku="pilot-30d", limits={"max_instances": 9})
    clock.advance(minutes=1)
    _enroll(transactions, license_, "one", clock)
    clock.advance(seconds=-50)
    _enroll(transactions, license_, "two", clock)
    clock.advance(seconds=LEASE_SETTLED.total_seconds() + 1)
    seal = seal_committed(transactions)
    assert seal is not None
    assert seal.lease_to == 0, "the first is not settled"
    clock.advance(seconds=50)
    seal = seal_committed(transactions)
    assert seal is not None
    assert seal.lease_to == 2
    assert broken(transactions) is None


def _add_rows(
    transactions: Transactions, at: datetime, first: int, last: int, *, seal_number: int = 0
) -> None:
    """Commit audit rows of these numbers; with a seal's number, as rows it covers."""
    numbers = (
        f"generate_series({first}, {last}) AS numbers (n)"
        if transactions.database.is_postgresql
        else f"(WITH RECURSIVE counted (n) AS (SELECT {first} UNION ALL"
        f" SELECT n + 1 FROM counted WHERE n < {last}) SELECT n FROM counted) AS numbers"
    )
    with transactions.writing(COMMAND) as context:
        context.session.execute(
            text(
                "INSERT INTO audit_rows"
                " (id, at, action, actor_kind, subject_kind, subject_id, detail)"
                " SELECT n, :at, 'deployment.created', 'command', 'deployment', 'dep_1', '{}'"
                f" FROM {numbers}"
            ),
            {"at": at if transactions.database.is_postgresql else at.replace(tzinfo=None)},
        )
        if seal_number:
            context.session.execute(
                text(f"INSERT INTO sealed_rows SELECT n, {seal_number} FROM {numbers}")
            )


def _unsealed(transactions: Transactions) -> int:
    with transactions.reading(COMMAND) as context:
        counted: int = context.session.scalars(
            text(
                "SELECT count(*) FROM audit_rows WHERE id NOT IN"
                " (SELECT audit_row_id FROM sealed_rows)"
            )
        ).one()
    return counted


def test_a_row_committed_late_with_a_lower_number_is_sealed(
    transactions: Transactions, clock: FakeClock
) -> None:
    """Its transaction numbered it, then waited, while others with higher numbers committed."""
    _add_rows(transactions, clock.now(), 100, 120)
    first = seal_committed(transactions)
    assert first is not None
    assert first.settled_to < 50, "rows may still come below the sealed ones"
    clock.advance(seconds=90)
    _add_rows(transactions, clock.now() - timedelta(seconds=80), 50, 60)
    with transactions.reading(COMMAND) as context:
        assert unsealed_since(context) == clock.now() - timedelta(seconds=80)
    second = seal_committed(transactions)
    assert second is not None
    assert second.row_count == 11
    assert _unsealed(transactions) == 0
    assert seal_committed(transactions) is None
    clock.advance(seconds=ROWS_SETTLED.total_seconds() + 1)
    _add_rows(transactions, clock.now(), 130, 130)
    third = seal_committed(transactions)
    assert third is not None
    assert third.settled_to == 129, "nothing can come below the newest row any more"
    assert broken(transactions) is None


def test_a_worker_that_was_away_seals_everything_in_batches(
    transactions: Transactions, clock: FakeClock
) -> None:
    began = clock.now()
    assert seal_committed(transactions) is not None
    _add_rows(transactions, began, 1001, 1000 + BATCH + 10)
    clock.advance(hours=3)
    _add_rows(transactions, clock.now(), 90_000, 90_004)
    seals = [seal_committed(transactions), seal_committed(transactions)]
    assert [each and (each.row_count, each.settled_to) for each in seals] == [
        (BATCH, 1000 + BATCH),
        (15, 89_999),
    ]
    assert seal_committed(transactions) is None
    assert _unsealed(transactions) == 0
    assert broken(transactions) is None


@pytest.mark.asvs("16.4.2")
def test_a_row_added_below_what_was_settled_is_found(
    transactions: Transactions, clock: FakeClock
) -> None:
    """The sealer no longer looks there; the check of the chain does."""
    seal_committed(transactions)
    clock.advance(seconds=ROWS_SETTLED.total_seconds() + 1)
    _add_rows(transactions, clock.now(), 1000, 1000)
    seal = seal_committed(transactions)
    assert seal is not None
    assert seal.settled_to == 999
    _add_rows(transactions, clock.now(), 500, 500)
    assert seal_committed(transactions) is None
    assert broken(transactions) == Broken(
        seal.number, "a row up to where it settled the trail has no seal"
    )


@dataclass
class Interrupted(FakeClock):
    """Does something when it is read for the second time, as another process might."""

    meanwhile: Callable[[], object] = field(default=lambda: None)
    readings: int = 0

    def now(self) -> datetime:
        self.readings += 1
        if self.readings == 2:
            self.meanwhile()
        return super().now()


def test_of_two_workers_that_seal_the_same_rows_one_does(
    transactions: Transactions, clock: FakeClock
) -> None:
    """The second is done between the first one's reading and its writing."""
    seals: list[AuditSeal | None] = []
    slow = Interrupted(clock.now(), lambda: seals.append(seal_committed(transactions)))
    first = Transactions(
        transactions.database, replace(transactions.ports, clock=slow), transactions.policy
    )
    assert seal_committed(first) is None
    assert [each and each.number for each in seals] == [1]
    assert _unsealed(transactions) == 0
    assert broken(transactions) is None


@contextmanager
def _queries(engine: Engine) -> Iterator[list[tuple[str, Any]]]:
    """Note what is asked of the audit trail while the block runs, as the driver is given it."""
    noted: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if statement.startswith("SELECT") and "audit_rows" in statement:
            noted.append((statement, parameters))

    event.listen(engine, "before_cursor_execute", note)
    yield noted
    event.remove(engine, "before_cursor_execute", note)


def _look(transactions: Transactions) -> None:
    """Do what the worker does each second, and the health page at each view."""
    with transactions.reading(SYSTEM) as context:
        unsealed_since(context)
    seal_committed(transactions)


def _grown(transactions: Transactions, clock: FakeClock, size: int) -> None:
    """Make a trail of `size` settled rows, and a few that are not sealed yet."""
    with transactions.writing(COMMAND) as context:
        context.session.add(
            AuditSeal(
                number=1,
                sealed_at=context.at,
                row_count=size,
                rows_sha256="",
                lease_from=0,
                lease_to=0,
                leases_sha256="",
                prev_sha256=ZERO_SHA256,
                seal_sha256=ZERO_SHA256,
                settled_to=1000 + size,
            )
        )
    before = clock.now() - timedelta(days=1)
    _add_rows(transactions, before, 1001, 1000 + size, seal_number=1)
    _add_rows(transactions, clock.now(), 1001 + size, 1005 + size)


SIZE = 60_000


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_sealing_costs_no_more_in_a_long_trail_on_sqlite(
    transactions: Transactions, clock: FakeClock
) -> None:
    engine = transactions.database.engine
    _grown(transactions, clock, SIZE)
    with _queries(engine) as asked:
        _look(transactions)
    assert len(asked) == 3
    pooled = engine.raw_connection()
    driver: Any = pooled.driver_connection
    for statement, parameters in asked:
        plan = [row[3] for row in driver.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)]
        assert not any(step.startswith("SCAN") for step in plan), plan
        assert any("audit_rows" in step and ">?" in step for step in plan), plan
        steps: list[None] = []
        driver.set_progress_handler(lambda seen=steps: seen.append(None), 1)
        driver.execute(statement, parameters).fetchall()
        driver.set_progress_handler(None, 0)
        assert len(steps) < 1000, f"{len(steps)} steps of the machine: {statement}"
    pooled.close()


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_sealing_costs_no_more_in_a_long_trail_on_postgresql(
    transactions: Transactions, clock: FakeClock
) -> None:
    engine = transactions.database.engine
    _grown(transactions, clock, SIZE)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("ANALYZE audit_rows, sealed_rows, audit_seals"))
    with _queries(engine) as asked:
        _look(transactions)
    assert len(asked) == 3
    pooled = engine.raw_connection()
    for statement, parameters in asked:
        cursor = pooled.cursor()
        cursor.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", parameters)
        found = cursor.fetchone()
        assert found is not None
        plan = found[0]
        nodes = list(_nodes(plan[0]["Plan"]))
        assert "Seq Scan" not in {node["Node Type"] for node in nodes}, json.dumps(plan)
        visited = sum(
            node["Actual Loops"] * (node["Actual Rows"] + node.get("Rows Removed by Filter", 0))
            for node in nodes
        )
        assert visited < 100, f"{visited} rows: {json.dumps(plan)}"
    pooled.close()


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from _nodes(child)


def test_a_lease_committed_while_the_sealer_reads_is_left_for_later(
    transactions: Transactions, clock: FakeClock
) -> None:
    """Leases of lower numbers may still come before it."""
    license_ = make_lease_license(transactions, sku="pilot-30d", limits={"max_instances": 9})
    _enroll(transactions, license_, "one", clock)
    clock.advance(seconds=LEASE_SETTLED.total_seconds() + 1)
    meanwhile = ["two"]

    def enroll_another(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("SELECT leases.number, leases.payload_sha256") and meanwhile:
            _enroll(transactions, license_, meanwhile.pop(), clock)

    engine = transactions.database.engine
    event.listen(engine, "before_cursor_execute", enroll_another)
    seal = seal_committed(transactions)
    event.remove(engine, "before_cursor_execute", enroll_another)
    assert meanwhile == []
    assert seal is not None
    assert seal.lease_to == 1
    assert broken(transactions) is None


@pytest.mark.asvs("16.2.1")
def test_an_act_that_cannot_be_audited_does_not_happen(transactions: Transactions) -> None:
    account, _ = make_customer(transactions)
    with transactions.writing(COMMAND) as context:
        context.session.execute(text("ALTER TABLE audit_rows RENAME TO gone"))
    with pytest.raises(Exception, match="audit_rows"):
        make_deployment(transactions, account)
    with transactions.reading(COMMAND) as context:
        assert context.session.execute(text("SELECT count(*) FROM deployments")).scalar() == 0
