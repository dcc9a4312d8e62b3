"""Requesting work after the commit."""

from datetime import datetime
from typing import Any

from sqlalchemy.dialects import postgresql, sqlite

from portal.db.jobs import Job
from portal.services.context import Context


def enqueue(
    context: Context,
    kind: str,
    unique_key: str,
    payload: dict[str, Any] | None = None,
    *,
    run_at: datetime | None = None,
) -> None:
    """Write a job in the current transaction; a second one of the same kind and key is ignored."""
    insert = (
        postgresql.insert
        if context.session.get_bind().dialect.name == "postgresql"
        else sqlite.insert
    )
    context.session.execute(
        insert(Job)
        .values(
            kind=kind,
            unique_key=unique_key,
            payload=payload or {},
            created_at=context.at,
            run_at=run_at or context.at,
            attempts=0,
        )
        .on_conflict_do_nothing(index_elements=["kind", "unique_key"])
    )
