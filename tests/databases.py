"""A fresh, migrated database for each test, on SQLite and on PostgreSQL.

The schema is migrated once per process; each test gets a copy of it: a copied file on SQLite, a
database made from a template on PostgreSQL.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from sqlalchemy import create_engine, text

from devtools.postgres import Cluster
from portal.db import migrate
from portal.db.session import make_engine

TEMPLATE = "migrated"


def migrated_file(directory: Path) -> Path:
    """Return a migrated SQLite file, to be copied."""
    path = directory / "migrated.sqlite3"
    engine = make_engine(f"sqlite:///{path}")
    migrate.upgrade(engine)
    with engine.connect() as connection:
        connection.connection.driver_connection.isolation_level = None  # type: ignore[union-attr]
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


def make_template(cluster: Cluster) -> None:
    """Migrate the template database of a server."""
    _admin(cluster, f"CREATE DATABASE {TEMPLATE}")
    engine = make_engine(cluster.url(TEMPLATE))
    migrate.upgrade(engine)
    engine.dispose()


@contextmanager
def fresh_database(cluster: Cluster, template: str = TEMPLATE) -> Iterator[str]:
    """Make a database from the template; drop it afterwards."""
    name = f"test_{uuid4().hex}"
    _admin(cluster, f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY")
    try:
        yield cluster.url(name)
    finally:
        _admin(cluster, f"DROP DATABASE {name} WITH (FORCE)")


def _admin(cluster: Cluster, statement: str) -> None:
    engine = create_engine(cluster.url(), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(statement))
    engine.dispose()
