"""Statements sent directly to PostgreSQL's driver, for the few that run all the time.

Invariants: SQLAlchemy compiles the statement, once. It still opens, lends and replaces the
connections, and its errors are raised. Nothing is committed or rolled back here: in a transaction's
session the statement is part of that transaction, in a `StatementSession` it is a transaction of
its own.
"""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import psycopg
from sqlalchemy import Engine, Executable, PoolProxiedConnection
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

_DIALECT = PGDialect_psycopg()  # type: ignore[no-untyped-call]

T = TypeVar("T")


class StatementSession(Session):
    """A session outside any transaction: each statement is a transaction of its own."""


class DirectStatement:
    """A statement that is compiled once and sent directly to PostgreSQL's driver.

    For the few statements that run so often that SQLAlchemy's work around each execution would cost
    more than the database's. Values and rows are those of the driver. In a unit of statements, it
    holds a connection only while it runs.
    """

    def __init__(self, statement: Executable) -> None:
        compiled = statement.compile(dialect=_DIALECT)  # type: ignore[attr-defined]
        self._text = str(compiled).encode()
        self._fixed = {name: value for name, value in compiled.params.items() if value is not None}

    def row(self, session: Session, values: dict[str, Any]) -> tuple[Any, ...] | None:
        """Execute and return the first row.

        Raises:
            DBAPIError: as if SQLAlchemy had executed it.
        """
        return self._run(session, values, psycopg.Cursor.fetchone)

    def count(self, session: Session, values: dict[str, Any]) -> int:
        """Execute and return how many rows were written.

        Raises:
            DBAPIError: as if SQLAlchemy had executed it.
        """
        return self._run(session, values, _rowcount)

    def _run(
        self, session: Session, values: dict[str, Any], take: Callable[[psycopg.Cursor[Any]], T]
    ) -> T:
        if not isinstance(session, StatementSession):
            return self._execute(session.connection().connection, values, take)
        pooled = cast(Engine, session.bind).raw_connection()
        try:
            driver = cast("psycopg.Connection[Any]", pooled.driver_connection)
            driver.autocommit = True
            try:
                return self._execute(pooled, values, take)
            finally:
                if not driver.closed:
                    driver.autocommit = False
        finally:
            pooled.close()

    def _execute(
        self,
        pooled: PoolProxiedConnection,
        values: dict[str, Any],
        take: Callable[[psycopg.Cursor[Any]], T],
    ) -> T:
        driver = cast("psycopg.Connection[Any]", pooled.driver_connection)
        # Kept with its connection: making a cursor costs a sixth of what executing does.
        cursor = pooled.info.get("cursor")
        if cursor is None:
            cursor = pooled.info["cursor"] = driver.cursor(binary=True)
        try:
            return take(cursor.execute(self._text, {**self._fixed, **values}))
        except psycopg.Error as error:
            broken = driver.closed
            if broken:
                pooled.invalidate(error)
            raise DBAPIError.instance(
                self._text.decode(),
                None,
                error,
                psycopg.Error,
                connection_invalidated=broken,
                dialect=_DIALECT,
            ) from error


def _rowcount(cursor: psycopg.Cursor[Any]) -> int:
    return cursor.rowcount
