"""Acts, done as the command does them."""

from typing import Any

from portal.db.acts import Act
from portal.db.deployments import Deployment
from portal.db.licenses import License
from portal.domain.catalog import fill_terms
from portal.domain.standing import LicenseState
from portal.services.acts.kinds import Ask, Kind
from portal.services.acts.machinery import approve, preview, require_fresh, submit
from portal.services.context import Actor, Transactions
from portal.services.entitlements import approve_entitlement, propose_entitlement
from portal.services.licenses import issue_pending, standing
from tests.factories.licenses import issue

COMMAND = Actor("command")
ANNUAL: dict[str, Any] = {
    "features": ["audit_export", "routing"],
    "limits": {"max_concurrency": 32},
}
"""What the contract of the tests grants."""


def ask(kind: Kind, subject_id: str, by: str | None, **params: Any) -> Ask:
    """Return an act that somebody wants done."""
    return Ask(subject_id=subject_id, params=kind.params(**params), reason="a test", by=by)


def do(
    transactions: Transactions, kind: Kind, subject_id: str, by: str | None, **params: Any
) -> Act:
    """Submit an act and issue what it asks for."""
    with transactions.writing(COMMAND) as context:
        act = submit(context, kind, ask(kind, subject_id, by, **params))
    issue_all(transactions, act)
    return act


def agree(transactions: Transactions, act: Act, by: str) -> Act:
    """Approve an act of two and issue what it asks for."""
    with transactions.writing(COMMAND) as context:
        done = approve(context, act.id, by=by)
    issue_all(transactions, done)
    return require_fresh(done)


def issue_all(transactions: Transactions, act: Act) -> None:
    """Issue what waits in the line that an act was done to."""
    assert act.deployment_id is not None
    issue_pending(transactions, act.deployment_id, COMMAND)


def seen(
    transactions: Transactions, kind: Kind, subject_id: str, by: str | None, **params: Any
) -> dict[str, Any]:
    """Return what the preview of an act shows."""
    with transactions.writing(COMMAND) as context:
        return preview(context, kind, ask(kind, subject_id, by, **params)).to_json()


def state_of(transactions: Transactions, license_id: str) -> LicenseState:
    """Return what a license is now."""
    with transactions.reading(COMMAND) as context:
        return standing(context, context.session.get_one(License, license_id)).state


def newest(transactions: Transactions, deployment_id: str) -> License:
    """Return the deployment's license of the highest revision."""
    with transactions.reading(COMMAND) as context:
        found = context.session.query(License).filter_by(deployment_id=deployment_id)
        return found.order_by(License.revision.desc()).first() or found.one()


def make_annual(
    transactions: Transactions, deployment: Deployment, approver: str, **terms: Any
) -> License:
    """Issue the license of an annual contract that somebody approved."""
    with transactions.writing(COMMAND) as context:
        made = propose_entitlement(
            context,
            deployment_id=deployment.id,
            terms=fill_terms("enterprise-annual", **{**ANNUAL, **terms}),
            reason="contract 7",
            created_by=None,
        )
        approved = approve_entitlement(context, made.id, approved_by=approver)
    return issue(transactions, approved)
