"""Units of work on PostgreSQL when connections die, and statements given straight to the driver."""

from collections.abc import Iterator

import pytest
from sqlalchemy import bindparam, create_engine, select, text
from sqlalchemy.exc import DBAPIError

from devtools.postgres import Cluster
from portal.db.direct import DirectStatement
from portal.db.session import Database, make_engine
from tests.databases import fresh_database

ANSWER = DirectStatement(select(bindparam("number", 0) + 1).limit(1))


@pytest.fixture
def database_url(postgres: Cluster) -> Iterator[str]:
    """Only PostgreSQL has connections that die."""
    with fresh_database(postgres) as url:
        yield url


def end_all_connections(url: str) -> None:
    engine = create_engine(url)
    with engine.connect() as connection:
        connection.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        )
    engine.dispose()


def test_a_direct_statement_runs_alone_and_in_a_transaction(database: Database) -> None:
    with database.statements() as session:
        assert ANSWER.row(session, {"number": 1}) == (2,)
    with database.writing() as session:
        assert ANSWER.row(session, {"number": 2}) == (3,)
        assert session.execute(text("SELECT 1")).scalar_one() == 1


def test_a_statements_connection_serves_transactions_afterwards(database: Database) -> None:
    with database.statements() as session:
        ANSWER.row(session, {"number": 1})

    def fail() -> None:
        with database.writing() as session:
            session.execute(text("CREATE TABLE left_over (id int)"))
            raise LookupError

    with pytest.raises(LookupError):
        fail()
    with database.reading() as session:
        assert session.execute(text("SELECT to_regclass('left_over')")).scalar_one() is None


@pytest.mark.parametrize("unit", ["statements", "writing"])
def test_a_connection_the_server_closed_is_replaced_unnoticed(
    database: Database, database_url: str, unit: str
) -> None:
    with database.statements() as session:
        ANSWER.row(session, {"number": 1})
    end_all_connections(database_url)
    with getattr(database, unit)() as session:
        assert ANSWER.row(session, {"number": 1}) == (2,)


def test_a_connection_that_dies_in_use_is_reported_and_replaced(
    database: Database, database_url: str
) -> None:
    def run() -> None:
        with database.writing() as session:
            ANSWER.row(session, {"number": 1})
            end_all_connections(database_url)
            ANSWER.row(session, {"number": 1})

    with pytest.raises(DBAPIError) as raised:
        run()
    assert raised.value.connection_invalidated
    with database.writing() as session:
        assert ANSWER.row(session, {"number": 1}) == (2,)


def test_an_idle_connection_that_died_is_replaced_unnoticed(database_url: str) -> None:
    database = Database(make_engine(database_url, fresh_s=0))
    with database.statements() as session:
        ANSWER.row(session, {"number": 1})
    end_all_connections(database_url)
    with database.statements() as session:
        assert ANSWER.row(session, {"number": 1}) == (2,)
    database.dispose()
