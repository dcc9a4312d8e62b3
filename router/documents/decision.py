"""What the router does now, and why: one pure function over bytes, state and an instant.

    decision, state = decide(policy, state, evidence)

The steps, the first failure decides: what cannot be read (`_unread`), validation grace for it
(`_grace`), the clock (`_clock`), the verdict of the table of the signed documents and the seats
(`_judged`), the lease in lease mode (`_leased`). The state comes before them all: `state_invalid`.

Invariants: no clock, no I/O; the same arguments give the same answer. What a license is worth is
said by `licensing.verify` alone, in one report. Validation grace is for a missing or unreadable
file, `malformed-envelope` and an unreadable keyset alone; while it lasts, the last valid license is
judged in full, so that it never covers anything later in the table. It begins with the first such
error after a license was seen valid and ends to the second. The clock's floor is lowered only by a
license that then serves. Facts come from verified documents only.

Revisions, bundle versions and entries that only a compromised key vouched for are forgotten as soon
as the keyset says so: a thief could have raised floors that no genuine document reaches.

Times are Unix seconds.

Source: "What it decides, when" of the router's design; "Verifying" of the signed documents; "The
router" and "Time" of the lease protocol.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Final, Literal

import msgspec

from licensing.bounds import NO_PERIODS, REJECTED, excess
from licensing.encoding import sha256_hex
from licensing.envelope import Envelope
from licensing.errors import KeyNotValid, LicensingError, MalformedEnvelope, NotYetValid, RolledBack
from licensing.lease import Lease
from licensing.license import Budget, License, Limits
from licensing.names import CODES
from licensing.verify import (
    CLOCK_TOLERANCE_S,
    Check,
    KeysetTrust,
    Report,
    RevocationPolicy,
    Trust,
    Verified,
    examine_license,
    verify_lease,
)
from router.config import LicenseConfig
from router.state.budgets import Terms
from router.state.store import State

Status = Literal["valid", "grace", "blocked", "development"]

KEYSET_UNREADABLE: Final = "keyset-unreadable"
MISSING: Final = "missing"
STATE_INVALID: Final = "license-state-invalid"
_LEASE_CODES: Final = {
    "suspended": "license-suspended",
    "revoked": "license-revoked",
    "superseded": "license-superseded",
    "ended": "license-lease-ended",
}


@dataclass(frozen=True)
class Evidence:
    """What lies before the router at one instant."""

    now: int
    license: bytes | None
    """The license file; None: missing or unreadable."""
    trust: Trust | None
    """The verified keyset, or the last one this process could read; None: it never could."""
    keyset_readable: bool = True
    keyset_error: LicensingError | None = None
    """Why the keyset file, which can be read, does not verify."""
    bundle: bytes | None = None
    """The bundle file; None: missing or unreadable."""
    lease: bytes | None = None
    """The held lease's envelope."""
    instance_keyid: str | None = None
    """Of this instance's own key, where there is one."""
    lease_problem: str | None = None
    """Why there is no lease to judge, where more is known than that there is none."""
    fetched_license: bytes | None = None
    """What the portal gave as the deployment's current license."""
    fetched_bundle: bytes | None = None


@dataclass(frozen=True)
class GraceFacts:
    """Validation grace under way."""

    began_at: int
    ends_at: int
    """From this second on it is over."""
    reason: str
    """The code of the error it covers."""


@dataclass(frozen=True)
class Decision:
    """What the router does until the next one."""

    serving: bool
    status: Status
    reason: str | None
    """The router's code; in grace and development, of what is passed over."""
    cause: str | None
    """The verifier's code behind it."""
    decided_at: int
    facts: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    """The safe facts of the verified license."""
    features: frozenset[str] | None = frozenset()
    """In effect; None: all of them."""
    limits: Limits = field(default_factory=Limits)
    terms: Terms | None = None
    """What is counted, and up to where; None where nothing serves."""
    grace: GraceFacts | None = None
    lease: Lease | None = None
    """The held lease that counts for it."""
    ends_at: int | None = None
    """From this second on it no longer serves."""
    ends_with: str | None = None
    """The code it ends with."""
    recheck_at: int | None = None
    """When a blocked license may begin to serve by itself."""
    warnings: tuple[str, ...] = ()
    license: Verified[License] | None = field(default=None, repr=False, compare=False)
    """The genuine license that was judged, whatever came of it."""

    def at(self, now: int) -> "Decision":
        """Return what this decision means at an instant: it ends to the second."""
        if not self.serving or self.ends_at is None or now < self.ends_at:
            return self
        return replace(self, serving=False, status="blocked", reason=self.ends_with, terms=None)

    def allows(self, features: tuple[str, ...]) -> bool:
        """Say whether all of these features are in effect."""
        return self.features is None or self.features.issuperset(features)


@dataclass(frozen=True)
class _Failure:
    """Why the router does not serve."""

    code: str
    cause: str
    recheck_at: int | None = None

    @classmethod
    def of(cls, error: LicensingError) -> "_Failure":
        return cls(CODES[error.code].router_code, error.code)


@dataclass(frozen=True)
class RememberedTrust:
    """Stands in for a keyset that was never readable, for what was verified before.

    The state's HMAC holds the license since, and the hash of the bundle.
    """

    issuer: str
    version: int | None = None

    def find(self, _keyid: str, role: str) -> "RememberedTrust | None":
        """Return itself for the roles whose documents the state remembers."""
        return self if role in ("license", "revocation") else None

    def verify(self, _sig: bytes, _message: bytes) -> bool:
        """Say yes: it was verified before."""
        return True

    def covers(self, _issued_at: int) -> bool:
        """Say yes: it was verified before."""
        return True


@dataclass(frozen=True)
class _Case:
    """A decision in the making: what each step found out, for the next."""

    policy: LicenseConfig
    seen: Evidence
    seats: int
    before: State
    state: State
    data: bytes | None = None
    """The license file that is judged."""
    report: Report = field(default_factory=Report)
    """What it is worth."""
    unread: _Failure | None = None
    """Why the license file cannot be read: what grace is for."""
    grace: GraceFacts | None = None
    lease: Lease | None = None
    stop: _Failure | None = None
    """Why nothing is served; no later step is taken."""

    def examine(self, data: bytes, trust: Trust) -> Report:
        """Have a license file judged by the whole table."""
        asks = self.policy.revocation
        return examine_license(
            data,
            trust,
            self.seen.now,
            fingerprint=self.policy.instance_fingerprint,
            floors=self.state.floors,
            bundles=self._bundles(),
            policy=RevocationPolicy(
                asked=asks.mode == "file",
                fail_closed=asks.fail_closed_on_bundle_error,
                require_current=asks.require_current_bundle,
            ),
        )

    def _bundles(self) -> list[bytes]:
        file = self.seen.bundle if self.policy.revocation.mode == "file" else None
        given = [each for each in (file, self.seen.fetched_bundle) if each is not None]
        if self.seen.trust is not None:
            return given
        # No keyset was readable yet: only what was verified before can be.
        known = {memory.sha256 for memory in self.state.bundles.values()}
        return [each if sha256_hex(each) in known else b"" for each in given]


def blocked(code: str, cause: str, now: int, *, warnings: tuple[str, ...] = ()) -> Decision:
    """Return a decision that blocks everything, with no fact about any license."""
    return Decision(False, "blocked", code, cause, now, warnings=warnings)


def state_invalid(policy: LicenseConfig, now: int) -> Decision:
    """Return the decision where the state cannot be trusted."""
    return _developed(policy, blocked(STATE_INVALID, "state-invalid", now))


def decide(
    policy: LicenseConfig, state: State, seen: Evidence, *, seats: int = 0
) -> tuple[Decision, State]:
    """Judge the license and return what to do, with the state to make durable before doing it.

    `seats` is the number of configured callers.
    """
    case = _Case(policy, seen, seats, state, state)
    for step in (_unread, _grace, _clock, _judged, _leased):
        case = step(case)
        if case.stop is not None:
            return _developed(policy, _blocked(case, case.stop)), case.state
    return _serving(case)


def _developed(policy: LicenseConfig, decision: Decision) -> Decision:
    if decision.serving or not policy.fail_open_for_dev:
        return decision
    return replace(
        decision,
        serving=True,
        status="development",
        features=None,
        limits=Limits(),
        terms=None,
        warnings=(*decision.warnings, "fail_open_for_dev is on: the license is not enforced"),
    )


def _unread(case: _Case) -> _Case:
    """Have the license judged, or say why none can be read."""
    seen = case.seen
    if isinstance(seen.trust, KeysetTrust):
        state = case.state.document_seen(seen.trust.keyset.issued_at)
        if seen.keyset_readable:
            state = state.forgetting(seen.trust.keyset.compromised)
        case = replace(case, state=state)
    missing = _Failure("license-missing", MISSING) if seen.license is None else None
    if seen.keyset_error is not None:
        refused = Check(0, "keyset-file", seen.keyset_error)
        return replace(case, report=Report(checks=(refused,)), unread=missing)
    if seen.trust is None or not seen.keyset_readable:
        return replace(case, unread=missing or _Failure("license-invalid", KEYSET_UNREADABLE))
    data = _chosen(seen, seen.trust, case.policy.instance_fingerprint)
    if data is None:
        return replace(case, unread=missing)
    report = case.examine(data, seen.trust)
    unread = _Failure.of(report.error) if isinstance(report.error, MalformedEnvelope) else None
    return replace(case, data=data, report=report, unread=unread)


def _chosen(seen: Evidence, trust: Trust, fingerprint: str) -> bytes | None:
    """Return the license to judge: of the file and the fetched one, the highest revision that fits.

    A genuine file of another deployment is what the operator wants, whatever was fetched for the
    one before; and a file that can be read and does not verify at all was put there.
    """
    if seen.fetched_license is None:
        return seen.license
    fetched = examine_license(seen.fetched_license, trust, seen.now, fingerprint=fingerprint)
    file = Report()
    if seen.license is not None:
        file = examine_license(seen.license, trust, seen.now, fingerprint=fingerprint)
    if fetched.verified is None or not fetched.fits:
        return seen.license
    if file.verified is None:
        unread = seen.license is None or isinstance(file.error, MalformedEnvelope)
        outlived = _is_outlived(seen.license, file, fetched.verified.document)
        return seen.fetched_license if unread or outlived else seen.license
    ours, theirs = file.verified.document, fetched.verified.document
    newer = theirs.revision > ours.revision or not file.fits
    same = ours.deployment_id == theirs.deployment_id
    return seen.fetched_license if same and newer else seen.license


def _is_outlived(data: bytes | None, file: Report, fetched: License) -> bool:
    """Say whether a file fails for its key alone, and the fetched license comes after it."""
    if data is None or not isinstance(file.error, KeyNotValid):
        return False
    ours = License.parse(Envelope.parse(data).payload)
    return ours.deployment_id == fetched.deployment_id and ours.revision <= fetched.revision


def _grace(case: _Case) -> _Case:
    """Let the last valid license take the place of one that cannot be read, for a while."""
    held, now = case.state.last_valid, case.seen.now
    if case.unread is None or held is None:
        return case
    known = License.parse(Envelope.parse(held.data).payload)
    state = case.state.grace_begun(now, case.unread.cause)
    assert state.grace is not None
    lasts_s = case.policy.grace_period_s
    if known.grace_s is not None:
        lasts_s = min(lasts_s, known.grace_s)
    began_at = state.grace.began_at
    return replace(
        case,
        state=state,
        data=held.data,
        report=case.examine(held.data, case.seen.trust or RememberedTrust(known.iss)),
        grace=GraceFacts(began_at, began_at + lasts_s, case.unread.code),
    )


def _clock(case: _Case) -> _Case:
    """Compare the clock with its floor, before all else a document can say."""
    seen, state, report = case.seen, case.state, case.report
    floor = state.time.floor
    if report.verified is not None and report.fits and not isinstance(report.error, RolledBack):
        state = state.document_seen(report.verified.document.issued_at)
        # A license of higher revision lowers the floor, for good once it serves.
        floor = state.license_verified(report.verified.document).time.floor
    if seen.now < floor - CLOCK_TOLERANCE_S:
        stop = _Failure("license-clock-rollback", "clock-rollback")
        return replace(case, state=case.before, stop=stop)
    if isinstance(seen.trust, KeysetTrust) and seen.keyset_readable:
        state = state.keyset_seen(seen.trust.issuer, seen.trust.keyset.version)
    return replace(case, state=state)


def _judged(case: _Case) -> _Case:
    """Take the verdict of the table, unless nothing can be read and grace is over."""
    report, state, now = case.report, case.state, case.seen.now
    if case.unread is not None and (case.grace is None or now >= case.grace.ends_at):
        return replace(case, stop=case.unread)
    if report.verified is not None and report.bundle is not None:
        # An older bundle than the one that is remembered vouches for nothing new.
        newest = report.bundle.version == report.memory.version
        vouched_by = report.bundle_keyids if newest else ()
        state = state.bundle_seen(report.bundle.iss, report.memory, vouched_by=vouched_by)
        case = replace(case, state=state.document_seen(report.bundle.issued_at))
    if report.error is not None:
        failure = _Failure.of(report.error)
        if isinstance(report.error, NotYetValid) and report.verified is not None:
            license_ = report.verified.document
            begins_at = max(license_.not_before_at, license_.issued_at - CLOCK_TOLERANCE_S)
            failure = replace(failure, recheck_at=begins_at)
        return replace(case, stop=failure)
    if case.unread is None and case.data is not None:
        case = replace(case, state=case.state.license_valid(case.data, now))
    seats = report.require().document.limits.max_seats
    if seats is not None and case.seats > seats:
        return replace(case, stop=_Failure("license-limit-exceeded", "max-seats"))
    return case


def _leased(case: _Case) -> _Case:
    """In lease mode, ask for a lease that permits serving too."""
    license_, now = case.report.require(), case.seen.now
    if license_.document.mode != "lease":
        return case
    periods = case.state.periods.get(license_.document.deployment_id, NO_PERIODS)
    lease = _held_lease(license_, case.seen, periods)
    if isinstance(lease, _Failure):
        return replace(case, stop=lease)
    case = replace(case, lease=lease, state=case.state.document_seen(lease.issued_at))
    if lease.serves(now):
        return case
    code = _LEASE_CODES.get(lease.status, "license-lease-expired")
    return replace(case, stop=_Failure(code, f"lease-{lease.status}"))


def _held_lease(
    license_: Verified[License], seen: Evidence, periods: Mapping[str, int]
) -> Lease | _Failure:
    """Return the held lease if it counts for this license, whatever it says."""
    required = "license-lease-required"
    if seen.lease is None or seen.lease_problem is not None:
        return _Failure(required, seen.lease_problem or "no-lease")
    if seen.trust is None:
        return _Failure(required, KEYSET_UNREADABLE)
    try:
        lease = verify_lease(
            seen.lease, seen.trust, seen.now, instance_keyid=seen.instance_keyid
        ).document
    except LicensingError as error:
        return _Failure(required, error.code)
    misfit = _misfit(lease, license_, seen.now, periods)
    return lease if misfit is None else _Failure(required, misfit)


def _misfit(
    lease: Lease, license_: Verified[License], now: int, periods: Mapping[str, int]
) -> str | None:
    """Return why a genuine lease of this instance does not count for this license."""
    if lease.deployment_id != license_.document.deployment_id:
        return "lease-of-another-deployment"
    if license_.document.revision < lease.license_revision:
        return "lease-of-a-later-revision"
    return None if excess(lease, license_, now, periods) is None else REJECTED


# What comes of it


def _blocked(case: _Case, stop: _Failure) -> Decision:
    """Return the block, with the facts of the license where one is genuine."""
    decision, license_ = blocked(stop.code, stop.cause, case.seen.now), case.report.verified
    if license_ is None:
        return decision
    return replace(
        decision,
        facts=_facts(license_, _in_effect(license_.document), grace=False),
        lease=case.lease,
        recheck_at=stop.recheck_at,
        license=license_,
    )


def _serving(case: _Case) -> tuple[Decision, State]:
    """Return what is served, until when, and the state once it is."""
    license_, now, lease, grace = case.report.require(), case.seen.now, case.lease, case.grace
    document = license_.document
    ends = [(at, CODES[code].router_code) for at, code in case.report.ends]
    warnings = []
    if case.report.warning is not None:
        warnings.append(f"the revocation bundle cannot be used: {case.report.warning.detail}")
    if grace is not None:
        ends.insert(0, (grace.ends_at, grace.reason))
    if lease is not None:
        ends.append((lease.grace_until_at, "license-lease-expired"))
        if lease.clone_warning:
            warnings.append("the portal saw two routers use this lease: see the instance's page")
    ends_at, ends_with = min(ends, key=lambda end: end[0])
    counts = lease is not None and lease.license_sha256 == license_.payload_sha256
    effect = _in_effect(document, lease if counts else None)
    limits = effect.limits
    terms = Terms(document.deployment_id, effect.budget, limits.tokens_per_window, limits.window_s)
    decision = Decision(
        serving=True,
        status="valid" if grace is None else "grace",
        reason=None if case.unread is None else case.unread.code,
        cause=None if case.unread is None else case.unread.cause,
        decided_at=now,
        facts=_facts(license_, effect, grace=grace is not None),
        features=effect.features,
        limits=limits,
        terms=terms,
        grace=grace,
        lease=lease,
        ends_at=ends_at,
        ends_with=ends_with,
        warnings=tuple(warnings),
        license=license_,
    )
    state = case.state.license_verified(document)
    state = state.serving(terms, document.revision, now, vouched_by=license_.keyids)
    if effect.budget is not None:
        state = state.budget_serves(document, effect.budget.budget_id, now)
    return decision, state


@dataclass(frozen=True)
class _Effect:
    """What a license grants, narrowed by its lease."""

    features: frozenset[str]
    limits: Limits
    budget: Budget | None


def _in_effect(license_: License, lease: Lease | None = None) -> _Effect:
    """Return what the license grants, narrowed by a lease that was made for it.

    The lease keeps within its license (`licensing.bounds`), so what it says is the smaller.
    """
    features, limits, budget = license_.features, license_.limits, license_.budget
    if lease is not None:
        features = features if lease.features is None else lease.features
        narrowed = {} if lease.limits is None else msgspec.to_builtins(lease.limits)
        limits = msgspec.structs.replace(limits, **narrowed)
        budget = lease.budget or budget
    return _Effect(frozenset(features), limits, budget)


def _facts(license_: Verified[License], effect: _Effect, *, grace: bool) -> Mapping[str, Any]:
    """Return the safe summary of a verified license."""
    document = license_.document
    facts: dict[str, Any] = {
        "license_id": document.license_id,
        "customer_id": document.customer_id,
        "deployment_id": document.deployment_id,
        "revision": document.revision,
        "sku": document.sku,
        "mode": document.mode,
        "key_id": license_.keyid,
        "issuer": document.iss,
        "issued_at": document.issued_at,
        "not_before_at": document.not_before_at,
        "expires_at": document.expires_at,
        "features": tuple(sorted(effect.features)),
        "limits": MappingProxyType(msgspec.to_builtins(effect.limits)),
        "grace_active": grace,
    }
    if effect.budget is not None:
        facts["budget_tokens"] = effect.budget.tokens_total
    return MappingProxyType(facts)
