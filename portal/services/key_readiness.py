"""Which routers have a keyset already: what retiring a key waits for.

A router counts as known while it may serve: a leased one with a lease or grace, an offline one
through its deployment's current license. A leased router says its keyset version in each request.
Of an offline deployment it is taken from the files it was given: the license or the kit, downloaded
since the keyset was published, or the license marked as installed since.
"""

from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import select

from licensing.envelope import MAX_KEYSET_BYTES, Envelope
from licensing.keys import Keyset
from portal.db.audit import AuditRow
from portal.db.deployments import Deployment
from portal.db.instances import Instance
from portal.db.keys import KeysetVersion
from portal.db.licenses import License
from portal.domain.errors import Conflict, NotFound
from portal.services.context import Context
from portal.services.keys import keyset_version, published_keyset

DOWNLOADED: Final = "license.downloaded"
BRINGS_FILES: Final = ("license.json", "kit.zip")
"""Downloads that bring an offline deployment what its router needs; the rest is for people."""


@dataclass(frozen=True)
class DeploymentReadiness:
    """One deployment's routers, and how many of them have the keyset."""

    deployment_id: str
    name: str
    account_id: str
    mode: str
    known: int
    ready: int
    seen_at: datetime | None
    """When one that is not ready was seen last; None offline."""

    @property
    def lags(self) -> bool:
        """Whether a router of it lacks the keyset, as far as is known."""
        return self.ready < self.known


@dataclass(frozen=True)
class Readiness:
    """How far a keyset has spread."""

    keyset_version: int
    published_at: datetime
    known: int
    ready: int
    lagging: tuple[DeploymentReadiness, ...]
    """The deployments with a router that lacks it, those seen longest ago first."""

    @property
    def is_complete(self) -> bool:
        """Whether every known router has it."""
        return self.ready >= self.known


def readiness(context: Context, version: int | None = None) -> Readiness:
    """Say which routers have a keyset, the newest unless another is named, or a later one.

    Raises:
        Unavailable: no keyset was published yet.
        NotFound: that version was never published.
    """
    stored = published_keyset(context) if version is None else keyset_version(context, version)
    found = [*_leased(context, stored), *_offline(context, stored)]
    lagging = [each for each in found if each.lags]
    lagging.sort(key=lambda each: (each.seen_at or stored.published_at, each.deployment_id))
    return Readiness(
        stored.version,
        stored.published_at,
        sum(each.known for each in found),
        sum(each.ready for each in found),
        tuple(lagging),
    )


def require_ready(context: Context, keyid: str) -> None:
    """Require that every known router has a keyset that lists a key.

    Raises:
        NotFound: no keyset lists it.
        Conflict: a router lacks such a keyset.
    """
    versions = [version for version, keys in _listed(context) if keyid in keys]
    if not versions:
        raise NotFound(f"No keyset lists the key {keyid}.")
    now = readiness(context, versions[0])
    if not now.is_complete:
        raise Conflict(
            f"{now.known - now.ready} of {now.known} known routers lack keyset {versions[0]}; "
            "see `portal keys readiness`. They would refuse what is signed without the old key. "
            "Wait, or retire it with --anyway and a reason."
        )


def _listed(context: Context) -> list[tuple[int, set[str]]]:
    """Return each keyset's version and keys, the oldest first."""
    rows = context.session.scalars(select(KeysetVersion).order_by(KeysetVersion.version))
    listed = []
    for row in rows:
        keyset = Keyset.parse(Envelope.parse(row.envelope, max_bytes=MAX_KEYSET_BYTES).payload)
        listed.append((row.version, {*keyset.by_keyid, *keyset.roots_by_keyid}))
    return listed


def _leased(context: Context, stored: KeysetVersion) -> list[DeploymentReadiness]:
    rows = context.session.execute(
        select(
            Deployment.id,
            Deployment.name,
            Deployment.account_id,
            Instance.keyset_version,
            Instance.last_seen_at,
        )
        .join(Instance, Instance.deployment_id == Deployment.id)
        .where(
            Instance.released_at.is_(None),
            Instance.retired_at.is_(None),
            Instance.lease_grace_until_at > context.at,
        )
    )
    routers = defaultdict(list)
    for deployment_id, name, account_id, version, seen_at in rows:
        routers[deployment_id, name, account_id].append((version >= stored.version, seen_at))
    return [
        DeploymentReadiness(
            *deployment,
            "lease",
            len(each),
            sum(is_ready for is_ready, _ in each),
            min((seen_at for is_ready, seen_at in each if not is_ready), default=None),
        )
        for deployment, each in routers.items()
    ]


def _offline(context: Context, stored: KeysetVersion) -> list[DeploymentReadiness]:
    rows = context.session.execute(
        select(Deployment.id, Deployment.name, Deployment.account_id, License.installed_marked_at)
        .join(License, License.deployment_id == Deployment.id)
        .where(
            License.mode == "offline",
            License.released_at.is_not(None),
            License.superseded_by.is_(None),
            License.revoked_at.is_(None),
            License.expires_at > context.at,
        )
    ).all()
    taken = set()
    downloads = context.session.execute(
        select(License.deployment_id, AuditRow.detail)
        .join(AuditRow, (AuditRow.subject_kind == "license") & (AuditRow.subject_id == License.id))
        .where(AuditRow.action == DOWNLOADED, AuditRow.at >= stored.published_at)
    )
    for deployment_id, detail in downloads:
        if detail.get("file") in BRINGS_FILES:
            taken.add(deployment_id)
    found = []
    for deployment_id, name, account_id, marked_at in rows:
        is_ready = deployment_id in taken or (
            marked_at is not None and marked_at >= stored.published_at
        )
        found.append(
            DeploymentReadiness(deployment_id, name, account_id, "offline", 1, int(is_ready), None)
        )
    return found
