"""Entitlements: proposing, approving and starting what licenses are issued from."""

from sqlalchemy import select, update

from portal.db.deployments import Deployment, lock_deployment
from portal.db.entitlements import Entitlement
from portal.db.licenses import License
from portal.domain.catalog import CATALOG
from portal.domain.entitlements import EndCause, EntitlementState, check_terms
from portal.domain.errors import Conflict, Forbidden, NotFound
from portal.domain.identifiers import BUDGET, ENTITLEMENT, new_id
from portal.domain.roles import REQUESTS_MAKE
from portal.domain.terms import Terms
from portal.services.audit import record
from portal.services.causes import approvals_of, ask_for_proof
from portal.services.context import Context
from portal.services.licenses import request_issue
from portal.services.lines import end_grant


def find_entitlement(context: Context, entitlement_id: str) -> Entitlement:
    """Return an entitlement.

    Raises:
        NotFound: there is none.
    """
    entitlement = context.session.get(Entitlement, entitlement_id)
    if entitlement is None:
        raise NotFound(f"There is no entitlement {entitlement_id}.")
    return entitlement


def propose_entitlement(
    context: Context,
    *,
    deployment_id: str,
    terms: Terms,
    reason: str,
    created_by: str | None,
    request_id: str | None = None,
) -> Entitlement:
    """Propose terms for a deployment.

    Raises:
        NotFound: no such deployment.
        Invalid: terms the catalog does not permit.
    """
    deployment = context.session.get(Deployment, deployment_id)
    if deployment is None:
        raise NotFound(f"There is no deployment {deployment_id}.")
    check_terms(terms)
    has_budget = terms.tokens_total is not None
    entitlement = Entitlement(
        id=new_id(ENTITLEMENT, context.ports.randomness),
        account_id=deployment.account_id,
        deployment_id=deployment.id,
        request_id=request_id,
        terms=terms,
        budget_id=new_id(BUDGET, context.ports.randomness) if has_budget else None,
        reason=reason,
        created_at=context.at,
        created_by=created_by,
    )
    context.session.add(entitlement)
    record(
        context,
        "entitlement.proposed",
        "entitlement",
        entitlement.id,
        account_id=deployment.account_id,
        reason=reason,
        sku=terms.sku,
        mode=terms.mode.value,
        deployment_id=deployment.id,
    )
    context.session.flush()
    return entitlement


def approve_entitlement(
    context: Context, entitlement_id: str, *, approved_by: str | None
) -> Entitlement:
    """Approve a proposed entitlement; approving it twice changes nothing.

    `approved_by` is a staff person, or None where a policy decided.

    Raises:
        NotFound: no such entitlement.
        Forbidden: the SKU needs a second person, and this one proposed it.
        Conflict: it has ended.
    """
    entitlement = find_entitlement(context, entitlement_id)
    if entitlement.state in (EntitlementState.APPROVED, EntitlementState.LIVE):
        return entitlement
    if entitlement.state is EntitlementState.ENDED:
        raise Conflict("The entitlement has ended; propose a new one.")
    sku = entitlement.terms.sku
    if CATALOG[sku].two_person and entitlement.created_by == approved_by:
        raise Forbidden(f"{sku} needs the approval of a second person.")
    moved = context.session.execute(
        update(Entitlement)
        .where(Entitlement.id == entitlement_id, Entitlement.state == EntitlementState.PROPOSED)
        .values(
            approved_at=context.at,
            approved_by=approved_by,
            start_by_at=context.at + context.policy.start_window,
        )
        .returning(Entitlement.id)
    ).first()
    if moved is None:
        raise Conflict("Somebody else decided on this entitlement meanwhile.")
    context.session.refresh(entitlement)
    record(
        context,
        "entitlement.approved",
        "entitlement",
        entitlement.id,
        account_id=entitlement.account_id,
        approved_by=approved_by,
    )
    ask_for_proof(context, entitlement, *approvals_of(entitlement))
    return entitlement


def waiting_to_start(context: Context, account_id: str) -> list[Entitlement]:
    """Return the account's grants that wait for *Start now*, the most urgent first."""
    return list(
        context.session.scalars(
            select(Entitlement)
            .where(
                Entitlement.account_id == account_id,
                Entitlement.state == EntitlementState.APPROVED,
                Entitlement.start_by_at > context.at,
            )
            .order_by(Entitlement.start_by_at)
        )
    )


def can_start(
    context: Context, entitlement: Entitlement | None, permissions: frozenset[str]
) -> bool:
    """Say whether a member with these permissions can press *Start now* for this grant."""
    if entitlement is None or REQUESTS_MAKE not in permissions:
        return False
    waits = context.session.scalar(
        select(Entitlement.id).where(
            Entitlement.id == entitlement.id,
            Entitlement.state == EntitlementState.APPROVED,
            Entitlement.start_by_at > context.at,
        )
    )
    return waits is not None


def start_entitlement(context: Context, *, account_id: str, entitlement_id: str) -> License:
    """Start what staff granted: the customer's *Start now*. Starting twice gives the same license.

    Raises:
        NotFound: none of this account's.
        Conflict: it is not approved, or its 30 days have passed.
    """
    entitlement = context.session.get(Entitlement, entitlement_id)
    if entitlement is None or entitlement.account_id != account_id:
        raise NotFound("There is no such grant in this account.")
    if entitlement.state is EntitlementState.APPROVED:
        if entitlement.start_by_at is not None and context.at >= entitlement.start_by_at:
            raise Conflict("The time to start this grant has passed; ask for a new one.")
    elif entitlement.state is not EntitlementState.LIVE:
        raise Conflict("This grant cannot be started.")
    return request_issue(context, entitlement.id, cause="start")


def end_lapsed(context: Context) -> int:
    """End grants nobody started in time; return how many."""
    lapsed = context.session.scalars(
        select(Entitlement.id).where(
            Entitlement.state == EntitlementState.APPROVED, Entitlement.start_by_at <= context.at
        )
    ).all()
    ended = 0
    for entitlement_id in lapsed:
        entitlement = find_entitlement(context, entitlement_id)
        lock_deployment(context.session, entitlement.deployment_id)
        context.session.refresh(entitlement)
        # Somebody may have started it while its line was not held yet.
        if entitlement.state is EntitlementState.APPROVED:
            end_grant(context, entitlement_id, EndCause.NOT_STARTED)
            ended += 1
    return ended
