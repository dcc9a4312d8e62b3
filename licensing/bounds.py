"""What a lease may grant: never more than the license it is for.

The web tier of the portal holds the lease key, so whoever controls it can have any lease signed.
Every router therefore compares a lease with its license, which another key signed, and a lease that
goes beyond it is as if it had never come.

Invariants: no clock, no state. What a router remembers of period budgets is passed in and handed
back. Times are Unix seconds.

Source: `lease.v1` of the signed documents; "Leases" of the design of custody.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from licensing.lease import Lease
from licensing.license import Budget, License, Limits
from licensing.verify import Verified

REJECTED: Final = "lease-rejected"
"""The code of a genuine lease that goes beyond its license."""
NO_PERIODS: Final[Mapping[str, int]] = MappingProxyType({})


def excess(
    lease: Lease,
    license_: Verified[License],
    at: int,
    periods: Mapping[str, int] = NO_PERIODS,
) -> str | None:
    """Return what a lease grants beyond its license; None where it keeps within it.

    A lease that is for another license grants nothing of its own, so there is nothing to compare.
    `periods` says since when each period budget of the deployment has been in use here.
    """
    if lease.license_sha256 != license_.payload_sha256:
        return None
    bounds = license_.document
    if lease.grace_until_at > bounds.expires_at:
        return "it lasts longer than its license"
    if not set(lease.features or ()) <= set(bounds.features):
        return "it has a feature that its license lacks"
    if lease.limits is not None and _is_wider(lease.limits, bounds.limits):
        return "a limit of it is wider than its license's"
    return None if lease.budget is None else _budget_excess(lease.budget, bounds, at, periods)


def _is_wider(ours: Limits, most: Limits) -> bool:
    """Say whether one of our limits permits what the other limits do not."""
    for name in Limits.__struct_fields__:
        given, bound = getattr(ours, name), getattr(most, name)
        if given is None or bound is None:
            continue
        # The same tokens in a shorter window are more tokens.
        if given < bound if name == "window_s" else given > bound:
            return True
    return False


def _budget_excess(
    ours: Budget, license_: License, at: int, periods: Mapping[str, int]
) -> str | None:
    most = license_.budget
    named = None if most is None else most.carry_over_from
    if ours.carry_over_from not in (None, named):
        return "it carries over from a budget that its license does not name"
    if most is None:
        # Where the license counts nothing, any budget narrows.
        return None
    if ours.tokens_total > most.tokens_total:
        return "its budget is larger than its license's"
    if ours.budget_id == most.budget_id:
        return None
    return _period_excess(ours.budget_id, license_.budget_period_s, at, periods)


def _period_excess(
    budget_id: str, period_s: int | None, at: int, periods: Mapping[str, int]
) -> str | None:
    """Judge a budget that is not the license's own."""
    if period_s is None:
        return "its budget is not its license's"
    if periods and budget_id not in periods and at < max(periods.values()) + period_s:
        return "its budget is new, and the period of the one before is not over"
    return None


def periods_with(
    periods: Mapping[str, int], license_: License, budget_id: str, at: int
) -> Mapping[str, int]:
    """Return the period budgets in use once this one serves.

    The first that is met may have begun at any time since the license did; the next one's period
    is counted from there.
    """
    own = license_.budget
    if license_.budget_period_s is None or own is None or budget_id in (own.budget_id, *periods):
        return periods
    return {**periods, budget_id: at if periods else license_.not_before_at}
