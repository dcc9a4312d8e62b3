"""How one license follows another: when its content differs, and when the old one stops counting.

Source: "Overlap" of the life of a license. Times of a payload are Unix seconds.
"""

from datetime import timedelta
from enum import StrEnum
from typing import Final

from msgspec.structs import asdict

from licensing.license import License, Limits
from portal.domain.entitlements import LicenseTerms, window_covers

ARRIVAL: Final = timedelta(hours=72)
"""How long an offline license that must give way stays good, so that the new file can arrive."""
AFTER_COMPROMISE: Final = timedelta(days=14)
"""How long a license whose key is compromised stays good where the new keyset has not arrived."""


class Hurry(StrEnum):
    """How soon a license must take its predecessor's place."""

    NONE = "none"
    """A voluntary replacement."""
    COMPROMISE = "compromise"
    """The key of the license before is compromised."""
    AT_ONCE = "at-once"
    """Refund, lost dispute, abuse, or the customer says so."""


def is_said_by(computed: LicenseTerms, document: License) -> bool:
    """Say whether a license says what was computed; ids, revision and dates of issue aside."""
    terms, lease = computed.terms, document.lease
    plan = None if lease is None else (lease.ttl_s, lease.grace_s)
    return (
        document.sku == terms.sku
        and document.mode == terms.mode.value
        and document.expires_at == int(computed.expires_at.timestamp())
        and document.features == terms.features
        and document.limits == terms.limits
        and document.budget == computed.budget
        and document.binding.fingerprints == terms.fingerprints
        and document.support_tier == terms.support_tier
        and plan == (computed.leases and (computed.leases.ttl_s, computed.leases.grace_s))
    )


def overlap(before: License, after: License, hurry: Hurry, voluntary: timedelta) -> timedelta:
    """Return how long a license stays good after its successor was released."""
    if hurry is Hurry.AT_ONCE:
        return timedelta(0)
    to_offline = before.mode == "lease" and after.mode == "offline"
    if to_offline or grants_less(before, after):
        return timedelta(0) if before.mode == "lease" else ARRIVAL
    has_budget = before.budget is not None or after.budget is not None
    if has_budget and before.binding != after.binding:
        return ARRIVAL
    return min(voluntary, AFTER_COMPROMISE) if hurry is Hurry.COMPROMISE else voluntary


def grants_less(before: License, after: License) -> bool:
    """Say whether a license grants less anywhere than the one before it."""
    return (
        not set(before.features) <= set(after.features)
        or after.expires_at < before.expires_at
        or not _limits_cover(after.limits, before.limits)
        or _binding_narrowed(before, after)
        or _budget_shrank(before, after)
    )


def _limits_cover(ours: Limits, theirs: Limits) -> bool:
    if not window_covers(ours, theirs):
        return False
    others = asdict(theirs)
    for name, most in asdict(ours).items():
        if name in ("tokens_per_window", "window_s") or most is None:
            continue
        if others[name] is None or most < others[name]:
            return False
    return True


def _binding_narrowed(before: License, after: License) -> bool:
    """Whether instances were left out; another fingerprint in place of one is no less."""
    old, new = set(before.binding.fingerprints), set(after.binding.fingerprints)
    return bool(new) and (not old or new < old)


def _budget_shrank(before: License, after: License) -> bool:
    """Whether tokens are counted that were not, or fewer are granted under the same id."""
    if before.budget is None or after.budget is None:
        return after.budget is not None
    if before.budget.budget_id != after.budget.budget_id:
        return False
    dropped = before.budget.carry_over_from is not None and after.budget.carry_over_from is None
    return dropped or after.budget.tokens_total < before.budget.tokens_total
