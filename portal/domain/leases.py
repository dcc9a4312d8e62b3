"""What the next lease of an instance is: its chain, times, status, slot and share of a budget.

Invariants: a request id that was answered gets its stored answer and nothing else. `seq` rises by
one and `prev_sha256` names the lease before, whatever happened to the database. No time of a lease
passes the end of its license. What all instances of a deployment may use of a budget stays within
it. Nothing here reads a clock, a database or a key: the portal and the simulator both decide here.

Source: the lease protocol. Times of a lease are integer Unix seconds; the others are datetimes.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from functools import lru_cache
from typing import Final, Literal, NamedTuple

from licensing.encoding import sha256_hex
from licensing.enrollment import EnrollmentRequest, LeaseRequest, Usage
from licensing.envelope import Envelope
from licensing.errors import KeyNotValid, LicensingError
from licensing.keys import ZERO_SHA256, Keyset
from licensing.lease import Lease
from licensing.license import Budget, License
from licensing.names import PRODUCT
from licensing.verify import KeysetTrust, Verified, verify_lease
from portal.domain.lease_errors import (
    InstancesExhausted,
    InvalidRequest,
    LicenseMismatch,
    PreviousLeaseRequired,
    RequestReplayed,
)
from portal.domain.standing import LicenseFacts, LicenseState, standing_of

ASK_AGAIN_S: Final = (300, 900)
"""The window in which the holder of a lease that is not active asks again, in seconds."""


@dataclass(frozen=True, order=True)
class Link:
    """One lease of a chain."""

    epoch: int
    seq: int
    sha256: str = ""


class Step(Enum):
    """What a lease request means for the chain."""

    CONTINUE = "continue"
    AHEAD = "ahead"
    """The instance holds a lease this database does not know: it was restored from a backup."""
    FORK = "fork"


def next_step(head: Link, claimed: Link) -> Step:
    """Compare what the instance holds with the head of its chain."""
    if claimed == head:
        return Step.CONTINUE
    if (claimed.epoch, claimed.seq) > (head.epoch, head.seq):
        return Step.AHEAD
    return Step.FORK


@dataclass(frozen=True)
class Head:
    """The head of an instance's chain: all that one renewal reads of it and the next writes."""

    epoch: int
    seq: int
    lease_id: str
    lease_sha256: str
    lease_status: str
    lease_issued_at: datetime
    lease_expires_at: datetime
    lease_grace_until_at: datetime
    lease_budget_id: str | None
    lease_tokens_total: int
    """What the lease lets the instance use of that budget in all."""
    renew_earliest_at: datetime
    renew_latest_at: datetime
    software: str
    boot_id: str | None
    last_seen_at: datetime
    bundle_version: int
    """The version the router said it has; so is `keyset_version`."""
    keyset_version: int
    usage_budget_id: str | None
    usage_tokens: int
    usage_requests: int
    released_at: datetime | None
    slot_free_at: datetime | None
    """From when on the instance holds no slot; None while it is in use."""

    @property
    def link(self) -> Link:
        """The current lease's place in the chain."""
        return Link(self.epoch, self.seq, self.lease_sha256)

    def may_serve(self, at: datetime) -> bool:
        """Say whether the current lease lets its holder serve, grace included."""
        return self.lease_status == "active" and self.lease_grace_until_at > at

    def holds_slot(self, at: datetime) -> bool:
        """Say whether the instance holds a slot: it may serve and was not given up."""
        return self.may_serve(at) and (self.slot_free_at is None or self.slot_free_at > at)

    def used(self, budget_id: str) -> int:
        """Return the tokens the instance reported for a budget."""
        return self.usage_tokens if self.usage_budget_id == budget_id else 0

    def may_use(self, budget_id: str, at: datetime) -> int:
        """Return the tokens the instance used of a budget or may still use under its lease."""
        granted = self.may_serve(at) and self.lease_budget_id == budget_id
        return max(self.used(budget_id), self.lease_tokens_total if granted else 0)


@dataclass(frozen=True)
class Known:
    """What the portal has stored about a request: who asks, for which license, answered before."""

    instance_id: str
    account_id: str
    deployment_id: str
    keyid: str
    public_key: bytes
    """32 raw bytes."""
    has_others: bool
    """Whether the deployment has other instances."""
    license_id: str | None
    """The named license; None when there is no such license."""
    license_deployment_id: str | None
    license_payload: bytes | None
    license_sha256: str | None
    license_released_at: datetime | None
    superseded_at: datetime | None
    """When the named license's overlap with its successor ends."""
    superseded_by: str | None
    revoked_at: datetime | None
    latest_bundle: int | None
    keyset_sha256: str | None
    has_stopped_keys: bool
    """Whether a key signs nothing because somebody said that it is compromised."""
    is_held: bool = False
    retired_at: datetime | None = None
    answered_lease_id: str | None = None
    """The lease this request id was answered with before."""
    answer: bytes | None = None
    """That lease's envelope; None when it is no longer kept."""


@dataclass(frozen=True)
class Facts:
    """All that an answer depends on besides the chain's head and the request."""

    known: Known
    issuer: str
    lease_id: str
    """The id of the next lease."""
    keyset: Keyset
    others: Sequence[Head] = ()
    """The heads of the deployment's other instances, where `needs_others` asks for them."""
    prev_lease: bytes | None = None
    """The lease the router holds, when it sent it along."""


@dataclass(frozen=True)
class NextLease:
    """A lease that is decided and not yet signed, and the head once it stands."""

    lease: Lease
    payload: bytes
    head: Head
    step: Step
    prev: Link
    """The lease it follows: the head's, or the one that was taken up."""


def needs_others(head: Head, known: Known) -> bool:
    """Say whether the answer depends on the deployment's other instances."""
    if not known.has_others or known.answered_lease_id is not None or not known.license_payload:
        return False
    return head.released_at is not None or parse_license(known.license_payload).budget is not None


def next_lease(
    head: Head, request: Verified[LeaseRequest], facts: Facts, at: datetime
) -> bytes | NextLease:
    """Decide the answer to a verified lease request: the stored one, or the next lease.

    Raises:
        RequestReplayed: it was answered so long ago that the answer is gone.
        LicenseMismatch: the named license is not one of the deployment that works by lease.
        PreviousLeaseRequired: the router is ahead of the database and did not send its lease.
        InvalidRequest: the lease it sent is not the one it names, or not ours.
        InstancesExhausted: the instance was released, and every slot is taken.
    """
    known, asked = facts.known, request.document
    if known.answered_lease_id is not None:
        if known.answer is None:
            raise RequestReplayed("This request id was answered more than 90 days ago.")
        return known.answer
    license_ = named_license(known, asked)
    prev = Link(asked.prev_epoch, asked.prev_seq, asked.prev_sha256)
    step = next_step(head.link, prev)
    if step is Step.AHEAD and not _is_held(prev, facts, at):
        step = Step.FORK
    if step is Step.FORK:
        prev = head.link
    usage = _latest_usage(head, asked.usage)
    lease = _lease(request, facts, license_, prev, usage, at, warn=step is Step.FORK)
    given_up = head.released_at, head.slot_free_at
    if head.released_at is not None and lease.status == "active":
        require_slot(license_, facts.others, at)
        given_up = None, None
    payload = lease.to_bytes()
    said = _Said(asked.software, asked.boot_id, asked.bundle_version, asked.keyset_version)
    return NextLease(
        lease, payload, _head_after(lease, payload, said, usage, given_up, at), step, prev
    )


def first_lease(
    request: Verified[EnrollmentRequest], facts: Facts, license_: License, at: datetime
) -> NextLease:
    """Decide the lease that an instance is enrolled with.

    Raises:
        InstancesExhausted: every slot of the license is taken.
    """
    require_slot(license_, facts.others, at)
    prev = Link(1, 0, ZERO_SHA256)
    lease = _lease(request, facts, license_, prev, _NOTHING_USED, at)
    payload = lease.to_bytes()
    said = _Said(request.document.software)
    head = _head_after(lease, payload, said, _NOTHING_USED, (None, None), at)
    return NextLease(lease, payload, head, Step.CONTINUE, prev)


@lru_cache(maxsize=4096)
def parse_license(payload: bytes) -> License:
    """Parse the payload of an issued license."""
    return License.parse(payload)


def named_license(known: Known, request: LeaseRequest | EnrollmentRequest) -> License:
    """Return the license a request names.

    Raises:
        LicenseMismatch: it is not one of the instance's deployment, or needs no lease.
    """
    if (
        known.license_payload is None
        or known.license_deployment_id != known.deployment_id
        or known.license_released_at is None
        or known.license_sha256 != request.license_sha256
    ):
        raise LicenseMismatch("The named license is not one of this instance's deployment.")
    license_ = parse_license(known.license_payload)
    if license_.mode != "lease":
        raise LicenseMismatch("The named license works offline; it needs no lease.")
    return license_


def _is_held(claimed: Link, facts: Facts, at: datetime) -> bool:
    """Say whether the lease that the instance holds, which this database lost, is ours.

    One that only a compromised key vouches for is not: whoever stole the key may have made it, and
    the chain goes on from what is known here.

    Raises:
        PreviousLeaseRequired: the lease was not sent.
        InvalidRequest: what was sent is another lease, another instance's, or not ours.
    """
    if facts.prev_lease is None:
        raise PreviousLeaseRequired("This portal does not know the lease that was named.")
    known, trust = facts.known, KeysetTrust(facts.keyset)
    try:
        held = verify_lease(facts.prev_lease, trust, _unix(at), instance_keyid=known.keyid)
    except KeyNotValid as error:
        signers = {each.keyid for each in Envelope.parse(facts.prev_lease).signatures}
        if signers & facts.keyset.compromised:
            return False
        raise InvalidRequest(f"prev_lease: {error.detail}", pointer="/prev_lease") from error
    except LicensingError as error:
        raise InvalidRequest(f"prev_lease: {error.detail}", pointer="/prev_lease") from error
    link = Link(held.document.epoch, held.document.seq, held.payload_sha256)
    if link != claimed or held.document.instance_id != known.instance_id:
        raise InvalidRequest(
            "prev_lease is not the lease the request names.", pointer="/prev_lease"
        )
    return True


class LeaseStanding(NamedTuple):
    """What a lease says of its license, and why."""

    status: Literal["active", "suspended", "revoked", "superseded", "ended"]
    reason: str | None = None
    superseded_by: str | None = None


def lease_standing(known: Known, license_: License, at: datetime) -> LeaseStanding:
    """Return what the next lease says, as license and instance are at this instant."""
    facts = LicenseFacts(
        released_at=known.license_released_at,
        expires_at=datetime.fromtimestamp(license_.expires_at, UTC),
        superseded_at=known.superseded_at,
        superseded_by=known.superseded_by,
        revoked_at=known.revoked_at,
        is_held=known.is_held,
    )
    now = standing_of(facts, at)
    match now.state:
        case LicenseState.REVOKED:
            return LeaseStanding("revoked", now.reason)
        case LicenseState.SUPERSEDED:
            return LeaseStanding("superseded", now.reason, now.replaced_by)
        case LicenseState.SUSPENDED:
            return LeaseStanding("suspended", now.reason)
        case LicenseState.EXPIRED:
            return LeaseStanding("ended", now.reason)
    if known.retired_at is not None:
        return LeaseStanding("ended", "retired")
    return LeaseStanding("active")


@dataclass(frozen=True)
class Span:
    """The times of a lease."""

    expires_at: int
    grace_until_at: int
    renew_earliest_at: int
    renew_latest_at: int


def active_span(at: int, *, ttl_s: int, grace_s: int, license_expires_at: int) -> Span:
    """Return the times of an active lease: none passes the license's end.

    The renewal window is the span from a third to a half of the lease's life.
    """
    expires_at = min(at + ttl_s, license_expires_at)
    return Span(
        expires_at=expires_at,
        grace_until_at=min(expires_at + grace_s, license_expires_at),
        renew_earliest_at=min(at + ttl_s // 3, expires_at),
        renew_latest_at=min(at + ttl_s // 2, expires_at),
    )


def inactive_span(at: int, *, license_expires_at: int) -> Span:
    """Return the times of a lease that is not active: it only says when to ask again."""
    earliest, latest = ASK_AGAIN_S
    ends = min(at + latest, license_expires_at)
    return Span(ends, ends, at + earliest, at + latest)


def require_slot(license_: License, others: Iterable[Head], at: datetime) -> None:
    """Require that one more instance fits beside the others.

    Raises:
        InstancesExhausted: the license's instances are all in use.
    """
    most = license_.limits.max_instances
    if most is not None and sum(head.holds_slot(at) for head in others) >= most:
        raise InstancesExhausted(f"The license is for {most} instances, and all are in use.")


def slot_free_at(
    given_up: Sequence[datetime],
    at: datetime,
    *,
    ttl_s: int,
    max_instances: int | None,
    grace_until_at: datetime,
) -> datetime:
    """Say from when on the slot of an instance that is given up now is free.

    At most `max_instances` a lease's life (`ttl_s` seconds) free theirs at once; a further one when
    its grace ends, since a copy of its lease lives on until then.
    """
    if max_instances is None:
        return at
    recent = sum(moment > at - timedelta(seconds=ttl_s) for moment in given_up)
    return at if recent < max_instances else max(at, grace_until_at)


def budget_share(
    *, total: int, used: int, used_by_others: int, granted_to_others: int, slots: int
) -> int:
    """Return how many tokens in all this instance may use of a budget.

    That is what it used, and its share of what is left: one part in `slots`. What others may still
    use under the leases they hold is not given twice, so all together stay within `total`. No lease
    says more than `total`, whatever was used: a router refuses one that does.
    """
    left = max(0, total - used - used_by_others)
    free = max(0, total - used - max(granted_to_others, used_by_others))
    return min(total, used + min(free, -(-left // max(1, slots))))


class _Usage(NamedTuple):
    """What an instance used of one budget since it began."""

    budget_id: str | None
    tokens: int
    requests: int

    def of(self, budget_id: str) -> int:
        return self.tokens if self.budget_id == budget_id else 0


_NOTHING_USED: Final = _Usage(None, 0, 0)


def _latest_usage(head: Head, reported: Usage | None) -> _Usage:
    """Return what an instance used: what it reports, never less than before for one budget."""
    before = _Usage(head.usage_budget_id, head.usage_tokens, head.usage_requests)
    if reported is None:
        return before
    if reported.budget_id != before.budget_id:
        before = _NOTHING_USED
    return _Usage(
        reported.budget_id,
        max(reported.tokens_total, before.tokens),
        max(reported.requests_total, before.requests),
    )


def _share_of(license_: License, usage: _Usage, others: Sequence[Head], at: datetime) -> Budget:
    budget = license_.budget
    assert budget is not None
    share = budget_share(
        total=budget.tokens_total,
        used=usage.of(budget.budget_id),
        used_by_others=sum(head.used(budget.budget_id) for head in others),
        granted_to_others=sum(head.may_use(budget.budget_id, at) for head in others),
        slots=license_.limits.max_instances or 1,
    )
    return Budget(
        budget_id=budget.budget_id, tokens_total=share, carry_over_from=budget.carry_over_from
    )


def _lease(
    request: Verified[LeaseRequest] | Verified[EnrollmentRequest],
    facts: Facts,
    license_: License,
    prev: Link,
    usage: _Usage,
    at: datetime,
    *,
    warn: bool = False,
) -> Lease:
    known, asked, now = facts.known, request.document, _unix(at)
    standing = lease_standing(known, license_, at)
    active = standing.status == "active"
    if active and license_.lease is not None:
        span = active_span(
            now,
            ttl_s=license_.lease.ttl_s,
            grace_s=license_.lease.grace_s,
            license_expires_at=license_.expires_at,
        )
    else:
        span = inactive_span(now, license_expires_at=license_.expires_at)
    shared = active and license_.budget is not None
    return Lease(
        typ=Lease.TYP,
        iss=facts.issuer,
        product=PRODUCT,
        issued_at=now,
        lease_id=facts.lease_id,
        deployment_id=license_.deployment_id,
        license_id=license_.license_id,
        license_revision=license_.revision,
        license_sha256=asked.license_sha256,
        customer_id=license_.customer_id,
        instance_id=known.instance_id,
        instance_keyid=known.keyid,
        fingerprint=asked.fingerprint,
        epoch=prev.epoch,
        seq=prev.seq + 1,
        prev_sha256=prev.sha256,
        request_id=asked.request_id,
        request_sha256=request.payload_sha256,
        status=standing.status,
        reason=standing.reason,
        superseded_by=standing.superseded_by,
        budget=_share_of(license_, usage, facts.others, at) if shared else None,
        expires_at=span.expires_at,
        grace_until_at=span.grace_until_at,
        renew_at=(span.renew_earliest_at, span.renew_latest_at),
        bundle_version=known.latest_bundle or 0,
        keyset_version=facts.keyset.version,
        clone_warning=True if warn else None,
    )


class _Said(NamedTuple):
    """What a router says of itself."""

    software: str
    boot_id: str | None = None
    bundle_version: int = 0
    keyset_version: int = 0


def _head_after(
    lease: Lease,
    payload: bytes,
    said: _Said,
    usage: _Usage,
    given_up: tuple[datetime | None, datetime | None],
    at: datetime,
) -> Head:
    """Return the head once the lease stands; `given_up` is when it was, and its slot is free."""
    return Head(
        epoch=lease.epoch,
        seq=lease.seq,
        lease_id=lease.lease_id,
        lease_sha256=sha256_hex(payload),
        lease_status=lease.status,
        lease_issued_at=at,
        lease_expires_at=_instant(lease.expires_at),
        lease_grace_until_at=_instant(lease.grace_until_at),
        lease_budget_id=None if lease.budget is None else lease.budget.budget_id,
        lease_tokens_total=0 if lease.budget is None else lease.budget.tokens_total,
        renew_earliest_at=_instant(lease.renew_at[0]),
        renew_latest_at=_instant(lease.renew_at[1]),
        software=said.software,
        boot_id=said.boot_id,
        last_seen_at=at,
        bundle_version=said.bundle_version,
        keyset_version=said.keyset_version,
        usage_budget_id=usage.budget_id,
        usage_tokens=usage.tokens,
        usage_requests=usage.requests,
        released_at=given_up[0],
        slot_free_at=given_up[1],
    )


def _unix(instant: datetime) -> int:
    return int(instant.timestamp())


def _instant(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
