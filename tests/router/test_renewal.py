"""The guard and the renewal against the real portal: what it gives is what they take."""

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest

from devtools.sequences.stateful import sign
from devtools.simulator import Simulator
from devtools.vectors.keys import LEASE
from licensing.envelope import Envelope
from licensing.errors import Expired
from licensing.lease import Lease
from licensing.license import Budget, RevocationTerms
from portal.services.keys import published_keyset, unix
from router.config import parse_config
from router.documents.keysets import take_update
from router.lease.store import BUNDLE_FILE, LICENSE_FILE
from router.network.agent import best_grounds, read_grounds
from router.network.fetch import Answer, HttpFetch
from router.network.renewal import Renewal
from router.serve.guard import Guard
from tests.fakes import FakeClock
from tests.router.papers import AT, DAY_S, EXPIRES_AT, Vendor, identifier
from tests.router.site import COMMAND, Site, Ticks

CONFIG = b"""
server:
  listen: 127.0.0.1:8080
  license: {path: license.json, state_path: state/license-state.json}
"""


@dataclass
class Router:
    """A router over a simulated portal, one request at a time."""

    directory: Path
    ticks: Ticks = field(default_factory=lambda: Ticks(time=AT))
    delay_s: int = 0
    """How long each answer but an enrollment's takes."""
    asked: list[str] = field(default_factory=list)
    signed_away: dict[str, Any] = field(default_factory=dict)
    """What whoever holds the lease key has changed in each lease that comes."""

    def __post_init__(self) -> None:
        self.portal = Simulator(lambda: self.ticks.time)
        (self.directory / "license.json").write_bytes(self.portal.license)
        (self.directory / "keyset.json").write_bytes(self.portal.keyset)
        config = parse_config(CONFIG, self.directory)
        keyset = self.directory / "keyset.json"
        self.guard = Guard(config, keyset, clock=self.ticks, log=lambda _: None)
        self.renewal = Renewal(
            self.guard,
            clock=self.ticks,
            log=lambda _: None,
            connect=lambda origin: self.fetch,
            code=self.portal.code(),
        )

    def fetch(self, path: str, body: bytes | None, max_bytes: int = 0) -> Answer:
        """Ask the portal."""
        self.asked.append(path)
        answer = self.portal.handle("GET" if body is None else "POST", path, body or b"")
        if path != "/v1/enrollments":
            self.ticks.pass_by(self.delay_s)
        body = answer.body
        if self.signed_away and path == "/v1/leases" and answer.status == 200:
            lease = Lease.parse(Envelope.parse(body).payload)
            body = sign(msgspec.structs.replace(lease, **self.signed_away), LEASE)
        return Answer(answer.status, answer.content_type, body)


def test_a_router_lives_with_the_real_portal(site: Site, clock: FakeClock, tmp_path: Path) -> None:
    assert site.license.envelope is not None
    (tmp_path / "license.json").write_bytes(site.license.envelope)
    with site.transactions.reading(COMMAND) as context:
        (tmp_path / "keyset.json").write_bytes(published_keyset(context).envelope)
        ticks = Ticks(time=unix(context.at))
    said: list[str] = []

    async def live() -> None:
        config = parse_config(CONFIG, tmp_path)
        guard = Guard(config, tmp_path / "keyset.json", clock=ticks, log=said.append)
        renewal = Renewal(
            guard,
            clock=ticks,
            log=said.append,
            connect=lambda origin: HttpFetch(site.network.url),
            code=site.code,
        )
        assert not (await guard.check()).serving
        for seq in (1, 2, 3):
            await renewal.look()
            decision = await guard.check()
            assert decision.serving, said
            state = guard.leases.load()
            lease = state.held()
            assert lease is not None
            assert (lease.seq, state.trouble) == (seq, None)
            assert guard.is_anchored
            await renewal.look()
            clock.advance(hours=12)
            ticks.pass_by(DAY_S // 2)
        directory = guard.leases.directory
        assert (directory / LICENSE_FILE).read_bytes() == site.license.envelope
        assert lease is not None
        assert (directory / BUNDLE_FILE).is_file() is (lease.bundle_version > 0)
        await guard.close()

    asyncio.run(live())
    assert site.portal_holds() == ([1, 2, 3], 0)


def test_a_key_nobody_knows_is_not_asked_for_again_and_again(tmp_path: Path) -> None:
    router = Router(tmp_path)

    async def live() -> None:
        await router.guard.check()
        await router.renewal.look()
        assert (await router.guard.check()).serving
        # Somebody installs a license that no key of the keyset signed.
        stranger = Vendor("a stranger").license(deployment_id=identifier("dep", 5))
        (tmp_path / "license.json").write_bytes(stranger)
        (router.guard.leases.directory / LICENSE_FILE).unlink()
        router.asked.clear()
        for _ in range(30):
            router.ticks.pass_by(1)
            assert (await router.guard.check()).cause == "untrusted-key"
            await router.renewal.look()
        assert router.asked.count("/v1/keyset.json") == 1
        await router.guard.close()

    asyncio.run(live())


def test_a_second_budget_in_one_period_leaves_the_lease_at_hand(tmp_path: Path) -> None:
    """The running router knows since when the period's budget has been in use."""
    router = Router(tmp_path)
    router.portal.issue(ext={"budget_period_s": DAY_S})
    (tmp_path / "license.json").write_bytes(router.portal.license)

    async def renewed(number: int) -> str:
        """Let a lease with this budget come; return the budget that counts then."""
        budget = Budget(budget_id=identifier("bud", number), tokens_total=1000)
        router.signed_away = {"budget": budget}
        router.renewal.wake()
        await router.renewal.look()
        decision = await router.guard.check()
        assert decision.serving
        assert decision.terms is not None
        assert decision.terms.budget is not None
        return decision.terms.budget.budget_id

    async def live() -> None:
        await router.guard.check()
        await router.renewal.look()
        assert (await router.guard.check()).serving
        assert await renewed(2) == identifier("bud", 2)
        router.ticks.pass_by(DAY_S - 1)
        assert await renewed(3) == identifier("bud", 2)
        assert router.guard.leases.load().trouble == "lease-rejected"
        router.ticks.pass_by(1)
        assert await renewed(3) == identifier("bud", 2), "the answer is fresh, and says it is not"
        router.ticks.pass_by(60)
        assert await renewed(3) == identifier("bud", 3)
        await router.guard.close()

    asyncio.run(live())


def test_the_time_a_lease_tells_is_that_of_the_moment_it_came(tmp_path: Path) -> None:
    """What is fetched after the lease may take long; the clock does not lose that time."""
    router = Router(tmp_path, delay_s=29)

    async def live() -> None:
        await router.guard.check()
        await router.renewal.look()
        assert router.ticks.time == AT + 2 * 29
        assert router.guard.is_anchored
        assert router.guard.now() == router.ticks.time
        await router.guard.close()

    asyncio.run(live())


def test_a_keyset_older_than_one_in_use_is_mended_by_the_portal(tmp_path: Path) -> None:
    router = Router(tmp_path)

    async def live() -> None:
        await router.guard.check()
        router.portal.rotate()
        await router.renewal.look()
        assert (await router.guard.check()).serving
        kept = router.guard.leases.directory / "keyset-2.json"
        kept.unlink()
        decision = await router.guard.check()
        assert (decision.reason, decision.cause) == ("license-superseded", "rolled-back")
        await router.renewal.look()
        assert kept.is_file()
        assert (await router.guard.check()).serving
        await router.guard.close()

    asyncio.run(live())


def test_a_lease_outlives_the_keysets_that_follow_it(tmp_path: Path) -> None:
    """The simulated portal keeps publishing the key a held lease was signed with."""
    router = Router(tmp_path)

    async def live() -> None:
        await router.guard.check()
        await router.renewal.look()
        router.portal.rotate()
        router.ticks.pass_by(DAY_S)
        await router.guard.check()
        await router.renewal.look()
        lease = router.guard.leases.load().held()
        assert lease is not None
        assert lease.seq == 2
        for _ in range(4):
            router.portal.rotate()
        held, directory = router.guard.keysets.held, router.guard.leases.directory
        assert held is not None
        assert take_update(directory, router.portal.keyset, held, router.ticks.time, _no_version)
        assert (await router.guard.check()).serving
        await router.guard.close()

    asyncio.run(live())


def _no_version(version: int) -> bytes:
    raise AssertionError(f"version {version} is not needed")


@pytest.mark.parametrize("at", [AT, EXPIRES_AT])
def test_a_lease_is_asked_for_before_the_bundle_its_license_needs_is_there(at: int) -> None:
    """The bundle comes with the lease."""
    vendor = Vendor()
    needs = RevocationTerms(require_current_bundle=True, min_version=0)
    data = vendor.leased(revocation=needs)
    assert best_grounds(data, data, vendor.trust(), at, None).license.document.mode == "lease"
    if at == AT:
        assert read_grounds(data, vendor.trust(), at, None)
    else:
        with pytest.raises(Expired):
            read_grounds(data, vendor.trust(), at, None)
