"""What all topics are built from: base payloads, envelopes, keysets and cases.

Nothing here checks anything, because a case must be able to contain what a verifier refuses.
"""

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from devtools.vectors.keys import (
    INSTANCE,
    LEASE,
    LEASE_COMPROMISED,
    LICENSE,
    LICENSE_COMPROMISED,
    LICENSE_RETIRED,
    REVOCATION,
    REVOCATION_COMPROMISED,
    ROOT_1,
    ROOT_2,
    ROOT_3,
    TestKey,
)

NOW: Final = 1_800_000_000
"""2027-01-15T08:00:00Z: the `now_at` of every test that does not name another."""
DAY_S: Final = 86_400
ISSUED: Final = NOW - 10_000
EXPIRES: Final = NOW + 30 * DAY_S
WINDOW: Final = (NOW - 200 * DAY_S, NOW + 200 * DAY_S)
"""When the active keys may sign."""
RETIRED_WINDOW: Final = (NOW - 900 * DAY_S, NOW - 100 * DAY_S)
KEYSET_ISSUED: Final = NOW - 100 * DAY_S
ZERO_SHA256: Final = "0" * 64
FINGERPRINT: Final = "fp_test.router-01"
ORIGIN: Final = "https://licenses.example.com"
PREFIX: Final = "application/vnd.metrum."

Object = dict[str, Any]
OMIT: Final = object()
"""Given as a changed value, this leaves the field out."""


def identifier(prefix: str, number: int) -> str:
    """Return a well-formed identifier, such as `lic_00000000000000000000000001`."""
    return f"{prefix}_{number:026d}"


def changed(base: Mapping[str, Any], changes: Mapping[str, Any]) -> Object:
    """Return a copy of `base` with fields replaced, added, or left out."""
    merged = {**base, **changes}
    return {key: value for key, value in merged.items() if value is not OMIT}


def dumps(value: object) -> bytes:
    """Write JSON in canonical form, without checking the value."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode(
        "utf-8", "surrogatepass"
    )


def b64(data: bytes) -> str:
    """Return the standard base64 of `data`."""
    return base64.b64encode(data).decode()


def sha256(data: bytes) -> str:
    """Return the SHA-256 of `data` in hex."""
    return hashlib.sha256(data).hexdigest()


_LICENSE: Final[Object] = {
    "typ": "license.v1",
    "iss": "metrum.ai",
    "issued_at": ISSUED,
    "product": "genai-smart-router",
    "license_id": identifier("lic", 1),
    "deployment_id": identifier("dep", 1),
    "revision": 7,
    "customer_id": identifier("cus", 1),
    "sku": "enterprise-annual",
    "mode": "offline",
    "not_before_at": ISSUED,
    "expires_at": EXPIRES,
    "features": ["routing", "usage_reporting"],
    "limits": {"max_concurrency": 64},
    "binding": {"fingerprints": []},
    "revocation": {"require_current_bundle": False, "min_version": 0},
    "min_keyset_version": 1,
}

_LEASE: Final[Object] = {
    "typ": "lease.v1",
    "iss": "metrum.ai",
    "issued_at": ISSUED,
    "product": "genai-smart-router",
    "lease_id": identifier("lea", 1),
    "deployment_id": identifier("dep", 1),
    "license_id": identifier("lic", 1),
    "license_revision": 7,
    "license_sha256": sha256(b"license"),
    "customer_id": identifier("cus", 1),
    "instance_id": identifier("ins", 1),
    "instance_keyid": INSTANCE.keyid,
    "epoch": 1,
    "seq": 2,
    "prev_sha256": sha256(b"previous lease"),
    "request_id": identifier("req", 1),
    "request_sha256": sha256(b"request"),
    "status": "active",
    "expires_at": NOW + DAY_S,
    "grace_until_at": NOW + 3 * DAY_S,
    "renew_at": [NOW + 8 * 3600, NOW + 16 * 3600],
    "bundle_version": 0,
    "keyset_version": 3,
}

_BUNDLE: Final[Object] = {
    "typ": "revocation-bundle.v1",
    "iss": "metrum.ai",
    "issued_at": ISSUED,
    "product": "genai-smart-router",
    "version": ISSUED,
    "expires_at": ISSUED + 35 * DAY_S,
    "entries": [],
}

_ENROLLMENT: Final[Object] = {
    "typ": "enrollment-request.v1",
    "iss": "instance",
    "issued_at": NOW,
    "aud": ORIGIN,
    "code": "0123456789abcdefghijkl",
    "public_key": INSTANCE.public_key,
    "request_id": identifier("req", 1),
    "software": "smart-router 1.0",
    "license_id": identifier("lic", 1),
    "license_sha256": sha256(b"license"),
}

_LEASE_REQUEST: Final[Object] = {
    "typ": "lease-request.v1",
    "iss": "instance",
    "issued_at": NOW,
    "aud": ORIGIN,
    "license_id": identifier("lic", 1),
    "license_sha256": sha256(b"license"),
    "instance_id": identifier("ins", 1),
    "request_id": identifier("req", 2),
    "prev_epoch": 1,
    "prev_seq": 2,
    "prev_sha256": sha256(b"previous lease"),
    "boot_id": "0123456789abcdef0123456789abcdef",
    "bundle_version": 0,
    "keyset_version": 3,
    "software": "smart-router 1.0",
}

_RELEASE_REQUEST: Final[Object] = {
    "typ": "release-request.v1",
    "iss": "instance",
    "issued_at": NOW,
    "aud": ORIGIN,
    "request_id": identifier("req", 3),
    "instance_id": identifier("ins", 1),
    "lease_id": identifier("lea", 1),
}

BASES: Final = MappingProxyType(
    {
        "license": _LICENSE,
        "lease": _LEASE,
        "revocation-bundle": _BUNDLE,
        "enrollment-request": _ENROLLMENT,
        "lease-request": _LEASE_REQUEST,
        "release-request": _RELEASE_REQUEST,
    }
)
"""The smallest valid payload of each kind except the keyset."""

SIGNERS: Final = MappingProxyType(
    {
        "license": LICENSE,
        "lease": LEASE,
        "revocation-bundle": REVOCATION,
        "enrollment-request": INSTANCE,
        "lease-request": INSTANCE,
        "release-request": INSTANCE,
    }
)


def payload(kind: str, **changes: Any) -> bytes:
    """Return the payload of a kind with some fields changed."""
    return dumps(changed(BASES[kind], changes))


def payload_type(kind: str) -> str:
    """Return the payload type of a kind."""
    return f"{PREFIX}{kind}.v1+json"


def pae(kind: str, body: bytes) -> bytes:
    """Return DSSE's signing input; `kind` is a complete payload type."""
    text = kind.encode()
    return b"DSSEv1 %d %b %d %b" % (len(text), text, len(body), body)


def signature(keyid: str, sig: bytes) -> Object:
    """Return one entry of `signatures`."""
    return {"keyid": keyid, "sig": b64(sig)}


def flipped(sig: bytes) -> bytes:
    """Return the signature with one bit changed: well-formed but wrong."""
    return sig[:10] + bytes([sig[10] ^ 1]) + sig[11:]


def sign(
    kind: str, body: bytes, *signers: TestKey, wrong: tuple[TestKey, ...] = (), as_type: str = ""
) -> Object:
    """Return the envelope's JSON value. The signatures of signers in `wrong` are wrong."""
    named = as_type or payload_type(kind)
    message = pae(named, body)
    entries = []
    for signer in signers or (SIGNERS[kind],):
        sig = signer.sign(message)
        entries.append(signature(signer.keyid, flipped(sig) if signer in wrong else sig))
    return {"payload": b64(body), "payloadType": named, "signatures": entries}


def pack(envelope: object) -> bytes:
    """Write an envelope without white space, in the order its keys were given."""
    return json.dumps(envelope, separators=(",", ":")).encode()


def signed(kind: str, *signers: TestKey, wrong: tuple[TestKey, ...] = (), **changes: Any) -> bytes:
    """Return the file of a document of a kind with some fields changed."""
    return pack(sign(kind, payload(kind, **changes), *signers, wrong=wrong))


def root_entry(key: TestKey) -> Object:
    """Return a keyset's entry of a root."""
    return {"keyid": key.keyid, "alg": "ed25519", "public_key": key.public_key}


def key_entry(
    key: TestKey, status: str = "active", window: tuple[int, int] = WINDOW, **changes: Any
) -> Object:
    """Return a keyset's entry of a document key."""
    entry = {
        **root_entry(key),
        "role": key.role,
        "status": status,
        "not_before_at": window[0],
        "not_after_at": window[1],
    }
    return changed(entry, changes)


_KEYSET: Final[Object] = {
    "typ": "keyset.v1",
    "iss": "metrum.ai",
    "issued_at": KEYSET_ISSUED,
    "product": "genai-smart-router",
    "version": 3,
    "expires_at": NOW + 265 * DAY_S,
    "prev_sha256": sha256(b"keyset 2"),
    "root_threshold": 2,
    "roots": [root_entry(ROOT_1), root_entry(ROOT_2), root_entry(ROOT_3)],
    "keys": [
        key_entry(LICENSE),
        key_entry(LICENSE_RETIRED, "retired", RETIRED_WINDOW),
        key_entry(LICENSE_COMPROMISED, "compromised"),
        key_entry(LEASE),
        key_entry(LEASE_COMPROMISED, "compromised"),
        key_entry(REVOCATION),
        key_entry(REVOCATION_COMPROMISED, "compromised"),
    ],
}


def keyset_payload(**changes: Any) -> bytes:
    """Return the payload of the common keyset with some fields changed."""
    return dumps(changed(_KEYSET, changes))


def signed_keyset(
    *signers: TestKey, wrong: tuple[TestKey, ...] = (), body: bytes | None = None, **changes: Any
) -> bytes:
    """Return the file of a keyset; by default the first two roots sign."""
    payload_bytes = keyset_payload(**changes) if body is None else body
    return pack(sign("keyset", payload_bytes, *(signers or (ROOT_1, ROOT_2)), wrong=wrong))


KEYSET: Final = signed_keyset()
"""The common keyset: version 3, signed by two of three roots."""


@dataclass(frozen=True)
class Case:
    """One test: a file, the time to verify it at, and the expected result."""

    name: str
    comment: str
    envelope: bytes
    code: str | None = None
    """None if the file is valid."""
    options: Object = field(default_factory=dict)
    flags: tuple[str, ...] = ()
    now: int = NOW
    keyset: bytes = KEYSET


def floors(revision: int = 0, bundle_version: int = 0, keyset_version: int = 0) -> Object:
    """Return the option that says what was in use here before."""
    return {
        "revision": revision,
        "bundle_version": bundle_version,
        "keyset_version": keyset_version,
    }


def case(
    kind: str,
    name: str,
    comment: str,
    envelope: bytes,
    code: str | None = None,
    *flags: str,
    now: int = NOW,
    keyset: bytes = KEYSET,
    **options: Any,
) -> Case:
    """Return a test of a document of a kind."""
    return Case(name, comment, envelope, code, {"kind": kind, **options}, flags, now, keyset)
