"""Deployments: creating them, finding them within their account, and the facts of their pages."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import func, select

from portal.db.accounts import lock_account
from portal.db.deployments import Deployment, deployments_of
from portal.db.entitlements import Entitlement
from portal.db.instances import EnrollmentCode, Instance
from portal.db.licenses import License, licenses_of, newest_licenses
from portal.domain.entitlements import EntitlementState
from portal.domain.errors import Conflict, LimitReached, NotFound
from portal.domain.identifiers import DEPLOYMENT, new_id
from portal.domain.names import clean_name
from portal.domain.standing import Standing
from portal.domain.terms import Comparison, differences, granted_terms
from portal.services.audit import record
from portal.services.context import Context
from portal.services.enrollments import enrollment_codes_of
from portal.services.instances import Health, instance_health, instances_of
from portal.services.licenses import standings

MAX_DEPLOYMENTS: Final = 50


@dataclass(frozen=True)
class DeploymentFacts:
    """A deployment in a list."""

    deployment: Deployment
    license: License | None
    """The newest license, which may still be issuing."""
    standing: Standing | None
    routers: tuple[Health, ...]


@dataclass(frozen=True)
class Revision:
    """One license in a deployment's history."""

    license: License
    at: datetime
    """When it was released."""
    now: Standing
    changes: tuple[Comparison, ...]
    """What it says otherwise than the one before it, in words."""
    expires: tuple[datetime, datetime] | None
    """Its predecessor's end and its own, where they differ."""


@dataclass(frozen=True)
class DeploymentPage:
    """The facts of a deployment's page."""

    deployment: Deployment
    licenses: tuple[tuple[License, Standing], ...]
    """The newest first."""
    instances: tuple[tuple[Instance, Health], ...]
    codes: tuple[EnrollmentCode, ...]
    """The codes that can still be used."""
    history: tuple[Revision, ...]
    """What was issued, the newest first."""

    @property
    def current(self) -> License | None:
        """The newest license that was published."""
        released = (each for each, _ in self.licenses if each.released_at is not None)
        return next(released, None)


def create_deployment(context: Context, *, account_id: str, name: str) -> Deployment:
    """Create a deployment in an account.

    Raises:
        NotFound: there is no such open account.
        Invalid: the name cannot be used.
        Conflict: the account has a deployment with this name.
        LimitReached: the account has as many deployments as it may have.
    """
    name = clean_name(name, "name")
    account = lock_account(context.session, account_id)
    if account is None or account.closed_at is not None:
        raise NotFound(f"There is no account {account_id}.")
    open_ones = select(Deployment).where(
        Deployment.account_id == account_id, Deployment.closed_at.is_(None)
    )
    if context.session.scalar(open_ones.where(Deployment.name == name)) is not None:
        raise Conflict(f"There is already a deployment named {name}.")
    count = context.session.scalar(select(func.count()).select_from(open_ones.subquery())) or 0
    if count >= MAX_DEPLOYMENTS:
        raise LimitReached(f"An account can have at most {MAX_DEPLOYMENTS} deployments.")
    deployment = Deployment(
        id=new_id(DEPLOYMENT, context.ports.randomness),
        account_id=account_id,
        name=name,
        created_at=context.at,
    )
    context.session.add(deployment)
    record(context, "deployment.created", "deployment", deployment.id, account_id=account_id)
    context.session.flush()
    return deployment


def account_deployment(context: Context, account_id: str, deployment_id: str) -> Deployment:
    """Return a deployment of this account.

    Raises:
        NotFound: there is none, or it belongs to another account (both look the same).
    """
    deployment = context.session.get(Deployment, deployment_id)
    if deployment is None or deployment.account_id != account_id:
        raise NotFound("There is no such deployment in this account.")
    return deployment


def deployment_names(context: Context, account_id: str) -> list[tuple[str, str]]:
    """Return the ids and names of an account's open deployments, oldest first."""
    return [(each.id, each.name) for each in deployments_of(context.session, account_id)]


def names_with_nothing(context: Context, account_id: str) -> list[tuple[str, str]]:
    """Return ids and names of the open deployments that an evaluation can be for, oldest first."""
    live = select(Entitlement.deployment_id).where(
        Entitlement.account_id == account_id,
        Entitlement.state == EntitlementState.LIVE,
        Entitlement.ends_at.is_(None) | (Entitlement.ends_at > context.at),
    )
    taken = set(context.session.scalars(live))
    return [each for each in deployment_names(context, account_id) if each[0] not in taken]


def deployment_list(context: Context, account_id: str) -> tuple[DeploymentFacts, ...]:
    """Return an account's open deployments with the state of each, oldest first."""
    newest = newest_licenses(context.session, account_id)
    standing_of = standings(context, list(newest.values()))
    routers: defaultdict[str, list[Health]] = defaultdict(list)
    for row in context.session.scalars(select(Instance).where(Instance.account_id == account_id)):
        routers[row.deployment_id].append(instance_health(context, row))
    return tuple(
        DeploymentFacts(
            each,
            license_,
            None if license_ is None else standing_of[license_.id],
            tuple(routers[each.id]),
        )
        for each in deployments_of(context.session, account_id)
        for license_ in (newest.get(each.id),)
    )


def deployment_page(context: Context, account_id: str, deployment_id: str) -> DeploymentPage:
    """Return the facts of a deployment's page.

    Raises:
        NotFound: there is none in this account.
    """
    deployment = account_deployment(context, account_id, deployment_id)
    licenses = licenses_of(context.session, deployment.id)
    standing_of = standings(context, licenses)
    return DeploymentPage(
        deployment,
        tuple((each, standing_of[each.id]) for each in licenses),
        tuple(
            (each, instance_health(context, each)) for each in instances_of(context, deployment.id)
        ),
        tuple(enrollment_codes_of(context, deployment.id)),
        _history([each for each in licenses if each.released_at is not None], standing_of),
    )


def _history(released: Sequence[License], now: Mapping[str, Standing]) -> tuple[Revision, ...]:
    """Compare each released license, newest first, with the one before it."""
    if not released:
        return ()
    older = (*released[1:], None)
    return tuple(
        Revision(
            license_,
            license_.released_at,
            now[license_.id],
            _changes(before, license_),
            _new_end(before, license_),
        )
        for license_, before in zip(released, older, strict=True)
        if license_.released_at is not None
    )


def _changes(before: License | None, after: License) -> tuple[Comparison, ...]:
    if before is None or before.document is None or after.document is None:
        return ()
    return differences(granted_terms(before.document), granted_terms(after.document))


def _new_end(before: License | None, after: License) -> tuple[datetime, datetime] | None:
    if before is None or before.expires_at is None or after.expires_at is None:
        return None
    same = before.expires_at == after.expires_at
    return None if same else (before.expires_at, after.expires_at)
