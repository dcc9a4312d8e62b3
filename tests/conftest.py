"""Fixtures every room of the tests uses: databases, ports, units of work."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from sqlalchemy import Engine, text

from devtools.postgres import Cluster, cluster
from devtools.scratch import scratch_directory
from licensing.names import ROLES
from portal.db import migrate
from portal.db.session import Database
from portal.gateways.rate_limits import DatabaseRateLimiter
from portal.gateways.secret_box import AesGcmBox
from portal.services.bundles import publish_bundle
from portal.services.context import Actor, Policy, Ports, Transactions
from portal.services.keys import init_keys
from tests.databases import (
    PREPARED,
    TEMPLATE,
    Engines,
    copied_file,
    fresh_database,
    make_template,
    migrated_file,
)
from tests.fakes import FakeClock, FakePasswords, FakeRandomness, MemoryCustody, MemorySigners
from tests.softhsm import Token, make_token
from tests.spread import PROVE, examples

# For `tmp_path` and for programs that tests start.
tempfile.tempdir = os.environ["TMPDIR"] = str(scratch_directory())

settings.register_profile(
    "tests",
    deadline=None,
    # The same examples each time, so that the gate passes or fails for what was changed.
    derandomize=not PROVE,
    max_examples=examples(100, 500),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("tests")

ORIGIN = "http://127.0.0.1:8000"
COMMAND = Actor("command")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes long, so that at the end no worker waits for the other.

    Groups come first: each is one piece of work, and those of the browser are the largest.
    """
    items.sort(
        key=lambda item: [item.get_closest_marker(each) is None for each in ("slow", "xdist_group")]
    )


@pytest.fixture(scope="session")
def postgres() -> Iterator[Cluster]:
    """A PostgreSQL server of this process, with its templates."""
    with cluster() as running:
        make_template(running)
        make_template(running, PREPARED, prepare)
        yield running


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file."""
    return migrated_file(tmp_path_factory.mktemp("migrated"))


@pytest.fixture(scope="session")
def sqlite_prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file that `portal init` has prepared."""
    return migrated_file(tmp_path_factory.mktemp("prepared"), prepare)


@pytest.fixture(scope="session")
def engines() -> Engines:
    """The engines of this process."""
    return Engines()


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a fresh, migrated database, on each kind in turn.

    Tests of a prepared portal get a copy of one: making keys each time would cost as much again.
    """
    prepared = "transactions" in request.fixturenames
    if request.param == "sqlite":
        template = "sqlite_prepared" if prepared else "sqlite_template"
        yield copied_file(request.getfixturevalue(template), tmp_path)
        return
    running = request.getfixturevalue("postgres")
    with fresh_database(running, PREPARED if prepared else TEMPLATE) as url:
        yield url


@pytest.fixture
def database(database_url: str, engines: Engines) -> Iterator[Database]:
    """A fresh, migrated database."""
    with engines.over(database_url) as engine:
        yield Database(engine)


@pytest.fixture
def clock(database: Database) -> FakeClock:
    """The clock of the portal under test."""
    return clock_of(database)


def clock_of(database: Database) -> FakeClock:
    """Return a clock: on PostgreSQL at the real time, for signing compares it with the server's."""
    if not database.is_postgresql:
        return FakeClock()
    with database.reading() as session:
        return FakeClock(session.execute(text("SELECT clock_timestamp()")).scalar_one())


@pytest.fixture
def signers() -> MemorySigners:
    """Test keys in memory."""
    return MemorySigners()


@pytest.fixture(scope="session")
def token(tmp_path_factory: pytest.TempPathFactory) -> Token:
    """A SoftHSM2 token; where there is no SoftHSM2 the test is skipped, saying so."""
    return make_token(tmp_path_factory.mktemp("softhsm"))


@pytest.fixture
def transactions(database: Database, clock: FakeClock, signers: MemorySigners) -> Transactions:
    """Units of work over a database that `portal init` has prepared."""
    for role in ("root", *ROLES):
        signers.make(role)
    return units_of_work(database, clock, signers)


def prepare(engine: Engine) -> None:
    """Do what `portal init` does."""
    migrate.upgrade(engine)
    database, signers = Database(engine), MemorySigners()
    opened = units_of_work(database, clock_of(database), signers)
    with opened.writing(COMMAND) as context:
        init_keys(context, signers)
    publish_bundle(opened, COMMAND)


def units_of_work(database: Database, clock: FakeClock, signers: MemorySigners) -> Transactions:
    """Open units of work with the fakes of the ports."""
    randomness = FakeRandomness()
    ports = Ports(
        clock=clock,
        randomness=randomness,
        passwords=FakePasswords(),
        secrets=AesGcmBox(b"a data key that tests alone may use", randomness),
        signers=signers,
        custody=MemoryCustody(signers),
        limiter=DatabaseRateLimiter(database),
    )
    return Transactions(database, ports, Policy(origin=ORIGIN))
