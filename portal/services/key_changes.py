"""Key changes: rotate, retire, compromise. Run by the command, which alone holds the root.

Each is run in steps that an interruption cannot spoil: the new key is noted, then the next keyset
is fixed (`key_changes`), then signed, verified and published. Whoever runs the same act again goes
on from there with the same key and the same bytes. Nobody but one publishes a version: whoever
comes second computes the next keyset anew.

Invariants: a published keyset was verified as the successor of the one before, under the roots of
both. A compromise issues its licenses before the keyset that ends the old ones is published, so
that no router is without a license that counts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from msgspec import structs
from sqlalchemy import select, update
from sqlalchemy.orm import aliased

from licensing.encoding import sha256_hex
from licensing.envelope import Envelope
from licensing.errors import LicensingError
from licensing.keys import Keyset
from licensing.verify import Verified, verify_keyset, verify_keyset_update
from portal.db.keys import (
    KeyChange,
    KeysetVersion,
    SigningKey,
    free_key,
    hold_keysets,
    key_taken_by,
)
from portal.db.licenses import License
from portal.domain.errors import Conflict, Invalid, Unavailable
from portal.domain.keys import (
    ACTIVATE_IN_S,
    BACKDATE_S,
    ROOT,
    Held,
    announced,
    compromised,
    heir,
    new_key,
    new_root,
    require_compromisable,
    require_retirable,
    require_rotatable,
    retired,
    signing_keys,
    with_root,
)
from portal.domain.ports import KeyMaker, Signer, SignerUnavailable
from portal.domain.succession import Hurry
from portal.services.audit import record
from portal.services.bundles import publish_bundle
from portal.services.context import Actor, Context, Transactions
from portal.services.key_readiness import require_ready
from portal.services.keys import (
    current_keyset,
    published_keyset,
    register_key,
    sign_payload,
    signer_of,
    store_keyset,
    unix,
)
from portal.services.licenses import issue_pending, signed_by, take_back_intent
from portal.services.lines import follow

ATTEMPTS: Final = 5

KeyAct = Literal["rotate-key", "retire-key", "compromise-key"]


@dataclass(frozen=True)
class KeyOrder:
    """A key change as it was approved."""

    act_id: str
    kind: KeyAct
    subject: str
    """The role that is rotated; else the key id."""
    activate_in_s: int = ACTIVATE_IN_S
    anyway: bool = False
    """Retire although known routers lack the keyset."""
    reason: str | None = None


@dataclass(frozen=True)
class Reissued:
    """A license that takes the place of one whose key is compromised."""

    license_id: str
    replaces: str
    deployment_id: str
    mode: str


@dataclass(frozen=True)
class KeyOutcome:
    """What a key change did."""

    keyset_version: int
    keyid: str
    """The new key where there is one, else the one that was changed."""
    licenses: tuple[Reissued, ...] = ()


def check_order(context: Context, order: KeyOrder) -> None:
    """Require that a key change is possible now.

    Raises:
        NotFound, Invalid, Conflict: it is not; the message says why.
    """
    keyset, at = current_keyset(context).document, unix(context.at)
    if order.kind == "rotate-key":
        if order.subject not in (ROOT, *(key.role for key in keyset.keys)):
            raise Invalid(f"There is no role {order.subject!r}.", field="role")
        require_rotatable(keyset, order.subject, order.activate_in_s)
    elif order.kind == "retire-key":
        require_retirable(keyset, order.subject, at)
        if order.subject in keyset.by_keyid and not order.anyway:
            role = keyset.by_keyid[order.subject].role
            others = [key for key in signing_keys(keyset, role, at) if key.keyid != order.subject]
            require_ready(context, others[0].keyid)
        if order.anyway and not order.reason:
            raise Invalid("Say why the key is retired anyway.", field="reason")
    else:
        require_compromisable(keyset, order.subject)


def affected_licenses(context: Context, keyid: str) -> list[License]:
    """Return the current licenses that nobody would vouch for without this key."""
    keyset = current_keyset(context).document
    keys = tuple(
        structs.replace(key, status="compromised") if key.keyid == keyid else key
        for key in keyset.keys
    )
    return _affected(context, structs.replace(keyset, keys=keys))


def stop_signing(context: Context, keyid: str, *, reason: str | None = None) -> None:
    """Have a key sign nothing more: somebody says that it is compromised.

    Raises:
        NotFound, Conflict: there is no such key, or it is compromised already.
    """
    require_compromisable(current_keyset(context).document, keyid)
    row = context.session.get_one(SigningKey, keyid)
    if row.stopped_at is None:
        row.stopped_at = context.at
        record(context, "key.stopped", "key", keyid, reason=reason)
        context.session.flush()


def resume_signing(context: Context, keyid: str, *, reason: str | None = None) -> None:
    """Have a key sign again: what was said of it was declined, or lapsed."""
    row = context.session.get_one(SigningKey, keyid)
    if row.stopped_at is not None:
        row.stopped_at = None
        record(context, "key.resumed", "key", keyid, reason=reason)
        context.session.flush()


def run_order(
    transactions: Transactions, maker: KeyMaker, order: KeyOrder, actor: Actor
) -> KeyOutcome:
    """Run an approved key change, from wherever an earlier run was interrupted.

    Raises:
        NotFound, Invalid, Conflict: it is not possible any more.
        SignerUnavailable: a root, or the new key, cannot be used here.
        Unavailable: others kept publishing keysets meanwhile.
    """
    _take_key(transactions, maker, order, actor)
    for _ in range(ATTEMPTS):
        with transactions.writing(actor) as context:
            change = _fix(context, order)
            payload, is_published = change.payload, change.published_at is not None
            is_finished = change.finished_at is not None
        if is_published:
            break
        if order.kind == "compromise-key":
            _reissue_all(transactions, order, Keyset.parse(payload), actor)
        with transactions.reading(actor) as context:
            envelope = _sign(context, payload)
        with transactions.writing(actor) as context:
            if _publish(context, order, envelope):
                break
    else:
        raise Unavailable("Other keysets were published meanwhile; run it again.")
    if order.kind == "compromise-key" and not is_finished:
        publish_bundle(transactions, actor)
    with transactions.writing(actor) as context:
        return _finish(context, order)


# The new key


def _take_key(transactions: Transactions, maker: KeyMaker, order: KeyOrder, actor: Actor) -> None:
    """Note the new key of a change that needs one; one that has its key keeps it."""
    with transactions.writing(actor) as context:
        started = context.session.get(KeyChange, order.act_id)
        if started is not None or key_taken_by(context.session, order.act_id) is not None:
            return
        check_order(context, order)
        role = _needs_key_of(context, order)
        if role is None:
            return
        added = free_key(context.session, role)
        if added is None:
            # Written before the commit: a crash between leaves a file that no keyset names.
            added = register_key(context, role, maker.make(role))
        added.taken_by = order.act_id


def _needs_key_of(context: Context, order: KeyOrder) -> str | None:
    if order.kind == "rotate-key":
        return order.subject
    if order.kind == "retire-key":
        return None
    keyset = current_keyset(context).document
    key = keyset.by_keyid[order.subject]
    return key.role if heir(keyset, key) is None else None


# The keyset


def _held(context: Context) -> tuple[KeysetVersion, Verified[Keyset]]:
    stored = hold_keysets(context.session) or published_keyset(context)
    return stored, verify_keyset(stored.envelope, unix(context.at))


def _fix(context: Context, order: KeyOrder) -> KeyChange:
    """Fix the keyset that the change publishes; one that still comes next stays as it is."""
    stored, verified = _held(context)
    change = context.session.get(KeyChange, order.act_id)
    if change is not None and (
        change.published_at is not None or change.keyset_version == stored.version + 1
    ):
        return change
    started_at = context.at if change is None else change.started_at
    taken = key_taken_by(context.session, order.act_id)
    # A compromised key's successor counts from the start of the change: it has signed since.
    keyset = _next_keyset(
        order,
        Held(verified.document, verified.payload_sha256),
        None if taken is None else taken.public_key,
        at=unix(context.at),
        started_at=unix(started_at),
    )
    if change is None:
        change = KeyChange(act_id=order.act_id, started_at=started_at)
        context.session.add(change)
    change.payload, change.keyset_version = keyset.to_bytes(), keyset.version
    record(
        context,
        "keyset.intended",
        "keyset",
        str(keyset.version),
        act_id=order.act_id,
        payload_sha256=sha256_hex(change.payload),
    )
    context.session.flush()
    return change


def _next_keyset(
    order: KeyOrder, held: Held, public_key: bytes | None, *, at: int, started_at: int
) -> Keyset:
    keyset = held.keyset
    if order.kind == "rotate-key":
        assert public_key is not None, "a rotation has its key"
        require_rotatable(keyset, order.subject, order.activate_in_s)
        if order.subject == ROOT:
            return with_root(held, new_root(public_key), at)
        return announced(held, new_key(public_key, order.subject, at + order.activate_in_s), at)
    if order.kind == "retire-key":
        require_retirable(keyset, order.subject, at)
        return retired(held, order.subject, at)
    key = require_compromisable(keyset, order.subject)
    successor = heir(keyset, key)
    if public_key is not None:
        successor = new_key(public_key, key.role, started_at)
    if successor is None:
        raise Conflict("The key that was to take its place is gone; start a new act.")
    return compromised(held, key.keyid, successor, at, begins_at=started_at - BACKDATE_S)


def _sign(context: Context, payload: bytes) -> Envelope:
    """Sign a keyset with every root at hand, the held keyset's and its own, and verify it."""
    stored = published_keyset(context)
    held = verify_keyset(stored.envelope, unix(context.at))
    keyset = Keyset.parse(payload)
    signers: list[Signer] = []
    missing: list[str] = []
    for keyid in dict.fromkeys((*held.document.roots_by_keyid, *keyset.roots_by_keyid)):
        try:
            signers.append(signer_of(context, keyid))
        except SignerUnavailable as error:
            missing.append(str(error))
    if not signers:
        raise SignerUnavailable(f"no root can be used here: {'; '.join(missing)}")
    envelope = sign_payload(payload, Keyset.PAYLOAD_TYPE, signers)
    try:
        verify_keyset_update(envelope.to_bytes(), held, unix(context.at))
    except LicensingError as error:
        raise SignerUnavailable(
            f"the keyset cannot be published: {error.detail}; {'; '.join(missing)}"
        ) from error
    return envelope


def _publish(context: Context, order: KeyOrder, envelope: Envelope) -> bool:
    """Publish a signed keyset, unless another one was published since it was fixed."""
    stored, _ = _held(context)
    change = context.session.get_one(KeyChange, order.act_id)
    if change.published_at is not None:
        return True
    if stored.version + 1 != change.keyset_version or envelope.payload != change.payload:
        return False
    keyset = Keyset.parse(change.payload)
    store_keyset(context, envelope, keyset.version)
    change.published_at = context.at
    record(
        context,
        "keyset.published",
        "keyset",
        str(keyset.version),
        reason=order.reason,
        act_id=order.act_id,
        act=order.kind,
        subject=order.subject,
        keyids=[key.keyid for key in keyset.keys],
    )
    context.session.flush()
    return True


def _finish(context: Context, order: KeyOrder) -> KeyOutcome:
    change = context.session.get_one(KeyChange, order.act_id)
    if change.finished_at is None:
        change.finished_at = context.at
        if order.kind == "compromise-key":
            # From now on the keyset says it.
            context.session.execute(
                update(SigningKey).where(SigningKey.keyid == order.subject).values(stopped_at=None)
            )
        record(context, "key-change.finished", "act", order.act_id, reason=order.reason)
    taken = key_taken_by(context.session, order.act_id)
    return KeyOutcome(
        change.keyset_version,
        order.subject if taken is None else taken.keyid,
        _reissued(context, order) if order.kind == "compromise-key" else (),
    )


# Licenses of a compromised key


def _reissue_all(transactions: Transactions, order: KeyOrder, keyset: Keyset, actor: Actor) -> None:
    """Issue anew each current license that only compromised keys have signed.

    The new ones carry the old signature too: they count under the keyset before and the one after.
    """
    with transactions.writing(actor) as context:
        before = current_keyset(context).document
        _take_back(context, keyset)
        affected = [each.id for each in _affected(context, keyset)]
    for old_id in affected:
        with transactions.writing(actor) as context:
            old = context.session.get_one(License, old_id)
            deployment_id = old.deployment_id
            follow(
                context,
                deployment_id,
                hurry=Hurry.COMPROMISE,
                key=f"key-compromise:{order.act_id}:{old_id}",
            )
            by = [key.keyid for key in signing_keys(keyset, "license", unix(context.at))]
            # Keys that were compromised before would help no router any more.
            by += [each for each in old.key_ids if _counts([each], before)]
            for waiting in _without_keys(context, deployment_id):
                signed_by(waiting, by)
        issue_pending(transactions, deployment_id, actor)


def _counts(keyids: Sequence[str], keyset: Keyset) -> bool:
    known = [keyset.by_keyid[each] for each in keyids if each in keyset.by_keyid]
    return any(key.status != "compromised" for key in known)


def _affected(context: Context, keyset: Keyset) -> list[License]:
    """Return the current licenses that no key vouches for under a keyset."""
    rows = context.session.scalars(
        select(License)
        .where(
            License.released_at.is_not(None),
            License.superseded_by.is_(None),
            License.revoked_at.is_(None),
            License.expires_at > context.at,
        )
        .order_by(License.id)
    )
    return [row for row in rows if not _counts(row.key_ids, keyset)]


def _take_back(context: Context, keyset: Keyset) -> None:
    """Take back the licenses whose newest key will not sign them any more."""
    rows = context.session.scalars(
        select(License)
        .where(License.key_id.is_not(None), License.envelope.is_(None))
        .order_by(License.id)
    ).all()
    for row in rows:
        if not _counts(row.key_ids[:1], keyset):
            take_back_intent(context, row)


def _without_keys(context: Context, deployment_id: str) -> Sequence[License]:
    return context.session.scalars(
        select(License).where(License.deployment_id == deployment_id, License.key_id.is_(None))
    ).all()


def _reissued(context: Context, order: KeyOrder) -> tuple[Reissued, ...]:
    before = aliased(License)
    rows = context.session.execute(
        select(License, before.id, before.also_signed_by, before.key_id)
        .join(before, before.superseded_by == License.id)
        .where(License.hurry == Hurry.COMPROMISE)
        .order_by(License.id)
    )
    return tuple(
        Reissued(row.id, old_id, row.deployment_id, row.mode)
        for row, old_id, others, key_id in rows
        if order.subject in row.also_signed_by and order.subject in (key_id, *others)
    )
