"""Runs the migrations on the connection `portal.db.migrate` hands over.

SQLite changes a table by making it anew and dropping the old one, which empties it row by row: with
foreign keys on, other tables' rows would stand in the way. They are off meanwhile, and each
migration's transaction ends only when no reference is broken.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from alembic import context
from sqlalchemy import Connection, text

from portal.db import Base

LOCK_TIMEOUT = "2s"
STATEMENT_TIMEOUT = "60s"


def run(connection: Connection) -> None:
    """Run the asked-for migrations, one transaction each, never waiting long for a lock."""
    if connection.dialect.name == "postgresql":
        connection.execute(text(f"SET lock_timeout = '{LOCK_TIMEOUT}'"))
        connection.execute(text(f"SET statement_timeout = '{STATEMENT_TIMEOUT}'"))
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


run(context.config.attributes["connection"])
