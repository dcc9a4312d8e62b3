"""Keeps the decision current: at startup, at intervals, on SIGHUP and when a watched file changes.

Invariants: there is one published `Decision`, replaced as a whole; reading it needs no lock and no
I/O. What a decision changes in the state goes to the journal before the decision is published. A
decision ends on time by itself (`Decision.at`), however late the next check is. The clock and the
waiting are passed in.

Source: "What it decides, when" of the router's design.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

from licensing.envelope import MAX_BUNDLE_BYTES, MAX_BYTES
from router.clock import WALL_TOLERANCE_S, Clock, present
from router.config import Config, LicenseConfig
from router.documents.decision import Decision, Evidence, blocked, decide, state_invalid
from router.documents.keysets import Keysets
from router.errors import StateError
from router.files import read_at_most
from router.lease.identity import load_identity
from router.lease.store import BUNDLE_FILE, LICENSE_FILE, LeaseState, LeaseStore
from router.state.journal import Journal, JournalBlocked
from router.state.store import Anchor, State, StateFile, StateInvalid

POLL_S: Final = 0.5
"""How often to check the watched files."""
FLOOR_S: Final = 60
"""How often the largest instant seen while serving is made durable."""

WALL_OFF: Final = "the wall clock differs from the portal's time by more than 300 s: set it"

Signature = tuple[int, int, int] | None


class Guard:
    """Judges the license repeatedly and holds the latest decision."""

    def __init__(
        self,
        config: Config,
        keyset: Path,
        *,
        offered: Path | None = None,
        clock: Clock,
        log: Callable[[str], None],
        wait: Callable[[float], Awaitable[None]] = asyncio.sleep,
        migrate: bool = False,
    ) -> None:
        self.policy = config.server.license
        """How the license is enforced."""
        self._seats = len(config.callers)
        self._clock = clock
        self.leases = LeaseStore(lease_directory(self.policy))
        """The lease directory; it does not exist offline."""
        self.lease_state: LeaseState | None = None
        """The lease directory's state as of the last check."""
        self._keysets = Keysets(keyset, self.leases.directory, log, offered)
        self._log = log
        self._wait = wait
        self._migrate = migrate
        self._file = StateFile(self.policy.state_path)
        self._journal: Journal | None = None
        self._decision = blocked("license-invalid", "not-checked", clock.wall())
        self._signatures: tuple[Signature, ...] = ()
        self._woken = asyncio.Event()
        self.works_by_lease = asyncio.Event()
        """Set once a license in lease mode was seen."""
        self._due_at = 0
        self._seen_at = 0
        self._floor_failed = False
        self._told: tuple[object, ...] = ()

    @property
    def decision(self) -> Decision:
        """The decision at this second."""
        return self._decision.at(self.now())

    def now(self) -> int:
        """Return `now` as Unix time; `clock.py` says what it is."""
        state = self.state
        return present(None if state is None else state.time.anchor, self._clock)

    @property
    def is_anchored(self) -> bool:
        """Whether the portal vouched for the time since the kernel booted."""
        anchor = None if self.state is None else self.state.time.anchor
        return anchor is not None and anchor.boot_id == self._clock.boot_id

    @property
    def keysets(self) -> Keysets:
        """The keyset in use."""
        return self._keysets

    @property
    def journal(self) -> Journal | None:
        """The journal that spends tokens; None while the state cannot be trusted."""
        return self._journal

    @property
    def state(self) -> State | None:
        """The present state; None while it cannot be trusted."""
        return None if self._journal is None else self._journal.state

    @property
    def next_check_at(self) -> int:
        """When the next check is due at the latest (Unix time)."""
        return self._due_at

    def wake(self) -> None:
        """Check now."""
        self._woken.set()

    async def check(self) -> Decision:
        """Judge the files as they are now, make the state durable and publish the decision.

        Raises:
            StateError: another process holds the state, or its directory cannot be used.
        """
        self._woken.clear()
        self._signatures = await asyncio.to_thread(self._look)
        opened = self._open_state()
        now = self._seen_at = self.now()
        self._due_at = now + self.policy.recheck_interval_s
        if not opened:
            return self._publish(state_invalid(self.policy, now))
        assert self._journal is not None
        seen = await asyncio.to_thread(self._read, now)
        found: list[Decision] = []

        def transition(state: State) -> State:
            decision, after = decide(self.policy, state, seen, seats=self._seats)
            found.append(decision)
            return after

        try:
            await self._journal.update(transition)
        except JournalBlocked as error:
            # It counts in this process; the journal spends nothing until it is durable.
            self._log(error.message)
        decision = found[-1]
        if abs(self._clock.wall() - now) > WALL_TOLERANCE_S:
            decision = replace(decision, warnings=(*decision.warnings, WALL_OFF))
        changes = [self._due_at, decision.ends_at, decision.recheck_at]
        self._due_at = min(at for at in changes if at is not None and at > now)
        return self._publish(decision)

    async def run(self) -> None:
        """Check whenever there is a reason to, until cancelled."""
        while True:
            await pause(self._wait(POLL_S), self._woken)
            now = self.now()
            if (
                self._woken.is_set()
                or now >= self._due_at
                # If the clock was set back, planned moments are meaningless.
                or now < self._seen_at
                or await asyncio.to_thread(self._look) != self._signatures
            ):
                await self.check()
            else:
                await self._pass_time(now)

    async def _pass_time(self, now: int) -> None:
        self._seen_at = now
        state = self.state
        if state is not None and now >= state.time.wall_floor + FLOOR_S:
            await self._raise_floor(now)

    async def _raise_floor(self, now: int) -> None:
        """Record durably that the router served at this instant."""
        if self._journal is None or not self._decision.at(now).serving:
            return
        try:
            await self._journal.update(lambda state: state.now_seen(now))
        except JournalBlocked as error:
            if not self._floor_failed:
                self._log(error.message)
            self._floor_failed = True
        else:
            self._floor_failed = False

    async def vouched(self, anchor: Anchor) -> None:
        """Set the clock to an instant that the portal vouched for."""
        if self._journal is None:
            return
        try:
            await self._journal.update(lambda state: state.anchored(anchor))
        except JournalBlocked as error:
            self._log(error.message)
        self.wake()

    async def close(self) -> None:
        """Fold the journal and release the state file."""
        if self._journal is not None:
            await self._raise_floor(self.now())
            await self._journal.close()
        self._file.close()

    def _publish(self, decision: Decision) -> Decision:
        self._decision = decision
        if decision.facts.get("mode") == "lease":
            self.works_by_lease.set()
        license_id = decision.facts.get("license_id")
        told = (decision.status, decision.reason, decision.cause, license_id, decision.warnings)
        if told != self._told:
            self._told = told
            words = [f"license {decision.status}"]
            words += [f"{decision.reason} ({decision.cause})"] if decision.reason else []
            words += [str(license_id)] if license_id else []
            self._log(", ".join(words))
            for warning in decision.warnings:
                self._log(f"warning: {warning}")
        return decision

    def _open_state(self) -> bool:
        """Return whether the state can be trusted; open it first if it is not open yet."""
        if self._journal is not None:
            return True
        try:
            state = self._file.open(migrate=self._migrate)
            self._journal = Journal.open(self._file, present(state.time.anchor, self._clock))
        except StateInvalid as error:
            self._file.close()
            self._log(error.message)
            return False
        return True

    # On a thread.

    def _watched(self) -> tuple[Path, ...]:
        # A file that is renamed into the lease directory changes the directory.
        paths = [self.policy.path, self._keysets.base, self.leases.directory]
        if self.policy.revocation.mode == "file" and self.policy.revocation.path is not None:
            paths.append(self.policy.revocation.path)
        return tuple(paths)

    def _look(self) -> tuple[Signature, ...]:
        return tuple(_signature(path) for path in self._watched())

    def _read(self, now: int) -> Evidence:
        self._keysets.read(now)
        bundle = self.policy.revocation.path if self.policy.revocation.mode == "file" else None
        seen = Evidence(
            now=now,
            license=read_at_most(self.policy.path, MAX_BYTES),
            trust=self._keysets.trust,
            keyset_readable=self._keysets.readable,
            keyset_error=self._keysets.error,
            bundle=None if bundle is None else read_at_most(bundle, MAX_BUNDLE_BYTES),
        )
        if not self.leases.directory.is_dir():
            self.lease_state = LeaseState(secret="")
            return seen
        return self._read_lease(seen)

    def _read_lease(self, seen: Evidence) -> Evidence:
        directory = self.leases.directory
        seen = replace(
            seen,
            fetched_license=read_at_most(directory / LICENSE_FILE, MAX_BYTES),
            fetched_bundle=read_at_most(directory / BUNDLE_FILE, MAX_BUNDLE_BYTES),
        )
        try:
            state, identity = self.leases.load(), load_identity(directory)
        except StateError as error:
            self._log(f"the lease cannot be read: {error.message}")
            self.lease_state = None
            return replace(seen, lease_problem="lease-unreadable")
        self.lease_state = state
        problem = None
        if state.released is not None:
            problem = "lease-released"
        elif state.lease is not None and identity is None:
            problem = "instance-key-missing"
        return replace(
            seen,
            lease=None if state.lease is None else state.lease.encode(),
            instance_keyid=None if identity is None else identity.keyid,
            lease_problem=problem,
        )


async def pause(wait: Awaitable[None], woken: asyncio.Event) -> None:
    """Wait for `wait`, or until woken."""
    tasks = [asyncio.ensure_future(wait), asyncio.ensure_future(woken.wait())]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def lease_directory(policy: LicenseConfig) -> Path:
    """Return the lease directory: beside the state file, unless configured."""
    return policy.lease.state_dir or policy.state_path.parent / "lease"


def _signature(path: Path) -> Signature:
    """Return a value that changes when the file does."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino, status.st_size
