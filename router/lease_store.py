"""The lease directory: the instance's key, and one state file with lease and pending request.

Invariants: one file holds the lease and the pending request id, so that a lease is installed and
its request settled in one rename. A pending id is durable before it is sent. One process at a
time.

    instance-key.pem   the instance's private key, 0600
    lease-state.json   everything else, 0600
    lock               held while a command works here
"""

import fcntl
import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from licensing.encoding import parse_json
from licensing.envelope import Envelope
from licensing.errors import LicensingError
from licensing.lease import Lease
from router.errors import StateError
from router.files import remove_drafts, write_atomically

SCHEMA: Final = 1
STATE_FILE: Final = "lease-state.json"
LOCK_FILE: Final = "lock"
MAX_BYTES: Final = 256 * 1024
_ID_ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


@dataclass(frozen=True)
class LeaseState:
    """What the lease directory remembers."""

    secret: str
    """Picks the moment of renewal inside its window; 64 hex digits, never sent."""
    instance_id: str | None = None
    lease: str | None = None
    """The lease's envelope, as text."""
    pending: str | None = None
    """The request id that waits for its answer."""
    releasing: str | None = None
    """The id of a release that waits for its answer."""
    released: str | None = None
    """The id of the lease that was given up; it serves no longer."""
    license_path: str | None = None
    keyset_path: str | None = None
    fingerprint: str | None = None

    def envelope(self) -> Envelope | None:
        """Return the lease's envelope.

        Raises:
            StateError: the stored text is damaged.
        """
        if self.lease is None:
            return None
        try:
            return Envelope.parse(self.lease.encode())
        except LicensingError as error:
            raise StateError(f"the stored lease is damaged: {error.detail}") from error

    def held(self) -> Lease | None:
        """Return the lease that was verified when it was stored.

        Raises:
            StateError: the stored text is damaged.
        """
        envelope = self.envelope()
        if envelope is None:
            return None
        try:
            return Lease.parse(envelope.payload)
        except LicensingError as error:
            raise StateError(f"the stored lease is damaged: {error.detail}") from error

    def renewal_moment(self) -> int | None:
        """Return when this instance means to renew (Unix time); None when it gives its lease up.

        An HMAC of the secret and the lease id picks it inside the window, so that restarts do not
        bunch and every instance has a moment of its own.
        """
        lease = self.held()
        if lease is None:
            return None
        if self.releasing is not None or self.released is not None:
            return None
        earliest, latest = lease.renew_at
        digest = hmac.digest(bytes.fromhex(self.secret), lease.lease_id.encode(), hashlib.sha256)
        return earliest + int.from_bytes(digest[:8], "big") % (latest - earliest + 1)


class LeaseStore:
    """One lease directory, locked for this process."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @contextmanager
    def locked(self, *, create: bool = False) -> Iterator["LeaseStore"]:
        """Hold the directory while the block runs.

        Raises:
            StateError: there is none, or another process holds it.
        """
        if create:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            descriptor = os.open(self.directory / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise StateError(
                f"cannot use the lease directory {self.directory}: {error.strerror}"
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            raise StateError(
                f"another process works in {self.directory}; stop it or wait"
            ) from error
        try:
            remove_drafts(self.directory)
            yield self
        finally:
            os.close(descriptor)

    def load(self) -> LeaseState:
        """Read the state; a fresh one where there is none.

        Raises:
            StateError: the file is damaged or of a later version.
        """
        path = self.directory / STATE_FILE
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return LeaseState(secret=secrets.token_hex(32))
        except OSError as error:
            raise StateError(f"cannot read {path}: {error.strerror}") from error
        try:
            value = parse_json(data, max_bytes=MAX_BYTES)
        except LicensingError as error:
            raise StateError(f"{path} is damaged ({error.detail}); enroll anew") from error
        if not isinstance(value, dict) or value.pop("schema", None) != SCHEMA:
            raise StateError(f"{path} is not a lease state of version {SCHEMA}")
        try:
            if not all(isinstance(each, str) for each in value.values()):
                raise TypeError("every field is text")
            state = LeaseState(**value)
            bytes.fromhex(state.secret)
        except (TypeError, ValueError) as error:
            raise StateError(f"{path} is damaged; enroll anew") from error
        return state

    def save(self, state: LeaseState) -> None:
        """Replace the state in one step.

        Raises:
            StateError: it cannot be written; the old state stands.
        """
        known = {name: value for name, value in asdict(state).items() if value is not None}
        text = json.dumps({"schema": SCHEMA, **known}, indent=1, sort_keys=True)
        try:
            write_atomically(self.directory / STATE_FILE, text.encode())
        except OSError as error:
            raise StateError(
                f"cannot write in {self.directory}: {error.strerror}; the old state stands"
            ) from error

    def with_pending(self, state: LeaseState) -> LeaseState:
        """Return the state with a durable request id: the pending one, or a new one.

        Raises:
            StateError: it cannot be written.
        """
        if state.pending is not None:
            return state
        state = replace(state, pending=new_request_id())
        self.save(state)
        return state


def new_request_id() -> str:
    """Make a request id: `req_` and 128 random bits in Crockford base32."""
    number = secrets.randbits(128)
    digits: list[str] = []
    for _ in range(26):
        number, digit = divmod(number, 32)
        digits.append(_ID_ALPHABET[digit])
    return "req_" + "".join(reversed(digits))


def describe(state: LeaseState, at: int) -> dict[str, Any]:
    """Return what an operator wants to know of a lease directory; nothing secret."""
    lease = state.held()
    if lease is None:
        return {"status": "not-enrolled", "instance_id": state.instance_id}
    released = state.released == lease.lease_id
    status: str
    if released:
        status = "released"
    elif lease.status != "active":
        status = lease.status
    elif at >= lease.grace_until_at:
        status = "expired"
    elif at >= lease.expires_at:
        status = "in-grace"
    else:
        status = "serving"
    return {
        "status": status,
        "serves": lease.serves(at) and not released,
        "instance_id": lease.instance_id,
        "license_id": lease.license_id,
        "deployment_id": lease.deployment_id,
        "lease_id": lease.lease_id,
        "epoch": lease.epoch,
        "seq": lease.seq,
        "expires_at": lease.expires_at,
        "grace_until_at": lease.grace_until_at,
        "renews_at": state.renewal_moment(),
        "reason": lease.reason,
        "clone_warning": bool(lease.clone_warning),
        "request_pending": state.pending is not None,
        "release_pending": state.releasing is not None,
    }
