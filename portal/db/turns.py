"""Turns: only one unit of work at a time holds the turn of a name.

A turn is held from when it is taken until its unit ends. Nothing is stored for it: PostgreSQL keeps
an advisory lock for the transaction, and on SQLite a writing unit has the whole database to itself.
"""

import hashlib

from sqlalchemy import func, select
from sqlalchemy.orm import Session


def take_turn(session: Session, name: str) -> None:
    """Wait until no other unit has the turn of this name, and hold it until this unit ends."""
    if session.get_bind().dialect.name != "postgresql":
        return
    key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big", signed=True)
    session.execute(select(func.pg_advisory_xact_lock(key)))
