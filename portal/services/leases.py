"""Renewing leases: the answer to every request a router can make about its lease.

Invariants: an answered request id gets the stored answer, byte for byte, and changes nothing. The
chain moves by one conditional statement (see `portal.db.leases`), so of two racing requests one
wins and the other is answered anew. A lease never outlives its license.

Source: "Renewal, in one transaction" of the lease protocol.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final, TypeVar

from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError

from licensing.encoding import parse_json, sha256_hex
from licensing.enrollment import InstanceDocument, LeaseRequest, ReleaseRequest, Usage
from licensing.envelope import Envelope
from licensing.errors import LicensingError, MalformedPayload, WrongType
from licensing.keys import ZERO_SHA256, Key, PublicKey, loaded_key
from licensing.lease import Lease as LeasePayload
from licensing.license import Budget
from licensing.license import License as LicensePayload
from licensing.names import PRODUCT
from licensing.verify import (
    KeysetTrust,
    Verified,
    verify_keyset,
    verify_lease,
    verify_request,
)
from portal.db.bundles import Bundle
from portal.db.instances import Fork, Instance
from portal.db.keys import KeysetVersion, SigningKey, latest_keyset
from portal.db.leases import Head, advance, read_head
from portal.db.licenses import current_license
from portal.domain.errors import Unavailable
from portal.domain.identifiers import LEASE, new_id
from portal.domain.lease_errors import (
    BadSignature,
    InstancesExhausted,
    InvalidRequest,
    LicenseMismatch,
    PreviousLeaseRequired,
    RequestReplayed,
    UnknownInstance,
    WrongAudience,
)
from portal.domain.leases import (
    Link,
    Seat,
    Span,
    Step,
    active_span,
    budget_share,
    inactive_span,
    next_step,
    slots_held,
)
from portal.domain.standing import LicenseFacts, LicenseState, standing_of
from portal.services.audit import record
from portal.services.context import Context
from portal.services.instances import give_up_slot, instances_of
from portal.services.keys import current_keyset, sign_payload, unix


@dataclass(frozen=True)
class Claim:
    """Who asks for a lease, with which request."""

    instance_id: str
    keyid: str
    fingerprint: str | None
    request_id: str
    request_sha256: str


@dataclass(frozen=True)
class LeaseDraft:
    """A lease that is computed and not yet signed."""

    lease: LeasePayload
    payload: bytes

    @property
    def sha256(self) -> str:
        """SHA-256 of the payload."""
        return sha256_hex(self.payload)

    def head_columns(self, at: datetime) -> dict[str, Any]:
        """Return the head of the instance's chain once this lease stands."""
        lease = self.lease
        return {
            "epoch": lease.epoch,
            "seq": lease.seq,
            "lease_id": lease.lease_id,
            "lease_sha256": self.sha256,
            "lease_status": lease.status,
            "lease_issued_at": at,
            "lease_expires_at": _instant(lease.expires_at),
            "lease_grace_until_at": _instant(lease.grace_until_at),
            "lease_budget_id": None if lease.budget is None else lease.budget.budget_id,
            "lease_tokens_total": 0 if lease.budget is None else lease.budget.tokens_total,
            "renew_earliest_at": _instant(lease.renew_at[0]),
            "renew_latest_at": _instant(lease.renew_at[1]),
        }

    def row(self, envelope: bytes, at: datetime) -> dict[str, Any]:
        """Return the lease's row."""
        lease = self.lease
        return {
            "id": lease.lease_id,
            "instance_id": lease.instance_id,
            "license_id": lease.license_id,
            "request_id": lease.request_id,
            "epoch": lease.epoch,
            "seq": lease.seq,
            "status": lease.status,
            "payload_sha256": self.sha256,
            "envelope": envelope,
            "issued_at": at,
        }


def _instant(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def require_audience(context: Context, aud: str) -> None:
    """Require that a request was made for this portal.

    Raises:
        WrongAudience: it was made for another one.
    """
    policy = context.policy
    if aud != policy.origin and aud not in policy.former_origins:
        raise WrongAudience(f"aud is {aud}; this portal is {policy.origin}.", pointer="/aud")


@lru_cache(maxsize=4096)
def _license_payload(payload: bytes) -> LicensePayload:
    return LicensePayload.parse(payload)


@dataclass(frozen=True)
class _LeaseKeys:
    """A keyset's lease keys, with where the private halves are held."""

    keys: tuple[Key, ...]
    uris: dict[str, str]


_lease_keys: Final[dict[str, _LeaseKeys]] = {}
"""By the keyset's SHA-256: what it says of lease keys never changes."""


def _keys_of(context: Context, keyset_sha256: str | None) -> _LeaseKeys:
    if keyset_sha256 is None:
        raise Unavailable("There is no keyset yet.")
    known = _lease_keys.get(keyset_sha256)
    if known is not None:
        return known
    stored = context.session.scalars(
        select(KeysetVersion).where(KeysetVersion.payload_sha256 == keyset_sha256)
    ).one()
    keyset = verify_keyset(stored.envelope, unix(context.at)).document
    keys = tuple(key for key in keyset.keys if key.role == "lease" and key.status == "active")
    rows = context.session.scalars(
        select(SigningKey).where(SigningKey.keyid.in_([key.keyid for key in keys]))
    )
    known = _LeaseKeys(keys, {row.keyid: row.uri for row in rows})
    _lease_keys.clear()
    _lease_keys[keyset_sha256] = known
    return known


def draft_lease(
    context: Context,
    claim: Claim,
    license_: LicensePayload,
    license_sha256: str,
    *,
    status: str,
    reason: str | None = None,
    superseded_by: str | None = None,
    slots: int,
    prev: Link | None = None,
    clone_warning: bool = False,
    usage: Usage | None = None,
    others: tuple[int, int] = (0, 0),
    versions: tuple[int, int] | None = None,
) -> LeaseDraft:
    """Compute the next lease of an instance.

    `prev` is the head it continues, None for the first of all; `others` are the tokens that the
    deployment's other instances used and may use; `versions` those of bundle and keyset.
    """
    at = unix(context.at)
    span = _span(at, license_, status)
    bundle_version, keyset_version = versions or _versions(context)
    lease = LeasePayload(
        typ=LeasePayload.TYP,
        iss=context.policy.issuer,
        product=PRODUCT,
        issued_at=at,
        lease_id=new_id(LEASE, context.ports.randomness),
        deployment_id=license_.deployment_id,
        license_id=license_.license_id,
        license_revision=license_.revision,
        license_sha256=license_sha256,
        customer_id=license_.customer_id,
        instance_id=claim.instance_id,
        instance_keyid=claim.keyid,
        fingerprint=claim.fingerprint,
        epoch=1 if prev is None else prev.epoch,
        seq=1 if prev is None else prev.seq + 1,
        prev_sha256=ZERO_SHA256 if prev is None else prev.sha256,
        request_id=claim.request_id,
        request_sha256=claim.request_sha256,
        status=status,  # type: ignore[arg-type]  # checked by to_bytes
        reason=reason,
        superseded_by=superseded_by,
        budget=_budget(license_, status, slots, usage, others),
        expires_at=span.expires_at,
        grace_until_at=span.grace_until_at,
        renew_at=(span.renew_earliest_at, span.renew_latest_at),
        bundle_version=bundle_version,
        keyset_version=keyset_version,
        clone_warning=True if clone_warning else None,
    )
    return LeaseDraft(lease, lease.to_bytes())


def _span(at: int, license_: LicensePayload, status: str) -> Span:
    if status != "active" or license_.lease is None:
        return inactive_span(at, license_expires_at=license_.expires_at)
    return active_span(
        at,
        ttl_s=license_.lease.ttl_s,
        grace_s=license_.lease.grace_s,
        license_expires_at=license_.expires_at,
    )


def _budget(
    license_: LicensePayload,
    status: str,
    slots: int,
    usage: Usage | None,
    others: tuple[int, int],
) -> Budget | None:
    if license_.budget is None or status != "active":
        return None
    used = usage.tokens_total if usage and usage.budget_id == license_.budget.budget_id else 0
    used_by_others, granted_to_others = others
    share = budget_share(
        total=license_.budget.tokens_total,
        used=used,
        used_by_others=used_by_others,
        granted_to_others=granted_to_others,
        slots=slots,
    )
    return Budget(
        budget_id=license_.budget.budget_id,
        tokens_total=share,
        carry_over_from=license_.budget.carry_over_from,
    )


def _versions(context: Context) -> tuple[int, int]:
    bundle = context.session.scalar(select(func.max(Bundle.version))) or 0
    keyset = context.session.scalar(select(func.max(KeysetVersion.version))) or 0
    return bundle, keyset


def sign_lease(context: Context, draft: LeaseDraft, keyset_sha256: str | None = None) -> bytes:
    """Sign a lease with the newest active lease key.

    Raises:
        SignerUnavailable: this process does not hold the key now.
        Unavailable: no lease key is active.
    """
    if keyset_sha256 is None:
        newest_keyset = latest_keyset(context.session)
        keyset_sha256 = None if newest_keyset is None else newest_keyset.payload_sha256
    held = _keys_of(context, keyset_sha256)
    usable = [key for key in held.keys if key.covers(draft.lease.issued_at)]
    if not usable:
        raise Unavailable("No lease key is active.")
    newest = max(usable, key=lambda key: (key.not_before_at, key.keyid))
    signer = context.ports.signers.signer("lease", held.uris[newest.keyid], newest.keyid)
    return sign_payload(draft.payload, LeasePayload.PAYLOAD_TYPE, signer).to_bytes()


@dataclass(frozen=True)
class Outcome:
    """What came of a lease request."""

    envelope: bytes
    """The lease, exactly as it is answered."""
    replayed: bool = False


class ChainMoved(Exception):
    """Another request moved the chain between reading and writing: come again, in a new unit."""


def renew(
    context: Context, envelope: Envelope, prev_lease: bytes | None, *, whole: bool
) -> Outcome | None:
    """Answer a lease request.

    `whole` says that the unit is one transaction. Without it only the ordinary renewal is done,
    one conditional statement; None asks the caller to come again with a whole transaction (a fork
    or a restored database needs several rows written together).

    Raises:
        ProtocolError: a refusal of the lease protocol; nothing changed.
        ChainMoved: a racing request was answered first; come again.
    """
    head = read_head(context.session, envelope.signatures[0].keyid, *_peek(envelope))
    if head is None:
        raise UnknownInstance("No instance was enrolled with this key.")
    verified = _verified(context, envelope, head)
    if head.answered_lease_id is not None:
        if head.answer is None:
            raise RequestReplayed("This request id was answered more than 90 days ago.")
        return Outcome(head.answer, replayed=True)
    return _renew(context, verified, head, prev_lease, whole=whole)


def _peek(envelope: Envelope) -> tuple[str, str]:
    """Return request id and license id of a request that is not verified yet, to read with."""
    if envelope.payload_type != LeaseRequest.PAYLOAD_TYPE:
        raise InvalidRequest(f"The payload type must be {LeaseRequest.PAYLOAD_TYPE}.")
    try:
        value = parse_json(envelope.payload, max_bytes=len(envelope.payload))
    except LicensingError:
        return "", ""
    if not isinstance(value, dict):
        return "", ""
    request_id, license_id = value.get("request_id"), value.get("license_id")
    if isinstance(request_id, str) and isinstance(license_id, str):
        # Half a surrogate or NUL cannot be sent to a database; such a payload is refused later.
        return (
            (request_id, license_id)
            if request_id.isascii() and license_id.isascii() and "\0" not in request_id + license_id
            else ("", "")
        )
    return "", ""


def _verified(context: Context, envelope: Envelope, head: Head) -> Verified[LeaseRequest]:
    verified = verify_instance_request(envelope, LeaseRequest, loaded_key(head.public_key))
    require_audience(context, verified.document.aud)
    if verified.document.instance_id != head.id:
        raise UnknownInstance("instance_id is not that of the signing key.")
    return verified


R = TypeVar("R", bound=InstanceDocument)


def verify_instance_request(envelope: Envelope, model: type[R], key: PublicKey) -> Verified[R]:
    """Verify what an instance signed, with the refusals of the lease protocol.

    Raises:
        BadSignature: the signature does not fit, or there are several.
        InvalidRequest: the content breaks its schema.
    """
    try:
        return verify_request(envelope, model, key)
    except (MalformedPayload, WrongType) as error:
        raise InvalidRequest(error.detail) from error
    except LicensingError as error:
        raise BadSignature(error.detail) from error


def _renew(
    context: Context,
    verified: Verified[LeaseRequest],
    head: Head,
    prev_lease: bytes | None,
    *,
    whole: bool,
) -> Outcome | None:
    request = verified.document
    if (
        head.license_id is None
        or head.license_deployment_id != head.deployment_id
        or head.license_released_at is None
        or head.license_sha256 != request.license_sha256
    ):
        raise LicenseMismatch("The named license is not one of this instance's deployment.")
    license_ = _license_payload(head.license_payload)
    if license_.mode != "lease":
        raise LicenseMismatch("The named license works offline; it needs no lease.")
    link = Link(head.epoch, head.seq, head.lease_sha256)
    claimed = Link(request.prev_epoch, request.prev_seq, request.prev_sha256)
    step = next_step(link, claimed)
    if step is not Step.CONTINUE and not whole:
        return None
    if step is Step.AHEAD:
        link = _adopt(context, head, claimed, prev_lease)
    status, reason, successor = _status(context, head, license_)
    draft = draft_lease(
        context,
        Claim(
            head.id, head.keyid, request.fingerprint, request.request_id, verified.payload_sha256
        ),
        license_,
        head.license_sha256,
        status=status,
        reason=reason,
        superseded_by=successor,
        slots=license_.limits.max_instances or 1,
        prev=link,
        clone_warning=step is Step.FORK,
        usage=request.usage,
        others=_others(context, head, license_, status),
        versions=(head.bundle_version or 0, head.keyset_version or 0),
    )
    envelope = sign_lease(context, draft, head.keyset_sha256)
    columns = {
        **draft.head_columns(context.at),
        "software": request.software,
        "boot_id": request.boot_id,
        "last_seen_at": context.at,
        "bundle_version": request.bundle_version,
        "keyset_version": request.keyset_version,
        **_usage_columns(head, request.usage),
        **_back_in_use(context, head, license_, status),
    }
    _write(context, head.lease_sha256, columns, draft.row(envelope, context.at))
    if step is Step.FORK:
        _note_fork(context, head, request)
    elif step is Step.AHEAD:
        record(
            context,
            "instance.chain-adopted",
            "instance",
            head.id,
            account_id=head.account_id,
            epoch=link.epoch,
            seq=link.seq,
        )
    return Outcome(envelope)


def _write(
    context: Context, read_sha256: str, columns: dict[str, Any], row: dict[str, Any]
) -> None:
    try:
        moved = advance(context.session, read_sha256, columns, row)
    except IntegrityError as error:
        # The same request, answered meanwhile: the stored answer counts, not this one.
        raise ChainMoved from error
    if not moved:
        raise ChainMoved


def _adopt(context: Context, head: Head, claimed: Link, prev_lease: bytes | None) -> Link:
    """Take up the chain at a lease this database lost.

    Raises:
        PreviousLeaseRequired: the lease was not sent.
        InvalidRequest: what was sent is not this instance's lease under our key.
    """
    if prev_lease is None:
        raise PreviousLeaseRequired("This portal does not know the lease that was named.")
    trust = KeysetTrust(current_keyset(context).document)
    try:
        held = verify_lease(prev_lease, trust, unix(context.at), instance_keyid=head.keyid)
    except LicensingError as error:
        raise InvalidRequest(f"prev_lease: {error.detail}", pointer="/prev_lease") from error
    lease = held.document
    link = Link(lease.epoch, lease.seq, held.payload_sha256)
    if link != claimed or lease.instance_id != head.id:
        raise InvalidRequest(
            "prev_lease is not the lease the request names.", pointer="/prev_lease"
        )
    return link


def _status(
    context: Context, head: Head, license_: LicensePayload
) -> tuple[str, str | None, str | None]:
    """Return status, reason and successor for the lease, as the deployment is at this moment."""
    now = standing_of(
        LicenseFacts(
            released_at=head.license_released_at,
            expires_at=_instant(license_.expires_at),
            superseded_at=head.superseded_at,
            superseded_by=head.superseded_by,
            revoked_at=head.revoked_at,
            is_held=head.is_held,
        ),
        context.at,
    )
    if now.state is LicenseState.SUPERSEDED:
        return now.state.value, now.reason, now.replaced_by
    if now.state is LicenseState.EXPIRED:
        return "ended", now.reason, None
    if now.reason is not None:
        return now.state.value, now.reason, None
    if head.retired_at is not None:
        return "ended", "retired", None
    return "active", None, None


def _others(context: Context, head: Head, license_: LicensePayload, status: str) -> tuple[int, int]:
    """Return the tokens other instances used of this budget, and those they may use."""
    if license_.budget is None or status != "active" or license_.limits.max_instances == 1:
        return 0, 0
    budget_id = license_.budget.budget_id
    used = granted = 0
    for row in instances_of(context, head.deployment_id):
        if row.id == head.id:
            continue
        spent = row.usage_tokens if row.usage_budget_id == budget_id else 0
        used += spent
        may_serve = row.lease_status == "active" and row.lease_grace_until_at > context.at
        holds = may_serve and row.lease_budget_id == budget_id
        granted += max(spent, row.lease_tokens_total) if holds else spent
    return used, granted


def _usage_columns(head: Head, usage: Usage | None) -> dict[str, Any]:
    """Return the usage to store: what was reported, never less than before for one budget."""
    if usage is None:
        return {
            "usage_budget_id": head.usage_budget_id,
            "usage_tokens": head.usage_tokens,
            "usage_requests": head.usage_requests,
        }
    same = usage.budget_id == head.usage_budget_id
    return {
        "usage_budget_id": usage.budget_id,
        "usage_tokens": max(usage.tokens_total, head.usage_tokens if same else 0),
        "usage_requests": max(usage.requests_total, head.usage_requests if same else 0),
    }


def _back_in_use(
    context: Context, head: Head, license_: LicensePayload, status: str
) -> dict[str, Any]:
    """Let a released instance come back when a slot is free.

    Raises:
        InstancesExhausted: none is.
    """
    if head.released_at is None or head.retired_at is not None or status != "active":
        return {"released_at": head.released_at, "slot_free_at": head.slot_free_at}
    most = license_.limits.max_instances
    seats = [
        Seat(row.lease_status == "active", row.lease_grace_until_at, row.slot_free_at)
        for row in instances_of(context, head.deployment_id)
        if row.id != head.id
    ]
    if most is not None and slots_held(seats, context.at) >= most:
        raise InstancesExhausted(f"The license is for {most} instances, and all are in use.")
    return {"released_at": None, "slot_free_at": None}


def _note_fork(context: Context, head: Head, request: LeaseRequest) -> None:
    context.session.add(
        Fork(
            instance_id=head.id,
            request_id=request.request_id,
            noted_at=context.at,
            prev_epoch=request.prev_epoch,
            prev_seq=request.prev_seq,
            prev_sha256=request.prev_sha256,
            held_epoch=head.epoch,
            held_seq=head.seq,
            boot_id=request.boot_id,
        )
    )
    record(
        context,
        "instance.fork-noted",
        "instance",
        head.id,
        account_id=head.account_id,
        prev_epoch=request.prev_epoch,
        prev_seq=request.prev_seq,
        held_epoch=head.epoch,
        held_seq=head.seq,
    )


def fetch_license(context: Context, envelope: Envelope) -> bytes:
    """Answer a lease request with the deployment's current license; not counted as a renewal.

    Raises:
        ProtocolError: a refusal of the lease protocol.
    """
    head = read_head(context.session, envelope.signatures[0].keyid, *_peek(envelope))
    if head is None:
        raise UnknownInstance("No instance was enrolled with this key.")
    _verified(context, envelope, head)
    if head.license_id is None or head.license_deployment_id != head.deployment_id:
        raise LicenseMismatch("The named license is not one of this instance's deployment.")
    license_ = current_license(context.session, head.deployment_id)
    if license_ is None or license_.envelope is None:
        raise LicenseMismatch("The deployment has no license.")
    return license_.envelope


def release_lease(context: Context, envelope: Envelope) -> None:
    """Give up an instance's lease and its slot; repeated, change nothing.

    Raises:
        ProtocolError: a refusal of the lease protocol.
    """
    if envelope.payload_type != ReleaseRequest.PAYLOAD_TYPE:
        raise InvalidRequest(f"The payload type must be {ReleaseRequest.PAYLOAD_TYPE}.")
    instance = context.session.scalar(
        select(Instance).where(Instance.keyid == envelope.signatures[0].keyid).with_for_update()
    )
    if instance is None:
        raise UnknownInstance("No instance was enrolled with this key.")
    verified = verify_instance_request(envelope, ReleaseRequest, loaded_key(instance.public_key))
    require_audience(context, verified.document.aud)
    if verified.document.instance_id != instance.id:
        raise UnknownInstance("instance_id is not that of the signing key.")
    current = verified.document.lease_id == instance.lease_id
    if not current or instance.released_at is not None or instance.retired_at is not None:
        return
    give_up_slot(context, instance)
    instance.released_at = context.at
    record(
        context,
        "instance.released",
        "instance",
        instance.id,
        account_id=instance.account_id,
        lease_id=instance.lease_id,
    )
    context.session.flush()
