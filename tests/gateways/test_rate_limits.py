"""Attempts counted in the database: the limit holds, whoever races for it."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier

import pytest

from portal.db.rate_limits import RateCount
from portal.db.session import Database, make_engine
from portal.gateways.rate_limits import DatabaseRateLimiter
from tests.fakes import START

LIMIT = 10
RACERS = 8


@pytest.fixture
def limiter(database: Database) -> DatabaseRateLimiter:
    return DatabaseRateLimiter(database)


def hit(limiter: DatabaseRateLimiter, after_s: float = 0, bucket: str = "a") -> int | None:
    at = START + timedelta(seconds=after_s)
    return limiter.hit(bucket, limit=3, window_s=60, at=at)


def test_the_limit_and_what_comes_after(limiter: DatabaseRateLimiter) -> None:
    assert [hit(limiter) for _ in range(3)] == [None, None, None]
    wait = hit(limiter, 10)
    assert wait is not None
    assert 50 <= wait <= 51
    assert hit(limiter, 10, "b") is None
    assert hit(limiter, 59.9) == 1
    assert hit(limiter, 60) is None


def test_who_waits_as_long_as_told_is_let_in(limiter: DatabaseRateLimiter) -> None:
    for _ in range(3):
        hit(limiter)
    for after_s in (0.0, 0.5, 17.3, 59.999):
        wait = hit(limiter, after_s)
        assert wait is not None
        assert after_s + wait >= 60


@pytest.mark.asvs("2.3.4")
@pytest.mark.parametrize("pools", [1, 2])
def test_the_limit_holds_under_a_race(database_url: str, pools: int) -> None:
    databases = [Database(make_engine(database_url)) for _ in range(pools)]
    limiters = [DatabaseRateLimiter(database) for database in databases]
    start = Barrier(RACERS)

    def race(number: int) -> list[int | None]:
        limiter = limiters[number % pools]
        start.wait(30)
        return [limiter.hit("a", limit=LIMIT, window_s=60, at=START) for _ in range(5)]

    with ThreadPoolExecutor(RACERS) as threads:
        answers = [answer for each in threads.map(race, range(RACERS)) for answer in each]
    with databases[0].reading() as session:
        assert session.query(RateCount).one().attempts == RACERS * 5
    for database in databases:
        database.dispose()
    assert len(answers) == RACERS * 5
    assert answers.count(None) == LIMIT
