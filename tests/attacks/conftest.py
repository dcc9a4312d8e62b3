"""The database as the application sees it, and a portal in hostile hands."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import create_engine, make_url, text

from portal.db.session import Database
from portal.domain.causes import Approvals
from portal.gateways.custody import NoCustody
from portal.services.context import Transactions
from tests.attacks.site import (
    Site,
    worker_of,
)
from tests.databases import Engines
from tests.factories.accounts import make_customer, make_deployment, make_staff
from tests.fakes import FakeClock, FakeMailer, MemorySigners

GRANTS = re.findall(
    r"^(?:GRANT|REVOKE) .*?;$",
    (Path(__file__).parents[2] / "docs" / "operators" / "database.md").read_text(),
    re.MULTILINE,
)


@pytest.fixture
def database(
    database_url: str, engines: Engines, request: pytest.FixtureRequest
) -> Iterator[Database]:
    """The database as the application's own role sees it."""
    url = make_url(database_url)
    if url.get_backend_name() == "postgresql":
        owner = create_engine(url, isolation_level="AUTOCOMMIT")
        with owner.connect() as connection:
            known = connection.scalar(text("SELECT 1 FROM pg_roles WHERE rolname = 'portal_app'"))
            if not known:
                connection.execute(text("CREATE ROLE portal_app LOGIN"))
            for grant in GRANTS:
                connection.execute(text(grant))
        owner.dispose()
        url = url.set(username="portal_app")
    with engines.over(url.render_as_string(hide_password=False)) as engine:
        yield Database(engine)


@pytest.fixture
def site(transactions: Transactions, clock: FakeClock, signers: MemorySigners) -> Site:
    """A portal in which staff approve with the command, and a customer who turned hostile."""
    policy = replace(transactions.policy, approvals=Approvals.COMMAND)
    portal = Transactions(transactions.database, transactions.ports, policy)
    held = MemorySigners(absent={"root", "license", "revocation", "seal"}, made=signers.made)
    web = replace(transactions.ports, signers=held, custody=NoCustody())
    account, owner = make_customer(portal)
    mailer = FakeMailer()
    return Site(
        portal,
        Transactions(transactions.database, web, policy),
        worker_of(portal, mailer),
        mailer,
        clock,
        account,
        make_deployment(portal, account),
        owner,
        make_staff(portal, "ann@vendor.test", "approver", "keys"),
    )
