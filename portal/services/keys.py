"""Signing keys and the keyset that publishes them.

Invariants: the database holds public keys and where the private ones are, never a private key. What
the keys page and `portal keys list` show is the published keyset itself.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import select

from licensing.document import Document
from licensing.encoding import b64encode, sha256_hex
from licensing.envelope import Envelope, Signature, pae
from licensing.keys import ZERO_SHA256, Key, Keyset, Root, key_id
from licensing.names import PRODUCT, ROLES
from licensing.verify import Verified, verify_keyset
from portal.db.keys import KeysetVersion, SigningKey, latest_keyset
from portal.domain.errors import NotFound, Unavailable
from portal.domain.ports import KeyMaker, Signer, SignerUnavailable
from portal.services.audit import record
from portal.services.context import Context

KEY_LIFETIME: Final = timedelta(days=3 * 365)
KEYSET_LIFETIME: Final = timedelta(days=3 * 365)
BACKDATE_S: Final = 300
"""A new key counts from a little earlier, for documents dated by a clock that is behind."""


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


def sign_document(document: Document, signer: Signer) -> Envelope:
    """Write a document canonically and sign it.

    Raises:
        MalformedPayload: a verifier would refuse the document.
        SignerUnavailable: the key cannot be used now.
    """
    payload = document.to_bytes()
    return sign_payload(payload, document.PAYLOAD_TYPE, signer)


def sign_payload(payload: bytes, payload_type: str, signer: Signer) -> Envelope:
    """Sign stored payload bytes; the same bytes give the same envelope."""
    signature = signer.sign(pae(payload_type, payload))
    return Envelope(payload, payload_type, (Signature(signer.keyid, signature),))


def init_keys(context: Context, maker: KeyMaker) -> KeysetVersion:
    """Make a root, one key of each role, and the first keyset; nothing when one is there.

    Raises:
        SignerUnavailable: a key cannot be written or used.
    """
    present = latest_keyset(context.session)
    if present is not None:
        return present
    at = unix(context.at)
    made = {role: maker.make(role) for role in ("root", *ROLES)}
    for role, key in made.items():
        context.session.add(
            SigningKey(keyid=key_id(key.public_key), role=role, uri=key.uri, created_at=context.at)
        )
    root = made["root"]
    keyset = Keyset(
        typ=Keyset.TYP,
        iss=context.policy.issuer,
        product=PRODUCT,
        issued_at=at,
        version=1,
        expires_at=at + int(KEYSET_LIFETIME.total_seconds()),
        prev_sha256=ZERO_SHA256,
        root_threshold=1,
        roots=(
            Root(
                keyid=key_id(root.public_key),
                alg="ed25519",
                public_key=b64encode(root.public_key),
            ),
        ),
        keys=tuple(
            Key(
                keyid=key_id(made[role].public_key),
                alg="ed25519",
                public_key=b64encode(made[role].public_key),
                role=role,
                status="active",
                not_before_at=at - BACKDATE_S,
                not_after_at=at + int(KEY_LIFETIME.total_seconds()),
            )
            for role in ROLES
        ),
    )
    signer = context.ports.signers.signer("root", root.uri, key_id(root.public_key))
    envelope = sign_document(keyset, signer)
    stored = KeysetVersion(
        version=1,
        payload_sha256=sha256_hex(envelope.payload),
        envelope=envelope.to_bytes(),
        published_at=context.at,
    )
    context.session.add(stored)
    record(context, "keyset.published", "keyset", "1", keyids=[key.keyid for key in keyset.keys])
    context.session.flush()
    return stored


def current_keyset(context: Context) -> Verified[Keyset]:
    """Return the published keyset, verified.

    Raises:
        Unavailable: no keyset was published yet.
    """
    return verify_keyset(published_keyset(context).envelope, unix(context.at))


def role_signer(context: Context, role: str) -> Signer:
    """Return the signer of the role's newest active key.

    Raises:
        SignerUnavailable: there is none, or this process does not hold it.
    """
    at = unix(context.at)
    keyset = current_keyset(context).document
    usable = [
        key for key in keyset.keys if key.role == role and key.status == "active" and key.covers(at)
    ]
    if not usable:
        raise SignerUnavailable(f"the keyset has no active {role} key for now")
    newest = max(usable, key=lambda key: (key.not_before_at, key.keyid))
    return signer_of(context, newest.keyid)


def signer_of(context: Context, keyid: str) -> Signer:
    """Return the signer of one known key, in the role the keyset gives it.

    Raises:
        SignerUnavailable: the key is unknown here, the database and the keyset differ about its
            role, or this process does not hold it.
    """
    row = context.session.get(SigningKey, keyid)
    if row is None:
        raise SignerUnavailable(f"the key {keyid} is not registered here")
    published = current_keyset(context).document.by_keyid.get(keyid)
    if published is not None and published.role != row.role:
        raise SignerUnavailable(
            f"the key {keyid} is a {published.role} key in the keyset, "
            f"and a {row.role} key in the database"
        )
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
