"""What a deployment's license says, computed from its live entitlements.

One base (evaluation, pilot, contract, seat offer, plan) plus packs. A pack changes budget and SKU;
features, binding, other limits and expiry come from the base. Without a base, or with only an
evaluation, a pack is good for 365 days.

Source: "License life cycle" of the portal's design.
"""

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from licensing.names import FEATURES, LIMITS
from portal.domain.catalog import CATALOG, PACK_FEATURES, LeasePlan, Mode
from portal.domain.errors import Invalid

PACK_TERM: Final = timedelta(days=365)
MAX_TERM: Final = timedelta(days=5 * 366)


@dataclass(frozen=True)
class Grant:
    """A live entitlement, as far as computing needs it."""

    sku: str
    mode: Mode
    features: tuple[str, ...]
    limits: Mapping[str, int]
    tokens_total: int | None
    budget_id: str | None
    fingerprints: tuple[str, ...]
    support_tier: str | None
    starts_at: datetime
    ends_at: datetime | None

    @property
    def is_pack(self) -> bool:
        """Whether this grant is a credit pack."""
        return CATALOG[self.sku].is_pack


@dataclass(frozen=True)
class Terms:
    """What the next license of a deployment says."""

    sku: str
    mode: Mode
    features: tuple[str, ...]
    limits: Mapping[str, int]
    tokens_total: int | None
    budget_id: str | None
    fingerprints: tuple[str, ...]
    support_tier: str | None
    expires_at: datetime
    leases: LeasePlan | None
    """How its leases run; None for an offline license."""


def compute_terms(live: Sequence[Grant]) -> Terms:
    """Compute the terms of a deployment's license from its live entitlements.

    Raises:
        Invalid: nothing is live, or two bases are.
    """
    bases = [grant for grant in live if not grant.is_pack]
    packs = sorted((grant for grant in live if grant.is_pack), key=lambda pack: pack.starts_at)
    if len(bases) > 1:
        # A later base takes an earlier one's place.
        bases = [max(bases, key=lambda grant: grant.starts_at)]
    if not bases and not packs:
        raise Invalid("The deployment has no live entitlement.")
    base = bases[0] if bases else None
    lead = packs[-1] if packs else base
    if lead is None:
        raise Invalid("The deployment has no live entitlement.")
    shape = base or lead
    limits = dict(shape.limits)
    if lead.tokens_total is not None and shape.mode == "offline":
        # One state file counts an offline budget.
        limits["max_instances"] = 1
    return Terms(
        sku=lead.sku,
        mode=shape.mode,
        features=tuple(sorted(shape.features if base else (lead.features or PACK_FEATURES))),
        limits=limits,
        tokens_total=lead.tokens_total,
        budget_id=lead.budget_id,
        fingerprints=tuple(sorted(shape.fingerprints)),
        support_tier=shape.support_tier,
        expires_at=_expiry(base, lead),
        leases=CATALOG[shape.sku].leases if shape.mode == "lease" else None,
    )


def _expiry(base: Grant | None, lead: Grant) -> datetime:
    if base is not None and (base is lead or base.sku != "eval-72h"):
        if base.ends_at is None:
            raise Invalid(f"The {base.sku} entitlement has no end.")
        return base.ends_at
    return lead.starts_at + PACK_TERM


def check_terms(
    *,
    sku: str,
    mode: str,
    term_s: int | None,
    features: Sequence[str],
    limits: Mapping[str, int],
    tokens_total: int | None,
    fingerprints: Sequence[str],
) -> None:
    """Check proposed terms against the catalog, before anybody approves or signs them.

    Raises:
        Invalid: the message names the value and what would be right.
    """
    template = CATALOG.get(sku)
    if template is None:
        raise Invalid(f"There is no SKU {sku!r}; choose one of {', '.join(CATALOG)}.", field="sku")
    if mode not in template.modes:
        raise Invalid(f"{sku} works in {' or '.join(template.modes)} mode only.", field="mode")
    if template.is_pack:
        if term_s is not None:
            raise Invalid(f"{sku} takes its term from its base.", field="term")
    elif term_s is None:
        raise Invalid(f"{sku} needs a term, such as 365d.", field="term")
    elif not 60 <= term_s <= MAX_TERM.total_seconds():
        raise Invalid("A term is between one minute and five years.", field="term")
    unknown = sorted(set(features) - set(FEATURES))
    if unknown:
        raise Invalid(
            f"Unknown feature {', '.join(unknown)}; known are {', '.join(FEATURES)}.",
            field="features",
        )
    if not features and not template.is_pack:
        raise Invalid("Name at least one feature.", field="features")
    missing = sorted(set(template.always) - set(features))
    if missing:
        raise Invalid(f"{sku} always includes {', '.join(missing)}.", field="features")
    check_limits(limits, tokens_total)
    for text in fingerprints:
        if unicodedata.normalize("NFC", text) != text:
            raise Invalid("A fingerprint must be plain ASCII.", field="fingerprint")
    if mode == "offline" and tokens_total is not None and limits.get("max_instances", 1) != 1:
        raise Invalid(
            "An offline license with a budget has one instance: its budget is counted in one "
            "state file. Use lease mode for more.",
            field="limits",
        )


def check_limits(limits: Mapping[str, int], tokens_total: int | None) -> None:
    """Check the limits of proposed terms.

    Raises:
        Invalid: unknown name, a value below 1, or half a window.
    """
    for name, value in limits.items():
        if name not in LIMITS:
            raise Invalid(
                f"Unknown limit {name!r}; known are {', '.join(LIMITS)}, tokens_total.",
                field="limits",
            )
        if isinstance(value, bool) or not 1 <= value <= 2**53 - 1:
            raise Invalid(f"The limit {name} must be a whole number from 1 up.", field="limits")
    if ("tokens_per_window" in limits) != ("window_s" in limits):
        raise Invalid("tokens_per_window and window_s stand together.", field="limits")
    if tokens_total is not None and not 1 <= tokens_total <= 2**53 - 1:
        raise Invalid("tokens_total must be a whole number from 1 up.", field="limits")
