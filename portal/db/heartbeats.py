"""Signs of life from the worker's parts."""

from datetime import datetime

from sqlalchemy import select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Mapped, Session, mapped_column

from portal.db.base import Base


class Heartbeat(Base):
    """When each part of the worker last showed that it works."""

    __tablename__ = "heartbeats"

    name: Mapped[str] = mapped_column(primary_key=True)
    beat_at: Mapped[datetime]


def beat(session: Session, name: str, at: datetime) -> None:
    """Record that this part of the worker works."""
    postgres = session.get_bind().dialect.name == "postgresql"
    insert = (postgresql.insert if postgres else sqlite.insert)(Heartbeat)
    session.execute(
        insert.values(name=name, beat_at=at).on_conflict_do_update(
            index_elements=["name"], set_={"beat_at": at}
        )
    )


def last_beat(session: Session, name: str) -> datetime | None:
    """Return when this part of the worker last showed that it works."""
    return session.scalar(select(Heartbeat.beat_at).where(Heartbeat.name == name))
