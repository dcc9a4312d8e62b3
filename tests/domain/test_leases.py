"""The rules of the lease chain, of times, slots and shares."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portal.domain.leases import (
    Link,
    Seat,
    Step,
    active_span,
    budget_share,
    inactive_span,
    next_step,
    slot_free_at,
    slots_held,
)

HEAD = Link(2, 7, "a" * 64)
AT = datetime(2026, 11, 23, tzinfo=UTC)


@pytest.mark.parametrize(
    ("claimed", "step"),
    [
        (HEAD, Step.CONTINUE),
        (Link(2, 8, "b" * 64), Step.AHEAD),
        (Link(3, 1, "b" * 64), Step.AHEAD),
        (Link(2, 6, "b" * 64), Step.FORK),
        (Link(1, 99, "b" * 64), Step.FORK),
        (Link(2, 7, "b" * 64), Step.FORK),
        (Link(0, 0, "0" * 64), Step.FORK),
    ],
)
def test_a_claim_continues_is_ahead_or_forks(claimed: Link, step: Step) -> None:
    assert next_step(HEAD, claimed) is step


@pytest.mark.parametrize(
    ("ttl_h", "earliest_h", "latest_h"), [(72, 24, 36), (24, 8, 12), (7 * 24, 56, 84)]
)
def test_the_renewal_window_is_that_of_each_plan(
    ttl_h: int, earliest_h: int, latest_h: int
) -> None:
    span = active_span(0, ttl_s=ttl_h * 3600, grace_s=9, license_expires_at=10**9)
    assert span.renew_earliest_at == earliest_h * 3600
    assert span.renew_latest_at == latest_h * 3600
    assert span.grace_until_at == ttl_h * 3600 + 9


@given(
    at=st.integers(0, 10**9),
    ttl_s=st.integers(1, 10**7),
    grace_s=st.integers(0, 10**7),
    left=st.integers(1, 10**8),
)
def test_no_lease_outlives_its_license(at: int, ttl_s: int, grace_s: int, left: int) -> None:
    span = active_span(at, ttl_s=ttl_s, grace_s=grace_s, license_expires_at=at + left)
    assert span.renew_earliest_at <= span.renew_latest_at <= span.expires_at
    assert span.expires_at <= span.grace_until_at <= at + left


def test_who_is_not_active_asks_again_in_five_to_fifteen_minutes() -> None:
    span = inactive_span(1000, license_expires_at=10**9)
    assert (span.renew_earliest_at, span.renew_latest_at) == (1300, 1900)


def test_a_slot_is_held_through_grace_and_not_beyond() -> None:
    hour = timedelta(hours=1)
    seats = [
        Seat(is_active=True, grace_until_at=AT + hour, slot_free_at=None),
        Seat(is_active=True, grace_until_at=AT, slot_free_at=None),
        Seat(is_active=False, grace_until_at=AT + hour, slot_free_at=None),
        Seat(is_active=True, grace_until_at=AT + hour, slot_free_at=AT),
        Seat(is_active=True, grace_until_at=AT + hour, slot_free_at=AT + hour),
    ]
    assert slots_held(seats, AT) == 2


def test_only_so_many_slots_are_freed_at_once_in_a_leases_life() -> None:
    later = AT + timedelta(hours=30)
    free = slot_free_at([], AT, ttl_s=86400, max_instances=1, grace_until_at=later)
    assert free == AT
    one_before = [AT - timedelta(hours=1)]
    assert slot_free_at(one_before, AT, ttl_s=86400, max_instances=1, grace_until_at=later) == later
    long_ago = [AT - timedelta(hours=25)]
    assert slot_free_at(long_ago, AT, ttl_s=86400, max_instances=1, grace_until_at=later) == AT


@given(
    total=st.integers(0, 10**9),
    slots=st.integers(1, 5),
    steps=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 10**8)), max_size=40),
)
def test_all_instances_together_stay_within_the_budget(
    total: int, slots: int, steps: list[tuple[int, int]]
) -> None:
    used = [0] * 5
    granted = [0] * 5
    for instance, wish in steps:
        used[instance] = min(granted[instance], used[instance] + wish)
        others = [each for each in range(5) if each != instance]
        granted[instance] = budget_share(
            total=total,
            used=used[instance],
            used_by_others=sum(used[each] for each in others),
            granted_to_others=sum(granted[each] for each in others),
            slots=slots,
        )
        assert granted[instance] >= used[instance]
        assert sum(max(g, u) for g, u in zip(granted, used, strict=True)) <= total
