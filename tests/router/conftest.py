"""The portal behind a network that can be told to misbehave."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from portal.config import load_settings
from portal.services.context import Transactions
from tests.applications import make_app
from tests.databases import copied_file
from tests.router.journals import Router
from tests.router.network import Network, serve
from tests.router.site import Site, make_site


@pytest.fixture
def database_url(sqlite_prepared: Path, tmp_path: Path) -> str:
    """A fresh, migrated database. Which kind the portal has makes no difference to a router."""
    return copied_file(sqlite_prepared, tmp_path)


@pytest.fixture
def network(transactions: Transactions, tmp_path: Path) -> Iterator[Network]:
    """The portal on a port of loopback."""
    settings = load_settings({"PORTAL_DATA_DIR": str(tmp_path)})
    app = make_app(settings, transactions)
    with serve(app) as running:
        yield running


@pytest.fixture
def site(transactions: Transactions, network: Network, tmp_path: Path) -> Site:
    """A customer's host with a license in lease mode and a code to enroll with."""
    return make_site(transactions, network, tmp_path / "lease")


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    """A loop."""
    with asyncio.Runner() as running:
        yield running


@pytest.fixture
def router(tmp_path: Path, runner: asyncio.Runner) -> Iterator[Router]:
    """A router that serves a budget of 1000 tokens."""
    made = Router(tmp_path / "license-state.json", runner).start()
    made.serve()
    yield made
    made.crash()
