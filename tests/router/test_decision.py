"""What is decided, and when: each row, grace, revocation memory, the clock, the lease."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from licensing.encoding import sha256_hex
from licensing.envelope import Envelope
from licensing.errors import LicensingError
from licensing.license import Binding, Budget, Limits, RevocationTerms
from licensing.names import CODES
from licensing.verify import verify_keyset
from router.config import LicenseConfig, RevocationConfig
from router.documents.decision import Decision, Evidence, decide, state_invalid
from router.state.store import State
from tests.router.papers import AT, DAY_S, EXPIRES_AT, ISSUED_AT, Vendor, entry, identifier
from tests.spread import examples

VENDOR = Vendor()
TRUST = VENDOR.trust()
LICENSE = VENDOR.license()
BUNDLE = VENDOR.bundle()
GRACE_S = 3600
WITH_BUNDLE = RevocationConfig("file", Path("bundle"))
POLICY = LicenseConfig(Path("l"), Path("s"), grace_period_s=GRACE_S)
STRICT = msgspec.structs.replace(POLICY, revocation=WITH_BUNDLE)
LOOSE = msgspec.structs.replace(
    POLICY, revocation=RevocationConfig("file", Path("bundle"), fail_closed_on_bundle_error=False)
)
KEYID = "a" * 64
FRESH = State()


def seen(now: int = AT, file: bytes | None = LICENSE, **changes: Any) -> Evidence:
    return Evidence(**{"now": now, "license": file, "trust": TRUST, **changes})


def judged(
    evidence: Evidence, state: State = FRESH, policy: LicenseConfig = POLICY
) -> tuple[Decision, State]:
    return decide(policy, state, evidence)


def codes(
    evidence: Evidence, state: State = FRESH, policy: LicenseConfig = POLICY
) -> tuple[str | None, str | None]:
    decision, _ = judged(evidence, state, policy)
    assert decision.serving is (decision.status != "blocked")
    assert decision.serving is (decision.reason is None or decision.grace is not None)
    return decision.reason, decision.cause


def served(file: bytes = LICENSE, at: int = AT, bundle: bytes | None = None) -> State:
    """Return the state after a license served."""
    policy = POLICY if bundle is None else STRICT
    decision, state = judged(seen(at, file, bundle=bundle), policy=policy)
    assert decision.serving
    return state


def test_a_valid_license_serves_with_its_facts() -> None:
    decision, state = judged(seen())
    assert (decision.serving, decision.status, decision.reason) == (True, "valid", None)
    assert decision.features == {"routing", "usage_reporting"}
    assert decision.facts["license_id"] == identifier("lic", 1)
    assert decision.facts["grace_active"] is False
    assert decision.ends_at == EXPIRES_AT
    assert state.revisions == {identifier("dep", 1): 1}
    assert state.time.wall_floor == AT
    assert state.last_valid is not None
    assert state.last_valid.data == LICENSE


SAFE = {
    "license_id", "customer_id", "deployment_id", "revision", "sku", "mode", "key_id", "issuer",
    "issued_at", "not_before_at", "expires_at", "features", "limits", "grace_active",
    "budget_tokens",
}  # fmt: skip


def test_facts_are_the_safe_summary() -> None:
    budget = Budget(budget_id=identifier("bud", 1), tokens_total=9)
    decision, _ = judged(seen(license=VENDOR.license(budget=budget)))
    assert set(decision.facts) == SAFE
    with pytest.raises(TypeError):
        decision.facts["sku"] = "another"  # type: ignore[index]


def flipped() -> bytes:
    envelope = Envelope.parse(LICENSE)
    return replace(
        envelope, payload=envelope.payload.replace(b"pilot-30d", b"pilot-99d")
    ).to_bytes()


def misformed() -> bytes:
    from tests.router.papers import sign

    payload = Envelope.parse(LICENSE).payload.replace(b'"sku":"pilot-30d"', b'"sku":"Pilot"')
    signed = sign(payload, "application/vnd.metrum.license.v1+json", VENDOR.signers["license"])
    return signed.to_bytes()


COMPROMISED = Vendor(status="compromised")
BOUND = Binding(fingerprints=("fp_of_another",))
ASKS = RevocationTerms(require_current_bundle=True, min_version=0)
SEEN_BUNDLE = served(bundle=BUNDLE)

TABLE: list[tuple[str, Evidence, State, LicenseConfig]] = [
    ("malformed-envelope", seen(license=b"{}"), FRESH, POLICY),
    ("wrong-type", seen(license=BUNDLE), FRESH, POLICY),
    ("untrusted-key", seen(license=Vendor("x").license()), FRESH, POLICY),
    ("bad-signature", seen(license=flipped()), FRESH, POLICY),
    ("malformed-payload", seen(license=misformed()), FRESH, POLICY),
    ("wrong-issuer", seen(license=VENDOR.license(iss="x.example")), FRESH, POLICY),
    ("wrong-product", seen(license=VENDOR.license(product="x")), FRESH, POLICY),
    ("key-not-valid", seen(trust=COMPROMISED.trust()), FRESH, POLICY),
    ("keyset-too-old", seen(license=VENDOR.license(min_keyset_version=2)), FRESH, POLICY),
    ("not-yet-valid", seen(license=VENDOR.license(not_before_at=AT + 1)), FRESH, POLICY),
    ("not-yet-valid", seen(ISSUED_AT - 301), FRESH, POLICY),
    ("expired", seen(EXPIRES_AT), FRESH, POLICY),
    ("wrong-instance", seen(license=VENDOR.license(binding=BOUND)), FRESH, POLICY),
    ("rolled-back", seen(), served(VENDOR.license(revision=2)), POLICY),
    ("revoked", seen(bundle=VENDOR.bundle(entry("revoked"))), FRESH, STRICT),
    ("suspended", seen(bundle=VENDOR.bundle(entry("suspended"))), FRESH, STRICT),
    ("superseded", seen(bundle=VENDOR.bundle(entry("superseded"))), FRESH, STRICT),
    ("revocation-required", seen(license=VENDOR.license(revocation=ASKS)), FRESH, POLICY),
    ("revocation-unusable", seen(bundle=b"{}"), FRESH, STRICT),
    ("revocation-unusable", seen(), SEEN_BUNDLE, STRICT),
    ("clock-rollback", seen(AT - 301), served(), POLICY),
]


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row[0])
def test_each_row_of_the_table(row: tuple[str, Evidence, State, LicenseConfig]) -> None:
    cause, evidence, state, policy = row
    assert codes(evidence, state, policy) == (CODES[cause].router_code, cause)


def test_every_row_is_there() -> None:
    assert {row[0] for row in TABLE} == set(CODES)


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row[0])
def test_unverified_content_is_never_shown(
    row: tuple[str, Evidence, State, LicenseConfig],
) -> None:
    cause, evidence, state, policy = row
    decision, _ = judged(evidence, state, policy)
    unverified = list(CODES)[: list(CODES).index("keyset-too-old")]
    assert (decision.facts == {}) is (cause in unverified)


@pytest.mark.parametrize(
    ("now", "cause"),
    [
        (ISSUED_AT - 1, "not-yet-valid"),
        (ISSUED_AT, None),
        (EXPIRES_AT - 1, None),
        (EXPIRES_AT, "expired"),
    ],
)
def test_times_hold_to_the_second(now: int, cause: str | None) -> None:
    assert codes(seen(now))[1] == cause


def test_a_decision_ends_to_the_second_without_a_check() -> None:
    decision, _ = judged(seen())
    assert decision.at(EXPIRES_AT - 1) is decision
    after = decision.at(EXPIRES_AT)
    assert (after.serving, after.status, after.reason) == (False, "blocked", "license-expired")


def test_the_first_failure_in_the_order_decides() -> None:
    everything = VENDOR.license(product="x", binding=BOUND, min_keyset_version=9)
    assert codes(seen(EXPIRES_AT, everything), served())[1] == "wrong-product"
    assert codes(seen(AT - 301, everything), served())[1] == "clock-rollback"


# Grace


def errors_of_grace() -> dict[str, Callable[[int], Evidence]]:
    return {
        "missing": lambda now: seen(now, None),
        "malformed-envelope": lambda now: seen(now, LICENSE[:50]),
        "keyset-unreadable": lambda now: seen(now, keyset_readable=False),
    }


@pytest.mark.parametrize("cause", errors_of_grace())
def test_grace_covers_what_cannot_be_read(cause: str) -> None:
    evidence = errors_of_grace()[cause]
    code = "license-missing" if cause == "missing" else "license-invalid"
    assert codes(evidence(AT)) == (code, cause)
    decision, state = judged(evidence(AT + 5), served())
    assert (decision.status, decision.reason, decision.cause) == ("grace", code, cause)
    assert decision.facts["grace_active"] is True
    assert decision.grace is not None
    assert decision.grace.ends_at == AT + 5 + GRACE_S == decision.ends_at
    assert decision.at(AT + 5 + GRACE_S).reason == code
    assert codes(evidence(AT + 4 + GRACE_S), state)[0] == code
    assert judged(evidence(AT + 4 + GRACE_S), state)[0].serving
    assert not judged(evidence(AT + 5 + GRACE_S), state)[0].serving


@pytest.mark.parametrize("cause", [row[0] for row in TABLE[1:9] if row[0] != "keyset-too-old"])
def test_nothing_later_in_the_table_has_grace(cause: str) -> None:
    evidence = next(row[1] for row in TABLE if row[0] == cause)
    decision, after = judged(evidence, served())
    assert not decision.serving
    assert after.grace is None


def test_a_keyset_never_readable_still_has_grace_for_the_stored_license() -> None:
    evidence = seen(AT + 1, trust=None, keyset_readable=False)
    assert judged(evidence, served())[0].status == "grace"
    # The bundle whose hash the state holds was verified; any other is no bundle, and fails closed.
    state = served(bundle=BUNDLE)
    assert judged(replace(evidence, bundle=BUNDLE), state, STRICT)[0].status == "grace"
    other = VENDOR.bundle(version=ISSUED_AT + 1)
    assert codes(replace(evidence, bundle=other), state, STRICT)[1] == "revocation-unusable"


def test_a_keyset_that_does_not_verify_has_no_grace() -> None:
    with pytest.raises(LicensingError) as refused:
        verify_keyset(Vendor("x").keyset(product="x"), AT)
    decision, _ = judged(seen(keyset_error=refused.value), served())
    assert (decision.serving, decision.cause) == (False, "wrong-product")


def test_the_license_caps_grace() -> None:
    state = served(VENDOR.license(grace_s=60))
    decision, _ = judged(seen(AT, None), state)
    assert decision.ends_at == AT + 60
    assert not judged(seen(AT, None), served(VENDOR.license(grace_s=0)))[0].serving
    longer = served(VENDOR.license(grace_s=999_999))
    assert judged(seen(AT, None), longer)[0].ends_at == AT + GRACE_S


def test_grace_never_covers_the_end_of_the_license() -> None:
    state = served(VENDOR.license(expires_at=AT + 100))
    decision, after = judged(seen(AT + 50, None), state)
    assert (decision.ends_at, decision.ends_with) == (AT + 100, "license-expired")
    assert codes(seen(AT + 100, None), after)[0] == "license-expired"


def test_grace_never_covers_revocation_or_instance() -> None:
    revoking = VENDOR.bundle(entry("revoked", AT + 10), version=ISSUED_AT + 1)
    state = served(bundle=BUNDLE)
    decision, after = judged(seen(AT, None, bundle=revoking), state, STRICT)
    assert (decision.status, decision.ends_at) == ("grace", AT + 10)
    assert decision.at(AT + 10).reason == "license-revoked"
    assert codes(seen(AT + 10, None, bundle=revoking), after, STRICT)[0] == "license-revoked"
    here = msgspec.structs.replace(POLICY, instance_fingerprint="fp_somewhere")
    bound = VENDOR.license(binding=Binding(fingerprints=("fp_somewhere",)))
    _, state = judged(seen(AT, bound), policy=here)
    assert judged(seen(AT, None), state, here)[0].serving
    moved = msgspec.structs.replace(POLICY, instance_fingerprint="fp_elsewhere")
    assert codes(seen(AT, None), state, moved)[0] == "license-instance-mismatch"


def test_grace_does_not_start_again_by_other_errors() -> None:
    _, state = judged(seen(AT, None), served())
    assert state.grace is not None
    for evidence in (seen(AT + 60, flipped()), seen(AT + 90, b"{"), seen(AT + 99, BUNDLE)):
        _, state = judged(evidence, state)
    assert state.grace is not None
    assert state.grace.began_at == AT
    _, state = judged(seen(AT + 100), state)
    assert state.grace is None


EVENTS = ("valid", "missing", "malformed", "keyset", "flipped", "expired-file", "restart")


@dataclass
class Model:
    """Grace as the design says it, in five lines."""

    ever: bool = False
    began_at: int | None = None

    def expect(self, event: str, now: int) -> bool:
        """Return whether the router serves."""
        if event == "valid" and ISSUED_AT <= now < EXPIRES_AT:
            self.ever, self.began_at = True, None
            return True
        if event in ("missing", "malformed", "keyset") and self.ever:
            self.began_at = now if self.began_at is None else self.began_at
            return now < self.began_at + GRACE_S and now < EXPIRES_AT
        return False


@settings(max_examples=examples(150, 600))
@given(
    st.lists(
        st.tuples(
            st.sampled_from(EVENTS),
            st.sampled_from([0, 1, 59, GRACE_S - 1, GRACE_S, GRACE_S + 1, DAY_S]),
        ),
        max_size=25,
    )
)
def test_grace_is_what_its_model_says(events: list[tuple[str, int]]) -> None:
    model, state, now = Model(), FRESH, AT
    expired = VENDOR.license(expires_at=AT - 1)
    for event, later in events:
        now += later
        evidence = {
            "valid": seen(now),
            "missing": seen(now, None),
            "malformed": seen(now, b"{"),
            "keyset": seen(now, keyset_readable=False),
            "flipped": seen(now, flipped()),
            "expired-file": seen(now, expired),
        }.get(event)
        if evidence is None:  # A restart: the state comes back from its file.
            state = msgspec.json.decode(msgspec.json.encode(state), type=State)
            continue
        decision, state = judged(evidence, state)
        assert decision.serving is model.expect(event, now), (event, now - AT)
        began = None if state.grace is None else state.grace.began_at
        assert began == model.began_at
        if decision.serving:
            assert decision.ends_at is not None
            assert decision.ends_at > now
        again, same = judged(evidence, state)
        assert (again, same) == (decision, state), "judging twice changes nothing"


# Revocation


def test_an_entry_applies_from_its_second_on() -> None:
    bundle = VENDOR.bundle(entry("suspended", AT + 10))
    decision, state = judged(seen(AT, bundle=bundle), policy=STRICT)
    assert (decision.ends_at, decision.ends_with) == (AT + 10, "license-suspended")
    assert judged(seen(AT + 9, bundle=bundle), state, STRICT)[0].serving
    assert codes(seen(AT + 10, bundle=bundle), state, STRICT)[0] == "license-suspended"


@pytest.mark.parametrize("policy", [STRICT, LOOSE, POLICY], ids=["strict", "loose", "off"])
def test_deleting_the_bundle_evades_nothing(policy: LicenseConfig) -> None:
    _, state = judged(seen(bundle=VENDOR.bundle(entry("revoked"))), policy=STRICT)
    for bundle in (None, b"{}", VENDOR.bundle(version=ISSUED_AT)):
        assert codes(seen(AT + 5, bundle=bundle), state, policy)[0] == "license-revoked"


def test_a_higher_version_without_the_entry_lifts_it() -> None:
    _, state = judged(seen(bundle=VENDOR.bundle(entry("suspended"))), policy=STRICT)
    lifted = VENDOR.bundle(version=ISSUED_AT + 1)
    assert judged(seen(AT, bundle=lifted), state, STRICT)[0].serving


def test_an_entry_seen_in_grace_is_remembered() -> None:
    revoking = VENDOR.bundle(entry("revoked"), version=ISSUED_AT + 1)
    _, state = judged(seen(AT, None, bundle=revoking), served(bundle=BUNDLE), STRICT)
    assert codes(seen(AT + 1, bundle=None), state, LOOSE)[0] == "license-revoked"


UNUSABLE = {
    "malformed": seen(bundle=b"{}"),
    "untrusted": seen(bundle=Vendor("x").bundle()),
    "older": seen(bundle=VENDOR.bundle(version=ISSUED_AT)),
    "missing": seen(bundle=None),
    "expired": seen(bundle=VENDOR.bundle(version=ISSUED_AT + 9, expires_at=AT)),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_an_unusable_bundle_blocks_warns_or_is_not_asked_for(name: str) -> None:
    state = served(bundle=VENDOR.bundle(version=ISSUED_AT + 5))
    evidence = UNUSABLE[name]
    failed = ("license-revocation-check-failed", "revocation-unusable")
    assert codes(evidence, state, STRICT) == failed
    decision, _ = judged(evidence, state, LOOSE)
    assert decision.serving
    assert "revocation bundle" in decision.warnings[0]
    required = msgspec.structs.replace(LOOSE.revocation, require_current_bundle=True)
    assert codes(evidence, state, msgspec.structs.replace(LOOSE, revocation=required)) == failed
    decision, _ = judged(evidence, state, POLICY)
    assert decision.serving
    assert decision.warnings == ()


def test_a_license_can_tighten_the_configuration() -> None:
    asking = VENDOR.license(revocation=ASKS)
    expired = VENDOR.bundle(expires_at=AT)
    assert codes(seen(license=asking, bundle=expired), FRESH, LOOSE)[1] == "revocation-unusable"
    assert codes(seen(license=asking), FRESH, LOOSE)[1] == "revocation-required"
    assert codes(seen(license=asking, bundle=BUNDLE), FRESH, POLICY)[1] == "revocation-required"
    assert judged(seen(license=asking, bundle=BUNDLE), policy=LOOSE)[0].serving


def test_a_bundle_that_must_be_current_ends_service_when_it_expires() -> None:
    bundle = VENDOR.bundle(expires_at=AT + 50)
    decision, _ = judged(seen(bundle=bundle), policy=STRICT)
    assert (decision.ends_at, decision.ends_with) == (AT + 50, "license-revocation-check-failed")
    assert judged(seen(bundle=bundle), policy=LOOSE)[0].ends_at == EXPIRES_AT


# Floors and the clock


def test_a_revision_counts_only_once_it_served() -> None:
    newer = VENDOR.license(revision=2, not_before_at=AT + 50)
    _, state = judged(seen(license=newer), served())
    assert judged(seen(), state)[0].serving
    assert codes(seen(), served(VENDOR.license(revision=2)))[0] == "license-superseded"
    other = VENDOR.license(deployment_id=identifier("dep", 2))
    assert judged(seen(license=other), served(VENDOR.license(revision=2)))[0].serving


def test_an_older_keyset_than_one_in_use_does_not_count() -> None:
    newer = Vendor(version=2)
    _, state = judged(seen(trust=newer.trust()))
    decision, _ = judged(seen(), state)
    assert (decision.reason, decision.cause) == ("license-superseded", "rolled-back")


def test_the_clock_may_be_300_seconds_behind() -> None:
    state = served()
    assert judged(seen(AT - 300), state)[0].serving
    decision, after = judged(seen(AT - 301), state)
    assert decision.reason == "license-clock-rollback"
    assert after == state


def test_a_document_is_a_floor_too() -> None:
    later = VENDOR.bundle(issued_at=AT, version=AT)
    state = served(bundle=later, at=AT)
    state = msgspec.structs.replace(state, time=msgspec.structs.replace(state.time, wall_floor=0))
    assert codes(seen(AT - 301), state)[0] == "license-clock-rollback"


def test_a_higher_revision_mends_a_clock_that_ran_ahead() -> None:
    ahead = served(at=AT + 10 * DAY_S)
    assert codes(seen(AT), ahead)[0] == "license-clock-rollback"
    decision, state = judged(seen(AT, VENDOR.license(revision=2)), ahead)
    assert decision.serving
    assert state.time.wall_floor == AT
    assert codes(seen(AT - 301, VENDOR.license(revision=2)), state)[0] == "license-clock-rollback"


def test_a_higher_revision_that_does_not_serve_lowers_no_floor() -> None:
    ahead = served(at=AT + 10 * DAY_S)
    revoked = VENDOR.bundle(entry("revoked"))
    higher = seen(AT, VENDOR.license(revision=2), bundle=revoked)
    decision, state = judged(higher, ahead, STRICT)
    assert decision.reason == "license-revoked"
    assert state.time.wall_floor == ahead.time.wall_floor
    assert codes(seen(AT), state)[0] == "license-clock-rollback"


# Seats, development, the state


def test_seats() -> None:
    two = VENDOR.license(limits=Limits(max_seats=2))
    assert decide(POLICY, FRESH, seen(license=two), seats=2)[0].serving
    decision, _ = decide(POLICY, FRESH, seen(license=two), seats=3)
    assert (decision.serving, decision.reason) == (False, "license-limit-exceeded")


def test_development_serves_whatever_is_wrong_and_says_so() -> None:
    policy = msgspec.structs.replace(POLICY, fail_open_for_dev=True)
    for decision in (judged(seen(license=None), policy=policy)[0], state_invalid(policy, AT)):
        assert (decision.serving, decision.status) == (True, "development")
        assert decision.reason is not None
        assert decision.allows(("whatever",))
        assert "not enforced" in decision.warnings[-1]
    assert judged(seen(), policy=policy)[0].status == "valid"


def test_a_state_that_cannot_be_trusted_blocks() -> None:
    decision = state_invalid(POLICY, AT)
    assert (decision.serving, decision.reason) == (False, "license-state-invalid")


# The lease

LEASED = VENDOR.leased(
    limits=Limits(max_concurrency=8, max_seats=4, tokens_per_window=100, window_s=60),
    budget=Budget(budget_id=identifier("bud", 1), tokens_total=1000),
)


def lease(file: bytes = LEASED, **changes: Any) -> bytes:
    values: dict[str, Any] = {
        "issued_at": AT - 10,
        "lease_id": identifier("lea", 1),
        "deployment_id": identifier("dep", 1),
        "license_id": identifier("lic", 1),
        "license_revision": 1,
        "license_sha256": sha256_hex(Envelope.parse(file).payload),
        "customer_id": identifier("cus", 1),
        "instance_id": identifier("ins", 1),
        "instance_keyid": KEYID,
        "epoch": 1,
        "seq": 1,
        "prev_sha256": "0" * 64,
        "request_id": identifier("req", 1),
        "request_sha256": "1" * 64,
        "status": "active",
        "expires_at": AT + 100,
        "grace_until_at": AT + 200,
        "renew_at": (AT + 10, AT + 20),
        "bundle_version": 0,
        "keyset_version": 1,
    }
    return VENDOR.lease(**{**values, **changes}).to_bytes()


def leased(now: int = AT, held: bytes | None = None, **changes: Any) -> Evidence:
    return seen(now, **{"license": LEASED, "lease": held, "instance_keyid": KEYID, **changes})


@pytest.mark.parametrize(
    ("now", "held", "code"),
    [
        (AT, None, "license-lease-required"),
        (AT, lease(instance_keyid="b" * 64), "license-lease-required"),
        (AT, lease(deployment_id=identifier("dep", 2)), "license-lease-required"),
        (AT, lease(license_revision=2), "license-lease-required"),
        (AT, b"{}", "license-lease-required"),
        (AT, lease(), None),
        (AT + 100, lease(), None),
        (AT + 199, lease(), None),
        (AT + 200, lease(), "license-lease-expired"),
        (AT, lease(status="suspended", reason="payment"), "license-suspended"),
        (AT, lease(status="revoked"), "license-revoked"),
        (AT, lease(status="superseded"), "license-superseded"),
        (AT, lease(status="ended"), "license-lease-ended"),
        (AT + 999, lease(status="ended"), "license-lease-ended"),
    ],
)
def test_the_lease_must_permit(now: int, held: bytes | None, code: str | None) -> None:
    assert codes(leased(now, held))[0] == code


def test_a_lease_ends_service_at_the_end_of_its_grace() -> None:
    decision, _ = judged(leased(held=lease()))
    assert (decision.ends_at, decision.ends_with) == (AT + 200, "license-lease-expired")
    assert decision.lease is not None
    assert decision.lease.expires_at == AT + 100


def test_the_license_comes_before_its_lease() -> None:
    revoked = VENDOR.bundle(entry("revoked"))
    assert codes(leased(bundle=revoked), FRESH, STRICT)[0] == "license-revoked"


def test_a_lease_narrows() -> None:
    held = lease(
        features=("routing",),
        limits=Limits(max_seats=2, max_instances=3, tokens_per_window=50, window_s=90),
        budget=Budget(budget_id=identifier("bud", 1), tokens_total=77),
    )
    decision, _ = judged(leased(held=held))
    assert decision.features == {"routing"}
    assert decision.limits == Limits(
        max_concurrency=8, max_seats=2, max_instances=3, tokens_per_window=50, window_s=90
    )
    assert decision.terms is not None
    assert decision.terms.budget is not None
    assert decision.terms.budget.tokens_total == decision.facts["budget_tokens"] == 77


BEYOND: dict[str, dict[str, Any]] = {
    "it outlasts the license": {"grace_until_at": EXPIRES_AT + 1},
    "a feature more": {"features": ("pii_filtering", "routing")},
    "a limit that is wider": {"limits": Limits(max_concurrency=9)},
    "a burst in a slower window": {"limits": Limits(tokens_per_window=101, window_s=86_400)},
    "more tokens": {"budget": Budget(budget_id=identifier("bud", 1), tokens_total=1001)},
    "another budget": {"budget": Budget(budget_id=identifier("bud", 2), tokens_total=1)},
    "suspended, and more tokens": {
        "status": "suspended",
        "budget": Budget(budget_id=identifier("bud", 1), tokens_total=1001),
    },
}


@pytest.mark.parametrize("name", BEYOND)
def test_a_lease_beyond_its_license_is_as_if_there_were_none(name: str) -> None:
    """Whoever can sign leases gets no more than the license, and sets no clock."""
    held = lease(issued_at=AT + 200, **BEYOND[name])
    decision, state = judged(leased(held=held))
    assert (decision.serving, decision.reason, decision.cause) == (
        False,
        "license-lease-required",
        "lease-rejected",
    )
    assert decision.lease is None
    assert state.time.doc_floor < AT
    assert state.budgets.tallies == {}


def test_a_period_budget_is_remembered_from_the_moment_it_serves() -> None:
    file = VENDOR.leased(
        budget=Budget(budget_id=identifier("bud", 1), tokens_total=1000),
        ext={"budget_period_s": 3600},
    )

    def held(number: int) -> bytes:
        budget = Budget(budget_id=identifier("bud", number), tokens_total=1000)
        return lease(file, budget=budget, expires_at=EXPIRES_AT, grace_until_at=EXPIRES_AT)

    def at(now: int, number: int, before: State) -> tuple[bool, State]:
        decision, after = judged(leased(now, held(number), license=file), before)
        return decision.serving, after

    serving, state = at(AT, 1, FRESH)
    assert serving
    assert state.periods == {}
    serving, state = at(AT, 2, state)
    assert serving
    assert state.periods == {identifier("dep", 1): {identifier("bud", 2): ISSUED_AT}}
    serving, state = at(AT + 10, 3, state)
    assert serving
    serving, refused = at(AT + 10 + 3599, 4, state)
    assert not serving
    assert refused.periods == state.periods
    assert at(AT + 10 + 3600, 4, state)[0]
    assert at(AT - 200, 3, state)[0], "a clock that is a little behind loses nothing"


def test_a_license_counted_by_periods_before_permits_none_by_itself() -> None:
    """What was remembered under one license is no permission under the next."""
    held = lease(budget=Budget(budget_id=identifier("bud", 2), tokens_total=1))
    known = msgspec.structs.replace(
        FRESH, periods={identifier("dep", 1): {identifier("bud", 2): ISSUED_AT}}
    )
    assert codes(leased(held=held), known) == ("license-lease-required", "lease-rejected")


def test_a_lease_for_the_license_before_permits_and_narrows_nothing() -> None:
    successor = VENDOR.leased(revision=2)
    held = lease(features=(), budget=Budget(budget_id=identifier("bud", 2), tokens_total=1))
    decision, _ = judged(leased(held=held, license=successor))
    assert decision.serving
    assert decision.features == {"routing", "usage_reporting"}
    assert decision.terms is not None
    assert decision.terms.budget is None


def test_grace_keeps_to_the_lease() -> None:
    _, state = judged(leased(held=lease()))
    assert judged(leased(AT + 50, lease(), license=None), state)[0].ends_at == AT + 200
    assert codes(leased(AT + 200, lease(), license=None), state)[0] == "license-lease-expired"
