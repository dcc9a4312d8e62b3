"""The envelope: a strict profile of DSSE v1.0.

Invariants: the bytes that are verified are the bytes that are parsed; nothing is re-encoded to be
verified. An `Envelope` is well-formed; whether its signatures count is for `licensing.verify`.

Source: "Envelope" of the signed documents; DSSE v1.0, https://github.com/secure-systems-lab/dsse.
"""

import re
from dataclasses import dataclass
from typing import Any, Final

from licensing.encoding import b64decode, b64encode, parse_json
from licensing.errors import MalformedEnvelope

MAX_BYTES: Final = 16 * 1024
"""Of every document but the two below."""
MAX_KEYSET_BYTES: Final = 1024 * 1024
MAX_BUNDLE_BYTES: Final = 16 * 1024 * 1024
MAX_SIGNATURES: Final = 8
SIGNATURE_BYTES: Final = 64

_KEYID: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Signature:
    """One signature and the id of the key that is said to have made it."""

    keyid: str
    """SHA-256 of the key's SubjectPublicKeyInfo in DER: 64 lower-case hex digits."""
    sig: bytes
    """64 bytes."""


def pae(payload_type: str, body: bytes) -> bytes:
    """Return the signing input: DSSE's pre-authentication encoding of type and body."""
    kind = payload_type.encode("utf-8")
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(body), body)


@dataclass(frozen=True)
class Envelope:
    """Signed bytes, their declared type, and 1 to 8 signatures over both."""

    payload: bytes
    payload_type: str
    signatures: tuple[Signature, ...]

    @classmethod
    def parse(cls, data: bytes, *, max_bytes: int = MAX_BYTES) -> "Envelope":
        """Parse the JSON text of an envelope.

        Raises:
            MalformedEnvelope: too long (checked first), not strict JSON, or of another shape.
        """
        return cls.from_object(parse_json(data, max_bytes=max_bytes))

    @classmethod
    def from_object(cls, value: Any) -> "Envelope":
        """Build an envelope from JSON that was parsed strictly.

        Raises:
            MalformedEnvelope: keys, kinds or lengths are not those of the profile.
        """
        _require_keys(value, {"payload", "payloadType", "signatures"}, "the envelope")
        payload, payload_type = value["payload"], value["payloadType"]
        if not isinstance(payload, str) or not isinstance(payload_type, str):
            raise MalformedEnvelope("payload and payloadType must be strings")
        listed = value["signatures"]
        if not isinstance(listed, list) or not 1 <= len(listed) <= MAX_SIGNATURES:
            raise MalformedEnvelope(f"an envelope has 1 to {MAX_SIGNATURES} signatures")
        signatures = tuple(_signature(item) for item in listed)
        if len({signature.keyid for signature in signatures}) != len(signatures):
            raise MalformedEnvelope("two signatures name the same key")
        return cls(b64decode(payload), payload_type, signatures)

    def to_object(self) -> dict[str, Any]:
        """Return the JSON value of the envelope."""
        return {
            "payload": b64encode(self.payload),
            "payloadType": self.payload_type,
            "signatures": [
                {"keyid": signature.keyid, "sig": b64encode(signature.sig)}
                for signature in self.signatures
            ],
        }

    def to_bytes(self) -> bytes:
        """Return the JSON text of the envelope, without white space."""
        signatures = ",".join(
            f'{{"keyid":"{signature.keyid}","sig":"{b64encode(signature.sig)}"}}'
            for signature in self.signatures
        )
        return (
            f'{{"payload":"{b64encode(self.payload)}","payloadType":"{self.payload_type}",'
            f'"signatures":[{signatures}]}}'
        ).encode("ascii")

    def signing_input(self) -> bytes:
        """Return the bytes that every signature of this envelope covers."""
        return pae(self.payload_type, self.payload)


def _signature(value: Any) -> Signature:
    _require_keys(value, {"keyid", "sig"}, "a signature")
    keyid, sig = value["keyid"], value["sig"]
    if not isinstance(keyid, str) or not _KEYID.fullmatch(keyid):
        raise MalformedEnvelope("a keyid is 64 lower-case hex digits")
    if not isinstance(sig, str):
        raise MalformedEnvelope("sig must be a string")
    raw = b64decode(sig)
    if len(raw) != SIGNATURE_BYTES:
        raise MalformedEnvelope(f"a signature has {SIGNATURE_BYTES} bytes, not {len(raw)}")
    return Signature(keyid, raw)


def _require_keys(value: Any, keys: set[str], what: str) -> None:
    if not isinstance(value, dict):
        raise MalformedEnvelope(f"{what} is not an object")
    if value.keys() != keys:
        raise MalformedEnvelope(f"{what} has exactly the keys {', '.join(sorted(keys))}")
