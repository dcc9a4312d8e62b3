"""Jobs: everything that must happen after a commit, written in the transaction of its cause."""

from datetime import datetime
from typing import Any

from sqlalchemy import Index, UniqueConstraint, select, update
from sqlalchemy.orm import Mapped, Session, mapped_column

from portal.db.base import Base
from portal.db.types import RowNumber


class Job(Base):
    """One piece of work. `done_at` is set once it is done; `parked_at` if it was given up."""

    __tablename__ = "jobs"
    __table_args__ = (
        UniqueConstraint("kind", "unique_key"),
        Index("ix_jobs_open", "done_at", "parked_at", "run_at"),
    )

    id: Mapped[int] = mapped_column(RowNumber, primary_key=True)
    kind: Mapped[str]
    unique_key: Mapped[str]
    payload: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]
    run_at: Mapped[datetime]
    attempts: Mapped[int] = mapped_column(default=0)
    claimed_until: Mapped[datetime | None]
    claimed_by: Mapped[str | None]
    done_at: Mapped[datetime | None]
    parked_at: Mapped[datetime | None]
    last_error: Mapped[str | None]


def due_jobs(session: Session, at: datetime, most: int) -> list[int]:
    """Return the ids of jobs that may be claimed now, longest overdue first."""
    return list(
        session.scalars(
            select(Job.id)
            .where(
                Job.done_at.is_(None),
                Job.parked_at.is_(None),
                Job.run_at <= at,
                Job.claimed_until.is_(None) | (Job.claimed_until <= at),
            )
            .order_by(Job.run_at, Job.id)
            .limit(most)
        )
    )


def claim_job(session: Session, job_id: int, worker: str, at: datetime, until: datetime) -> bool:
    """Claim a job by a conditional UPDATE; False if another worker has it."""
    claimed = session.execute(
        update(Job)
        .where(
            Job.id == job_id,
            Job.done_at.is_(None),
            Job.parked_at.is_(None),
            Job.claimed_until.is_(None) | (Job.claimed_until <= at),
        )
        .values(claimed_by=worker, claimed_until=until, attempts=Job.attempts + 1)
        .returning(Job.id)
    ).first()
    return claimed is not None
