"""The lease directory: the instance's key, and one state file with lease and pending request.

Invariants: one file holds the lease and the pending request id, so that a lease is installed and
its request settled in one rename. A pending id is durable before it is sent. One process at a
time.

    instance-key.pem         the instance's private key, 0600
    lease-state.json         lease, pending request and the state of renewal, 0600
    license.json             the last license from the portal
    revocation-bundle.json   the last bundle from the portal
    keyset-<version>.json    see `documents/keysets.py`
    lock                     held while a command or an attempt works here
"""

import fcntl
import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Final

import msgspec

from licensing.encoding import crockford, parse_json
from licensing.envelope import Envelope
from licensing.errors import LicensingError
from licensing.lease import Lease
from router.clock import FRESH_S, Clock
from router.errors import StateError
from router.files import remove_partials, write_atomically

SCHEMA: Final = 1
STATE_FILE: Final = "lease-state.json"
LOCK_FILE: Final = "lock"
LICENSE_FILE: Final = "license.json"
BUNDLE_FILE: Final = "revocation-bundle.json"
MAX_BYTES: Final = 256 * 1024
BACKOFF_S: Final = (60, 3600)
"""Shortest and longest wait after a failed attempt, unless the portal asks for more."""
MAX_WAIT_S: Final = 86_400


class StoreInUse(StateError):
    """Another process is using the lease directory."""


@dataclass(frozen=True)
class LeaseState:
    """What the lease directory remembers."""

    secret: str
    """Picks the moment of renewal inside its window; 64 hex digits, never sent."""
    instance_id: str | None = None
    lease: str | None = None
    """The lease's envelope, as text."""
    pending: str | None = None
    """The request id that is waiting for an answer."""
    releasing: str | None = None
    """The id of a release that is waiting for an answer."""
    released: str | None = None
    """The id of the lease that was given up and no longer serves."""
    license_path: str | None = None
    keyset_path: str | None = None
    fingerprint: str | None = None
    state_path: str | None = None
    """Where the router with this lease directory keeps its license state."""
    asked_boot_id: str | None = None
    """The kernel's boot id when the pending request was made."""
    asked_boottime: int | None = None
    """Seconds since boot when the pending request was made."""
    failures: int = 0
    """Failed attempts since the last fresh answer."""
    next_try_at: int | None = None
    """When the next attempt is due (Unix time), while attempts fail."""
    trouble: str | None = None
    """The code the last attempt failed with."""
    trouble_detail: str | None = None
    by_courier: bool = False
    """Whether the lease came as a file."""

    def is_fresh(self, clock: Clock) -> bool:
        """Return whether an answer arriving now tells the time: it was requested just now."""
        return (
            self.asked_boottime is not None
            and self.asked_boot_id == clock.boot_id
            and 0 <= clock.boottime() - self.asked_boottime <= FRESH_S
        )

    def due_at(self, now: int) -> int | None:
        """Return when the router plans to renew (Unix time); None once it releases its lease.

        A request without an answer, or an answer that did not tell the time, is repeated after the
        backoff; any other failure only postpones the moment.
        """
        moment = self.renewal_moment()
        if moment is None or self.next_try_at is None:
            return moment
        put_off = self.put_off_until(now) or now
        asks_again = self.pending is not None or self.trouble is None
        return put_off if asks_again else max(moment, put_off)

    def put_off_until(self, now: int) -> int | None:
        """Return when attempts may resume; ignores a moment that no backoff could have set."""
        if self.next_try_at is None or self.next_try_at > now + MAX_WAIT_S:
            return None
        return self.next_try_at

    def failed(
        self, code: str, detail: str, at: int, retry_after_s: int | None = None
    ) -> "LeaseState":
        """Return the state after a failed attempt: the next one comes later."""
        failures = self.failures + 1
        return replace(
            self,
            failures=failures,
            next_try_at=at + backoff_s(failures, retry_after_s),
            trouble=code,
            trouble_detail=detail[:500],
        )

    def installed(self, envelope: Envelope, at: int, *, fresh: bool, courier: bool) -> "LeaseState":
        """Return the state with a lease installed and its request settled.

        If the answer does not tell the time, the router asks again soon.
        """
        failures = 0 if fresh else self.failures + 1
        return replace(
            self,
            lease=envelope.to_bytes().decode(),
            pending=None,
            asked_boot_id=None,
            asked_boottime=None,
            releasing=None,
            released=None,
            failures=failures,
            next_try_at=None if fresh else at + backoff_s(failures),
            trouble=None,
            trouble_detail=None,
            by_courier=courier,
        )

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
        """Return when this instance plans to renew (Unix time); None once it releases its lease.

        An HMAC of the secret and the lease id picks a moment inside the window, so that instances
        spread out and a restart changes nothing.
        """
        lease = self.held()
        if lease is None:
            return None
        if self.releasing is not None or self.released is not None:
            return None
        earliest, latest = lease.renew_at
        digest = hmac.digest(bytes.fromhex(self.secret), lease.lease_id.encode(), hashlib.sha256)
        return earliest + int.from_bytes(digest[:8], "big") % (latest - earliest + 1)


def backoff_s(failures: int, retry_after_s: int | None = None) -> int:
    """Return how many seconds to wait after this many failures: exponential, with full jitter.

    The portal's `Retry-After` is a lower bound, clamped to 60 s … 24 h.
    """
    least, most = BACKOFF_S
    ceiling = min(most, least << min(failures, 10))
    waits = least + secrets.randbelow(ceiling - least + 1)
    if retry_after_s is None:
        return waits
    return max(waits, min(max(retry_after_s, least), MAX_WAIT_S))


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
            raise StoreInUse(
                f"another process works in {self.directory}; stop it or wait"
            ) from error
        try:
            remove_partials(self.directory)
            yield self
        finally:
            os.close(descriptor)

    def load(self) -> LeaseState:
        """Read the state, or return a fresh one if there is none.

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
            raise StateError(f"{path} is damaged ({error.detail}); enroll again") from error
        if not isinstance(value, dict) or value.pop("schema", None) != SCHEMA:
            raise StateError(f"{path} is not a lease state of version {SCHEMA}")
        damaged = StateError(f"{path} is damaged; enroll again")
        if not value.keys() <= {each.name for each in fields(LeaseState)}:
            raise damaged
        try:
            state = msgspec.convert(value, LeaseState)
            bytes.fromhex(state.secret)
        except ValueError as error:
            raise damaged from error
        state.held()  # raises if the stored lease is damaged
        return state

    def save(self, state: LeaseState) -> None:
        """Replace the state in one step.

        Raises:
            StateError: it cannot be written; the old state stays.
        """
        known = {name: value for name, value in asdict(state).items() if value}
        text = json.dumps({"schema": SCHEMA, **known}, indent=1, sort_keys=True)
        try:
            write_atomically(self.directory / STATE_FILE, text.encode())
        except OSError as error:
            raise StateError(
                f"cannot write in {self.directory}: {error.strerror}; the old state stays"
            ) from error

    def with_pending(self, state: LeaseState, clock: Clock) -> LeaseState:
        """Return the state with a durable request id: the pending one, or a new one.

        Raises:
            StateError: it cannot be written.
        """
        if state.pending is not None:
            return state
        state = replace(
            state,
            pending=new_request_id(),
            asked_boot_id=clock.boot_id,
            asked_boottime=clock.boottime(),
        )
        self.save(state)
        return state


def new_request_id() -> str:
    """Create a request id: `req_` and 128 random bits in Crockford base32."""
    return f"req_{crockford(secrets.token_bytes(16))}"


def describe(state: LeaseState, at: int) -> dict[str, Any]:
    """Return what an operator needs to know about a lease directory; nothing secret."""
    lease = state.held()
    if lease is None:
        return {
            "status": "not-enrolled",
            "instance_id": state.instance_id,
            "trouble": state.trouble,
            "trouble_detail": state.trouble_detail,
        }
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
        "renews_at": state.due_at(at),
        "reason": lease.reason,
        "clone_warning": bool(lease.clone_warning),
        "request_pending": state.pending is not None,
        "release_pending": state.releasing is not None,
        "failed_attempts": state.failures if state.trouble else 0,
        "trouble": state.trouble,
        "trouble_detail": state.trouble_detail,
        "by_courier": state.by_courier,
    }
