"""Renewals as use cases on real databases: what is stored, tried again, and refused whole."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Barrier

import pytest

from licensing.encoding import sha256_hex
from licensing.enrollment import Usage
from licensing.envelope import Envelope
from licensing.lease import Lease
from licensing.request_body import RequestBody
from portal.db.audit import AuditRow
from portal.db.instances import Fork, Instance
from portal.db.leases import HEAD_COLUMNS
from portal.db.leases import Lease as LeaseRow
from portal.db.licenses import License
from portal.domain.errors import Unavailable
from portal.domain.lease_errors import UnknownInstance
from portal.domain.ports import Signer
from portal.services.context import Actor, Transactions
from portal.services.courier import answer_upload
from portal.services.enrollments import enroll
from portal.services.instances import retire_instance
from portal.services.keys import unix
from portal.services.leases import ATTEMPTS, Answered, renew
from tests.factories.instances import Router, make_code, make_router
from tests.factories.licenses import make_lease_license
from tests.fakes import MemorySigners

COMMAND = Actor("command")
postgresql = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
"""On SQLite writers queue before they read: there no chain can move."""


@dataclass
class InterruptedSigners(MemorySigners):
    """Keys in memory; before a lease is signed, somebody else gets a turn."""

    turns: list[Callable[[], object]] = field(default_factory=list)

    def signer(self, role: str, uri: str, keyid: str) -> Signer:
        if role == "lease" and self.turns:
            self.turns.pop(0)()
        return super().signer(role, uri, keyid)


@pytest.fixture
def signers() -> InterruptedSigners:
    return InterruptedSigners()


def now(transactions: Transactions) -> int:
    return unix(transactions.ports.clock.now())


def join(transactions: Transactions, license_: License, name: str = "router") -> Router:
    """Enroll a router; return it with its first lease."""
    router, code = make_router(license_, name), make_code(transactions, license_)
    with transactions.writing(COMMAND) as context:
        answered = enroll(context, router.enrollment(code, at=now(transactions)))
    return router.holding(answered.envelope)


@pytest.fixture
def router(transactions: Transactions) -> Router:
    """A router of an account's only license, with its first lease."""
    return join(transactions, make_lease_license(transactions, limits={"max_instances": 2}))


def ask(transactions: Transactions, router: Router, name: str, **changes: object) -> Answered:
    body = RequestBody(router.renewal(name, at=now(transactions), **changes))
    return renew(transactions, COMMAND, body)


def carry(transactions: Transactions, router: Router, name: str) -> Answered:
    with transactions.reading(COMMAND) as context:
        account_id = context.session.query(Instance).first().account_id  # type: ignore[union-attr]
    body = RequestBody(router.renewal(name, at=now(transactions)))
    return answer_upload(transactions, COMMAND, account_id, body)


def lease_of(answered: Answered) -> Lease:
    return Lease.parse(Envelope.parse(answered.envelope).payload)


def whole_chain(transactions: Transactions) -> list[int]:
    """Return the numbers of the only chain, after checking that it is one with its head."""
    with transactions.reading(COMMAND) as context:
        rows = context.session.query(LeaseRow).order_by(LeaseRow.epoch, LeaseRow.seq).all()
        payloads = [Envelope.parse(row.envelope or b"").payload for row in rows]
        hashes = ["0" * 64, *map(sha256_hex, payloads)]
        assert [Lease.parse(each).prev_sha256 for each in payloads] == hashes[:-1]
        assert [row.payload_sha256 for row in rows] == hashes[1:]
        instance = context.session.query(Instance).one()
        assert (instance.seq, instance.lease_sha256) == (rows[-1].seq, hashes[-1])
        assert instance.lease_id == rows[-1].id
        return [row.seq for row in rows]


def test_the_head_is_read_and_written_by_the_columns_of_its_one_list() -> None:
    assert set(HEAD_COLUMNS) <= {column.name for column in Instance.__table__.columns}


def test_a_renewal_stores_its_lease_and_moves_the_head(
    transactions: Transactions, router: Router
) -> None:
    answered = ask(transactions, router, "r1")
    assert not answered.again
    assert whole_chain(transactions) == [1, 2]
    with transactions.reading(COMMAND) as context:
        row = context.session.query(LeaseRow).filter_by(id=answered.lease_id).one()
        assert (row.envelope, row.seq, row.status) == (answered.envelope, 2, "active")
        assert context.session.query(Instance).one().software == "tests/1"


def test_a_request_that_comes_again_gets_the_same_answer(
    transactions: Transactions, router: Router
) -> None:
    first = ask(transactions, router, "r1")
    for again in (ask(transactions, router, "r1"), carry(transactions, router, "r1")):
        assert again.again
        assert (again.lease_id, again.envelope) == (first.lease_id, first.envelope)
    assert whole_chain(transactions) == [1, 2]


def test_a_fork_is_stored_with_its_record_in_one_transaction(
    transactions: Transactions, router: Router
) -> None:
    ask(transactions, router, "r1")
    assert lease_of(ask(transactions, router, "r2")).clone_warning is True
    with transactions.reading(COMMAND) as context:
        fork = context.session.query(Fork).one()
        assert (fork.prev_epoch, fork.prev_seq, fork.held_seq) == (1, 1, 2)
        noted = context.session.query(AuditRow).filter_by(action="instance.fork-noted").one().detail
        assert noted == {"prev_epoch": 1, "prev_seq": 1, "held_epoch": 1, "held_seq": 2}
    assert whole_chain(transactions) == [1, 2, 3]


@postgresql
@pytest.mark.parametrize("way", [ask, carry])
def test_a_request_whose_chain_moved_is_read_anew(
    transactions: Transactions,
    router: Router,
    signers: InterruptedSigners,
    way: Callable[[Transactions, Router, str], Answered],
) -> None:
    signers.turns = [lambda: ask(transactions, router, "the other")]
    lease = lease_of(way(transactions, router, "r1"))
    assert (lease.seq, lease.clone_warning) == (3, True), "by then it was a fork"
    assert whole_chain(transactions) == [1, 2, 3]


@postgresql
@pytest.mark.parametrize("way", [ask, carry])
def test_a_request_that_is_answered_twice_at_once_is_answered_alike(
    transactions: Transactions,
    router: Router,
    signers: InterruptedSigners,
    way: Callable[[Transactions, Router, str], Answered],
) -> None:
    others: list[Answered] = []
    signers.turns = [lambda: others.append(ask(transactions, router, "r1"))]
    answered = way(transactions, router, "r1")
    assert answered.again
    assert answered.envelope == others[0].envelope
    assert whole_chain(transactions) == [1, 2]


@postgresql
@pytest.mark.parametrize("way", [ask, carry])
def test_an_instance_that_is_given_up_meanwhile_stays_given_up(
    transactions: Transactions,
    router: Router,
    signers: InterruptedSigners,
    way: Callable[[Transactions, Router, str], Answered],
) -> None:
    def retire() -> None:
        with transactions.writing(COMMAND) as context:
            retire_instance(context, router.held.instance_id, reason="a test")

    signers.turns = [retire]
    lease = lease_of(way(transactions, router, "r1"))
    assert (lease.status, lease.reason) == ("ended", "retired")
    with transactions.reading(COMMAND) as context:
        assert context.session.query(Instance).one().slot_free_at is not None


@postgresql
@pytest.mark.parametrize("way", [ask, carry])
def test_a_chain_that_keeps_moving_is_given_up_without_a_trace(
    transactions: Transactions,
    router: Router,
    signers: InterruptedSigners,
    way: Callable[[Transactions, Router, str], Answered],
) -> None:
    names = iter(range(100))

    def move() -> None:
        turns, signers.turns = signers.turns, []
        ask(transactions, router, f"other {next(names)}")
        signers.turns = turns

    # A fork is read twice on the way: once by itself, once in its transaction.
    signers.turns = [move] * (2 * ATTEMPTS)
    with pytest.raises(Unavailable, match="Too many requests"):
        way(transactions, router, "r1")
    assert whole_chain(transactions) == list(range(1, ATTEMPTS + 2))


def test_requests_that_race_make_one_chain(transactions: Transactions, router: Router) -> None:
    barrier = Barrier(4)

    def run(number: int) -> Answered:
        barrier.wait(10)
        return ask(transactions, router, f"r{number}")

    with ThreadPoolExecutor(4) as threads:
        answered = list(threads.map(run, range(4)))
    assert sorted(lease_of(each).seq for each in answered) == [2, 3, 4, 5]
    assert whole_chain(transactions) == [1, 2, 3, 4, 5]
    with transactions.reading(COMMAND) as context:
        assert context.session.query(Fork).count() == 3


def test_without_the_lease_key_nothing_is_answered_and_nothing_changes(
    transactions: Transactions, router: Router, signers: InterruptedSigners
) -> None:
    with transactions.reading(COMMAND) as context:
        license_ = context.session.get_one(License, router.license_id)
    code, second = make_code(transactions, license_), make_router(license_, "second")
    signers.absent = {"lease"}
    for way in (ask, carry):
        with pytest.raises(Unavailable, match="cannot be signed"):
            way(transactions, router, "r1")
    with pytest.raises(Unavailable), transactions.writing(COMMAND) as context:
        enroll(context, second.enrollment(code, at=now(transactions)))
    assert whole_chain(transactions) == [1]


def test_a_carried_request_is_answered_for_its_own_account_alone(
    transactions: Transactions, router: Router
) -> None:
    body = RequestBody(router.renewal("r1", at=now(transactions)))
    with pytest.raises(UnknownInstance, match="No router of this account"):
        answer_upload(transactions, COMMAND, "cus_00000000000000000000000000", body)
    assert whole_chain(transactions) == [1]


def tokens(lease: Lease) -> int:
    assert lease.budget is not None
    return lease.budget.tokens_total


def used(router: Router, tokens_total: int) -> Usage:
    assert router.held.budget is not None
    return Usage(
        budget_id=router.held.budget.budget_id, tokens_total=tokens_total, requests_total=1
    )


def test_an_instance_that_joins_late_gets_what_the_others_left(
    transactions: Transactions, router: Router
) -> None:
    total = 2 * tokens(router.held)
    spent = used(router, total // 2)
    first = lease_of(ask(transactions, router, "r1", usage=spent))
    with transactions.reading(COMMAND) as context:
        license_ = context.session.get_one(License, router.license_id)
    second = join(transactions, license_, "second").held
    assert tokens(first) + tokens(second) == total


def test_a_replaced_instance_leaves_its_successor_what_it_did_not_use(
    transactions: Transactions,
) -> None:
    license_ = make_lease_license(transactions)
    first = join(transactions, license_)
    total = tokens(first.held)
    ask(transactions, first, "r1", usage=used(first, total - 10))
    with transactions.writing(COMMAND) as context:
        retire_instance(context, first.held.instance_id, reason="a test")
    again = lease_of(ask(transactions, first.holding(_newest(transactions)), "r2"))
    assert again.status == "ended"
    second = join(transactions, license_, "second")
    assert tokens(second.held) == 10
    assert tokens(lease_of(ask(transactions, second, "s1", usage=used(second, 5)))) == 10


def _newest(transactions: Transactions) -> bytes:
    with transactions.reading(COMMAND) as context:
        envelope = context.session.query(LeaseRow).order_by(LeaseRow.seq.desc()).first()
        assert envelope is not None
        assert envelope.envelope is not None
        return envelope.envelope
