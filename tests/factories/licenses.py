"""Entitlements and licenses."""

from typing import Any

from portal.db.deployments import Deployment
from portal.db.entitlements import Entitlement
from portal.db.licenses import License
from portal.domain.catalog import fill_terms
from portal.domain.terms import Mode
from portal.services.context import Actor, Transactions
from portal.services.entitlements import approve_entitlement, propose_entitlement
from portal.services.licenses import issue_license, request_issue
from tests.factories.accounts import make_customer, make_deployment, make_staff

COMMAND = Actor("command")


def make_entitlement(
    transactions: Transactions,
    deployment: Deployment,
    *,
    sku: str = "eval-72h",
    mode: str = "offline",
    staff: str | None = None,
    **terms: Any,
) -> Entitlement:
    """Make an approved entitlement with an SKU's terms; `terms` say what is otherwise."""
    with transactions.writing(COMMAND) as context:
        made = propose_entitlement(
            context,
            deployment_id=deployment.id,
            terms=fill_terms(sku, mode=Mode(mode), **terms),
            reason="a test",
            created_by=staff,
        )
        return approve_entitlement(context, made.id, approved_by=staff)


def make_budgeted_pilot(
    transactions: Transactions, deployment: Deployment, **terms: Any
) -> Entitlement:
    """Make an approved pilot of one instance that counts a budget of 10M tokens."""
    limits = {"tokens_total": 10_000_000, "max_instances": 1}
    return make_entitlement(transactions, deployment, sku="pilot-30d", limits=limits, **terms)


def issue(transactions: Transactions, entitlement: Entitlement) -> License:
    """Issue the license of an entitlement."""
    with transactions.writing(COMMAND) as context:
        asked = request_issue(context, entitlement.id, cause="start")
    issue_license(transactions, asked.id, COMMAND)
    with transactions.reading(COMMAND) as context:
        return context.session.get_one(License, asked.id)


def make_license(transactions: Transactions, **terms: Any) -> License:
    """Make an account, a deployment, an entitlement and its license."""
    account, _ = make_customer(transactions)
    deployment = make_deployment(transactions, account)
    return issue(transactions, make_entitlement(transactions, deployment, **terms))


def make_lease_license(transactions: Transactions, **terms: Any) -> License:
    """Make a license in lease mode."""
    return make_license(transactions, mode="lease", **terms)


__all__ = [
    "issue",
    "make_budgeted_pilot",
    "make_entitlement",
    "make_lease_license",
    "make_license",
    "make_staff",
]
