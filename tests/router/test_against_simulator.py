"""A router in lease mode through whatever a network, a clock and a portal can do to it.

The real guard and the real renewal, over the simulated portal. What must hold at every moment:

- no false fork: the chain never forks, since there is one router;
- no two live leases: the portal knows one instance, and its newest lease is the only one;
- no service at or after `grace_until_at`;
- no outage while a lease holds.
"""

import asyncio
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from devtools.simulator import FAULTS, Faults, Simulator
from licensing.lease import Lease
from licensing.license import Budget
from router.config import parse_config
from router.documents.decision import Decision
from router.errors import Unreachable
from router.network.fetch import Answer
from router.network.renewal import Renewal
from router.serve.guard import Guard
from tests.router.papers import AT, DAY_S, identifier
from tests.router.site import Ticks
from tests.spread import examples

pytestmark = pytest.mark.slow

CONFIG = b"""
server:
  listen: 127.0.0.1:8080
  license: {path: license.json, state_path: state/license-state.json}
"""


class World(RuleBasedStateMachine):
    """One router, one portal, one time that really goes by."""

    def __init__(self) -> None:
        super().__init__()
        self.place = tempfile.TemporaryDirectory()
        self.directory = Path(self.place.name)
        self.runner = asyncio.Runner()
        self.time = AT
        self.ticks = Ticks(time=AT)
        self.portal = Simulator(lambda: self.time)
        self.network = Faults(self.portal)
        self.latency_s = 0
        self.kept = self.portal.backup()
        self.said: list[str] = []
        self.anchored = False
        """Whether the portal told the time since the machine started."""
        (self.directory / "license.json").write_bytes(self.portal.license)
        (self.directory / "keyset.json").write_bytes(self.portal.db.keysets[0])
        self.config = parse_config(CONFIG, self.directory)
        self.code: str | None = self.portal.code()

    def teardown(self) -> None:
        """Clean up."""
        self.runner.run(self.guard.close())
        self.runner.close()
        self.place.cleanup()

    def fetch(self, path: str, body: bytes | None, max_bytes: int = 0) -> Answer:
        """Carry one request there, and what comes back."""
        self.pass_by(self.latency_s // 2)
        answer = self.network.handle("GET" if body is None else "POST", path, body or b"")
        self.pass_by(self.latency_s - self.latency_s // 2)
        if answer is None:
            raise Unreachable("nothing came back")
        waits = answer.headers.get("Retry-After")
        return Answer(answer.status, answer.content_type, answer.body, waits)

    def pass_by(self, seconds: int) -> None:
        """Let time go by."""
        self.time += seconds
        self.ticks.pass_by(seconds)

    def start(self) -> None:
        """Start the router's process."""
        self.guard = Guard(
            self.config,
            self.directory / "keyset.json",
            clock=self.ticks,
            log=self.said.append,
        )
        self.renewal = Renewal(
            self.guard,
            clock=self.ticks,
            log=self.said.append,
            connect=lambda origin: self.fetch,
            code=self.code,
        )
        self.runner.run(self.guard.check())

    def look(self) -> Decision:
        """Let guard and renewal do what is due."""
        self.runner.run(self.guard.check())
        before = self.held()
        self.runner.run(self.renewal.look())
        lease = self.held()
        if lease is not None and lease != before and self.guard.leases.load().failures == 0:
            self.anchored = True
        return self.runner.run(self.guard.check())

    @property
    def clock_is_known(self) -> bool:
        """Whether the router can know the time: by the portal, or by its wall clock."""
        return self.anchored or self.ticks.time == self.time

    def held(self) -> Lease | None:
        """Return the lease at hand."""
        return self.guard.leases.load().held()

    @initialize()
    def begin(self) -> None:
        """Start and enroll."""
        self.start()
        assert self.look().serving

    @rule(seconds=st.integers(1, 3 * DAY_S), looks=st.integers(0, 4))
    def time_goes_by(self, seconds: int, looks: int) -> None:
        """Awake or suspended; now and then the router looks."""
        for _ in range(looks + 1):
            self.pass_by(seconds // (looks + 1))
            if looks:
                self.look()

    @rule(names=st.lists(st.sampled_from(sorted(FAULTS)), min_size=1, max_size=4))
    def things_fail(self, names: list[str]) -> None:
        """The next requests meet these faults."""
        self.network.queue.extend(names)

    @rule(seconds=st.integers(0, 150))
    def the_network_slows(self, seconds: int) -> None:
        """Answers take so long from now on."""
        self.latency_s = seconds

    @rule(seconds=st.integers(-10 * DAY_S, 10 * DAY_S))
    def somebody_sets_the_clock(self, seconds: int) -> None:
        """The wall clock jumps."""
        self.ticks.time += seconds

    @rule(boots=st.booleans())
    def the_router_restarts(self, boots: bool) -> None:
        """The process ends and starts, or the machine does."""
        self.runner.run(self.guard.close())
        if boots:
            self.ticks.reboot()
            self.anchored = False
        self.start()

    @rule()
    def the_clock_is_set_right(self) -> None:
        """Somebody sets the wall clock to the time."""
        self.ticks.time = self.time

    @rule()
    def the_portal_is_backed_up(self) -> None:
        """A backup is taken."""
        self.kept = self.portal.backup()

    @precondition(lambda self: self.kept.instances)
    @rule()
    def the_portal_is_restored(self) -> None:
        """The database goes back to the backup."""
        self.portal.restore(self.kept)

    @rule(held=st.booleans())
    def staff_hold_the_deployment(self, held: bool) -> None:
        """Put on hold, or lifted."""
        self.portal.hold(held=held)

    @rule(number=st.integers(1, 10**6))
    def the_customer_tops_up(self, number: int) -> None:
        """A license of higher revision with a new budget."""
        self.portal.issue(
            budget=Budget(budget_id=identifier("bud", number), tokens_total=1000),
            expires_at=self.time + 30 * DAY_S,
        )

    @rule(roots=st.booleans())
    def keys_rotate(self, roots: bool) -> None:
        """A new keyset with a new lease key."""
        self.portal.rotate(roots=roots)

    @invariant()
    def the_chain_never_forks(self) -> None:
        """One router makes one chain."""
        assert [act for act, _ in self.portal.log if act == "forked"] == []
        lease = self.guard.leases.load().held() if hasattr(self, "guard") else None
        assert lease is None or lease.clone_warning is None

    @invariant()
    def one_instance_is_live(self) -> None:
        """It enrolled once, and its newest lease is the only one."""
        assert len(self.portal.db.instances) <= 1
        assert sum(act == "enrolled" for act, _ in self.portal.log) <= 1

    @invariant()
    def service_follows_the_lease(self) -> None:
        """Not a second after it, and never less than it."""
        if not hasattr(self, "guard"):
            return
        decision, lease, now = self.guard.decision, self.held(), self.guard.now()
        if decision.serving:
            assert lease is not None
            assert lease.serves(now)
            if self.clock_is_known:
                assert abs(now - self.time) <= 300
        if lease is None or not self.clock_is_known:
            return
        fresh = self.runner.run(self.guard.check())
        if lease.serves(self.guard.now()) and self.license_serves(fresh):
            assert fresh.serving, (fresh, self.said)

    def license_serves(self, decision: Decision) -> bool:
        """Whether nothing but the lease could block.

        A wall clock that ran ahead while nobody told the time blocks once it is set back: that is
        mended by the next answer.
        """
        facts: Any = decision.facts
        if decision.reason == "license-clock-rollback" and not self.anchored:
            return False
        return bool(facts) and facts["expires_at"] > self.guard.now()


TestWorld = World.TestCase
TestWorld.settings = settings(
    max_examples=examples(25, 150),
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
