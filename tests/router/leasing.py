"""A router in lease mode as a process of its own, with a portal on loopback that can misbehave."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from devtools.simulator import Simulator
from devtools.simulator.__main__ import Server
from licensing.envelope import Envelope
from licensing.lease import Lease
from licensing.license import License
from licensing.verify import KeysetTrust, verify_keyset
from router.lease.store import LeaseState, LeaseStore
from router.network.agent import Enrollment, enroll, read_grounds, renew
from router.network.fetch import HttpFetch
from tests.router.running import House, house

CODE_VARIABLE = "SMART_LLMROUTER_ENROLLMENT_CODE"


@dataclass
class Leased:
    """One installation in lease mode."""

    house: House
    server: Server

    @property
    def portal(self) -> Simulator:
        """The portal."""
        return self.server.faults.simulator

    @property
    def store(self) -> LeaseStore:
        """The lease directory, where it is by default."""
        return LeaseStore(self.house.state_file.parent / "lease")

    @property
    def state(self) -> LeaseState:
        """What the lease directory remembers."""
        return self.store.load()

    @property
    def lease(self) -> Lease:
        """The lease at hand."""
        lease = self.state.held()
        assert lease is not None
        return lease

    def install(self, **changes: Any) -> License:
        """Put the portal's license and first keyset in place; with changes, a new license."""
        if changes:
            self.portal.issue(**changes)
        self.house.put(self.house.license_file, self.portal.license)
        self.house.put(self.house.keyset_file, self.portal.db.keysets[0])
        return License.parse(Envelope.parse(self.portal.license).payload)

    def enroll(self) -> Lease:
        """Enroll as the command does, before the router runs."""
        with self.store.locked(create=True) as store:
            code = self.portal.code()
            return enroll(store, self._grounds(), Enrollment(code), HttpFetch(self.server.url))

    def renew(self) -> Lease:
        """Renew as the command does."""
        with self.store.locked() as store:
            return renew(store, self._grounds(), HttpFetch(self.server.url))

    def _grounds(self) -> Any:
        at = self.portal.now
        trust = KeysetTrust(verify_keyset(self.portal.keyset, at).document)
        return read_grounds(self.portal.license, trust, at, None)

    def start(self, *, with_code: bool = False) -> None:
        """Start the router; with a code it may enroll itself."""
        self.house.environment = {CODE_VARIABLE: self.portal.code()} if with_code else {}
        self.house.start()

    def start_enrolled(self) -> None:
        """Enroll, start, and wait until the router asked for bundle and license."""
        self.enroll()
        self.start()
        self.wait_until("asked", lambda _: self.server.faults.passed >= 3)

    def cut_off(self) -> None:
        """Let nothing answer from now on."""
        self.house.reachable = (9,)
        self.house.settings["lease"] = {"url": "http://127.0.0.1:9"}

    def wait_until(self, what: str, holds: Any) -> None:
        """Wait until something holds of the admin status.

        Raises:
            AssertionError: it does not within ten seconds.
        """
        pause = threading.Event()
        facts: Any = None
        for _ in range(200):
            facts = self.house.status().json
            if holds(facts):
                return
            pause.wait(0.05)
        raise AssertionError(f"never {what}: {facts}; {self.house.said}")


@contextmanager
def leased(directory: Path, ahead_s: int = 0) -> Iterator[Leased]:
    """Give an installation whose license works by lease; ends whatever runs.

    The portal's clock is so many seconds ahead.
    """
    server = Server(0, directory / "portal", ahead_s)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        with house(directory) as built:
            built.reachable = (int(server.server_address[1]),)
            made = Leased(built, server)
            made.install()
            yield made
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
