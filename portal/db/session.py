"""The engine and the unit of work.

Invariants: one unit of work is one transaction; it commits when its block returns and rolls back
when it raises. On SQLite a reading unit begins deferred and a writing one immediate, so that two
writers queue at the start instead of failing half-way; the file is in WAL mode with
`synchronous=FULL`. On PostgreSQL a reading unit is READ ONLY.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, func, make_url, select
from sqlalchemy.orm import Session

STATEMENT_TIMEOUT_MS = 15_000
LOCK_TIMEOUT_MS = 5_000
SQLITE_BUSY_TIMEOUT_MS = 15_000


def make_engine(url: str, *, pool_size: int = 5) -> Engine:
    """Open a pool for `url` (`sqlite:///path` or `postgresql+psycopg://…`).

    Raises:
        ValueError: the URL names another kind of database.
    """
    parsed = make_url(url)
    backend = parsed.get_backend_name()
    if backend == "sqlite":
        return _sqlite(url)
    if backend == "postgresql":
        return create_engine(
            parsed.set(drivername="postgresql+psycopg"),
            pool_pre_ping=True,
            pool_size=pool_size,
            max_overflow=pool_size,
            pool_timeout=5,
            connect_args={
                "connect_timeout": 5,
                "options": f"-c statement_timeout={STATEMENT_TIMEOUT_MS}"
                f" -c lock_timeout={LOCK_TIMEOUT_MS} -c timezone=UTC"
                " -c idle_in_transaction_session_timeout=60000",
            },
        )
    raise ValueError(f"the database must be SQLite or PostgreSQL, not {backend}")


def _sqlite(url: str) -> Engine:
    engine = create_engine(
        url,
        pool_size=20,
        connect_args={"timeout": SQLITE_BUSY_TIMEOUT_MS / 1000, "check_same_thread": False},
    )

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _record: Any) -> None:
        # The driver's own implicit BEGIN is switched off: the hook below says which kind it is.
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.execute("PRAGMA foreign_keys=ON")
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

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """Open a unit of work that only reads; it rolls back at the end."""
        options: dict[str, Any] = {"reading": True}
        if self.engine.dialect.name == "postgresql":
            options["postgresql_readonly"] = True
        with Session(self.engine.execution_options(**options)) as session:
            yield session

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """Open a unit of work that commits when the block returns."""
        with Session(self.engine, expire_on_commit=False) as session, session.begin():
            yield session

    @contextmanager
    def statements(self) -> Iterator[Session]:
        """Open a unit in which, on PostgreSQL, each statement is a transaction of its own.

        For work that is one writing statement whose condition names all that was read before. It
        saves the round trips of BEGIN and COMMIT. SQLite has no round trips: there it is `writing`.
        """
        if self.engine.dialect.name != "postgresql":
            with self.writing() as session:
                yield session
            return
        engine = self.engine.execution_options(isolation_level="AUTOCOMMIT")
        with Session(engine, expire_on_commit=False, autoflush=False) as session:
            yield session

    def dispose(self) -> None:
        """Close every pooled connection (after a fork, or at the end)."""
        self.engine.dispose()
