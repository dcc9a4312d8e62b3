"""Fixtures every room of the tests uses: databases, ports, units of work."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from devtools.postgres import Cluster, cluster
from portal.db.session import Database, make_engine
from portal.gateways.rate_limits import DatabaseRateLimiter
from portal.gateways.secret_box import AesGcmBox
from portal.services.bundles import publish_bundle
from portal.services.context import Actor, Policy, Ports, Transactions
from portal.services.keys import init_keys
from tests.databases import copied_file, fresh_database, make_template, migrated_file
from tests.fakes import FakeClock, FakePasswords, FakeRandomness, MemorySigners

settings.register_profile(
    "tests",
    deadline=None,
    derandomize=bool(os.environ.get("CI")),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("tests")

ORIGIN = "http://127.0.0.1:8000"
COMMAND = Actor("command")


@pytest.fixture(scope="session")
def postgres() -> Iterator[Cluster]:
    """A PostgreSQL server of this process, with the migrated template."""
    with cluster() as running:
        make_template(running)
        yield running


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file."""
    return migrated_file(tmp_path_factory.mktemp("migrated"))


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a fresh, migrated database, on each kind in turn."""
    if request.param == "sqlite":
        yield copied_file(request.getfixturevalue("sqlite_template"), tmp_path)
        return
    with fresh_database(request.getfixturevalue("postgres")) as url:
        yield url


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """A fresh, migrated database."""
    opened = Database(make_engine(database_url))
    yield opened
    opened.dispose()


@pytest.fixture
def clock(database_url: str) -> FakeClock:
    """The clock of the portal under test.

    On PostgreSQL it starts at the real time: signing compares it with the database's.
    """
    return FakeClock() if database_url.startswith("sqlite") else _at_the_servers_time(database_url)


def _at_the_servers_time(url: str) -> FakeClock:
    from sqlalchemy import text

    engine = make_engine(url)
    with engine.connect() as connection:
        at = connection.execute(text("SELECT clock_timestamp()")).scalar_one()
    engine.dispose()
    return FakeClock(at)


@pytest.fixture
def signers() -> MemorySigners:
    """Test keys in memory."""
    return MemorySigners()


@pytest.fixture
def transactions(database: Database, clock: FakeClock, signers: MemorySigners) -> Transactions:
    """Units of work over a database that `portal init` has prepared."""
    randomness = FakeRandomness()
    ports = Ports(
        clock=clock,
        randomness=randomness,
        passwords=FakePasswords(),
        secrets=AesGcmBox(b"a data key that tests alone may use", randomness),
        signers=signers,
        limiter=DatabaseRateLimiter(database),
    )
    opened = Transactions(database, ports, Policy(origin=ORIGIN))
    with opened.writing(COMMAND) as context:
        init_keys(context, signers)
    publish_bundle(opened, COMMAND)
    return opened
