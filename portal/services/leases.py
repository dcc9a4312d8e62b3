"""Renewing leases: the answer to every request a router can make about its lease.

Invariants: an answered request id gets the stored answer, byte for byte, and changes nothing. The
chain moves by one conditional statement (see `portal.db.leases`), so of two racing requests one
wins and the other is answered anew. What the next lease says is decided in `portal.domain.leases`.

Source: "Renewal, in one transaction" of the lease protocol.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import select

from licensing.enrollment import LeaseRequest, ReleaseRequest
from licensing.envelope import Envelope
from licensing.keys import Keyset
from licensing.lease import Lease as LeasePayload
from licensing.request_body import RequestBody
from licensing.verify import Verified, verify_keyset
from portal.db.instances import Fork, Instance
from portal.db.keys import KeysetVersion, SigningKey, stopped_keyids
from portal.db.leases import ChainMoved, advance, other_heads, read_head
from portal.db.licenses import current_license
from portal.domain.errors import Unavailable
from portal.domain.identifiers import LEASE, new_id
from portal.domain.keys import signing_keys
from portal.domain.lease_errors import LicenseMismatch, UnknownInstance
from portal.domain.lease_requests import named_ids, require_type, verify_from_instance
from portal.domain.leases import Facts, Head, Known, NextLease, Step, needs_others, next_lease
from portal.domain.ports import SignerUnavailable
from portal.services.audit import record
from portal.services.context import Actor, Context, Transactions
from portal.services.instances import give_up_slot
from portal.services.keys import sign_payload, unix

ATTEMPTS: Final = 5
"""How often a request is tried whose chain other requests keep moving."""


@dataclass(frozen=True)
class Answered:
    """Which lease answers a request."""

    instance_id: str
    lease_id: str
    envelope: bytes
    """The lease, exactly as it is answered."""
    again: bool = False
    """Whether the request was answered before."""


def renew(
    transactions: Transactions, actor: Actor, body: RequestBody, *, carried_by: str | None = None
) -> Answered:
    """Answer a lease request, however often its chain moves meanwhile.

    It opens its own units of work, since a request whose chain moved is read anew. An ordinary
    renewal is one conditional statement; what needs several rows written together (a fork, a
    restored database, a request that somebody carried) is one whole transaction.

    Args:
        transactions: opens the units.
        actor: who sent or carried the request.
        body: the request, not verified.
        carried_by: the account whose member carried the request here as a file.

    Raises:
        ProtocolError: a refusal of the lease protocol; nothing changed.
        Unavailable: no lease can be signed now, or the chain kept moving.
    """
    for _ in range(ATTEMPTS):
        with suppress(ChainMoved):
            return _attempt(transactions, actor, body, carried_by)
    raise Unavailable("Too many requests of this instance at once.")


def _attempt(
    transactions: Transactions, actor: Actor, body: RequestBody, carried_by: str | None
) -> Answered:
    if carried_by is None:
        with transactions.statements(actor) as context:
            answered = _renew(context, body, None, whole=False)
        if answered is not None:
            return answered
    with transactions.writing(actor) as context:
        answered = _renew(context, body, carried_by, whole=True)
    assert answered is not None, "a whole unit answers every step"
    return answered


def _renew(
    context: Context, body: RequestBody, carried_by: str | None, *, whole: bool
) -> Answered | None:
    """Answer a lease request in one unit; None asks for a whole transaction."""
    head, known = _read_head(context, body.request, carried_by)
    request = _verified(context, body.request, known)
    others = (
        other_heads(context.session, known.deployment_id, known.instance_id)
        if needs_others(head, known)
        else ()
    )
    facts = lease_facts(context, known, others, body.prev_lease)
    decided = next_lease(head, request, facts, context.at)
    if isinstance(decided, bytes):
        assert known.answered_lease_id is not None, "a stored answer is a lease's"
        answered = Answered(known.instance_id, known.answered_lease_id, decided, again=True)
    elif not whole and decided.step is not Step.CONTINUE:
        return None
    else:
        envelope = sign_lease(context, decided, known)
        advance(context.session, head, decided, envelope)
        _note_step(context, head, known, request.document, decided)
        answered = Answered(known.instance_id, decided.lease.lease_id, envelope)
    if carried_by is not None:
        note_carried(context, answered, carried_by)
    return answered


def _read_head(
    context: Context, request: Envelope, carried_by: str | None = None
) -> tuple[Head, Known]:
    found = read_head(context.session, request.signatures[0].keyid, *named_ids(request))
    if carried_by is not None and (found is None or found[1].account_id != carried_by):
        raise UnknownInstance("No router of this account has the key that signed the file.")
    if found is None:
        raise UnknownInstance("No instance was enrolled with this key.")
    return found


def _verified(context: Context, request: Envelope, known: Known) -> Verified[LeaseRequest]:
    return verify_from_instance(
        request,
        LeaseRequest,
        context.policy,
        public_key=known.public_key,
        instance_id=known.instance_id,
    )


def lease_facts(
    context: Context,
    known: Known,
    others: Sequence[Head] = (),
    prev_lease: bytes | None = None,
) -> Facts:
    """Return what a lease depends on, with what this portal adds of its own."""
    return Facts(
        known,
        issuer=context.policy.issuer,
        lease_id=new_id(LEASE, context.ports.randomness),
        keyset=_lease_keys(context, known.keyset_sha256).keyset,
        others=others,
        prev_lease=prev_lease,
    )


@dataclass(frozen=True)
class _LeaseKeys:
    """A keyset, and where the private halves of its lease keys are held."""

    keyset: Keyset
    uris: dict[str, str]


_KEPT: Final[dict[str, _LeaseKeys]] = {}
"""By the keyset's SHA-256: what it says of lease keys never changes."""


def _lease_keys(context: Context, keyset_sha256: str | None) -> _LeaseKeys:
    if keyset_sha256 is None:
        raise Unavailable("There is no keyset yet.")
    kept = _KEPT.get(keyset_sha256)
    if kept is not None:
        return kept
    stored = context.session.scalars(
        select(KeysetVersion).where(KeysetVersion.payload_sha256 == keyset_sha256)
    ).one()
    keyset = verify_keyset(stored.envelope, unix(context.at)).document
    keyids = [key.keyid for key in keyset.keys if key.role == "lease"]
    rows = context.session.scalars(select(SigningKey).where(SigningKey.keyid.in_(keyids)))
    kept = _LeaseKeys(keyset, {row.keyid: row.uri for row in rows})
    _KEPT.clear()
    _KEPT[keyset_sha256] = kept
    return kept


def sign_lease(context: Context, decided: NextLease, known: Known) -> bytes:
    """Sign a lease with every lease key that signs now; return its envelope.

    A second key that this process cannot use holds nobody up: the doctor tells of it.

    Raises:
        Unavailable: no lease key is active, or this process can use none of them now.
    """
    held = _lease_keys(context, known.keyset_sha256)
    stopped = stopped_keyids(context.session) if known.has_stopped_keys else frozenset()
    keys = signing_keys(held.keyset, "lease", decided.lease.issued_at, stopped=stopped)
    if not keys:
        raise Unavailable("No lease key is active.")
    signers, missing = [], None
    for key in keys:
        try:
            signers.append(context.ports.signers.signer("lease", held.uris[key.keyid], key.keyid))
        except SignerUnavailable as error:
            missing = error
    try:
        if not signers and missing is not None:
            raise missing
        return sign_payload(decided.payload, LeasePayload.PAYLOAD_TYPE, signers).to_bytes()
    except SignerUnavailable as error:
        raise Unavailable("Leases cannot be signed at the moment.") from error


def _note_step(
    context: Context, head: Head, known: Known, request: LeaseRequest, decided: NextLease
) -> None:
    """Record what was not an ordinary renewal; of that one the lease row is the record."""
    if decided.step is Step.FORK:
        claimed = {"prev_epoch": request.prev_epoch, "prev_seq": request.prev_seq}
        held = {"held_epoch": head.epoch, "held_seq": head.seq}
        context.session.add(
            Fork(
                instance_id=known.instance_id,
                request_id=request.request_id,
                noted_at=context.at,
                prev_sha256=request.prev_sha256,
                boot_id=request.boot_id,
                **claimed,
                **held,
            )
        )
        _record(context, "instance.fork-noted", known, **claimed, **held)
    elif decided.step is Step.AHEAD:
        taken_up = decided.prev
        _record(context, "instance.chain-adopted", known, epoch=taken_up.epoch, seq=taken_up.seq)


def _record(context: Context, action: str, known: Known, **facts: Any) -> None:
    record(context, action, "instance", known.instance_id, account_id=known.account_id, **facts)


def note_carried(context: Context, answered: Answered, account_id: str) -> None:
    """Record that a member of an account carried a request here; the actor says who."""
    record(
        context,
        "instance.courier-answered",
        "instance",
        answered.instance_id,
        account_id=account_id,
        lease_id=answered.lease_id,
    )


def fetch_license(context: Context, request: Envelope) -> bytes:
    """Answer a lease request with the deployment's current license; not counted as a renewal.

    Raises:
        ProtocolError: a refusal of the lease protocol.
    """
    _, known = _read_head(context, request)
    _verified(context, request, known)
    if known.license_id is None or known.license_deployment_id != known.deployment_id:
        raise LicenseMismatch("The named license is not one of this instance's deployment.")
    license_ = current_license(context.session, known.deployment_id)
    if license_ is None or license_.envelope is None:
        raise LicenseMismatch("The deployment has no license.")
    return license_.envelope


def release_lease(context: Context, request: Envelope) -> None:
    """Give up an instance's lease and its slot; repeated, change nothing.

    Raises:
        ProtocolError: a refusal of the lease protocol.
    """
    require_type(request, ReleaseRequest)
    instance = context.session.scalar(
        select(Instance).where(Instance.keyid == request.signatures[0].keyid).with_for_update()
    )
    if instance is None:
        raise UnknownInstance("No instance was enrolled with this key.")
    verified = verify_from_instance(
        request,
        ReleaseRequest,
        context.policy,
        public_key=instance.public_key,
        instance_id=instance.id,
    )
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
