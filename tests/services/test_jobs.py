"""Jobs: one for each cause, written with it, claimed by one worker at a time."""

from datetime import timedelta

import pytest

from portal.db.jobs import Job, claim_job, due_jobs
from portal.services.context import Transactions
from portal.services.jobs import enqueue
from tests.factories.accounts import COMMAND
from tests.fakes import FakeClock


def test_the_same_job_is_written_once_and_keeps_what_it_was_first_told(
    transactions: Transactions,
) -> None:
    for number in (1, 2):
        with transactions.writing(COMMAND) as context:
            enqueue(context, "a", "k", {"n": number})
    with transactions.writing(COMMAND) as context:
        enqueue(context, "b", "k")
        assert context.session.query(Job).filter_by(kind="a").one().payload == {"n": 1}
        assert context.session.query(Job).count() == 2


def test_a_job_goes_with_its_cause(transactions: Transactions) -> None:
    def fail() -> None:
        with transactions.writing(COMMAND) as context:
            enqueue(context, "a", "k")
            raise RuntimeError("the cause did not come to pass")

    with pytest.raises(RuntimeError):
        fail()
    with transactions.reading(COMMAND) as context:
        assert context.session.query(Job).count() == 0


def test_a_job_waits_for_its_time_and_the_longest_due_comes_first(
    transactions: Transactions, clock: FakeClock
) -> None:
    with transactions.writing(COMMAND) as context:
        for name, hours in (("last", 2), ("first", 0), ("second", 1)):
            enqueue(context, "a", name, run_at=context.at + timedelta(hours=hours))
    clock.advance(hours=1)
    with transactions.reading(COMMAND) as context:
        due = due_jobs(context.session, context.at, 10)
        names = [context.session.get_one(Job, each).unique_key for each in due]
        assert names == ["first", "second"]
        assert due_jobs(context.session, context.at, 1) == due[:1]


def test_a_claim_is_one_workers_until_it_runs_out(
    transactions: Transactions, clock: FakeClock
) -> None:
    with transactions.writing(COMMAND) as context:
        enqueue(context, "a", "k")
    with transactions.writing(COMMAND) as context:
        (job_id,) = due_jobs(context.session, context.at, 10)
        until = context.at + timedelta(minutes=5)
        assert claim_job(context.session, job_id, "one", context.at, until)
        assert not claim_job(context.session, job_id, "two", context.at, until)
        assert due_jobs(context.session, context.at, 10) == []
    clock.advance(minutes=5)
    with transactions.writing(COMMAND) as context:
        until = context.at + timedelta(minutes=5)
        assert claim_job(context.session, job_id, "two", context.at, until)
