"""Runs the migrations on the connection `portal.db.migrate` hands over."""

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
    )
    with context.begin_transaction():
        context.run_migrations()


run(context.config.attributes["connection"])
