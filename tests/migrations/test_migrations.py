"""Migrations: there and back on both databases, what the database refuses, interruptions."""

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import Connection, Engine, create_engine, event, inspect, make_url, text
from sqlalchemy.exc import DBAPIError

from devtools.postgres import Cluster
from portal.db import migrate
from portal.db.audit import AuditSeal
from portal.db.session import make_engine
from portal.services.audit_seals import ROWS_SETTLED, seal_committed, verify_chain
from portal.services.context import SYSTEM, Transactions
from tests.databases import copied_file, fresh_database
from tests.factories.accounts import make_staff
from tests.fakes import FakeClock

ROOT = Path(__file__).resolve().parents[2]
APPEND_ONLY = ("audit_rows", "audit_seals", "sealed_rows")


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a database without any table, on each kind in turn."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'empty.sqlite3'}"
        return
    cluster: Cluster = request.getfixturevalue("postgres")
    with fresh_database(cluster, "template0") as url:
        yield url


@pytest.fixture
def engine(empty_url: str) -> Iterator[Engine]:
    """An engine over the empty database."""
    opened = make_engine(empty_url)
    yield opened
    opened.dispose()


def tables(engine: Engine) -> set[str]:
    """Return the tables there are, but for the one that says how far the migrations are."""
    return set(inspect(engine).get_table_names()) - {"alembic_version"}


def triggers(engine: Engine) -> set[str]:
    """Return the names of the triggers there are."""
    statement = (
        "SELECT name FROM sqlite_master WHERE type = 'trigger'"
        if engine.dialect.name == "sqlite"
        else "SELECT tgname FROM pg_trigger WHERE NOT tgisinternal"
    )
    with engine.connect() as connection:
        return set(connection.scalars(text(statement)))


def test_up_down_and_up_again(engine: Engine) -> None:
    assert migrate.current(engine) is None
    migrate.upgrade(engine)
    assert migrate.current(engine) == migrate.head()
    made, guards = tables(engine), triggers(engine)
    assert set(APPEND_ONLY) < made
    migrate.upgrade(engine)
    assert (tables(engine), triggers(engine)) == (made, guards)
    migrate.downgrade(engine, "base")
    assert migrate.current(engine) is None
    assert tables(engine) == triggers(engine) == set()
    migrate.upgrade(engine)
    assert (tables(engine), triggers(engine)) == (made, guards)
    assert migrate.differences(engine) == []


def printed_sql(url: str, *arguments: str) -> str:
    """Return what `alembic … --sql` prints for this database."""
    ended = subprocess.run(
        [sys.executable, "-m", "alembic", *arguments, "--sql"],
        check=False,
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "PORTAL_DATABASE_URL": url},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def run_script(url: str, script: str) -> None:
    """Run SQL as the database's own shell would."""
    if make_url(url).get_backend_name() == "sqlite":
        with closing(sqlite3.connect(make_url(url).database or "")) as connection:
            connection.executescript(script)
        return
    plain = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(plain, autocommit=True) as connection:
        connection.execute(script.encode())


def test_the_printed_sql_makes_the_same_schema(empty_url: str, engine: Engine) -> None:
    run_script(empty_url, printed_sql(empty_url, "upgrade", "head"))
    assert migrate.current(engine) == migrate.head()
    assert migrate.differences(engine) == []
    made, guards = tables(engine), triggers(engine)
    migrate.downgrade(engine, "base")
    migrate.upgrade(engine)
    assert (tables(engine), triggers(engine)) == (made, guards)
    run_script(empty_url, printed_sql(empty_url, "downgrade", f"{migrate.head()}:base"))
    assert tables(engine) == triggers(engine) == set()


def test_alembic_alone_finds_the_scripts_and_the_database(empty_url: str, engine: Engine) -> None:
    subprocess.run(
        [sys.executable, "-m", "alembic", "upgrade", "head"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "PORTAL_DATABASE_URL": empty_url},
        check=True,
        timeout=60,
    )
    assert migrate.current(engine) == migrate.head()


def test_the_migrated_schema_is_the_models_schema(database_url: str) -> None:
    engine = make_engine(database_url)
    assert migrate.differences(engine) == []
    with engine.begin() as connection:
        connection.execute(text("DROP INDEX ix_audit_rows_subject"))
        connection.execute(text("ALTER TABLE accounts ADD COLUMN stray TEXT"))
    assert len(migrate.differences(engine)) == 2
    engine.dispose()


@pytest.mark.parametrize("table", APPEND_ONLY)
def test_the_database_refuses_to_change_the_audit_trail(
    transactions: Transactions, table: str
) -> None:
    make_staff(transactions)
    engine = transactions.database.engine
    with engine.begin() as connection:
        fill(connection)
    column = {"audit_rows": "action", "audit_seals": "prev_sha256", "sealed_rows": "seal_number"}
    key = {"audit_rows": "id", "audit_seals": "number", "sealed_rows": "audit_row_id"}[table]
    upsert = f"ON CONFLICT ({key}) DO UPDATE SET {column[table]} = excluded.{column[table]}"
    statements = [
        f"UPDATE {table} SET {column[table]} = {column[table]}",
        f"DELETE FROM {table}",
        f"INSERT INTO {table} SELECT * FROM {table} WHERE true {upsert}",
    ]
    if engine.dialect.name == "postgresql":
        statements += [f"TRUNCATE {table} CASCADE", f"TRUNCATE {', '.join(APPEND_ONLY)}"]
    else:
        statements += replacements(table)
    for statement in statements:
        with engine.connect() as connection:
            before = connection.execute(text(f"SELECT * FROM {table}")).all()
            assert before, f"{table} holds nothing to refuse a change of"
            with pytest.raises(DBAPIError, match="append-only"):
                connection.execute(text(statement))
            connection.rollback()
            assert connection.execute(text(f"SELECT * FROM {table}")).all() == before


def replacements(table: str) -> list[str]:
    """Return what takes the place of rows on SQLite."""
    return [
        f"REPLACE INTO {table} SELECT * FROM {table}",
        f"INSERT OR REPLACE INTO {table} SELECT * FROM {table}",
        f"UPDATE OR REPLACE {table} SET rowid = rowid",
    ]


@pytest.mark.parametrize("table", APPEND_ONLY)
def test_sqlite_refuses_to_replace_the_audit_trail_on_any_connection(
    sqlite_template: Path, tmp_path: Path, table: str
) -> None:
    path = make_url(copied_file(sqlite_template, tmp_path)).database
    assert path is not None
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA recursive_triggers").fetchone() == (0,)
        connection.execute(
            "INSERT INTO audit_rows (at, action, actor_kind, subject_kind, subject_id, detail)"
            " VALUES ('2026-11-23 12:00:00', 'staff.created', 'command', 'person', 'p', '{}')"
        )
        connection.execute(
            "INSERT INTO audit_seals VALUES (1, 'x', 1, 'a', 0, 0, 'b', 'c', 'd', 0)"
        )
        connection.execute("INSERT INTO sealed_rows SELECT id, 1 FROM audit_rows")
        connection.commit()
        before = connection.execute(f"SELECT * FROM {table}").fetchall()
        assert len(before) == 1
        for statement in replacements(table):
            with pytest.raises(sqlite3.IntegrityError, match="append-only"):
                connection.execute(statement)
            connection.rollback()
            assert connection.execute(f"SELECT * FROM {table}").fetchall() == before


def fill(connection: Connection) -> None:
    """Seal one audit row, by hand."""
    connection.execute(
        text(
            "INSERT INTO audit_seals"
            " VALUES (1, '2026-11-23 12:00:00', 1, 'a', 0, 0, 'b', 'c', 'd', 0)"
        )
    )
    connection.execute(
        text("INSERT INTO sealed_rows SELECT id, 1 FROM audit_rows ORDER BY id LIMIT 1")
    )


def watch(engine: Engine, reach: Callable[[], None]) -> None:
    """Call `reach` before each statement and each commit."""
    event.listen(engine, "before_cursor_execute", lambda *_: reach())
    event.listen(engine, "commit", lambda *_: reach())


def count_points(url: str) -> int:
    """Return how many statements and commits there are on the way up again."""
    engine = make_engine(url)
    migrate.upgrade(engine)
    migrate.downgrade(engine, "base")
    points: list[None] = []
    watch(engine, lambda: points.append(None))
    migrate.upgrade(engine)
    counted = len(points)
    migrate.downgrade(engine, "base")
    engine.dispose()
    return counted


def upgrade_until_killed(url: str, point: int) -> bool:
    """Migrate in a child that dies at the nth point; True when it died there."""
    child = os.fork()
    if child == 0:
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            engine = make_engine(url)
            left = iter(range(point - 1))

            def reach() -> None:
                if next(left, None) is None:
                    os.kill(os.getpid(), signal.SIGKILL)

            watch(engine, reach)
            migrate.upgrade(engine)
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


def test_a_migration_that_was_killed_is_run_again(empty_url: str) -> None:
    for point in (1, 3, 5):
        assert upgrade_until_killed(empty_url, point)
    last = count_points(empty_url)
    for point in sorted({*range(4, last, last // 2), last - 1, last}):
        assert upgrade_until_killed(empty_url, point), f"point {point} of {last} was not reached"
        engine = make_engine(empty_url)
        if migrate.current(engine) is None:
            assert tables(engine) == set(), "half a migration was left behind"
        migrate.upgrade(engine)
        assert migrate.current(engine) == migrate.head()
        assert migrate.differences(engine) == []
        migrate.downgrade(engine, "base")
        engine.dispose()
    assert not upgrade_until_killed(empty_url, last + 1)


def test_migrations_do_not_queue_behind_a_long_transaction(postgres: Cluster) -> None:
    with fresh_database(postgres) as url:
        engine = make_engine(url)
        holder = create_engine(url)
        with holder.begin() as connection:
            connection.execute(text("LOCK TABLE accounts IN ACCESS SHARE MODE"))
            with pytest.raises(DBAPIError, match="lock timeout"):
                migrate.downgrade(engine, "base")
        # What waited was not undone; what did not have to wait was.
        assert migrate.current(engine) is not None
        migrate.upgrade(engine)
        assert migrate.differences(engine) == []
        migrate.downgrade(engine, "base")
        migrate.upgrade(engine)
        assert migrate.differences(engine) == []
        engine.dispose()
        holder.dispose()


def test_seals_made_before_they_said_what_is_settled_stay(
    transactions: Transactions, clock: FakeClock
) -> None:
    """Older code goes on writing seals during an update, and its seals say 0."""
    engine = transactions.database.engine
    make_staff(transactions)
    first = seal_committed(transactions)
    assert first is not None
    migrate.downgrade(engine, "0002")
    with engine.begin() as connection:
        columns = {each["name"] for each in inspect(connection).get_columns("audit_seals")}
    assert "settled_to" not in columns
    migrate.upgrade(engine)
    clock.advance(seconds=ROWS_SETTLED.total_seconds() + 1)
    make_staff(transactions, "second@vendor.test")
    second = seal_committed(transactions)
    assert second is not None
    assert second.number == 2
    assert second.settled_to == first.row_count
    with transactions.reading(SYSTEM) as context:
        assert context.session.get_one(AuditSeal, 1).settled_to == 0
        assert verify_chain(context) is None
