"""Public keys, key ids and the keyset.

Invariants: a `PublicKey` is the canonical encoding of a point that is not of small order. A key id
is the SHA-256 of the key's SubjectPublicKeyInfo in DER. No public key stands twice in a keyset.

Source: "Signed documents"; RFC 8032 sections 5.1.2 and 5.1.3; RFC 8410 section 4.
"""

from collections.abc import Mapping
from functools import cached_property, lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar, Final, Literal

from licensing.document import (
    Document,
    Keyid,
    Part,
    Positive,
    Sha256,
    Token,
    UnixTime,
    require,
)
from licensing.encoding import b64decode, b64encode, sha256_hex
from licensing.errors import LicensingError, MalformedPayload
from licensing.names import KEYSET_TYPE

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

ZERO_SHA256: Final = "0" * 64
"""Stands where there is no document before this one."""

KEY_BYTES: Final = 32
_SPKI_PREFIX: Final = bytes.fromhex("302a300506032b6570032100")
_P: Final = 2**255 - 19
_D: Final = -121665 * pow(121666, -1, _P) % _P
_ORDER_8_Y: Final = int.from_bytes(
    bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little"
)
_SMALL_ORDER_Y: Final = frozenset({0, 1, _P - 1, _ORDER_8_Y, _P - _ORDER_8_Y})


def key_id(raw: bytes) -> str:
    """Return the key id of a raw public key (32 bytes)."""
    return sha256_hex(_SPKI_PREFIX + raw)


class PublicKey:
    """An Ed25519 public key that may be trusted to be one."""

    __slots__ = ("_loaded", "keyid", "raw")

    def __init__(self, raw: bytes) -> None:
        """Take 32 raw bytes.

        Raises:
            MalformedPayload: another length, a non-canonical encoding, no point, or small order.
        """
        if len(raw) != KEY_BYTES:
            raise MalformedPayload(f"a public key has {KEY_BYTES} bytes, not {len(raw)}")
        y = int.from_bytes(raw, "little") & (2**255 - 1)
        if y >= _P:
            raise MalformedPayload("a public key is not in canonical form")
        if y in _SMALL_ORDER_Y:
            raise MalformedPayload("a public key is of small order")
        numerator, denominator = y * y - 1, _D * y * y + 1
        if pow(numerator * denominator, (_P - 1) // 2, _P) != 1:
            raise MalformedPayload("a public key is not a point of the curve")
        self.raw = raw
        self.keyid = key_id(raw)
        self._loaded: Ed25519PublicKey | None = None

    @classmethod
    def from_base64(cls, text: str) -> "PublicKey":
        """Take the base64 of 32 raw bytes.

        Raises:
            MalformedPayload: not strict base64, or not such a key.
        """
        try:
            return cls(b64decode(text))
        except LicensingError as error:
            raise MalformedPayload(error.detail) from error

    @classmethod
    def from_pem(cls, data: bytes) -> "PublicKey":
        """Take a PEM file with one Ed25519 public key (`BEGIN PUBLIC KEY`).

        Raises:
            MalformedPayload: anything else.
        """
        lines = [line.strip() for line in data.decode("latin-1").splitlines() if line.strip()]
        if (
            len(lines) < 3
            or lines[0] != "-----BEGIN PUBLIC KEY-----"
            or lines[-1] != "-----END PUBLIC KEY-----"
        ):
            raise MalformedPayload("not a PEM file with one public key")
        try:
            der = b64decode("".join(lines[1:-1]))
        except LicensingError as error:
            raise MalformedPayload(error.detail) from error
        if not der.startswith(_SPKI_PREFIX):
            raise MalformedPayload("the public key is not an Ed25519 key")
        return cls(der[len(_SPKI_PREFIX) :])

    def to_base64(self) -> str:
        """Return the base64 of the raw key."""
        return b64encode(self.raw)

    def verify(self, sig: bytes, message: bytes) -> bool:
        """Say whether `sig` (64 bytes) is this key's signature of `message`."""
        # Loading cryptography costs more than all else a short command does.
        from cryptography.exceptions import InvalidSignature  # noqa: PLC0415
        from cryptography.hazmat.primitives.asymmetric.ed25519 import (  # noqa: PLC0415
            Ed25519PublicKey,
        )

        if self._loaded is None:
            self._loaded = Ed25519PublicKey.from_public_bytes(self.raw)
        try:
            self._loaded.verify(sig, message)
        except InvalidSignature:
            return False
        return True

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PublicKey) and self.raw == other.raw

    def __hash__(self) -> int:
        return hash(self.raw)

    def __repr__(self) -> str:
        return f"PublicKey({self.keyid})"


@lru_cache(maxsize=4096)
def loaded_key(raw: bytes) -> PublicKey:
    """Return the key of these 32 bytes, checked and loaded once.

    Raises:
        MalformedPayload: see `PublicKey`.
    """
    return PublicKey(raw)


class PublishedKey(Part, frozen=True, kw_only=True):
    """What a keyset says of any of its keys."""

    keyid: Keyid
    alg: Literal["ed25519"]
    public_key: str
    """Base64 of 32 bytes."""

    @property
    def public(self) -> PublicKey:
        """The key itself, loaded once."""
        return loaded_key(_raw(self.public_key))

    def verify(self, sig: bytes, message: bytes) -> bool:
        """Say whether `sig` (64 bytes) is this key's signature of `message`."""
        return self.public.verify(sig, message)


class Root(PublishedKey, frozen=True, kw_only=True):
    """A key that may sign keysets."""


class Key(PublishedKey, frozen=True, kw_only=True):
    """A key that may sign documents of one role, issued in a span of time."""

    role: Literal["license", "lease", "revocation"]
    status: Literal["active", "retired", "compromised"]
    not_before_at: UnixTime
    not_after_at: UnixTime

    def covers(self, issued_at: int) -> bool:
        """Say whether a document issued at this instant (Unix time) counts under this key."""
        return self.status != "compromised" and self.not_before_at <= issued_at < self.not_after_at


class Keyset(Document, frozen=True, kw_only=True, dict=True):
    """The published verification keys, signed by the roots."""

    PAYLOAD_TYPE: ClassVar[str] = KEYSET_TYPE
    TYP: ClassVar[str] = "keyset.v1"

    version: Positive
    product: Token
    expires_at: UnixTime
    prev_sha256: Sha256
    root_threshold: Positive
    roots: tuple[Root, ...]
    keys: tuple[Key, ...]

    def check(self) -> None:
        """Check thresholds, key ids and that no key stands twice."""
        require(self.root_threshold <= len(self.roots), "root_threshold exceeds the roots")
        require(self.issued_at < self.expires_at, "expires_at must be after issued_at")
        require(
            (self.version == 1) == (self.prev_sha256 == ZERO_SHA256),
            "prev_sha256 is 64 zeros for version 1 and for no other",
        )
        seen: set[bytes] = set()
        for entry in (*self.roots, *self.keys):
            public = entry.public
            require(public.keyid == entry.keyid, "a keyid is not that of its public_key")
            require(public.raw not in seen, "a public key stands twice")
            seen.add(public.raw)
        for key in self.keys:
            require(key.not_before_at < key.not_after_at, "a key's window is empty")

    @cached_property
    def by_keyid(self) -> Mapping[str, Key]:
        """The document keys by their key id."""
        return MappingProxyType({key.keyid: key for key in self.keys})

    @cached_property
    def roots_by_keyid(self) -> Mapping[str, Root]:
        """The roots by their key id."""
        return MappingProxyType({root.keyid: root for root in self.roots})

    @cached_property
    def compromised(self) -> frozenset[str]:
        """The key ids that vouch for nothing."""
        return frozenset(key.keyid for key in self.keys if key.status == "compromised")

    def find(self, keyid: str, role: str) -> Key | None:
        """Return the key of this id if it has this role, whatever its status."""
        key = self.by_keyid.get(keyid)
        return key if key is not None and key.role == role else None


def _raw(public_key: str) -> bytes:
    try:
        return b64decode(public_key)
    except LicensingError as error:
        raise MalformedPayload(error.detail) from error
