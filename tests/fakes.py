"""Fakes of the ports. Nothing else in the tests is faked."""

import hashlib
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from licensing.keys import PublicKey, key_id
from portal.domain.ports import (
    Mail,
    MailUndelivered,
    NewKey,
    SealSignature,
    Signer,
    Signers,
    SignerUnavailable,
)

START = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


@dataclass
class FakeClock:
    """A clock that stands until it is moved."""

    at: datetime = START

    def now(self) -> datetime:
        return self.at

    def advance(self, **span: float) -> None:
        self.at += timedelta(**span)


@dataclass
class FakeRandomness:
    """Bytes that are different each time and the same in each run."""

    seed: str = "tests"
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def token(self, size: int) -> bytes:
        # `next` is one step: threads never get the same number.
        digest = hashlib.shake_256(f"{self.seed}:{next(self.numbers)}".encode())
        return digest.digest(size)


class FakePasswords:
    """A hash that costs nothing."""

    def __init__(self) -> None:
        self.spent = 0

    def hash(self, password: str) -> str:
        self.spent += 1
        return f"fake:{password}"

    def verify(self, encoded: str, password: str) -> bool:
        self.spent += 1
        return encoded == f"fake:{password}"

    def verify_nothing(self, password: str) -> None:
        self.spent += 1

    def needs_rehash(self, encoded: str) -> bool:
        return not encoded.startswith("fake:")


class MemorySigner:
    """A test key, made from its seed."""

    def __init__(self, seed: bytes) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(seed).digest())
        self.public_key = self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)

    @property
    def keyid(self) -> str:
        return key_id(self.public_key)

    def sign(self, message: bytes) -> bytes:
        return self._key.sign(message)


@dataclass
class MemorySigners:
    """Keys in memory; `absent` roles are those this process may not use."""

    absent: set[str] = field(default_factory=set)
    made: dict[str, MemorySigner] = field(default_factory=dict)
    signed: int = 0

    def make(self, role: str) -> NewKey:
        signer = MemorySigner(f"TEST KEY {role} {len(self.made)}".encode())
        uri = f"memory:{signer.keyid}"
        self.made[uri] = signer
        return NewKey(signer.public_key, uri)

    def find(self, role: str, uri: str) -> NewKey:
        if role in self.absent or uri not in self.made:
            raise SignerUnavailable(f"this process does not hold {role} keys")
        return NewKey(self.made[uri].public_key, uri)

    def signer(self, role: str, uri: str, keyid: str) -> Signer:
        if role in self.absent or uri not in self.made:
            raise SignerUnavailable(f"this process does not hold {role} keys")
        self.signed += 1
        return self.made[uri]


@dataclass
class BusySigners:
    """Somebody's keys; while each signature is made, something else happens."""

    signers: Signers
    meanwhile: Callable[[], object]

    def signer(self, role: str, uri: str, keyid: str) -> Signer:
        return BusySigner(self.signers.signer(role, uri, keyid), self.meanwhile)


@dataclass
class BusySigner:
    """One such key."""

    signer: Signer
    meanwhile: Callable[[], object]

    @property
    def keyid(self) -> str:
        return self.signer.keyid

    def sign(self, message: bytes) -> bytes:
        self.meanwhile()
        return self.signer.sign(message)


@dataclass
class MemoryCustody:
    """A signer's own things in memory; without the role `seal` there are none."""

    signers: MemorySigners
    key: MemorySigner = field(default_factory=lambda: MemorySigner(b"TEST KEY seal"))
    kept: dict[str, bytes] = field(default_factory=dict)

    def seal(self, message: bytes) -> SealSignature:
        self._require()
        return SealSignature(self.key.keyid, self.key.sign(message))

    def is_sealed(self, message: bytes, signature: SealSignature) -> bool:
        self._require()
        ours = signature.keyid == self.key.keyid
        return ours and PublicKey(self.key.public_key).verify(signature.sig, message)

    def recall(self, name: str) -> bytes | None:
        self._require()
        return self.kept.get(name)

    def keep(self, name: str, document: bytes) -> None:
        self._require()
        self.kept[name] = document

    def _require(self) -> None:
        if "seal" in self.signers.absent:
            raise SignerUnavailable("this process does not hold the seal key")


@dataclass
class FakeMailer:
    """Keeps what was sent; `broken` makes it refuse, and meanwhile something else may happen."""

    sent: list[Mail] = field(default_factory=list)
    broken: bool = False
    meanwhile: Callable[[], object] = lambda: None

    def send(self, mail: Mail) -> None:
        self.meanwhile()
        if self.broken:
            raise MailUndelivered("the mail server does not answer")
        self.sent.append(mail)
