"""What the router does now, and why: one pure function over bytes, state and an instant.

    decision, state = decide(policy, state, evidence)

The order, the first failure decides: the state itself (see `state_invalid`), the clock, the table
of the signed documents, seats, then the lease in lease mode.

Invariants: no clock, no I/O; the same arguments give the same answer. Validation grace is for a
missing or unreadable file, `malformed-envelope` and an unreadable keyset alone; while it lasts, the
last valid license is judged in full, so that it never covers anything later in the table. It
begins with the first such error after a license was seen valid and ends to the second. A revocation
entry once seen applies until a bundle of higher version lacks it. The clock's floor is lowered only
by a license that then serves. Facts come from verified documents only.

Times are Unix seconds.

Source: "What it decides, when" of the router's design; "Verifying" of the signed documents; "The
router" and "Time" of the lease protocol.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Final, Literal

import msgspec

from licensing.encoding import sha256_hex
from licensing.envelope import MAX_BUNDLE_BYTES, Envelope
from licensing.errors import (
    KeysetTooOld,
    LicensingError,
    MalformedEnvelope,
    NotYetValid,
    RevocationRequired,
    RevocationUnusable,
    RolledBack,
)
from licensing.lease import Lease
from licensing.license import License, Limits
from licensing.names import CODES
from licensing.revocation import RevocationBundle
from licensing.verify import (
    CLOCK_TOLERANCE_S,
    KeysetTrust,
    Report,
    Trust,
    TrustedKey,
    Verified,
    check_entry,
    examine_license,
    verify_bundle,
    verify_lease,
)
from router.config import LicenseConfig
from router.state.budgets import Terms
from router.state.store import State

Status = Literal["valid", "grace", "blocked", "development"]

KEYSET_UNREADABLE: Final = "keyset-unreadable"
MISSING: Final = "missing"
STATE_INVALID: Final = "license-state-invalid"
_REVOCATION_CODES: Final = {
    "revoked": "license-revoked",
    "suspended": "license-suspended",
    "superseded": "license-superseded",
}
_LEASE_CODES: Final = {**_REVOCATION_CODES, "ended": "license-lease-ended"}
_LIMITS: Final = ("max_concurrency", "max_instances", "max_seats")


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
class LeaseFacts:
    """The held lease, as an operator may see it."""

    lease_id: str
    status: str
    expires_at: int
    grace_until_at: int
    renew_at: tuple[int, int]
    reason: str | None = None
    clone_warning: bool = False
    bundle_version: int = 0
    keyset_version: int = 0


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
    lease: LeaseFacts | None = None
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
    """Why the license does not count."""

    code: str
    cause: str
    recheck_at: int | None = None

    @classmethod
    def of(cls, error: LicensingError) -> "_Failure":
        return cls(CODES[error.code].router_code, error.code)


@dataclass(frozen=True)
class _Judged:
    """The rows of the table that need no bundle, answered for one envelope."""

    verified: Verified[License] | None
    error: LicensingError | None


@dataclass(frozen=True)
class _Bundle:
    """What came of the bundle."""

    document: RevocationBundle | None = None
    sha256: str = ""
    error: LicensingError | None = None


class _RememberedKey:
    """Counts for what was verified when the state stored it."""

    def verify(self, sig: bytes, message: bytes) -> bool:
        return True

    def covers(self, issued_at: int) -> bool:
        return True


@dataclass(frozen=True)
class _RememberedTrust:
    """Stands in for a keyset that was never readable, for the stored license alone.

    The license was verified before it was stored, and the state's HMAC holds it since.
    """

    issuer: str
    version: int | None = None

    def find(self, keyid: str, role: str) -> TrustedKey | None:
        return _RememberedKey() if role == "license" else None


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
    decision, after = _decide(policy, state, seen, seats)
    return _developed(policy, decision), after


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


def _decide(
    policy: LicenseConfig, state: State, seen: Evidence, seats: int
) -> tuple[Decision, State]:
    now = seen.now
    before = state
    if isinstance(seen.trust, KeysetTrust):
        state = state.document_seen(seen.trust.keyset.issued_at)

    failure = _unread(seen)
    judged = _Judged(None, None)
    data = seen.license
    if failure is None and seen.keyset_error is None:
        assert data is not None
        assert seen.trust is not None
        judged = _judge(policy, state, data, seen.trust, now)
        if isinstance(judged.error, MalformedEnvelope):
            failure = _Failure.of(judged.error)
    if (better := _fetched(policy, state, seen, judged)) is not None:
        judged, data, failure = better, seen.fetched_license, None
    remembered = state.last_valid
    cap: int | None = None
    if failure is not None and remembered is not None:
        # Grace: the last valid license takes the place of the one that cannot be read.
        data = remembered.data
        known = License.parse(Envelope.parse(data).payload)
        cap = known.grace_s
        judged = _judge(policy, state, data, seen.trust or _RememberedTrust(known.iss), now)

    # The clock comes before all else a document can say.
    clocked = state
    if judged.error is None and judged.verified is not None:
        state = state.document_seen(judged.verified.document.issued_at)
        clocked = state.license_verified(judged.verified.document)
    if now < clocked.time.floor - CLOCK_TOLERANCE_S:
        behind = blocked("license-clock-rollback", "clock-rollback", now)
        return replace(behind, facts=_facts(judged, grace=False), license=judged.verified), before
    if isinstance(seen.trust, KeysetTrust) and seen.keyset_readable:
        state = state.keyset_seen(seen.trust.issuer, seen.trust.keyset.version)

    window_ends: int | None = None
    if failure is not None:
        if remembered is None:
            return _block(failure, judged, now), state
        state = state.grace_begun(now, failure.cause)
        assert state.grace is not None
        window = policy.grace_period_s if cap is None else min(policy.grace_period_s, cap)
        window_ends = state.grace.began_at + window
        if now >= window_ends:
            return _block(failure, judged, now), state
    elif seen.keyset_error is not None:
        return _block(_Failure.of(seen.keyset_error), judged, now), state

    bundle = _read_bundle(policy, seen, state)
    if bundle.document is not None and (ours := judged.verified) is not None:
        state = state.bundle_seen(bundle.document, bundle.sha256, ours.document.license_id)
        state = state.document_seen(bundle.document.issued_at)
    if judged.error is not None:
        failed = _Failure.of(judged.error)
        if isinstance(judged.error, NotYetValid) and judged.verified is not None:
            failed = replace(failed, recheck_at=_begins_at(judged.verified.document))
        return _block(failed, judged, now), state
    assert judged.verified is not None
    assert data is not None
    license_ = judged.verified.document

    # Rows 11 to 13.
    warnings: list[str] = []
    try:
        floors = state.floors(license_.deployment_id, license_.iss)
        if license_.revision < floors.revision:
            raise RolledBack(f"revision {license_.revision}; {floors.revision} was in use here")
        entry = state.revocation_entry(license_.license_id, license_.iss)
        check_entry(entry, now)
        _check_bundle(policy, before, license_, bundle, now, warnings)
    except LicensingError as error:
        return _block(_Failure.of(error), judged, now), state

    if failure is None:
        state = state.license_valid(data, now)
    if license_.limits.max_seats is not None and seats > license_.limits.max_seats:
        return _block(_Failure("license-limit-exceeded", "max-seats"), judged, now), state

    ends = []
    if window_ends is not None and failure is not None:
        ends.append((window_ends, failure.code))
    ends.append((license_.expires_at, "license-expired"))
    if entry is not None:
        ends.append((entry.effective_at, _REVOCATION_CODES[entry.status]))
    if bundle.document is not None and _closed(policy, license_):
        ends.append((bundle.document.expires_at, "license-revocation-check-failed"))

    narrowed = _Narrowed(frozenset(license_.features), license_.limits, _terms(license_, None))
    lease_facts = None
    if license_.mode == "lease":
        found = _judge_lease(judged.verified, seen)
        if isinstance(found, _Failure):
            return _block(found, judged, now), state
        lease_facts = _lease_facts(found)
        state = state.document_seen(found.issued_at)
        if (code := _lease_code(found, now)) is not None:
            stopped = _block(_Failure(code, f"lease-{found.status}"), judged, now)
            return replace(stopped, lease=lease_facts), state
        ends.append((found.grace_until_at, "license-lease-expired"))
        if found.clone_warning:
            warnings.append("the portal saw two routers use this lease: see the instance's page")
        if found.license_sha256 == judged.verified.payload_sha256:
            narrowed = _narrow(license_, found)

    ends_at, ends_with = min(ends, key=lambda end: end[0])
    grace = None
    if failure is not None and state.grace is not None and window_ends is not None:
        grace = GraceFacts(state.grace.began_at, window_ends, failure.code)
    state = state.license_verified(license_).serving(narrowed.terms, license_.revision, now)
    return (
        Decision(
            serving=True,
            status="valid" if grace is None else "grace",
            reason=None if failure is None else failure.code,
            cause=None if failure is None else failure.cause,
            decided_at=now,
            facts=_facts(judged, grace=grace is not None, narrowed=narrowed),
            features=narrowed.features,
            limits=narrowed.limits,
            terms=narrowed.terms,
            grace=grace,
            lease=lease_facts,
            ends_at=ends_at,
            ends_with=ends_with,
            warnings=tuple(warnings),
            license=judged.verified,
        ),
        state,
    )


def _unread(seen: Evidence) -> _Failure | None:
    """Return why nothing can be verified at all: what grace is for, but for half-written files."""
    if seen.license is None:
        return _Failure("license-missing", MISSING)
    if not seen.keyset_readable or (seen.trust is None and seen.keyset_error is None):
        return _Failure("license-invalid", KEYSET_UNREADABLE)
    return None


def _fetched(policy: LicenseConfig, state: State, seen: Evidence, file: _Judged) -> _Judged | None:
    """Return the fetched license, judged, where it takes the place of the license file.

    The highest revision that verifies is used. A genuine file of another deployment is what the
    operator wants, whatever was fetched for the one before.
    """
    if seen.fetched_license is None or seen.trust is None or seen.keyset_error is not None:
        return None
    if not seen.keyset_readable:
        return None
    fetched = _judge(policy, state, seen.fetched_license, seen.trust, seen.now)
    if fetched.error is not None or fetched.verified is None:
        return None
    if file.verified is None:
        # A file that is there and does not verify at all is not passed over: it was put there.
        readable = seen.license is not None and not isinstance(file.error, MalformedEnvelope)
        return None if readable else fetched
    ours, theirs = file.verified.document, fetched.verified.document
    if ours.deployment_id != theirs.deployment_id:
        return None
    if file.error is not None or theirs.revision > ours.revision:
        return fetched
    return None


def _judge(policy: LicenseConfig, state: State, data: bytes, trust: Trust, now: int) -> _Judged:
    """Rows 1 to 10, and the keyset's floor."""
    report: Report = examine_license(data, trust, now, fingerprint=policy.instance_fingerprint)
    error = next(
        (each.error for each in report.checks if each.error and each.name != "bundle"), None
    )
    held = state.keysets.get(trust.issuer, 0)
    if error is None and trust.version is not None and trust.version < held:
        error = KeysetTooOld(f"the keyset has version {trust.version}; {held} was in use here")
    return _Judged(report.verified, error)


def _begins_at(license_: License) -> int:
    return max(license_.not_before_at, license_.issued_at - CLOCK_TOLERANCE_S)


def _read_bundle(policy: LicenseConfig, seen: Evidence, state: State) -> _Bundle:
    """Return the bundle of highest version that verifies, of the file and the fetched one."""
    file = seen.bundle if policy.revocation.mode == "file" else None
    found = _Bundle()
    for data in (file, seen.fetched_bundle):
        if data is None:
            continue
        each = _verify_bundle(data, seen, state)
        if each.document is None:
            found = each if found.document is None and found.error is None else found
        elif found.document is None or each.document.version > found.document.version:
            found = each
    return found


def _verify_bundle(data: bytes, seen: Evidence, state: State) -> _Bundle:
    if seen.trust is None:
        # In grace after a restart: the bundle that was verified when the state stored its hash.
        sha256 = sha256_hex(data)
        if any(memory.sha256 == sha256 for memory in state.bundles.values()):
            payload = Envelope.parse(data, max_bytes=MAX_BUNDLE_BYTES).payload
            return _Bundle(RevocationBundle.parse(payload), sha256)
        return _Bundle(error=RevocationUnusable("there is no keyset to verify the bundle with"))
    try:
        verified = verify_bundle(data, seen.trust, seen.now, require_current=False)
    except LicensingError as error:
        return _Bundle(error=error)
    return _Bundle(verified.document, sha256_hex(data))


def _closed(policy: LicenseConfig, license_: License) -> bool:
    """Whether a bundle that cannot be used blocks; the license can tighten, never loosen."""
    revocation = policy.revocation
    return (
        (revocation.mode == "file" and revocation.fail_closed_on_bundle_error)
        or revocation.require_current_bundle
        or license_.revocation.require_current_bundle
    )


def _check_bundle(
    policy: LicenseConfig,
    before: State,
    license_: License,
    bundle: _Bundle,
    now: int,
    warnings: list[str],
) -> None:
    """Row 13, with the configuration's modes.

    Raises:
        RevocationRequired, RevocationUnusable: it blocks.
    """
    needed = (
        policy.revocation.require_current_bundle
        or license_.revocation.require_current_bundle
        or license_.revocation.min_version > 0
    )
    if policy.revocation.mode == "off" and not needed:
        return
    floor = before.floors(license_.deployment_id, license_.iss).bundle_version
    problem = _bundle_problem(bundle, floor, license_.revocation.min_version, now)
    if problem is None:
        return
    if bundle.document is None and bundle.error is None and floor == 0:
        if needed:
            raise RevocationRequired("a current revocation bundle is needed; none is there")
        return
    if _closed(policy, license_):
        raise RevocationUnusable(problem)
    warnings.append(f"the revocation bundle cannot be used: {problem}")


def _bundle_problem(bundle: _Bundle, floor: int, min_version: int, now: int) -> str | None:
    document = bundle.document
    if bundle.error is not None:
        return bundle.error.code
    if document is None:
        return "it is missing"
    if document.version < floor:
        return f"version {document.version} is older than {floor}, seen before"
    if document.version < min_version:
        return f"version {document.version}; the license asks for {min_version}"
    if now >= document.expires_at:
        return f"it expired {now - document.expires_at} s ago"
    return None


# The lease


def _judge_lease(license_: Verified[License], seen: Evidence) -> Lease | _Failure:
    """Return the lease that counts for this license."""
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
    if lease.deployment_id != license_.document.deployment_id:
        return _Failure(required, "lease-of-another-deployment")
    if license_.document.revision < lease.license_revision:
        return _Failure(required, "lease-of-a-later-revision")
    return lease


def _lease_code(lease: Lease, now: int) -> str | None:
    if lease.status != "active":
        return _LEASE_CODES[lease.status]
    return None if lease.serves(now) else "license-lease-expired"


def _lease_facts(lease: Lease) -> LeaseFacts:
    return LeaseFacts(
        lease.lease_id,
        lease.status,
        lease.expires_at,
        lease.grace_until_at,
        lease.renew_at,
        lease.reason,
        bool(lease.clone_warning),
        lease.bundle_version,
        lease.keyset_version,
    )


@dataclass(frozen=True)
class _Narrowed:
    """What is in effect: the license's, narrowed by the lease's."""

    features: frozenset[str]
    limits: Limits
    terms: Terms


def _terms(license_: License, lease: Lease | None, limits: Limits | None = None) -> Terms:
    limits = license_.limits if limits is None else limits
    budget = license_.budget if lease is None or lease.budget is None else lease.budget
    return Terms(license_.deployment_id, budget, limits.tokens_per_window, limits.window_s)


def _narrow(license_: License, lease: Lease) -> _Narrowed:
    features = frozenset(license_.features)
    if lease.features is not None:
        features &= frozenset(lease.features)
    limits = license_.limits if lease.limits is None else _smaller(license_.limits, lease.limits)
    return _Narrowed(features, limits, _terms(license_, lease, limits))


def _smaller(ours: Limits, theirs: Limits) -> Limits:
    """Return the smaller of each limit; of two windows, the one with fewer tokens a second."""
    bounds = {}
    for name in _LIMITS:
        given = [each for each in (getattr(ours, name), getattr(theirs, name)) if each is not None]
        bounds[name] = min(given, default=None)
    windows = [each for each in (ours, theirs) if each.tokens_per_window is not None]
    tightest = min(
        windows,
        key=lambda each: (each.tokens_per_window or 0) / (each.window_s or 1),
        default=Limits(),
    )
    return Limits(
        tokens_per_window=tightest.tokens_per_window, window_s=tightest.window_s, **bounds
    )


# Facts


def _block(failure: _Failure, judged: _Judged, now: int) -> Decision:
    return replace(
        blocked(failure.code, failure.cause, now),
        facts=_facts(judged, grace=False),
        recheck_at=failure.recheck_at,
        license=judged.verified,
    )


def _facts(judged: _Judged, *, grace: bool, narrowed: _Narrowed | None = None) -> Mapping[str, Any]:
    """Return the safe summary of a verified license; of any other, nothing."""
    if judged.verified is None:
        return MappingProxyType({})
    license_ = judged.verified.document
    limits = license_.limits if narrowed is None else narrowed.limits
    budget = license_.budget if narrowed is None else narrowed.terms.budget
    features = license_.features if narrowed is None else tuple(sorted(narrowed.features))
    facts: dict[str, Any] = {
        "license_id": license_.license_id,
        "customer_id": license_.customer_id,
        "deployment_id": license_.deployment_id,
        "revision": license_.revision,
        "sku": license_.sku,
        "mode": license_.mode,
        "key_id": judged.verified.keyid,
        "issuer": license_.iss,
        "issued_at": license_.issued_at,
        "not_before_at": license_.not_before_at,
        "expires_at": license_.expires_at,
        "features": features,
        "limits": MappingProxyType(msgspec.to_builtins(limits)),
        "grace_active": grace,
    }
    if budget is not None:
        facts["budget_tokens"] = budget.tokens_total
    return MappingProxyType(facts)
