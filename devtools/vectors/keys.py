"""TEST KEYS, made from published seeds. Anybody who reads this file can sign with them.

Distributions refuse them by key id: see `router.documents.test_keys`.
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from licensing.encoding import b64encode
from licensing.keys import key_id

SEED_TEXT: Final = "smart router test key: "
"""A key's 32-byte seed is the SHA-256 of this text and the key's name."""


@dataclass(frozen=True)
class TestKey:
    """A key that anybody can make: its private half follows from its name."""

    __test__ = False  # the name begins with Test, and pytest shall not take it for one

    name: str
    role: str
    """`root`, `license`, `lease`, `revocation`, or `instance`."""

    @cached_property
    def seed(self) -> bytes:
        """The 32 bytes RFC 8032 calls the private key."""
        return hashlib.sha256(f"{SEED_TEXT}{self.name}".encode()).digest()

    @cached_property
    def _private(self) -> Ed25519PrivateKey:
        return Ed25519PrivateKey.from_private_bytes(self.seed)

    @cached_property
    def raw(self) -> bytes:
        """The public key, 32 bytes."""
        return self._private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)

    @property
    def keyid(self) -> str:
        """SHA-256 of the SubjectPublicKeyInfo in DER, in hex."""
        return key_id(self.raw)

    @property
    def public_key(self) -> str:
        """Base64 of the public key."""
        return b64encode(self.raw)

    def sign(self, message: bytes) -> bytes:
        """Return the signature, 64 bytes."""
        return self._private.sign(message)


ROOT_1: Final = TestKey("root 1", "root")
ROOT_2: Final = TestKey("root 2", "root")
ROOT_3: Final = TestKey("root 3", "root")
NEW_ROOT_1: Final = TestKey("new root 1", "root")
NEW_ROOT_2: Final = TestKey("new root 2", "root")
STRANGE_ROOT: Final = TestKey("strange root", "root")
LICENSE: Final = TestKey("license", "license")
LICENSE_RETIRED: Final = TestKey("license retired", "license")
LICENSE_COMPROMISED: Final = TestKey("license compromised", "license")
LICENSE_STRANGE: Final = TestKey("license strange", "license")
LEASE: Final = TestKey("lease", "lease")
LEASE_COMPROMISED: Final = TestKey("lease compromised", "lease")
REVOCATION: Final = TestKey("revocation", "revocation")
REVOCATION_COMPROMISED: Final = TestKey("revocation compromised", "revocation")
INSTANCE: Final = TestKey("instance", "instance")
OTHER_INSTANCE: Final = TestKey("other instance", "instance")
FILLERS: Final = tuple(TestKey(f"filler {number}", "license") for number in range(1, 9))
"""Keys that no keyset lists, to fill envelopes with."""

TEST_KEYS: Final = (
    ROOT_1,
    ROOT_2,
    ROOT_3,
    NEW_ROOT_1,
    NEW_ROOT_2,
    STRANGE_ROOT,
    LICENSE,
    LICENSE_RETIRED,
    LICENSE_COMPROMISED,
    LICENSE_STRANGE,
    LEASE,
    LEASE_COMPROMISED,
    REVOCATION,
    REVOCATION_COMPROMISED,
    INSTANCE,
    OTHER_INSTANCE,
    *FILLERS,
)
