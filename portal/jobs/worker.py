"""The worker: claims jobs, runs them, and runs what recurs.

Invariants: a job is claimed by a conditional UPDATE and a claim expires, so a worker that dies
loses nothing. A handler may run twice; every handler is safe to repeat. One job's failure never
stops another's. SIGTERM lets the job in hand finish.
"""

import logging
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from threading import Event
from typing import Any, Final

from sqlalchemy import update
from sqlalchemy.exc import OperationalError

from portal.db.heartbeats import beat
from portal.db.jobs import Job, claim_job, due_jobs
from portal.domain.errors import PortalError, Unavailable
from portal.services.context import SYSTEM, Transactions

POLL_S: Final = 0.25
CLAIM: Final = timedelta(minutes=5)
BATCH: Final = 20
MOST_ATTEMPTS: Final = 25
LONGEST_WAIT_S: Final = 3600
WORKER_BEAT: Final = "worker"
BEAT_EVERY: Final = timedelta(seconds=5)

log = logging.getLogger(__name__)

Handler = Callable[[Mapping[str, Any]], None]


@dataclass
class Schedule:
    """Something that recurs. It must be safe to run in two workers at once."""

    name: str
    every: timedelta
    run: Callable[[], None]
    next_at: datetime | None = None
    failures: int = 0


class Worker:
    """Runs the jobs of one database until it is told to stop."""

    def __init__(
        self,
        transactions: Transactions,
        handlers: Mapping[str, Handler],
        schedules: Sequence[Schedule],
        name: str,
    ) -> None:
        self._transactions = transactions
        self._handlers = handlers
        self._schedules = schedules
        self._name = name
        self._last_beat: datetime | None = None

    def run_forever(self, stop: Event) -> None:
        """Work until `stop` is set; the job in hand is finished first."""
        while not stop.is_set():
            try:
                worked = self.run_once(stop)
            except OperationalError:
                log.exception("the database does not answer; trying again")
                worked = 0
                stop.wait(1)
            if not worked:
                stop.wait(POLL_S)

    def run_once(self, stop: Event | None = None) -> int:
        """Run what is due now; return how many jobs were run."""
        at = self._transactions.ports.clock.now()
        self._show_life(at)
        for schedule in self._schedules:
            self._run_schedule(schedule, at)
        with self._transactions.reading(SYSTEM) as context:
            due = due_jobs(context.session, context.at, BATCH)
        ran = 0
        for job_id in due:
            if stop is not None and stop.is_set():
                break
            ran += self._run_job(job_id)
        return ran

    def _show_life(self, at: datetime) -> None:
        if self._last_beat is not None and at - self._last_beat < BEAT_EVERY:
            return
        with self._transactions.writing(SYSTEM) as context:
            beat(context.session, WORKER_BEAT, context.at)
        self._last_beat = at

    def _run_schedule(self, schedule: Schedule, at: datetime) -> None:
        if schedule.next_at is not None and at < schedule.next_at:
            return
        try:
            schedule.run()
        except OperationalError:
            raise
        except Exception:
            schedule.failures += 1
            log.exception("%s failed", schedule.name)
            wait = min(2.0**schedule.failures, LONGEST_WAIT_S)
            schedule.next_at = at + max(schedule.every, timedelta(seconds=wait))
            return
        schedule.failures = 0
        schedule.next_at = at + schedule.every

    def _run_job(self, job_id: int) -> int:
        with self._transactions.writing(SYSTEM) as context:
            at = context.at
            if not claim_job(context.session, job_id, self._name, at, at + CLAIM):
                return 0
            job = context.session.get_one(Job, job_id)
        try:
            self._handler_of(job)(job.payload)
        except OperationalError:
            # The claim runs out by itself; the database may not be able to hear of the failure.
            raise
        except Exception as error:
            log.exception("job %s %s failed", job.kind, job.unique_key)
            self._failed(job, error)
            return 1
        self._finish(job_id, done=True)
        return 1

    def _handler_of(self, job: Job) -> Handler:
        handler = self._handlers.get(job.kind)
        if handler is None:
            raise LookupError(f"no handler for {job.kind}")
        return handler

    def _failed(self, job: Job, error: Exception) -> None:
        refused = isinstance(error, PortalError) and not isinstance(error, Unavailable)
        parked = refused or isinstance(error, LookupError) or job.attempts >= MOST_ATTEMPTS
        text = f"{type(error).__name__}: {error}"[:1000]
        wait = random.uniform(0.5, 1.0) * min(2.0**job.attempts, LONGEST_WAIT_S)
        self._finish(job.id, done=False, parked=parked, error=text, wait_s=wait)

    def _finish(
        self,
        job_id: int,
        *,
        done: bool,
        parked: bool = False,
        error: str | None = None,
        wait_s: float = 0,
    ) -> None:
        with self._transactions.writing(SYSTEM) as context:
            at = context.at
            values: dict[str, Any] = {"claimed_until": None, "claimed_by": None}
            if done:
                values["done_at"] = at
            else:
                values["last_error"] = error
                values["run_at"] = at + timedelta(seconds=wait_s)
                if parked:
                    values["parked_at"] = at
            context.session.execute(
                update(Job).where(Job.id == job_id, Job.claimed_by == self._name).values(**values)
            )
