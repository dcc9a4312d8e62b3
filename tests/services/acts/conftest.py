"""A customer with a deployment, and staff who may act."""

from dataclasses import dataclass

import pytest

from portal.db.accounts import Account
from portal.db.deployments import Deployment
from portal.services.context import Transactions
from tests.factories.accounts import make_customer, make_deployment, make_staff


@dataclass(frozen=True)
class Site:
    """Who and what acts are done by and to."""

    account: Account
    deployment: Deployment
    owner: str
    ann: str
    ben: str


@pytest.fixture
def site(transactions: Transactions) -> Site:
    """Return an account with one deployment, its owner, and two approvers."""
    account, owner = make_customer(transactions)
    return Site(
        account,
        make_deployment(transactions, account),
        owner.id,
        make_staff(transactions).id,
        make_staff(transactions, "ben@vendor.test").id,
    )
