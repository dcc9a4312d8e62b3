"""Turns: one unit at a time, and nothing left behind."""

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from portal.db.heartbeats import Heartbeat
from portal.db.session import Database
from portal.db.turns import take_turn


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_turn_is_one_units_until_it_ends(database: Database) -> None:
    # SQLite has one writer anyway.
    with database.writing() as one:
        take_turn(one, "a")
        with database.writing() as two:
            two.execute(text("SET LOCAL lock_timeout = '5ms'"))
            take_turn(two, "b")
            with pytest.raises(OperationalError, match="lock timeout"):
                take_turn(two, "a")
            two.rollback()
    with database.writing() as two:
        take_turn(two, "a")


def test_a_turn_leaves_no_row(database: Database) -> None:
    with database.writing() as session:
        take_turn(session, "a")
        take_turn(session, "a")
    with database.reading() as session:
        assert session.query(Heartbeat).count() == 0
