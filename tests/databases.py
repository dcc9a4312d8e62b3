"""A fresh, migrated database for each test, on SQLite and on PostgreSQL.

The schema is migrated once per process, and keys are made in it once; each test gets a copy: a
copied file on SQLite, a database made from a template on PostgreSQL. One engine of each kind goes
from one copy to the next, so that SQLAlchemy compiles a statement once.
"""

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from sqlalchemy import URL, Engine, create_engine, event, make_url, text

from devtools.postgres import Cluster
from devtools.scratch import MEMORY
from portal.db import migrate
from portal.db.session import make_engine

TEMPLATE = "migrated"
PREPARED = "prepared"
Prepare = Callable[[Engine], None]


def migrated_file(directory: Path, prepare: Prepare = migrate.upgrade) -> Path:
    """Return a migrated SQLite file, to be copied."""
    path = directory / "migrated.sqlite3"
    engine = make_engine(f"sqlite:///{path}")
    prepare(engine)
    engine.dispose()
    raw = create_engine(f"sqlite:///{path}")
    with raw.connect() as connection:
        connection.execute(text("PRAGMA wal_checkpoint(TRUNCATE)"))
    raw.dispose()
    return path


def copied_file(migrated: Path, directory: Path) -> str:
    """Copy the migrated file; return the copy's URL."""
    path = directory / "portal.sqlite3"
    shutil.copy(migrated, path)
    return f"sqlite:///{path}"


def write_at_once(url: str) -> None:
    """Write to a SQLite file without waiting for anybody.

    Raises:
        sqlite3.OperationalError: somebody holds the write lock.
    """
    path = make_url(url).database
    assert path is not None
    with closing(sqlite3.connect(path, timeout=0)) as connection:
        connection.execute("UPDATE accounts SET name = name")
        connection.commit()


def make_template(
    cluster: Cluster, name: str = TEMPLATE, prepare: Prepare = migrate.upgrade
) -> None:
    """Make a template database of a server."""
    _admin(cluster, f"CREATE DATABASE {name}")
    engine = make_engine(cluster.url(name))
    prepare(engine)
    engine.dispose()


@contextmanager
def fresh_database(cluster: Cluster, template: str = TEMPLATE) -> Iterator[str]:
    """Make a database from the template; drop it afterwards."""
    name = f"test_{uuid4().hex}"
    # Copying files waits for a checkpoint, which costs little in memory and much on a disk.
    strategy = "FILE_COPY" if cluster.socket_dir.parent == MEMORY else "WAL_LOG"
    _admin(cluster, f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY {strategy}")
    try:
        yield cluster.url(name)
    finally:
        _admin(cluster, f"DROP DATABASE {name} WITH (FORCE)")


def _admin(cluster: Cluster, statement: str) -> None:
    engine = create_engine(cluster.url(), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(statement))
    engine.dispose()


class Engines:
    """One engine for each kind of database, which is pointed at one database after another."""

    def __init__(self) -> None:
        self._engines: dict[str, Engine] = {}
        self._urls: dict[str, URL] = {}

    @contextmanager
    def over(self, url: str) -> Iterator[Engine]:
        """Return the engine, over this database while the block runs."""
        kind = make_url(url).get_backend_name()
        self._urls[kind] = make_url(url)
        engine = self._engines.setdefault(kind, self._make(kind, url))
        try:
            yield engine
        finally:
            engine.dispose()

    def _make(self, kind: str, url: str) -> Engine:
        engine = make_engine(url)

        @event.listens_for(engine, "do_connect")
        def point(dialect: Any, _record: Any, arguments: list[Any], named: dict[str, Any]) -> None:
            here, more = dialect.create_connect_args(self._urls[kind])
            arguments[:] = here
            named.update(more)

        return engine
