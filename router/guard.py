"""Keeps the decision current: at startup, in intervals, on SIGHUP and when a watched file changes.

Invariants: there is one published `Decision`, replaced whole; reading it takes no lock and no I/O.
What a decision changes in the state is given to the journal before the decision is published. A
decision ends to the second by itself (`Decision.at`), however late the next check comes. Time and
waiting are given.

Source: "What it decides, when" of the router's design.
"""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from licensing.envelope import MAX_BUNDLE_BYTES, MAX_BYTES, MAX_KEYSET_BYTES
from licensing.errors import LicensingError, MalformedEnvelope
from licensing.verify import KeysetTrust, verify_keyset
from router.config import Config
from router.decision import Decision, Evidence, blocked, decide, state_invalid
from router.journal import Journal, JournalBlocked
from router.state import State, StateFile, StateInvalid

POLL_S: Final = 0.5
"""How often watched files are looked at."""
LEASES_NOT_HELD: Final = (
    "the license works by lease, and `router-license serve` does not hold leases: "
    "install an offline license"
)

Signature = tuple[int, int, int] | None


class Guard:
    """Judges the license again and again, and holds what came of it."""

    def __init__(
        self,
        config: Config,
        keyset_path: Path,
        *,
        clock: Callable[[], int],
        log: Callable[[str], None],
        wait: Callable[[float], Awaitable[None]] = asyncio.sleep,
        migrate: bool = False,
    ) -> None:
        self._policy = config.server.license
        self._seats = len(config.callers)
        self._keyset_path = keyset_path
        self._clock = clock
        self._log = log
        self._wait = wait
        self._migrate = migrate
        self._file = StateFile(self._policy.state_path)
        self._journal: Journal | None = None
        self._trust: KeysetTrust | None = None
        self._keyset_data: bytes | None = None
        self._decision = blocked("license-invalid", "not-checked", clock())
        self._signatures: tuple[Signature, ...] = ()
        self._woken = False
        self._due_at = 0
        self._told: tuple[object, ...] = ()

    @property
    def decision(self) -> Decision:
        """What holds at this second."""
        return self._decision.at(self._clock())

    @property
    def journal(self) -> Journal | None:
        """What spends tokens; None while the state cannot be trusted."""
        return self._journal

    @property
    def state(self) -> State | None:
        """The present state; None while it cannot be trusted."""
        return None if self._journal is None else self._journal.state

    @property
    def next_check_at(self) -> int:
        """When the next check comes at the latest (Unix time)."""
        return self._due_at

    def wake(self) -> None:
        """Check at the next look."""
        self._woken = True

    async def check(self) -> Decision:
        """Judge what lies there now, make the state durable and publish the decision.

        Raises:
            StateError: another process holds the state, or its directory cannot be used.
        """
        self._woken = False
        self._signatures = await asyncio.to_thread(self._look)
        now = self._clock()
        self._due_at = now + self._policy.recheck_interval_s
        if not self._open_state(now):
            return self._publish(state_invalid(self._policy, now))
        assert self._journal is not None
        seen = await asyncio.to_thread(self._read, now)
        found: list[Decision] = []

        def transition(state: State) -> State:
            decision, after = decide(self._policy, state, seen, seats=self._seats)
            found.append(decision)
            return after

        try:
            await self._journal.update(transition)
        except JournalBlocked as error:
            # It holds in this process; the journal spends nothing until it is durable.
            self._log(error.message)
        decision = found[-1]
        changes = [self._due_at, decision.ends_at, decision.recheck_at]
        self._due_at = min(at for at in changes if at is not None and at > now)
        return self._publish(decision)

    async def run(self) -> None:
        """Check whenever there is a reason to; ends by being cancelled."""
        while True:
            await self._wait(POLL_S)
            if (
                self._woken
                or self._clock() >= self._due_at
                or await asyncio.to_thread(self._look) != self._signatures
            ):
                await self.check()

    async def close(self) -> None:
        """Fold the journal and let go of the state."""
        if self._journal is not None:
            await self._journal.close()
        self._file.close()

    def _publish(self, decision: Decision) -> Decision:
        self._decision = decision
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
            if decision.facts.get("mode") == "lease" and not decision.serving:
                self._log(LEASES_NOT_HELD)
        return decision

    def _open_state(self, now: int) -> bool:
        """Say whether there is a state to trust; opens it where there was none yet."""
        if self._journal is not None:
            return True
        try:
            self._file.open(migrate=self._migrate)
            self._journal = Journal.open(self._file, now)
        except StateInvalid as error:
            self._file.close()
            self._log(error.message)
            return False
        return True

    # On a thread.

    def _watched(self) -> tuple[Path, ...]:
        paths = [self._policy.path, self._keyset_path]
        if self._policy.revocation.mode == "file" and self._policy.revocation.path is not None:
            paths.append(self._policy.revocation.path)
        return tuple(paths)

    def _look(self) -> tuple[Signature, ...]:
        return tuple(_signature(path) for path in self._watched())

    def _read(self, now: int) -> Evidence:
        readable, error = self._read_keyset(now)
        bundle = self._policy.revocation.path if self._policy.revocation.mode == "file" else None
        return Evidence(
            now=now,
            license=_read_file(self._policy.path, MAX_BYTES),
            trust=self._trust,
            keyset_readable=readable,
            keyset_error=error,
            bundle=None if bundle is None else _read_file(bundle, MAX_BUNDLE_BYTES),
        )

    def _read_keyset(self, now: int) -> tuple[bool, LicensingError | None]:
        """Take up the keyset file; what was held stays where the file cannot be read."""
        data = _read_file(self._keyset_path, MAX_KEYSET_BYTES)
        if data is None:
            return False, None
        if data != self._keyset_data or self._trust is None:
            try:
                verified = verify_keyset(data, now)
            except MalformedEnvelope:
                return False, None
            except LicensingError as error:
                self._log(f"the keyset {self._keyset_path}: {error.detail} [{error.code}]")
                return True, error
            self._trust, self._keyset_data = KeysetTrust(verified.document), data
            if now >= verified.document.expires_at:
                self._log("warning: the keyset has expired; fetch the current one")
        return True, None


def wake_on_hangup(guard: Guard, loop: asyncio.AbstractEventLoop) -> None:
    """Check on SIGHUP."""
    loop.add_signal_handler(signal.SIGHUP, guard.wake)


def _read_file(path: Path, max_bytes: int) -> bytes | None:
    """Return a file, one byte more than it may have at most; None where it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(max_bytes + 1)
    except OSError:
        return None


def _signature(path: Path) -> Signature:
    """Return what changes when the file does."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino, status.st_size
