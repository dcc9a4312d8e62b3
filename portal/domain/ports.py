"""What the portal needs from the outside, as Protocols. Gateways implement them; tests fake them.

Invariant: apart from the database, `domain`, `db` and `services` reach nothing outside the process
except through these.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol


class Clock(Protocol):
    """The wall clock. Each operation reads it once and passes the value on."""

    def now(self) -> datetime:
        """Return the current time, aware, in UTC."""
        ...


class Randomness(Protocol):
    """A source of unpredictable bytes."""

    def token(self, size: int) -> bytes:
        """Return `size` unpredictable bytes."""
        ...


class PasswordHasher(Protocol):
    """A slow, salted password hash."""

    def hash(self, password: str) -> str:
        """Return the encoded hash of `password`."""
        ...

    def verify(self, encoded: str, password: str) -> bool:
        """Return whether `password` matches `encoded`."""
        ...

    def verify_nothing(self, password: str) -> None:
        """Take as long as one `verify`, so that timing does not reveal whether a person exists."""
        ...

    def needs_rehash(self, encoded: str) -> bool:
        """Return whether `encoded` was made with parameters other than today's."""
        ...


class SecretBox(Protocol):
    """Authenticated encryption of small secrets at rest, bound to the row they belong to."""

    def seal(self, secret: bytes, row_id: str) -> bytes:
        """Encrypt `secret` so that it opens only for `row_id`."""
        ...

    def open(self, sealed: bytes, row_id: str) -> bytes:
        """Decrypt a secret.

        Raises:
            SealBroken: the ciphertext was altered, belongs to another row, or was sealed with
                another key.
        """
        ...


class SealBroken(Exception):
    """A ciphertext cannot be opened for this row with this key."""


class Signer(Protocol):
    """One private Ed25519 key, wherever it is held."""

    @property
    def keyid(self) -> str:
        """The key id: 64 lower-case hex digits."""
        ...

    def sign(self, message: bytes) -> bytes:
        """Return the 64-byte signature of `message`.

        Raises:
            SignerUnavailable: the key cannot be used now; the message says why.
        """
        ...


class SignerUnavailable(Exception):
    """A signing key is missing, unreadable, has the wrong mode, or its keeper refuses to sign."""


class Signers(Protocol):
    """The signers this process may use, by role. Custody is about those it does not have."""

    def signer(self, role: str, uri: str, keyid: str) -> Signer:
        """Return the signer behind `uri`, which must be this key.

        Raises:
            SignerUnavailable: this process may not use keys of this role, or cannot reach this one.
        """
        ...


@dataclass(frozen=True)
class SealSignature:
    """One signature by a `seal` key."""

    keyid: str
    sig: bytes


class Custody(Protocol):
    """What a signer keeps for itself, out of the database's reach: its `seal` key and its memory.

    A process that serves HTTP has none: each call refuses.
    """

    def seal(self, message: bytes) -> SealSignature:
        """Sign with the seal key.

        Raises:
            SignerUnavailable: this process does not hold it.
        """
        ...

    def is_sealed(self, message: bytes, signature: SealSignature) -> bool:
        """Say whether one of the seal keys that are held here made this signature.

        Raises:
            SignerUnavailable: this process does not hold any.
        """
        ...

    def recall(self, name: str) -> bytes | None:
        """Return the document that was kept under a name; None when none was.

        Raises:
            SignerUnavailable: this process has no memory, or cannot read it.
        """
        ...

    def keep(self, name: str, document: bytes) -> None:
        """Keep a document under a name, in place of the one before; durable on return.

        Raises:
            SignerUnavailable: this process has no memory, or cannot write it.
        """
        ...


class SealMaker(Protocol):
    """Makes the seal key."""

    def make_seal(self) -> bool:
        """Make a seal key where there is none yet; say whether one was made.

        Raises:
            SignerUnavailable: this process may not hold one, or cannot write it.
        """
        ...

    @property
    def has_seal(self) -> bool:
        """Whether there is a seal key."""
        ...


@dataclass(frozen=True)
class NewKey:
    """A new key pair: its public half, and where the private half is kept."""

    public_key: bytes
    """32 raw bytes."""
    uri: str


class KeyMaker(Protocol):
    """Makes key pairs and keeps the private halves, or finds those that somebody else keeps."""

    def make(self, role: str) -> NewKey:
        """Make a key pair for a role (`root`, `license`, `lease` or `revocation`)."""
        ...

    def find(self, role: str, uri: str) -> NewKey:
        """Return the public half of a key that its keeper made.

        Raises:
            SignerUnavailable: this process may not use such keys, or cannot reach this one.
        """
        ...


@dataclass(frozen=True)
class Mail:
    """One rendered message to one address."""

    to: str
    subject: str
    text: str
    html: str
    headers: Mapping[str, str] = field(default_factory=dict)


class Mailer(Protocol):
    """Hands a message to the mail system."""

    def send(self, mail: Mail) -> None:
        """Deliver `mail`.

        Raises:
            MailUndelivered: the mail system did not accept it; try again later.
        """
        ...


class MailUndelivered(Exception):
    """The mail system refused a message or could not be reached."""


@dataclass(frozen=True)
class Rendered:
    """The three parts of a mail."""

    subject: str
    text: str
    html: str


class MailTemplates(Protocol):
    """Turns a named template and its facts into a mail."""

    def render(self, template: str, facts: Mapping[str, object]) -> Rendered:
        """Render `templates/email/<template>/`."""
        ...


class RateLimiter(Protocol):
    """Counts attempts in the database, in a transaction of its own.

    An attempt must count even if its refusal rolls back the caller's transaction.
    """

    def hit(self, bucket: str, *, limit: int, window_s: int, at: datetime) -> int | None:
        """Count one attempt in `bucket`.

        Returns None within `limit` attempts per `window_s` seconds, otherwise the seconds to wait.
        """
        ...
