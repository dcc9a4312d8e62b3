"""Signing keys and the keyset that publishes them.

Invariants: the database holds public keys and where the private ones are, never a private key. What
the keys page and `portal keys list` show is the published keyset itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import select

from licensing.document import Document
from licensing.encoding import sha256_hex
from licensing.envelope import Envelope, Signature, pae
from licensing.errors import MalformedPayload
from licensing.keys import ZERO_SHA256, Keyset, PublicKey, key_id
from licensing.names import PRODUCT, ROLES
from licensing.verify import Verified, verify_keyset
from portal.db.keys import (
    KeysetVersion,
    SigningKey,
    free_key,
    latest_keyset,
    stopped_keyids,
)
from portal.domain.errors import Conflict, Invalid, NotFound, Unavailable
from portal.domain.keys import (
    BACKDATE_S,
    KEYSET_LIFETIME_S,
    ROOT,
    misfit,
    new_key,
    new_root,
    signing_keys,
)
from portal.domain.ports import KeyMaker, NewKey, Signer, SignerUnavailable
from portal.services.audit import record
from portal.services.context import Context

FIRST_KEYSET: Final = "init"
"""Who took the keys of the first keyset, in the place of a key change."""


@dataclass(frozen=True)
class KeyFacts:
    """One key as published."""

    keyid: str
    role: str
    status: str
    not_before_at: int | None
    not_after_at: int | None
    uri: str | None


@dataclass(frozen=True)
class PublishedKeys:
    """The keys of a keyset."""

    version: int
    """The keyset's."""
    at: int
    """When they were read, Unix time."""
    keys: tuple[KeyFacts, ...]


def unix(instant: datetime) -> int:
    """Return an instant as integer Unix seconds, rounded down."""
    return int(instant.timestamp())


def sign_document(document: Document, signers: Sequence[Signer]) -> Envelope:
    """Write a document canonically and sign it with each of the signers.

    Raises:
        MalformedPayload: a verifier would refuse the document.
        SignerUnavailable: a key cannot be used now.
    """
    return sign_payload(document.to_bytes(), document.PAYLOAD_TYPE, signers)


def sign_payload(payload: bytes, payload_type: str, signers: Sequence[Signer]) -> Envelope:
    """Sign stored payload bytes; the same bytes and signers give the same envelope."""
    message = pae(payload_type, payload)
    signatures = tuple(Signature(signer.keyid, signer.sign(message)) for signer in signers)
    return Envelope(payload, payload_type, signatures)


def init_keys(context: Context, maker: KeyMaker) -> KeysetVersion:
    """Make a root, one key of each role, and the first keyset; nothing when one is there.

    Raises:
        SignerUnavailable: a key cannot be written or used.
    """
    present = latest_keyset(context.session)
    if present is not None:
        return present
    at = unix(context.at)
    made = {role: _first_key(context, maker, role) for role in (ROOT, *ROLES)}
    root = made[ROOT]
    keyset = Keyset(
        typ=Keyset.TYP,
        iss=context.policy.issuer,
        product=PRODUCT,
        issued_at=at,
        version=1,
        expires_at=at + KEYSET_LIFETIME_S,
        prev_sha256=ZERO_SHA256,
        root_threshold=1,
        roots=(new_root(root.public_key),),
        keys=tuple(new_key(made[role].public_key, role, at - BACKDATE_S) for role in ROLES),
    )
    signer = context.ports.signers.signer(ROOT, root.uri, key_id(root.public_key))
    envelope = sign_document(keyset, (signer,))
    stored = store_keyset(context, envelope, keyset.version)
    record(context, "keyset.published", "keyset", "1", keyids=[key.keyid for key in keyset.keys])
    context.session.flush()
    return stored


def _first_key(context: Context, maker: KeyMaker, role: str) -> NewKey:
    """Return the key that was added for a role, or make one."""
    added = free_key(context.session, role)
    if added is not None and added.public_key is not None:
        added.taken_by = FIRST_KEYSET
        return NewKey(added.public_key, added.uri)
    made = maker.make(role)
    register_key(context, role, made).taken_by = FIRST_KEYSET
    return made


def register_key(context: Context, role: str, key: NewKey) -> SigningKey:
    """Note a key and where its private half is; no keyset lists it yet."""
    row = SigningKey(
        keyid=key_id(key.public_key),
        role=role,
        uri=key.uri,
        public_key=key.public_key,
        created_at=context.at,
    )
    context.session.add(row)
    return row


def add_key(context: Context, role: str, key: NewKey) -> SigningKey:
    """Add a key that a keeper holds, as the next one of its role.

    Raises:
        Invalid: the role is unknown, its keys cannot be there, or it is no Ed25519 public key.
        Conflict: it was added before.
    """
    if role not in (ROOT, *ROLES):
        raise Invalid(f"The role must be one of {', '.join((ROOT, *ROLES))}.", field="role")
    try:
        keyid = PublicKey(key.public_key).keyid
    except MalformedPayload as error:
        raise Invalid(f"That is no usable public key: {error.detail}.", field="uri") from error
    if context.session.get(SigningKey, keyid) is not None:
        raise Conflict(f"The key {keyid} was added before.")
    why = misfit(role, key.uri)
    if why is not None:
        raise Invalid(why, field="uri")
    row = register_key(context, role, key)
    record(context, "key.added", "key", keyid, role=role)
    context.session.flush()
    return row


def refuse_misplaced_keys(context: Context) -> None:
    """Refuse to work with a key whose keeper cannot sign what its role signs.

    Raises:
        Unavailable: there is one.
    """
    for row in context.session.scalars(select(SigningKey).order_by(SigningKey.keyid)):
        why = misfit(row.role, row.uri)
        if why is not None:
            raise Unavailable(f"The key {row.keyid} cannot be used: {why}.")


def store_keyset(context: Context, envelope: Envelope, version: int) -> KeysetVersion:
    """Publish a keyset that was signed and verified."""
    stored = KeysetVersion(
        version=version,
        payload_sha256=sha256_hex(envelope.payload),
        envelope=envelope.to_bytes(),
        published_at=context.at,
    )
    context.session.add(stored)
    return stored


def current_keyset(context: Context) -> Verified[Keyset]:
    """Return the published keyset, verified.

    Raises:
        Unavailable: no keyset was published yet.
    """
    return verify_keyset(published_keyset(context).envelope, unix(context.at))


def role_signers(context: Context, role: str) -> tuple[Signer, ...]:
    """Return the signers of what a role issues now, the newest key first.

    They are two from the activation of a new key to the retirement of the old one.

    Raises:
        SignerUnavailable: there is none, or this process does not hold each of them.
    """
    keyset = current_keyset(context).document
    stopped = stopped_keyids(context.session)
    keys = signing_keys(keyset, role, unix(context.at), stopped=stopped)
    if not keys:
        raise SignerUnavailable(f"the keyset has no active {role} key for now")
    return tuple(signer_of(context, key.keyid) for key in keys)


def signer_of(context: Context, keyid: str, *, beside: bool = False) -> Signer:
    """Return the signer of one known key, in the role the keyset gives it.

    `beside` is for a key that signs beside a newer one, which vouches for the document: it may be
    compromised, as where a license takes the place of one that the key had signed.

    Raises:
        SignerUnavailable: the key is unknown here, the database and the keyset differ about its
            role, it was stopped, or this process does not hold it.
    """
    row = context.session.get(SigningKey, keyid)
    if row is None:
        raise SignerUnavailable(f"the key {keyid} is not registered here")
    keyset = current_keyset(context).document
    published = keyset.by_keyid.get(keyid)
    role = ROOT if keyid in keyset.roots_by_keyid else published and published.role
    if role is not None and role != row.role:
        raise SignerUnavailable(
            f"the key {keyid} is a {role} key in the keyset, and a {row.role} key in the database"
        )
    is_bad = row.stopped_at is not None or (
        published is not None and published.status == "compromised"
    )
    if is_bad and not beside:
        raise SignerUnavailable(f"the key {keyid} is said to be compromised; it signs no more")
    return context.ports.signers.signer(row.role, row.uri, row.keyid)


def list_keys(context: Context) -> PublishedKeys:
    """Return roots and keys as the current keyset publishes them.

    Raises:
        Unavailable: no keyset was published yet.
    """
    keyset = current_keyset(context).document
    uris = {row.keyid: row.uri for row in context.session.scalars(select(SigningKey))}
    roots = (
        KeyFacts(root.keyid, "root", "active", None, None, uris.get(root.keyid))
        for root in keyset.roots
    )
    keys = (
        KeyFacts(
            key.keyid,
            key.role,
            key.status,
            key.not_before_at,
            key.not_after_at,
            uris.get(key.keyid),
        )
        for key in keyset.keys
    )
    return PublishedKeys(keyset.version, unix(context.at), (*roots, *keys))


def keyset_version(context: Context, version: int) -> KeysetVersion:
    """Return one published keyset.

    Raises:
        NotFound: that version was never published.
    """
    # A number beyond the column's type is refused by PostgreSQL itself.
    stored = context.session.get(KeysetVersion, version) if version < 2**31 else None
    if stored is None:
        raise NotFound(f"Keyset {version} was never published.")
    return stored


def published_keyset(context: Context) -> KeysetVersion:
    """Return the newest published keyset.

    Raises:
        Unavailable: none was published yet.
    """
    stored = latest_keyset(context.session)
    if stored is None:
        raise Unavailable("There is no keyset yet; run `portal init`.")
    return stored
