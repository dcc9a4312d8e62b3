"""Notices: what was told already, so that nothing is told twice."""

from datetime import datetime

from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Mapped, Session, mapped_column

from portal.db.base import Base


class Notice(Base):
    """One thing that was told, once and for all.

    The subject is the license; of a budget's notices the budget, which outlives a license; of a
    hold's the hold, since a license may be held more than once; of staff's lists the week.
    """

    __tablename__ = "notices"

    subject_id: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(primary_key=True)
    told_at: Mapped[datetime]


def note_told(session: Session, subject_id: str, kind: str, at: datetime) -> bool:
    """Note in the current transaction that something is told; False when it was told before.

    Of two transactions that note the same, the second waits for the first.
    """
    is_postgresql = session.get_bind().dialect.name == "postgresql"
    insert = postgresql.insert if is_postgresql else sqlite.insert
    told = session.execute(
        insert(Notice)
        .values(subject_id=subject_id, kind=kind, told_at=at)
        .on_conflict_do_nothing(index_elements=["subject_id", "kind"])
        .returning(Notice.kind)
    ).first()
    return told is not None
