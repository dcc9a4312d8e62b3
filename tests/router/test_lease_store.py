"""When a router means to ask, and what it waits for."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from licensing.envelope import Envelope
from licensing.lease import Lease
from router.clock import anchor_at, present
from router.lease.store import MAX_WAIT_S, LeaseState, backoff_s
from tests.router.papers import AT, DAY_S, Vendor, identifier
from tests.router.site import Ticks

SECRET = "5e" * 32


def a_lease(**changes: object) -> Envelope:
    """Return a lease that is renewed between AT + 8 h and AT + 12 h."""
    values = {
        "iss": "metrum.ai",
        "issued_at": AT,
        "lease_id": identifier("lea", 1),
        "deployment_id": identifier("dep", 1),
        "license_id": identifier("lic", 1),
        "license_revision": 1,
        "license_sha256": "1" * 64,
        "customer_id": identifier("cus", 1),
        "instance_id": identifier("ins", 1),
        "instance_keyid": "2" * 64,
        "epoch": 1,
        "seq": 1,
        "prev_sha256": "0" * 64,
        "request_id": identifier("req", 1),
        "request_sha256": "3" * 64,
        "status": "active",
        "expires_at": AT + DAY_S,
        "grace_until_at": AT + 4 * DAY_S,
        "renew_at": (AT + DAY_S // 3, AT + DAY_S // 2),
        "bundle_version": 0,
        "keyset_version": 1,
        **changes,
    }
    return Vendor().lease(**{name: value for name, value in values.items() if name != "iss"})


def held() -> LeaseState:
    """Return the state after a fresh answer."""
    return LeaseState(secret=SECRET).installed(a_lease(), AT, fresh=True, courier=False)


@given(secret=st.binary(min_size=32, max_size=32), number=st.integers(0, 2**64))
def test_the_moment_lies_inside_the_window_and_stays(secret: bytes, number: int) -> None:
    envelope = a_lease(lease_id=identifier("lea", number))
    state = LeaseState(secret=secret.hex()).installed(envelope, AT, fresh=True, courier=False)
    moment = state.due_at(AT)
    assert moment is not None
    earliest, latest = Lease.parse(envelope.payload).renew_at
    assert earliest <= moment <= latest
    assert state.due_at(AT + 7 * DAY_S) == moment


@given(failures=st.integers(1, 10_000), asks=st.none() | st.integers(0, 10**9))
def test_a_backoff_grows_with_full_jitter_and_keeps_its_bounds(
    failures: int, asks: int | None
) -> None:
    waits = backoff_s(failures, asks)
    if asks is None:
        assert 60 <= waits <= min(3600, 60 * 2**failures)
    else:
        assert max(60, min(asks, MAX_WAIT_S)) <= waits <= max(3600, min(asks, MAX_WAIT_S))


def test_jitter_is_not_a_constant() -> None:
    assert len({backoff_s(8) for _ in range(50)}) > 5


def test_an_unanswered_request_is_asked_again_after_the_backoff() -> None:
    state = replace(held(), pending=identifier("req", 2)).failed("unreachable", "no", AT + 40_000)
    due = state.due_at(AT + 40_000)
    assert due is not None
    assert AT + 40_060 <= due <= AT + 40_120
    assert state.put_off_until(AT + 40_000) == due


def test_what_fails_beside_the_renewal_does_not_bring_it_forward() -> None:
    moment = held().due_at(AT)
    assert held().failed("unreachable", "no bundle", AT + 5).due_at(AT + 5) == moment


def test_an_answer_that_does_not_tell_the_time_is_asked_for_again() -> None:
    state = LeaseState(secret=SECRET).installed(a_lease(), AT, fresh=False, courier=False)
    due = state.due_at(AT)
    assert due is not None
    assert AT + 60 <= due <= AT + 120
    assert state.trouble is None


@pytest.mark.parametrize(
    "state", [replace(held(), released="lea"), replace(held(), releasing="req")]
)
def test_a_lease_that_is_given_up_is_not_renewed(state: LeaseState) -> None:
    assert state.due_at(AT) is None


def test_a_moment_that_a_clock_ran_ahead_to_does_not_silence_the_router() -> None:
    ahead = AT + 400 * DAY_S
    state = replace(held(), pending=identifier("req", 2)).failed("unreachable", "no", ahead)
    assert state.put_off_until(AT) is None
    assert state.due_at(AT) == AT


def test_only_an_answer_within_a_minute_of_its_request_is_fresh() -> None:
    ticks = Ticks()
    state = replace(held(), asked_boot_id=ticks.boot_id, asked_boottime=ticks.seconds)
    ticks.seconds += 60
    assert state.is_fresh(ticks)
    ticks.seconds += 1
    assert not state.is_fresh(ticks)
    ticks.reboot()
    assert not state.is_fresh(ticks)
    assert not held().is_fresh(ticks), "nothing was asked"


def test_time_goes_on_from_the_anchor_until_the_kernel_boots_again() -> None:
    ticks = Ticks(time=AT + 9 * DAY_S)
    anchor = anchor_at(AT, ticks)
    assert present(None, ticks) == AT + 9 * DAY_S
    assert present(anchor, ticks) == AT
    ticks.pass_by(3600)
    ticks.time -= 30 * DAY_S
    assert present(anchor, ticks) == AT + 3600, "nobody sets the time since boot"
    ticks.reboot()
    assert present(anchor, ticks) == ticks.time
