"""Audit seals: every change of a committed row is found, even under a chain computed anew."""

import pytest
from sqlalchemy import text

from licensing.keys import ZERO_SHA256
from portal.db.audit import AuditRow, AuditSeal, SealedRow
from portal.db.bundles import latest_bundle
from portal.db.licenses import License
from portal.services.audit_seals import (
    LEASE_SETTLED,
    Broken,
    check_anchors,
    row_facts,
    rows_digest,
    seal_committed,
    seal_digest,
    verify_chain,
)
from portal.services.bundles import publish_bundle
from portal.services.context import Actor, Transactions
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
        with transactions.writing(COMMAND) as context:
            assert seal_committed(context) is not None
        clock.advance(seconds=1)
    with transactions.writing(COMMAND) as context:
        publish_bundle(context)
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


def _seal(transactions: Transactions) -> AuditSeal | None:
    with transactions.writing(COMMAND) as context:
        return seal_committed(context)


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
    _seal(transactions)
    clock.advance(seconds=LEASE_SETTLED.total_seconds() + 1)
    seal = _seal(transactions)
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
    seal = _seal(transactions)
    assert seal is not None
    assert seal.lease_to == 0, "the first is not settled"
    clock.advance(seconds=50)
    seal = _seal(transactions)
    assert seal is not None
    assert seal.lease_to == 2
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
