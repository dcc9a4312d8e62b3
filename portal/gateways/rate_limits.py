"""Counts attempts in the database, so that all processes share one count."""

from datetime import datetime, timedelta

from sqlalchemy import case
from sqlalchemy.dialects import postgresql, sqlite

from portal.db.rate_limits import RateCount
from portal.db.session import Database


class DatabaseRateLimiter:
    """Fixed windows: a bucket is a row, and a hit is one statement in its own transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def hit(self, bucket: str, *, limit: int, window_s: int, at: datetime) -> int | None:
        """Count one attempt; return None within the limit, otherwise the seconds to wait."""
        ends = at + timedelta(seconds=window_s)
        with self._database.writing() as session:
            dialect = session.get_bind().dialect.name
            insert = postgresql.insert if dialect == "postgresql" else sqlite.insert
            statement = insert(RateCount).values(
                bucket=bucket, window_started_at=at, window_ends_at=ends, attempts=1
            )
            over = RateCount.window_ends_at <= at
            counted = session.execute(
                statement.on_conflict_do_update(
                    index_elements=["bucket"],
                    set_={
                        "window_started_at": case((over, at), else_=RateCount.window_started_at),
                        "attempts": case((over, 1), else_=RateCount.attempts + 1),
                        "window_ends_at": case((over, ends), else_=RateCount.window_ends_at),
                    },
                ).returning(RateCount.attempts, RateCount.window_ends_at)
            ).one()
        if counted.attempts <= limit:
            return None
        return max(1, int((counted.window_ends_at - at).total_seconds()) + 1)
