"""What a deployment's license says, computed from its live entitlements.

One base (evaluation, pilot, contract, seat offer, plan) plus packs. A pack changes budget and SKU;
features, binding, other limits and expiry come from the base. Without a base, or with only an
evaluation, a pack is good for 365 days.

Source: "License life cycle" of the portal's design.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from msgspec.structs import asdict, replace

from licensing.encoding import MAX_INTEGER
from licensing.names import FEATURES
from portal.domain.catalog import CATALOG, PACK_FEATURES, LeasePlan, template_of
from portal.domain.errors import Invalid
from portal.domain.terms import FINGERPRINT, Mode, Terms

PACK_TERM: Final = timedelta(days=365)
MAX_TERM: Final = timedelta(days=5 * 366)


class EntitlementState(StrEnum):
    """How far an entitlement has come; it only moves forward."""

    PROPOSED = "proposed"
    """Waits for approval."""
    APPROVED = "approved"
    """May be issued, or waits for the customer's *Start now*."""
    LIVE = "live"
    """A license was issued from it."""
    ENDED = "ended"


@dataclass(frozen=True)
class Grant:
    """A live entitlement, as far as computing needs it."""

    terms: Terms
    budget_id: str | None
    starts_at: datetime
    ends_at: datetime | None

    @property
    def is_pack(self) -> bool:
        """Whether this grant is a credit pack."""
        return CATALOG[self.terms.sku].is_pack


@dataclass(frozen=True)
class LicenseTerms:
    """What the next license of a deployment says."""

    terms: Terms
    budget_id: str | None
    expires_at: datetime
    leases: LeasePlan | None
    """How its leases run; None for an offline license."""


def compute_terms(live: Sequence[Grant]) -> LicenseTerms:
    """Compute the terms of a deployment's license from its live entitlements.

    A later base takes an earlier one's place, and so does a pack; of two that began together, the
    one that stands later in `live`.

    Raises:
        Invalid: nothing is live, or the base has no end.
    """
    in_order = sorted(live, key=lambda grant: grant.starts_at)
    base = next((grant for grant in reversed(in_order) if not grant.is_pack), None)
    pack = next((grant for grant in reversed(in_order) if grant.is_pack), None)
    lead, shape = pack or base, base or pack
    if lead is None or shape is None:
        raise Invalid("The deployment has no live entitlement.")
    terms = replace(
        shape.terms,
        sku=lead.terms.sku,
        features=shape.terms.features or PACK_FEATURES,
        tokens_total=lead.terms.tokens_total,
    )
    if terms.tokens_total is not None and terms.mode is Mode.OFFLINE:
        # One state file counts an offline budget.
        terms = replace(terms, limits=replace(terms.limits, max_instances=1))
    return LicenseTerms(
        terms=terms,
        budget_id=lead.budget_id,
        expires_at=_expiry(base, lead),
        leases=CATALOG[shape.terms.sku].leases if terms.mode is Mode.LEASE else None,
    )


def _expiry(base: Grant | None, lead: Grant) -> datetime:
    if base is not None and (base is lead or base.terms.sku != "eval-72h"):
        if base.ends_at is None:
            raise Invalid(f"The {base.terms.sku} entitlement has no end.")
        return base.ends_at
    return lead.starts_at + PACK_TERM


def check_terms(terms: Terms) -> None:
    """Check proposed terms against the catalog, before anybody approves or signs them.

    Raises:
        Invalid: the message names the value and what would be right.
    """
    template = template_of(terms.sku)
    if terms.mode not in template.modes:
        raise Invalid(
            f"{terms.sku} works in {' or '.join(template.modes)} mode only.", field="mode"
        )
    _check_term(terms, is_pack=template.is_pack)
    _check_features(terms, template.always, is_pack=template.is_pack)
    _check_limits(terms)
    if not all(re.fullmatch(FINGERPRINT, text) for text in terms.fingerprints):
        raise Invalid(
            "A fingerprint has 8 to 128 letters, digits and . _ : - only.", field="fingerprint"
        )


def _check_term(terms: Terms, *, is_pack: bool) -> None:
    if is_pack:
        if terms.term_s is not None:
            raise Invalid(f"{terms.sku} takes its term from its base.", field="term")
    elif terms.term_s is None:
        raise Invalid(f"{terms.sku} needs a term, such as 365d.", field="term")
    elif not 60 <= terms.term_s <= MAX_TERM.total_seconds():
        raise Invalid("A term is between one minute and five years.", field="term")


def _check_features(terms: Terms, always: Sequence[str], *, is_pack: bool) -> None:
    unknown = sorted(set(terms.features) - set(FEATURES))
    if unknown:
        raise Invalid(
            f"Unknown feature {', '.join(unknown)}; known are {', '.join(FEATURES)}.",
            field="features",
        )
    if not terms.features and not is_pack:
        raise Invalid("Name at least one feature.", field="features")
    missing = sorted(set(always) - set(terms.features))
    if missing:
        raise Invalid(f"{terms.sku} always includes {', '.join(missing)}.", field="features")


def _check_limits(terms: Terms) -> None:
    limits = {name: value for name, value in asdict(terms.limits).items() if value is not None}
    if terms.tokens_total is not None:
        limits["tokens_total"] = terms.tokens_total
    for name, value in limits.items():
        if isinstance(value, bool) or not 1 <= value <= MAX_INTEGER:
            raise Invalid(f"The limit {name} must be a whole number from 1 up.", field="limits")
    if ("tokens_per_window" in limits) != ("window_s" in limits):
        raise Invalid("tokens_per_window and window_s stand together.", field="limits")
    if (
        terms.mode is Mode.OFFLINE
        and terms.tokens_total is not None
        and terms.limits.max_instances not in (None, 1)
    ):
        raise Invalid(
            "An offline license with a budget has one instance: its budget is counted in one "
            "state file. Use lease mode for more.",
            field="limits",
        )
