"""Rotation and compromise with three routers, one of them offline: the portal's drills.

The routers are the real guard and renewal, on hosts of their own, and the portal is the real one.
"""

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import select

from licensing.lease import Lease
from portal.db.licenses import License
from portal.domain.errors import Conflict
from portal.services.context import Transactions
from portal.services.downloads import record_download
from portal.services.key_changes import KeyOrder, KeyOutcome, run_order
from portal.services.key_readiness import readiness
from portal.services.keys import published_keyset, role_signers, sign_payload, unix
from portal.services.licenses import issue_pending
from portal.services.lines import follow
from router.config import parse_config
from router.documents.decision import Decision
from router.documents.keysets import keyset_file
from router.network.fetch import HttpFetch
from router.network.renewal import Renewal
from router.serve.guard import Guard
from tests.factories.accounts import make_customer, make_deployment
from tests.factories.instances import make_code
from tests.factories.licenses import issue, make_entitlement
from tests.fakes import FakeClock, MemorySigners
from tests.router.network import Network
from tests.router.site import COMMAND, Ticks

CONFIG = b"""
server:
  listen: 127.0.0.1:8080
  license:
    path: license.json
    state_path: state/license-state.json
    revocation: {mode: file, path: bundle.json}
"""


@dataclass
class Host:
    """One router's machine."""

    directory: Path
    ticks: Ticks
    origin: str | None = None
    """Where its portal is; None: it is offline."""
    code: str | None = None
    said: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.directory.mkdir()

    def put(self, name: str, data: bytes | None) -> None:
        """Bring a file."""
        assert data is not None
        (self.directory / name).write_bytes(data)

    def live(self, times: int = 1) -> Decision:
        """Start, look at everything and ask the portal for what is due, some times; stop."""
        return asyncio.run(self._live(times))

    async def _live(self, times: int) -> Decision:
        config = parse_config(CONFIG, self.directory)
        keyset = self.directory / "keyset.json"
        guard = Guard(config, keyset, clock=self.ticks, log=self.said.append)
        try:
            decision = await guard.check()
            for _ in range(times if self.origin is not None else 0):
                renewal = Renewal(
                    guard,
                    clock=self.ticks,
                    log=self.said.append,
                    connect=lambda _: HttpFetch(self.origin or ""),
                    code=self.code,
                )
                await renewal.look()
                decision = await guard.check()
            return decision
        finally:
            await guard.close()

    @property
    def held(self) -> Lease:
        """Its lease."""
        config = parse_config(CONFIG, self.directory)
        guard = Guard(config, self.directory / "keyset.json", clock=self.ticks, log=print)
        held = guard.leases.load().held()
        assert held is not None
        return held


@dataclass
class Drill:
    """The vendor's side, and the three routers."""

    opened: Transactions
    signers: MemorySigners
    clock: FakeClock
    network: Network
    directory: Path
    acts: int = 0

    def __post_init__(self) -> None:
        self.ticks = Ticks(time=unix(self.clock.now()))
        account, _ = make_customer(self.opened)
        terms: dict[str, Any] = {"sku": "pilot-30d", "limits": {"max_instances": 9}}
        leased = make_deployment(self.opened, account, "leased")
        self.leased = issue(
            self.opened, make_entitlement(self.opened, leased, mode="lease", **terms)
        )
        alone = make_deployment(self.opened, account, "alone")
        self.entitlement = make_entitlement(self.opened, alone, **terms)
        self.alone = issue(self.opened, self.entitlement)
        self.early, self.late = self.host("early"), self.host("late")
        self.offline = self.host("offline", online=False)

    def host(self, name: str, *, online: bool = True) -> Host:
        """Set up one more router."""
        license_ = self.leased if online else self.alone
        made = Host(
            self.directory / name,
            self.ticks,
            self.network.url if online else None,
            make_code(self.opened, license_) if online else None,
        )
        made.put("keyset.json", self.keyset())
        made.put("license.json", license_.envelope)
        assert made.live().serving, made.said
        return made

    def keyset(self) -> bytes:
        """The published keyset."""
        with self.opened.reading(COMMAND) as context:
            return published_keyset(context).envelope

    def run(self, kind: Any, subject: str, **options: Any) -> KeyOutcome:
        """Change a key."""
        self.acts += 1
        order = KeyOrder(f"act_{self.acts}", kind, subject, **options)
        return run_order(self.opened, self.signers, order, COMMAND)

    def key(self, role: str) -> str:
        """The newest key of a role that signs now."""
        with self.opened.reading(COMMAND) as context:
            return role_signers(context, role)[0].keyid

    def reissue(self) -> bytes:
        """Issue the offline router's license once more."""
        with self.opened.writing(COMMAND) as context:
            follow(context, self.alone.deployment_id, key=f"again {self.acts}")
        issue_pending(self.opened, self.alone.deployment_id, COMMAND)
        return self.current(self.alone)

    def current(self, license_: License) -> bytes:
        """The newest license of a line."""
        with self.opened.reading(COMMAND) as context:
            newest = context.session.scalars(
                select(License).where(
                    License.deployment_id == license_.deployment_id,
                    License.superseded_by.is_(None),
                )
            ).one()
            assert newest.envelope is not None
            return newest.envelope

    def pass_by(self, hours: int) -> None:
        """Let time go by everywhere."""
        self.clock.advance(hours=hours)
        self.ticks.pass_by(hours * 3600)

    def lagging(self) -> list[str]:
        """The deployments that lack the newest keyset."""
        with self.opened.reading(COMMAND) as context:
            return sorted(each.name for each in readiness(context).lagging)


@pytest.fixture
def drill(
    transactions: Transactions,
    signers: MemorySigners,
    clock: FakeClock,
    network: Network,
    tmp_path: Path,
) -> Drill:
    """Three routers that serve."""
    directory = tmp_path / "hosts"
    directory.mkdir()
    return Drill(transactions, signers, clock, network, directory)


@pytest.mark.parametrize("role", ["license", "lease", "revocation"])
def test_no_router_stops_in_a_rotation(drill: Drill, role: str) -> None:
    old = drill.key(role)
    drill.run("rotate-key", role, activate_in_s=0)
    # Both: the early one has the new keyset, the late one and the offline one do not.
    drill.pass_by(13)
    assert drill.early.live().serving
    drill.offline.put("license.json", drill.reissue())
    assert drill.offline.live().serving, drill.offline.said
    assert drill.lagging() == ["alone", "leased"]
    with pytest.raises(Conflict, match="known routers lack keyset 2"):
        drill.run("retire-key", old)
    assert drill.late.live().serving, drill.late.said
    # What a router says of its keyset it says with its next request.
    drill.pass_by(13)
    assert drill.early.live().serving
    assert drill.late.live().serving
    assert drill.lagging() == ["alone"]
    with drill.opened.writing(COMMAND) as context:
        record_download(context, context.session.get_one(License, drill.alone.id), "kit.zip")
    drill.offline.put("keyset.json", drill.keyset())
    assert drill.offline.live().serving, drill.offline.said
    # New: the new key alone.
    drill.run("retire-key", old)
    assert drill.key(role) != old
    drill.pass_by(13)
    drill.offline.put("license.json", drill.reissue())
    for host in (drill.early, drill.late, drill.offline):
        assert host.live().serving, host.said


def test_no_leased_router_stops_when_the_license_key_is_compromised(drill: Drill) -> None:
    outcome = drill.run("compromise-key", drill.key("license"))
    assert len(outcome.licenses) == 2
    assert drill.early.live().serving
    drill.pass_by(13)
    for host in (drill.early, drill.late):
        decision = host.live()
        assert decision.serving, host.said
        assert decision.license is not None
        assert decision.license.document.revision == 2
        assert decision.license.keyids == (outcome.keyid,)


@pytest.mark.parametrize("first", ["license.json", "keyset.json"])
def test_an_offline_router_takes_license_and_keyset_in_either_order(
    drill: Drill, first: str
) -> None:
    before = drill.alone.envelope
    drill.run("compromise-key", drill.key("license"))
    files = {"license.json": drill.current(drill.alone), "keyset.json": drill.keyset()}
    drill.offline.put(first, files.pop(first))
    decision = drill.offline.live()
    if first == "license.json":
        assert decision.serving, drill.offline.said
    else:
        assert (decision.reason, decision.cause) == ("license-invalid", "key-not-valid")
    for name, data in files.items():
        drill.offline.put(name, data)
    assert drill.offline.live().serving, drill.offline.said
    drill.offline.put("license.json", before)
    assert drill.offline.live().cause == "key-not-valid"


def test_a_leased_router_that_starts_with_the_new_keyset_alone_fetches_its_license(
    drill: Drill,
) -> None:
    drill.run("compromise-key", drill.key("license"))
    drill.early.put(f"state/lease/{keyset_file(2)}", drill.keyset())
    drill.early.origin = None
    assert drill.early.live().cause == "key-not-valid"
    drill.early.origin = drill.network.url
    assert drill.early.live().serving, drill.early.said


def test_leased_routers_go_on_when_the_lease_key_is_compromised(drill: Drill) -> None:
    outcome = drill.run("compromise-key", drill.key("lease"))
    drill.pass_by(13)
    for host in (drill.early, drill.late):
        assert host.live().serving, host.said
        assert host.held.keyset_version == outcome.keyset_version
    assert drill.offline.live().serving


def test_a_router_with_a_forged_lease_comes_back_when_its_key_is_compromised(drill: Drill) -> None:
    held, stolen = drill.early.held, drill.key("lease")
    forged = msgspec.structs.replace(held, seq=900_000, lease_id=held.lease_id[:-1] + "0")
    with drill.opened.reading(COMMAND) as context:
        signers = role_signers(context, "lease")
        envelope = sign_payload(forged.to_bytes(), Lease.PAYLOAD_TYPE, signers)
    state = drill.early.directory / "state" / "lease" / "lease-state.json"
    state.write_text(state.read_text().replace(_lease_in(state), _escaped(envelope.to_bytes())))
    assert drill.early.held.seq == 900_000
    drill.run("compromise-key", stolen)
    drill.pass_by(13)
    assert drill.early.live(2).serving, drill.early.said
    assert drill.early.held.seq < 900_000


def _lease_in(state: Path) -> str:
    lease = msgspec.json.decode(state.read_bytes())["lease"]
    return _escaped(lease.encode())


def _escaped(lease: bytes) -> str:
    return msgspec.json.encode(lease.decode()).decode()
