"""The engine and the unit of work.

Invariants: one unit of work is one transaction; it commits when its block returns and rolls back
when it raises. On SQLite a reading unit begins deferred and a writing one immediate, so that two
writers queue at the start instead of failing half-way; the file is in WAL mode with
`synchronous=FULL`. On PostgreSQL a reading unit is READ ONLY. A pooled connection that was idle for
a second is tested before it is used.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from select import select as select_ready
from time import monotonic
from typing import Any

import psycopg
from sqlalchemy import (
    Connection,
    Engine,
    create_engine,
    event,
    func,
    make_url,
    select,
)
from sqlalchemy.exc import InvalidatePoolError
from sqlalchemy.orm import Session

from portal.db.direct import StatementSession

POOL_SIZE = 10
"""Connections a process keeps: one for each thread of a web worker, and two spare ones."""
FRESH_S = 1.0
STATEMENT_TIMEOUT_MS = 15_000
LOCK_TIMEOUT_MS = 5_000
SQLITE_BUSY_TIMEOUT_MS = 15_000


def make_engine(url: str, *, fresh_s: float = FRESH_S) -> Engine:
    """Open a pool for `url` (`sqlite:///path` or `postgresql+psycopg://…`).

    A connection that the server has closed is noticed; one that was idle for `fresh_s` seconds is
    tested before it is used.

    Raises:
        ValueError: the URL names another kind of database.
    """
    parsed = make_url(url)
    backend = parsed.get_backend_name()
    if backend == "sqlite":
        return _sqlite(url)
    if backend == "postgresql":
        engine = create_engine(
            parsed.set(drivername="postgresql+psycopg"),
            pool_size=POOL_SIZE,
            max_overflow=0,
            pool_timeout=5,
            hide_parameters=True,
            connect_args={
                "connect_timeout": 5,
                "options": f"-c statement_timeout={STATEMENT_TIMEOUT_MS}"
                f" -c lock_timeout={LOCK_TIMEOUT_MS} -c timezone=UTC"
                " -c idle_in_transaction_session_timeout=60000",
            },
        )
        _ping_when_idle(engine, fresh_s)
        return engine
    raise ValueError(f"the database must be SQLite or PostgreSQL, not {backend}")


def _ping_when_idle(engine: Engine, fresh_s: float) -> None:
    """Replace a pooled connection that died unnoticed; a ping each time would be a round trip."""

    @event.listens_for(engine, "checkin")
    def note(_driver: Any, record: Any) -> None:
        record.info["used_at"] = monotonic()

    @event.listens_for(engine, "checkout")
    def ping(driver: Any, record: Any, _proxy: Any) -> None:
        used_at = record.info.get("used_at")
        fresh = used_at is None or monotonic() - used_at < fresh_s
        if fresh and not _has_something_to_say(driver):
            return
        try:
            engine.dialect.do_ping(driver)
        except psycopg.Error as error:
            raise InvalidatePoolError from error


def _has_something_to_say(driver: Any) -> bool:
    """Whether an idle connection's socket is readable: the server closed it, or sent a notice."""
    if driver.closed:
        return True
    ready, _, _ = select_ready([driver.fileno()], [], [], 0)
    return bool(ready)


def _sqlite(url: str) -> Engine:
    engine = create_engine(
        url,
        pool_size=20,
        # Errors end up in logs and job rows; values must not.
        hide_parameters=True,
        connect_args={"timeout": SQLITE_BUSY_TIMEOUT_MS / 1000, "check_same_thread": False},
    )

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _record: Any) -> None:
        # The driver's implicit BEGIN is switched off: the hook below chooses the kind.
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.execute("PRAGMA foreign_keys=ON")
        # Otherwise REPLACE removes rows without running the triggers that refuse it.
        cursor.execute("PRAGMA recursive_triggers=ON")
        cursor.close()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        deferred = connection.get_execution_options().get("reading", False)
        connection.exec_driver_sql("BEGIN DEFERRED" if deferred else "BEGIN IMMEDIATE")

    return engine


def clock_difference(session: Session, at: datetime) -> float:
    """Return how far `at` is ahead of the database's clock, in seconds (0 on SQLite: one clock)."""
    if session.get_bind().dialect.name != "postgresql":
        return 0.0
    theirs: datetime = session.execute(select(func.clock_timestamp())).scalar_one()
    return (at - theirs).total_seconds()


class Database:
    """Opens units of work over one engine."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.is_postgresql = engine.dialect.name == "postgresql"
        self._reading = engine.execution_options(
            reading=True, **({"postgresql_readonly": True} if self.is_postgresql else {})
        )
        self._statements = engine.execution_options(isolation_level="AUTOCOMMIT")

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """Open a unit of work that only reads; it rolls back at the end."""
        with Session(self._reading) as session:
            yield session

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """Open a unit of work that commits when the block returns."""
        with Session(self.engine, expire_on_commit=False) as session, session.begin():
            yield session

    @contextmanager
    def statements(self) -> Iterator[Session]:
        """Open a unit in which, on PostgreSQL, each statement is a transaction of its own.

        For work whose only writing statement has a condition on everything that was read before. It
        saves the round trips of BEGIN and COMMIT. SQLite has none, so there it is `writing`.
        """
        if not self.is_postgresql:
            with self.writing() as session:
                yield session
            return
        with StatementSession(self._statements, expire_on_commit=False, autoflush=False) as session:
            yield session

    def dispose(self) -> None:
        """Close every pooled connection (after a fork, or at the end)."""
        self.engine.dispose()
