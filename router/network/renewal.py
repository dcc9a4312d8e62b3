"""Keeps the lease, the license, the bundle and the keyset current while the router serves.

Only a router in lease mode runs this, and only this and the commands contact the portal. What
arrives goes into the lease directory; the guard finds it there and judges it like any other file.

Invariants: nothing here begins or ends service. There is one attempt at a time, and it holds the
lease directory; commands can work between attempts. Failures and the next attempt's moment are
durable, so a router that keeps restarting does not ask more often.

Source: "The router" and "Times" of the lease protocol.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from licensing.enrollment import Usage
from licensing.envelope import MAX_BUNDLE_BYTES, MAX_BYTES, MAX_KEYSET_BYTES
from licensing.errors import LicensingError
from licensing.lease import Lease
from licensing.license import License
from licensing.verify import Verified, examine_license, verify_bundle
from router.clock import Clock, anchor_at
from router.documents.decision import Decision, RememberedTrust
from router.documents.keysets import take_update
from router.errors import Refused, RouterError, Unreachable
from router.files import read_at_most, write_atomically
from router.lease.store import (
    BACKOFF_S,
    BUNDLE_FILE,
    LICENSE_FILE,
    LeaseState,
    LeaseStore,
    StoreInUse,
)
from router.network.agent import (
    Enrollment,
    Grounds,
    enroll,
    fetch_license,
    newer_license,
    renew,
    usage_of,
)
from router.network.fetch import Fetch, require_answer
from router.serve.guard import Guard, pause
from router.state.store import Anchor

POLL_S: Final = 1.0
"""How often to check whether anything is due."""
ASK_S: Final = (900, 86_400)
"""The bounds of the interval at which the router asks for the current license."""
KEY_CODES: Final = ("untrusted-key", "keyset-too-old", "rolled-back")
"""What a newer keyset may mend: the one at hand may be below one that was in use here."""
ENDED_KEY: Final = "key-not-valid"
"""The key behind the license or the lease counts no more: the portal has others by now."""
CLOCK_CODES: Final = ("clock-rollback", "not-yet-valid", "expired")
"""Refusals that the portal's time may resolve, until it has given a time since boot."""


@dataclass
class Outcome:
    """What one attempt achieved, even if it failed later."""

    lease: Lease | None = None
    """The new lease; None if none was due or none arrived."""
    anchor: Anchor | None = None
    """The lease's time, tied to the moment it arrived; None if it cannot be used as a clock."""


class Renewal:
    """Enrolls if it may, and renews in time."""

    def __init__(
        self,
        guard: Guard,
        *,
        clock: Clock,
        log: Callable[[str], None],
        connect: Callable[[str], Fetch],
        code: str | None = None,
        keyset: Path | None = None,
        wait: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Set up; nothing is sent yet.

        `connect` returns the connection to the portal at an origin. `code` enrolls a router that is
        not enrolled yet. `keyset` is remembered for later commands.
        """
        self._policy = guard.policy
        self._guard = guard
        self._store = guard.leases
        self._clock = clock
        self._log = log
        self._connect = connect
        self._code = code
        self._keyset = keyset
        self._wait = wait
        self._asked = asyncio.Event()
        self._told: str | None = None
        self._license: Verified[License] | None = None
        self._ask_at: int | None = None
        self._rests_until = 0
        self._keys_rest_until = 0
        interval = self._policy.recheck_interval_s
        self._ask_every_s = min(max(interval, ASK_S[0]), ASK_S[1])

    def wake(self) -> None:
        """Ask now, whether or not anything is due."""
        self._asked.set()

    async def run(self) -> None:
        """Renew whenever it is due, until cancelled."""
        while True:
            await self.look()
            await pause(self._wait(POLL_S), self._asked)

    async def look(self) -> None:
        """Make at most one attempt at whatever is due."""
        decision, trust = self._guard.decision, self._guard.keysets.trust
        license_ = self._known_license(decision)
        if license_ is None or license_.document.mode != "lease" or trust is None:
            return
        now = self._guard.now()
        asked = self._asked.is_set()
        self._asked.clear()
        grounds = Grounds(
            license_,
            trust,
            now,
            bundle_version=self._bundle_version(license_.document),
            usage=self._usage(license_),
            periods=self._periods(license_.document),
            clock=self._clock,
        )
        why = decision.cause
        if why in CLOCK_CODES and self._guard.is_anchored:
            why = None
        try:
            outcome = await asyncio.to_thread(self._attempt, grounds, why, asked)
        except StoreInUse:
            # A command is using the directory.
            await self._wait(POLL_S)
            if asked:
                self._asked.set()
            return
        if outcome.anchor is not None:
            await self._guard.vouched(outcome.anchor)

    def _known_license(self, decision: Decision) -> Verified[License] | None:
        """Return the license to name in requests: the last genuine one, in use or not."""
        if decision.license is not None:
            self._license = decision.license
        state, trust = self._guard.state, self._guard.keysets.trust
        if self._license is None and trust is not None and state is not None and state.last_valid:
            self._license = examine_license(
                state.last_valid.data,
                # It is asked with, not served: also where its key has been compromised since.
                RememberedTrust(trust.issuer, trust.version),
                self._guard.now(),
            ).verified
        return self._license

    def _usage(self, license_: Verified[License]) -> Usage | None:
        state, leased = self._guard.state, self._guard.lease_state
        if state is None:
            return None
        return usage_of(state, license_, None if leased is None else leased.held())

    def _periods(self, license_: License) -> Mapping[str, int]:
        state = self._guard.state
        return {} if state is None else state.periods.get(license_.deployment_id, {})

    def _bundle_version(self, license_: License) -> int:
        state = self._guard.state
        memory = None if state is None else state.bundles.get(license_.iss)
        return 0 if memory is None else memory.version

    # On a thread.

    def _attempt(self, grounds: Grounds, cause: str | None, asked: bool) -> Outcome:
        """Do what is due while holding the lease directory; store and log what goes wrong.

        Raises:
            StoreInUse: a command holds the directory.
        """
        outcome = Outcome()
        try:
            state = self._store.load()
            if not asked and not self._is_due(state, grounds, cause):
                return outcome
            with self._store.locked(create=True) as store:
                try:
                    self._work(store, grounds, cause, asked, outcome)
                except (RouterError, LicensingError, OSError) as error:
                    self._failed(store, error, grounds.at)
        except StoreInUse:
            raise
        except (RouterError, OSError) as error:
            self._tell(f"the lease directory cannot be used: {error}")
        return outcome

    def _is_due(self, state: LeaseState, grounds: Grounds, cause: str | None) -> bool:
        now = grounds.at
        if state.releasing is not None or state.released is not None:
            return False
        if now < (state.put_off_until(now) or 0) or self._clock.boottime() < self._rests_until:
            return False
        if state.lease is None:
            if self._code is None:
                self._tell(
                    "the license is in lease mode and this router is not enrolled: run "
                    f"router-license enroll --state-dir {self._store.directory}"
                )
            return self._code is not None
        by_keys = cause in (*KEY_CODES, ENDED_KEY)
        by_keys = by_keys and self._clock.boottime() >= self._keys_rest_until
        return (
            by_keys
            or cause in CLOCK_CODES
            or self._renewal_due(state, grounds)
            or self._license_due(now)
        )

    def _renewal_due(self, state: LeaseState, grounds: Grounds) -> bool:
        due, held = state.due_at(grounds.at), state.held()
        if due is None or held is None:
            return False
        return grounds.at >= due or held.license_sha256 != grounds.license.payload_sha256

    def _license_due(self, now: int) -> bool:
        """Return whether to ask for the current license; also true after a clock jumped back."""
        ask_at = self._ask_at
        return ask_at is None or not ask_at - self._ask_every_s <= now < ask_at

    def _work(
        self,
        store: LeaseStore,
        grounds: Grounds,
        cause: str | None,
        asked: bool,
        outcome: Outcome,
    ) -> None:
        state = store.load()
        fetch = self._connect(grounds.origin)
        if state.releasing is not None or state.released is not None:
            return
        if state.lease is None:
            if self._code is None:
                return
            outcome.lease, grounds = self._enroll(store, grounds, self._code, fetch)
        else:
            if cause in (*KEY_CODES, ENDED_KEY):
                # Where the portal has nothing newer, asking at once again is no use.
                self._keys_rest_until = self._clock.boottime() + ASK_S[0]
                grounds = self._fetch_keyset(grounds, fetch)
            renews = asked or cause in (*CLOCK_CODES, ENDED_KEY)
            if renews or self._renewal_due(state, grounds):
                outcome.lease, grounds = self._renew(store, grounds, fetch)
        state = store.load()
        if outcome.lease is not None:
            if state.failures == 0:
                outcome.anchor = anchor_at(outcome.lease.issued_at, self._clock)
            self._note_place(store, state)
        held = state.held()
        assert held is not None
        if held.keyset_version > (grounds.trust.version or 0):
            grounds = self._fetch_keyset(grounds, fetch)
        if held.bundle_version > grounds.bundle_version:
            self._fetch_bundle(grounds, fetch)
        if outcome.lease is not None or self._license_due(grounds.at):
            self._fetch_license(store, grounds, fetch)
            self._ask_at = grounds.at + self._ask_every_s
        state = store.load()
        if state.trouble is not None:
            # The failure before was not a renewal, and it is resolved now.
            store.save(
                replace(state, failures=0, next_try_at=None, trouble=None, trouble_detail=None)
            )
        self._recovered()

    def _enroll(
        self, store: LeaseStore, grounds: Grounds, code: str, fetch: Fetch
    ) -> tuple[Lease, Grounds]:
        enrollment = Enrollment(
            code,
            fingerprint=self._policy.instance_fingerprint or None,
            license_path=self._policy.path,
            keyset_path=self._keyset,
        )

        def ask(grounds: Grounds) -> Lease:
            return enroll(store, grounds, enrollment, fetch)

        lease, grounds = self._with_keys(grounds, fetch, ask)
        self._log(f"enrolled as {lease.instance_id}")
        return lease, grounds

    def _with_keys(
        self, grounds: Grounds, fetch: Fetch, ask: Callable[[Grounds], Lease]
    ) -> tuple[Lease, Grounds]:
        """Ask; if a key is unknown, fetch a newer keyset and ask once more."""
        try:
            return ask(grounds), grounds
        except LicensingError as error:
            if error.code not in KEY_CODES:
                raise
        grounds = self._fetch_keyset(grounds, fetch)
        return ask(grounds), grounds

    def _renew(self, store: LeaseStore, grounds: Grounds, fetch: Fetch) -> tuple[Lease, Grounds]:
        lease, grounds = self._with_keys(
            grounds, fetch, lambda grounds: renew(store, grounds, fetch)
        )
        if lease.status != "active":
            self._log(f"the portal says: {lease.status} ({lease.reason or 'no reason given'})")
        return lease, grounds

    def _note_place(self, store: LeaseStore, state: LeaseState) -> None:
        """Remember where the state file is, for commands that report usage."""
        place = str(self._policy.state_path.absolute())
        if state.state_path != place:
            store.save(replace(state, state_path=place))

    def _fetch_keyset(self, grounds: Grounds, fetch: Fetch) -> Grounds:
        """Switch to the portal's keyset if it is newer and trusted."""
        held = self._guard.keysets.held
        if held is None:
            return grounds

        def version(number: int) -> bytes:
            return _get(fetch, f"/v1/keysets/{number}.json", MAX_KEYSET_BYTES)

        data = _get(fetch, "/v1/keyset.json", MAX_KEYSET_BYTES)
        if take_update(self._store.directory, data, held, grounds.at, version) is None:
            return grounds
        self._guard.keysets.read(grounds.at)
        trust = self._guard.keysets.trust
        if trust is None:
            return grounds
        self._log(f"the keyset is now version {trust.version}")
        return replace(grounds, trust=trust)

    def _fetch_bundle(self, grounds: Grounds, fetch: Fetch) -> None:
        data = _get(fetch, "/v1/revocations/bundle.json", MAX_BUNDLE_BYTES)
        verified = verify_bundle(data, grounds.trust, grounds.at, require_current=False)
        if verified.document.version > grounds.bundle_version:
            write_atomically(self._store.directory / BUNDLE_FILE, data)

    def _fetch_license(self, store: LeaseStore, grounds: Grounds, fetch: Fetch) -> None:
        """Store the deployment's current license unless its revision is lower than ours."""
        data = fetch_license(store, grounds, fetch)
        path = store.directory / LICENSE_FILE
        if data != read_at_most(path, MAX_BYTES) and newer_license(data, grounds):
            write_atomically(path, data)

    def _failed(self, store: LeaseStore, error: Exception, at: int) -> None:
        code, detail = describe_failure(error)
        waits = error.retry_after_s if isinstance(error, Refused | Unreachable) else None
        try:
            store.save(store.load().failed(code, detail, at, waits))
        except RouterError as unkept:
            # The disk is full, or the directory is damaged.
            self._rests_until = self._clock.boottime() + BACKOFF_S[0]
            code, detail = describe_failure(unkept)
        self._tell(f"the lease was not renewed: {detail} [{code}]", code)

    def _tell(self, message: str, subject: str | None = None) -> None:
        """Log a condition once, not every time it is still true."""
        if self._told != (subject or message):
            self._told = subject or message
            self._log(f"warning: {message}")

    def _recovered(self) -> None:
        if self._told is not None:
            self._told = None
            self._log("the portal answers, and the lease is renewed as planned")


def _get(fetch: Fetch, path: str, max_bytes: int) -> bytes:
    return require_answer(fetch(path, None, max_bytes), 200, max_bytes)


def describe_failure(error: Exception) -> tuple[str, str]:
    """Return the code and the message of a failure."""
    if isinstance(error, LicensingError):
        return error.code, error.detail
    if isinstance(error, Refused):
        return error.code, f"{error.message} {error.next_action}"
    if isinstance(error, RouterError):
        return error.code, error.message
    return "io", str(error)
