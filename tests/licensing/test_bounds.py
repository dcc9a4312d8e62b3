"""What a lease may grant beside its license: nothing more, whatever somebody had signed."""

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devtools.vectors.build import EXPIRES, ISSUED, NOW, ORIGIN, identifier, signed
from licensing.bounds import excess, periods_with
from licensing.envelope import Envelope
from licensing.lease import Lease
from licensing.license import License
from licensing.verify import Verified, verify_license
from tests.licensing.documents import TRUST

PERIOD_S = 3600
OWN = identifier("bud", 1)


def licensed(**changes: Any) -> Verified[License]:
    """Return a license in lease mode."""
    terms = {"url": ORIGIN, "ttl_s": 86_400, "grace_s": 86_400}
    budget = {"budget_id": OWN, "tokens_total": 1000}
    values = {"mode": "lease", "lease": terms, "budget": budget, **changes}
    return verify_license(signed("license", **values), TRUST, NOW)


def leased(license_: Verified[License], **changes: Any) -> Lease:
    """Return a lease that is for a license."""
    values = {"license_sha256": license_.payload_sha256, **changes}
    return Lease.parse(Envelope.parse(signed("lease", **values)).payload)


def with_budget(license_: Verified[License], number: int) -> Lease:
    """Return a lease with a budget as large as its license's."""
    budget = {"budget_id": identifier("bud", number), "tokens_total": 1000}
    return leased(license_, budget=budget)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"grace_until_at": EXPIRES + 1}, "longer"),
        ({"features": ["zero_gravity"]}, "feature"),
        ({"limits": {"max_concurrency": 65}}, "limit"),
        ({"budget": {"budget_id": OWN, "tokens_total": 1001}}, "larger"),
        ({"budget": {"budget_id": identifier("bud", 2), "tokens_total": 1}}, "not its license's"),
        (
            {
                "budget": {
                    "budget_id": OWN,
                    "tokens_total": 1,
                    "carry_over_from": identifier("bud", 2),
                }
            },
            "carries over",
        ),
    ],
)
def test_what_goes_beyond_is_named(changes: dict[str, Any], said: str) -> None:
    license_ = licensed()
    assert excess(leased(license_), license_, NOW) is None
    assert said in (excess(leased(license_, **changes), license_, NOW) or "")


LIMITS = st.fixed_dictionaries(
    {},
    optional={
        "max_concurrency": st.integers(1, 4),
        "max_instances": st.integers(1, 4),
        "max_seats": st.integers(1, 4),
    },
)
WINDOWS: st.SearchStrategy[dict[str, int]] = st.one_of(
    st.just({}),
    st.fixed_dictionaries({"tokens_per_window": st.integers(1, 9), "window_s": st.integers(1, 9)}),
)


@given(LIMITS, WINDOWS, LIMITS, WINDOWS)
def test_a_lease_that_counts_permits_nothing_its_license_forbids(
    most: dict[str, int], window: dict[str, int], ours: dict[str, int], our_window: dict[str, int]
) -> None:
    """Not even in bursts: a window of the license holds whole windows of the lease."""
    license_ = licensed(limits={**most, **window})
    within = excess(leased(license_, limits={**ours, **our_window}), license_, NOW) is None
    if within:
        assert all(value <= most.get(name, value) for name, value in ours.items())
    if within and window and our_window:
        windows = -(-window["window_s"] // our_window["window_s"])
        assert our_window["tokens_per_window"] * windows <= window["tokens_per_window"]
    if {**most, **window} == {**ours, **our_window}:
        assert within


@given(st.lists(st.tuples(st.integers(1, 12), st.integers(-PERIOD_S, 2 * PERIOD_S)), max_size=40))
def test_however_leases_come_each_period_brings_one_new_budget(
    steps: list[tuple[int, int]],
) -> None:
    """Whatever is signed, and wherever the clock is pushed to and fro.

    Beside the license's own budget and the first that is met there is one for each period that the
    clock ever reached.
    """
    license_ = licensed(ext={"budget_period_s": PERIOD_S})
    periods: dict[str, int] = {}
    now = furthest = NOW
    for number, moved in steps:
        now = max(ISSUED, now + moved)
        furthest = max(furthest, now)
        lease = with_budget(license_, number)
        assert lease.budget is not None
        if excess(lease, license_, now, periods) is not None:
            assert lease.budget.budget_id not in (OWN, *periods)
            continue
        periods = dict(periods_with(periods, license_.document, lease.budget.budget_id, now))
        assert (lease.budget.budget_id in periods) is (number != 1)
        begun = sorted(periods.values())
        assert all(after - before >= PERIOD_S for before, after in pairwise(begun))
        assert len(periods) <= 1 + (furthest - ISSUED) // PERIOD_S


def test_no_period_is_remembered_where_the_license_permits_none() -> None:
    known = {identifier("bud", 2): NOW}
    assert periods_with(known, licensed().document, identifier("bud", 3), NOW) is known
