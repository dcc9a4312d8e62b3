"""Validation grace against a small model, over whatever order things can happen in.

The real guard with its files; the model knows no file, no state and no code of the router.
"""

import asyncio
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from licensing.license import Binding
from router.config import parse_config
from router.serve.guard import Guard
from tests.router.papers import AT, DAY_S, ISSUED_AT, Vendor, entry, identifier
from tests.router.site import Ticks
from tests.spread import examples

pytestmark = pytest.mark.slow

HERE, ELSEWHERE = "fp_this-router", "fp_another-router"
POLICY_S = 36 * 3600
CONFIG = f"""
server:
  listen: 127.0.0.1:8080
  license:
    path: license.json
    state_path: state/license-state.json
    instance_fingerprint: {HERE}
    grace_period_on_validation_error: 36h
    revocation: {{mode: file, path: bundle.json}}
""".encode()


@dataclass(frozen=True)
class Paper:
    """What the model knows of a license."""

    revision: int
    expires_at: int
    grace_s: int | None
    here: bool
    """Whether it is bound to this router."""


class Model:
    """The rules of grace, in their words."""

    def __init__(self) -> None:
        self.file: Paper | str = "missing"
        """What lies there: a license, or `missing` or `half`."""
        self.keyset = True
        self.last: Paper | None = None
        """The license that was seen valid last."""
        self.began_at: int | None = None
        self.served = 0
        """The highest revision that served."""
        self.revoked_at: int | None = None

    def judge(self, now: int) -> tuple[str, str | None]:
        """Return status and code, and remember what a router remembers."""
        passing = None
        if self.file == "missing":
            passing = "license-missing"
        elif not self.keyset or self.file == "half":
            passing = "license-invalid"
        if passing is None:
            assert isinstance(self.file, Paper)
            if (code := self.refuses(self.file, now)) is not None:
                return "blocked", code
            self.last, self.began_at = self.file, None
            self.served = max(self.served, self.file.revision)
            return "valid", None
        if self.last is None:
            return "blocked", passing
        if self.began_at is None:
            self.began_at = now
        if now >= self.ends_at():
            return "blocked", passing
        if (code := self.refuses(self.last, now)) is not None:
            return "blocked", code
        return "grace", passing

    def ends_at(self) -> int:
        """Return when grace that is under way ends."""
        assert self.last is not None
        assert self.began_at is not None
        cap = self.last.grace_s
        return self.began_at + (POLICY_S if cap is None else min(cap, POLICY_S))

    def refuses(self, paper: Paper, now: int) -> str | None:
        """Return what grace never covers."""
        if now >= paper.expires_at:
            return "license-expired"
        if not paper.here:
            return "license-instance-mismatch"
        if paper.revision < self.served:
            return "license-superseded"
        if self.revoked_at is not None and now >= self.revoked_at:
            return "license-revoked"
        return None


class Grace(RuleBasedStateMachine):
    """Files come and go, time goes by, processes end."""

    def __init__(self) -> None:
        super().__init__()
        self.place = tempfile.TemporaryDirectory()
        self.directory = Path(self.place.name)
        self.runner = asyncio.Runner()
        self.vendor = Vendor()
        self.ticks = Ticks(time=AT)
        self.model = Model()
        self.revision = 0
        self.version = ISSUED_AT
        self.config = parse_config(CONFIG, self.directory)
        self.keyset = self.vendor.keyset(expires_at=AT + 9999 * DAY_S)

    def write(self, name: str, data: bytes | None) -> None:
        """Put a file there, or take it away."""
        path = self.directory / name
        path.unlink(missing_ok=True)
        if data is not None:
            path.write_bytes(data)

    def start(self) -> None:
        """Start a process."""
        self.guard = Guard(
            self.config,
            self.directory / "keyset.json",
            clock=self.ticks,
            log=lambda _: None,
        )

    @initialize()
    def begin(self) -> None:
        """First boot, with nothing but a keyset."""
        self.write("keyset.json", self.keyset)
        self.start()

    def teardown(self) -> None:
        """Clean up."""
        self.runner.run(self.guard.close())
        self.runner.close()
        self.place.cleanup()

    @rule(
        days=st.integers(1, 10),
        grace_s=st.none() | st.sampled_from([0, 1, 3600, 400 * DAY_S]),
        here=st.sampled_from([True, True, True, False]),
        older=st.integers(0, 2).map(lambda number: max(0, number - 1)),
    )
    def a_license_is_installed(
        self, days: int, grace_s: int | None, here: bool, older: int
    ) -> None:
        """A new license, or one of an older revision again."""
        self.revision += 1
        paper = Paper(
            max(1, self.revision - 2 * older), self.ticks.time + days * DAY_S, grace_s, here
        )
        self.write(
            "license.json",
            self.vendor.license(
                revision=paper.revision,
                issued_at=ISSUED_AT,
                expires_at=paper.expires_at,
                grace_s=grace_s,
                binding=Binding(fingerprints=(HERE if here else ELSEWHERE,)),
            ),
        )
        self.model.file = paper
        self.kept = (self.directory / "license.json").read_bytes(), paper

    @rule()
    def the_file_goes_away(self) -> None:
        """Deleted, or a volume that is not mounted."""
        self.write("license.json", None)
        self.model.file = "missing"

    @rule(size=st.integers(0, 300))
    def the_file_is_half_written(self, size: int) -> None:
        """Cut off anywhere."""
        self.write("license.json", self.vendor.license()[:size])
        self.model.file = "half"

    @precondition(lambda self: hasattr(self, "kept"))
    @rule()
    def the_file_comes_back(self) -> None:
        """The license that was there last."""
        self.write("license.json", self.kept[0])
        self.model.file = self.kept[1]

    @rule(readable=st.booleans())
    def the_keyset_comes_and_goes(self, readable: bool) -> None:
        """Its file is removed or put back."""
        self.write("keyset.json", self.keyset if readable else None)
        self.model.keyset = readable

    @precondition(lambda self: self.model.keyset)
    @rule(wait_s=st.integers(0, 2 * DAY_S), lifted=st.booleans())
    def a_bundle_is_published(self, wait_s: int, lifted: bool) -> None:
        """It revokes the license from some moment on, or no longer."""
        self.version += 1
        at = self.ticks.time + wait_s
        entries = () if lifted else (entry("revoked", at),)
        self.write(
            "bundle.json",
            self.vendor.bundle(*entries, version=self.version, expires_at=AT + 9999 * DAY_S),
        )
        self.model.revoked_at = None if lifted else at
        self.look()

    @rule(seconds=st.integers(1, 2 * DAY_S))
    def time_goes_by(self, seconds: int) -> None:
        """Awake."""
        self.ticks.pass_by(seconds)

    @precondition(lambda self: self.model.began_at is not None)
    @rule(off_s=st.sampled_from([-1, 0, 1]))
    def grace_comes_to_its_end(self, off_s: int) -> None:
        """To the second before, the second itself, or the one after."""
        self.ticks.pass_by(max(0, self.model.ends_at() + off_s - self.ticks.time))
        self.agree()

    @rule()
    def the_process_restarts(self) -> None:
        """It ends and starts."""
        self.runner.run(self.guard.close())
        self.start()
        # Nothing is known of keys any more; a state that saw a license valid still is.
        assert not self.guard.decision.serving

    def look(self) -> tuple[str, str | None]:
        """Check, as the router does at startup, in intervals and when a file changes."""
        decision = self.runner.run(self.guard.check())
        return decision.status, decision.reason

    @invariant()
    def agree(self) -> None:
        """The decision that holds now, of itself and checked again, is the model's."""
        if not hasattr(self, "guard"):
            return
        shown, expected = self.look(), self.model.judge(self.ticks.time)
        assert shown == expected
        decision = self.guard.decision
        if expected[0] == "grace":
            assert decision.grace is not None
            assert decision.grace.began_at == self.model.began_at
            assert decision.grace.ends_at == self.model.ends_at()
            # Without another check, it ends to the second.
            assert decision.ends_at is not None
            assert decision.at(decision.ends_at - 1).serving
            assert not decision.at(decision.ends_at).serving
            assert decision.ends_at <= self.model.ends_at()


def test_the_model_is_about_the_license_the_vendor_signs() -> None:
    assert entry("revoked").license_id == identifier("lic", 1)


TestGrace = Grace.TestCase
TestGrace.settings = settings(
    max_examples=examples(60, 300),
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
