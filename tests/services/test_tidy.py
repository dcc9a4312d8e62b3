"""What is over goes after its time, and nothing else does."""

from datetime import timedelta

import pytest

from portal.db.accounts import Account
from portal.db.audit import AuditRow
from portal.db.base import Base
from portal.db.drafts import FormDraft
from portal.db.email_tokens import EmailToken
from portal.db.heartbeats import Heartbeat, beat
from portal.db.instances import Fork, Instance
from portal.db.jobs import Job
from portal.db.leases import Lease
from portal.db.people import Person
from portal.db.rate_limits import RateCount
from portal.db.sign_ins import SignIn
from portal.services.context import SYSTEM, Context, Transactions
from portal.services.drafts import save_draft
from portal.services.email_tokens import RESET_PASSWORD, send_token
from portal.services.enrollments import enroll
from portal.services.jobs import enqueue
from portal.services.keys import unix
from portal.services.sign_ins import begin, end, load
from portal.services.tidy import tidy
from tests.factories.accounts import COMMAND, make_customer
from tests.factories.instances import make_code, make_router
from tests.factories.licenses import make_lease_license
from tests.fakes import FakeClock


def left(transactions: Transactions, kind: type[Base]) -> int:
    """Tidy; return how many rows of a kind there are."""
    with transactions.writing(SYSTEM) as context:
        tidy(context)
    with transactions.reading(SYSTEM) as context:
        return context.session.query(kind).count()


@pytest.fixture
def owner(transactions: Transactions) -> Person:
    _, person = make_customer(transactions)
    with transactions.writing(COMMAND) as context:
        context.session.query(EmailToken).delete()
        context.session.query(Job).delete()
    return person


def make_one(context: Context, owner: Person, kind: type[Base]) -> None:
    """Make a row whose life begins now."""
    if kind is FormDraft:
        save_draft(context, person_id=owner.id, path="/", text="t", keep=timedelta(hours=1))
    elif kind is RateCount:
        ports = context.ports
        context.session.add(
            RateCount(
                bucket=ports.randomness.token(4).hex(),
                window_started_at=context.at,
                window_ends_at=context.at + timedelta(minutes=15),
                attempts=1,
            )
        )
    elif kind is EmailToken:
        send_token(context, owner, RESET_PASSWORD)
    elif kind is SignIn:
        end(context, begin(context, owner.id, user_agent="tests"))
    elif kind is Job:
        enqueue(context, "a", "k")
        context.session.query(Job).filter_by(kind="a").one().done_at = context.at
    elif kind is Heartbeat:
        beat(context.session, "evaluation:newco.example", context.at)


@pytest.mark.parametrize(
    ("kind", "stays"),
    [
        (FormDraft, timedelta(hours=1)),
        (RateCount, timedelta(minutes=15)),
        (EmailToken, timedelta(days=30, hours=1)),
        (SignIn, timedelta(days=30)),
        (Job, timedelta(days=30)),
        (Heartbeat, timedelta(days=30)),
    ],
)
def test_it_stays_for_its_time_and_no_longer(
    transactions: Transactions,
    owner: Person,
    clock: FakeClock,
    kind: type[Base],
    stays: timedelta,
) -> None:
    with transactions.writing(COMMAND) as context:
        make_one(context, owner, kind)
    if kind is EmailToken:
        with transactions.writing(COMMAND) as context:
            context.session.query(Job).delete()
    clock.at += stays - timedelta(seconds=1)
    assert left(transactions, kind) == 1
    clock.advance(seconds=1)
    assert left(transactions, kind) == 0


def test_what_is_in_use_or_undone_stays(
    transactions: Transactions, owner: Person, clock: FakeClock
) -> None:
    with transactions.writing(COMMAND) as context:
        enqueue(context, "waits", "k")
        enqueue(context, "given-up", "k")
        context.session.query(Job).filter_by(kind="given-up").one().parked_at = context.at
        token = begin(context, owner.id, user_agent="tests")
    clock.advance(days=13)
    assert left(transactions, Job) == 2
    with transactions.reading(SYSTEM) as context:
        assert load(context, token) is not None
    clock.advance(days=400)
    assert left(transactions, Job) == 2
    for kind in (Account, Person, AuditRow):
        assert left(transactions, kind) > 0
    assert left(transactions, SignIn) == 0, "it was never ended, but it is long over"


def test_answers_are_emptied_and_forks_forgotten_but_the_last_lease_stays_whole(
    transactions: Transactions, clock: FakeClock
) -> None:
    license_ = make_lease_license(transactions)
    code = make_code(transactions, license_)
    with transactions.writing(COMMAND) as context:
        asked = make_router(license_).enrollment(code, at=unix(context.at))
        instance_id = enroll(context, asked).instance_id
        row = context.session.query(Lease).one()
        facts = {each.key: getattr(row, each.key) for each in Lease.__mapper__.column_attrs}
        earlier = {**facts, "number": None, "id": "lea_1", "request_id": "req_1", "epoch": 0}
        context.session.add(Lease(**earlier))
        context.session.add(
            Fork(
                instance_id=instance_id,
                request_id="req_1",
                noted_at=context.at,
                prev_epoch=0,
                prev_seq=1,
                prev_sha256="0" * 64,
                held_epoch=1,
                held_seq=1,
                boot_id="0" * 32,
            )
        )
    clock.advance(days=90, seconds=-1)
    assert left(transactions, Fork) == 1
    clock.advance(seconds=1)
    assert left(transactions, Fork) == 0
    with transactions.reading(SYSTEM) as context:
        rows = context.session.query(Lease).order_by(Lease.number).all()
        last = context.session.get_one(Instance, instance_id).lease_id
    assert len(rows) == 2
    assert [row.envelope is not None for row in rows] == [row.id == last for row in rows]
