"""What the portal needs from outside, as Protocols. Gateways implement them; tests fake them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol


class Clock(Protocol):
    """The wall clock. Operations read it once and pass the value on."""

    def now(self) -> datetime:
        """Return the current instant, aware, in UTC."""
        ...


class Randomness(Protocol):
    """The source of unpredictable bytes."""

    def token(self, size: int) -> bytes:
        """Return `size` unpredictable bytes."""
        ...


class PasswordHasher(Protocol):
    """A slow, salted password hash."""

    def hash(self, password: str) -> str:
        """Return the encoded hash of `password`."""
        ...

    def verify(self, encoded: str, password: str) -> bool:
        """Say whether `password` is the one behind `encoded`."""
        ...

    def verify_nothing(self, password: str) -> None:
        """Spend the time of one `verify`, so that an unknown person costs what a known one does."""
        ...

    def needs_rehash(self, encoded: str) -> bool:
        """Say whether `encoded` was made with weaker parameters than today's."""
        ...


class SecretBox(Protocol):
    """Authenticated encryption of small secrets at rest, bound to the row they belong to."""

    def seal(self, secret: bytes, row_id: str) -> bytes:
        """Encrypt `secret` so that it opens only for `row_id`."""
        ...

    def open(self, sealed: bytes, row_id: str) -> bytes:
        """Decrypt.

        Raises:
            SealBroken: the ciphertext was altered or belongs to another row.
        """
        ...


class SealBroken(Exception):
    """A ciphertext does not open for this row with this key."""


class Signer(Protocol):
    """One private Ed25519 key, wherever it is held."""

    @property
    def keyid(self) -> str:
        """The key id: 64 lower-case hex digits."""
        ...

    def sign(self, message: bytes) -> bytes:
        """Return the 64-byte signature of `message`.

        Raises:
            SignerUnavailable: the key cannot be used now; the reason is in the message.
        """
        ...


class SignerUnavailable(Exception):
    """A signing key is missing, unreadable, of the wrong mode or refused by its keeper."""


class Signers(Protocol):
    """The signers this process may use, by role: custody is what it does not hold."""

    def signer(self, role: str, uri: str, keyid: str) -> Signer:
        """Return the signer behind `uri`, which must be this key.

        Raises:
            SignerUnavailable: this process may not use keys of this role, or cannot reach this one.
        """
        ...


@dataclass(frozen=True)
class NewKey:
    """A key pair that was just made: its public half and where the private one is held."""

    public_key: bytes
    """32 raw bytes."""
    uri: str


class KeyMaker(Protocol):
    """Makes key pairs and keeps the private halves."""

    def make(self, role: str) -> NewKey:
        """Make a key pair for a role (`root`, `license`, `lease` or `revocation`)."""
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
            MailUndelivered: the mail system did not take it; try again later.
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
    """Counts attempts, in the database, in a transaction of its own.

    A refused attempt must count even though the refusal rolls the caller's transaction back.
    """

    def hit(self, bucket: str, *, limit: int, window_s: int, at: datetime) -> int | None:
        """Count one attempt in `bucket`.

        Returns None when it is within `limit` per `window_s` seconds, else the seconds to wait.
        """
        ...
