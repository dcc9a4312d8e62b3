"""Instances: finding them, telling their state, and retiring them."""

from dataclasses import dataclass
from typing import Final

from sqlalchemy import select

from licensing.license import License as LicensePayload
from portal.db.deployments import Deployment
from portal.db.instances import Fork, Instance
from portal.db.licenses import current_license
from portal.domain.errors import NotFound
from portal.domain.leases import slot_free_at
from portal.services.audit import record
from portal.services.context import Context

_TOLD_TO_STOP: Final = (
    "The router was told to stop serving; the license's page says why. It keeps asking."
)
_ADVICE: Final = {
    "suspended": _TOLD_TO_STOP,
    "revoked": _TOLD_TO_STOP,
    "superseded": _TOLD_TO_STOP,
    "ended": _TOLD_TO_STOP,
    "lapsed": "Its lease and grace have ended. Check that it is running and can reach this portal.",
    "in-grace": "It is serving on grace. Check that it can reach this portal before grace ends.",
    "overdue": "It has missed its planned renewal. Check its connection to this portal.",
}


@dataclass(frozen=True)
class Health:
    """The state of an instance in one word, and what to do about it."""

    state: str
    """`serving`, `overdue`, `in-grace`, `lapsed`, `suspended`, `revoked`, `superseded`, `ended`,
    `released`, `retired`."""
    advice: str | None


@dataclass(frozen=True)
class InstancePage:
    """The facts of an instance's page."""

    instance: Instance
    deployment: Deployment
    health: Health
    forks: tuple[Fork, ...]
    """At most 20, newest first."""


def instances_of(context: Context, deployment_id: str) -> list[Instance]:
    """Return a deployment's instances, those in use first, then by enrollment."""
    rows = context.session.scalars(
        select(Instance)
        .where(Instance.deployment_id == deployment_id)
        .order_by(Instance.retired_at.is_not(None), Instance.enrolled_at, Instance.id)
    )
    return list(rows)


def find_instance(context: Context, instance_id: str) -> Instance:
    """Return any instance, for staff and the command.

    Raises:
        NotFound: there is none.
    """
    instance = context.session.get(Instance, instance_id)
    if instance is None:
        raise NotFound(f"There is no instance {instance_id}.")
    return instance


def account_instance(context: Context, account_id: str, instance_id: str) -> Instance:
    """Return an instance of this account.

    Raises:
        NotFound: there is none, or it belongs to another account (both look the same).
    """
    instance = context.session.get(Instance, instance_id)
    if instance is None or instance.account_id != account_id:
        raise NotFound("There is no such instance in this account.")
    return instance


def instance_health(context: Context, instance: Instance) -> Health:
    """Return an instance's state at this unit's instant."""
    at = context.at
    states = (
        ("retired", instance.retired_at is not None),
        ("released", instance.released_at is not None),
        (instance.lease_status, instance.lease_status != "active"),
        ("lapsed", at >= instance.lease_grace_until_at),
        ("in-grace", at >= instance.lease_expires_at),
        ("overdue", at > instance.renew_latest_at),
        ("serving", True),
    )
    state = next(name for name, is_so in states if is_so)
    return Health(state, _ADVICE.get(state))


def instance_page(context: Context, account_id: str, instance_id: str) -> InstancePage:
    """Return the facts of an instance's page.

    Raises:
        NotFound: there is none in this account.
    """
    instance = account_instance(context, account_id, instance_id)
    forks = context.session.scalars(
        select(Fork).where(Fork.instance_id == instance_id).order_by(Fork.id.desc()).limit(20)
    )
    return InstancePage(
        instance,
        context.session.get_one(Deployment, instance.deployment_id),
        instance_health(context, instance),
        tuple(forks),
    )


def give_up_slot(context: Context, instance: Instance) -> None:
    """Return when the slot of an instance becomes free if the instance is given up now."""
    license_ = current_license(context.session, instance.deployment_id)
    terms = None if license_ is None or license_.payload is None else license_.payload
    payload = None if terms is None else LicensePayload.parse(terms)
    given_up = [
        moment
        for row in instances_of(context, instance.deployment_id)
        if row.id != instance.id and (moment := row.released_at or row.retired_at) is not None
    ]
    instance.slot_free_at = slot_free_at(
        given_up,
        context.at,
        ttl_s=payload.lease.ttl_s if payload is not None and payload.lease is not None else 0,
        max_instances=None if payload is None else payload.limits.max_instances,
        grace_until_at=instance.lease_grace_until_at,
    )


def retire_instance(context: Context, instance_id: str, *, reason: str) -> Instance:
    """Retire an instance, so that it gets no more active leases. Repeating it changes nothing.

    Raises:
        NotFound: there is none.
    """
    instance = context.session.get(Instance, instance_id, with_for_update=True)
    if instance is None:
        raise NotFound(f"There is no instance {instance_id}.")
    if instance.retired_at is None:
        if instance.slot_free_at is None:
            give_up_slot(context, instance)
        instance.retired_at = context.at
        record(
            context,
            "instance.retired",
            "instance",
            instance.id,
            account_id=instance.account_id,
            reason=reason,
        )
        context.session.flush()
    return instance


@dataclass(frozen=True)
class InstanceRow:
    """An instance in a list for staff."""

    instance: Instance
    health: Health
    deployment: Deployment


def search_instances(context: Context, text: str, most: int = 200) -> list[InstanceRow]:
    """Find instances whose id, label, fingerprint or key id contains `text`, last seen first."""
    query = (
        select(Instance, Deployment)
        .join(Deployment, Deployment.id == Instance.deployment_id)
        .order_by(Instance.last_seen_at.desc())
        .limit(most)
    )
    words = text.strip()
    if words:
        query = query.where(
            (Instance.id == words)
            | (Instance.keyid == words)
            | (Instance.deployment_id == words)
            | Instance.label.icontains(words, autoescape=True)
            | Instance.fingerprint.icontains(words, autoescape=True)
        )
    return [
        InstanceRow(instance, instance_health(context, instance), deployment)
        for instance, deployment in context.session.execute(query)
    ]
