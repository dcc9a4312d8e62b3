"""Runs the migrations on the connection `portal.db.migrate` hands over.

The `alembic` command hands none over: then the database is the one the settings name, and with
`--sql` the statements are printed instead of run.

SQLite changes a table by making it anew and dropping the old one, which empties it row by row: with
foreign keys on, other tables' rows would stand in the way. They are off meanwhile, and each
migration's transaction ends only when no reference is broken.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from alembic import context
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, make_url, text

from portal.config import load_settings
from portal.db import Base
from portal.db.session import make_engine

TIMEOUTS = ("SET lock_timeout = '2s'", "SET statement_timeout = '60s'")
"""For PostgreSQL: never wait long for a lock."""


def run(connection: Connection) -> None:
    """Run the migrations that were asked for, each in one transaction."""
    if connection.dialect.name == "postgresql":
        for timeout in TIMEOUTS:
            connection.execute(text(timeout))
        connection.commit()
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        transaction_per_migration=True,
        render_as_batch=connection.dialect.name == "sqlite",
        compare_type=True,
        on_version_apply=_check_references,
    )
    with _without_foreign_keys(connection), context.begin_transaction():
        context.run_migrations()


@contextmanager
def _without_foreign_keys(connection: Connection) -> Iterator[None]:
    """Switch SQLite's foreign keys off, outside of any transaction; within one it does nothing."""
    if connection.dialect.name != "sqlite":
        yield
        return
    driver: Any = connection.connection.driver_connection
    driver.execute("PRAGMA foreign_keys=OFF")
    try:
        yield
    finally:
        # Where no migration ran, reading the version left a transaction open.
        connection.rollback()
        driver.execute("PRAGMA foreign_keys=ON")


def _check_references(ctx: Any, **_: Any) -> None:
    """Refuse to commit a migration that broke a reference."""
    if ctx.dialect.name == "sqlite" and not ctx.as_sql:
        broken = ctx.connection.execute(text("PRAGMA foreign_key_check")).all()
        if broken:
            raise RuntimeError(f"the migration would break references: {broken[:5]}")


def write_sql(url: str) -> None:
    """Print the statements of the migrations that were asked for."""
    if make_url(url).get_backend_name() == "sqlite":
        write_sqlite()
        return
    context.configure(
        dialect_name="postgresql",
        # Another style would write each % of a statement twice.
        dialect_opts={"paramstyle": "named"},
        literal_binds=True,
        transaction_per_migration=True,
    )
    for timeout in TIMEOUTS:
        context.execute(timeout)
    with context.begin_transaction():
        context.run_migrations()


def write_sqlite() -> None:
    """Print what the migrations do to a database in memory.

    To change a table, SQLite makes it anew as it finds it; so there must be one to look at.
    """
    start, end = context.get_starting_revision_argument(), context.get_revision_argument()
    revisions = context.script.iterate_revisions(end, "base") if end else ()
    is_upgrade = start is None or start in {each.revision for each in revisions}
    engine = make_engine("sqlite://")
    with engine.connect() as connection:
        if start is not None:
            move(connection, start, is_upgrade=True)
        driver: Any = connection.connection.driver_connection
        sys.stdout.write("PRAGMA foreign_keys=OFF;\n")
        driver.set_trace_callback(write_statement)
        move(connection, end, is_upgrade=is_upgrade)
        driver.set_trace_callback(None)
        sys.stdout.write("PRAGMA foreign_keys=ON;\n")
    engine.dispose()


def move(connection: Connection, revision: Any, *, is_upgrade: bool) -> None:
    """Bring the database in memory to a revision."""
    script = context.script
    # Alembic's own recipes name these two; there are no public ones.
    steps = script._upgrade_revs if is_upgrade else script._downgrade_revs  # noqa: SLF001
    migration = MigrationContext.configure(
        connection,
        opts={"fn": lambda at, _: steps(revision, at), "transaction_per_migration": True},
    )
    with Operations.context(migration):
        migration.run_migrations()


def write_statement(statement: str) -> None:
    """Print a statement that changes something; lines of triggers at work are comments."""
    if not statement.lstrip().startswith(("SELECT", "PRAGMA", "--")):
        sys.stdout.write(f"{statement};\n")


if context.is_offline_mode():
    write_sql(load_settings().database_url)
elif (handed_over := context.config.attributes.get("connection")) is not None:
    run(handed_over)
else:
    engine = make_engine(load_settings().database_url)
    with engine.connect() as own:
        run(own)
    engine.dispose()
