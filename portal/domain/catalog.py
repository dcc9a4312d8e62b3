"""The catalog: what each SKU grants unless an approved entitlement says otherwise.

Source: the vendor's license templates and the SKU table of the portal's design.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from msgspec.structs import replace

from licensing.license import Limits
from licensing.names import FEATURES, LIMITS
from portal.domain.errors import Invalid
from portal.domain.terms import Mode, Terms

Source = Literal["evaluation", "pilot", "order", "subscription", "contract", "marketplace"]

HOUR_S: Final = 3600
DAY_S: Final = 24 * HOUR_S

PACK_FEATURES: Final = ("dynamic_routing", "routing", "usage_reporting")


def _all_but(*left_out: str) -> tuple[str, ...]:
    return tuple(sorted(set(FEATURES) - set(left_out)))


@dataclass(frozen=True)
class LeasePlan:
    """How long the leases of a license are good (seconds), by the lease protocol's table."""

    ttl_s: int
    grace_s: int


TRIAL_LEASES: Final = LeasePlan(24 * HOUR_S, 72 * HOUR_S)
MONTHLY_LEASES: Final = LeasePlan(72 * HOUR_S, 7 * DAY_S)
ANNUAL_LEASES: Final = LeasePlan(7 * DAY_S, 14 * DAY_S)


@dataclass(frozen=True)
class Template:
    """What a SKU grants by default."""

    sku: str
    title: str
    summary: str
    source: Source
    term_s: int | None
    """Seconds; None where the contract or the base decides."""
    tokens_total: int | None
    """Budget in tokens; None: no budget."""
    features: tuple[str, ...]
    always: tuple[str, ...] = ()
    """Features that cannot be taken away."""
    limits: Limits = field(default_factory=Limits)
    leases: LeasePlan = TRIAL_LEASES
    modes: tuple[Mode, ...] = tuple(Mode)
    is_pack: bool = False
    two_person: bool = False
    """Proposed by one staff person, approved by another."""


_TEMPLATES: Final = (
    Template(
        sku="eval-72h",
        title="Evaluation",
        summary="72 hours, 1M tokens, one instance: try the router against your own traffic.",
        source="evaluation",
        term_s=72 * HOUR_S,
        tokens_total=1_000_000,
        features=_all_but("external_policy_routing", "private_upstreams", "audit_export"),
        limits=Limits(max_instances=1, max_concurrency=4),
    ),
    Template(
        sku="pilot-30d",
        title="Pilot",
        summary="30 days, 10M tokens in any 7 days, three instances, every feature.",
        source="pilot",
        term_s=30 * DAY_S,
        tokens_total=None,
        features=tuple(sorted(FEATURES)),
        always=("usage_reporting",),
        limits=Limits(tokens_per_window=10_000_000, window_s=7 * DAY_S, max_instances=3),
    ),
    Template(
        sku="enterprise-annual",
        title="Enterprise, annual",
        summary="A year on your own hosts with contracted features, volume and support.",
        source="contract",
        term_s=365 * DAY_S,
        tokens_total=None,
        features=(),
        leases=ANNUAL_LEASES,
        two_person=True,
    ),
    Template(
        sku="credit-pack-5m",
        title="Credit pack, 5M tokens",
        summary="5M tokens on top of what you have, license-wide.",
        source="order",
        term_s=None,
        tokens_total=5_000_000,
        features=PACK_FEATURES,
        limits=Limits(max_instances=1),
        leases=MONTHLY_LEASES,
        is_pack=True,
    ),
    Template(
        sku="credit-pack-25m",
        title="Credit pack, 25M tokens",
        summary="25M tokens on top of what you have, license-wide.",
        source="order",
        term_s=None,
        tokens_total=25_000_000,
        features=PACK_FEATURES,
        limits=Limits(max_instances=1),
        leases=MONTHLY_LEASES,
        is_pack=True,
    ),
    Template(
        sku="marketplace-seat",
        title="Marketplace seat",
        summary="Seats or volume as agreed in a private marketplace offer.",
        source="marketplace",
        term_s=None,
        tokens_total=None,
        features=(),
        leases=ANNUAL_LEASES,
    ),
    Template(
        sku="lease-monthly",
        title="Monthly plan",
        summary="20M tokens a month by card, three instances, renewed online.",
        source="subscription",
        term_s=400 * DAY_S,
        tokens_total=20_000_000,
        features=_all_but("private_upstreams"),
        limits=Limits(max_instances=3),
        leases=MONTHLY_LEASES,
        modes=(Mode.LEASE,),
    ),
)

CATALOG: Final[dict[str, Template]] = {template.sku: template for template in _TEMPLATES}


def template_of(sku: str) -> Template:
    """Return the template of an SKU.

    Raises:
        Invalid: there is no such SKU.
    """
    template = CATALOG.get(sku)
    if template is None:
        raise Invalid(f"There is no SKU {sku!r}; choose one of {', '.join(CATALOG)}.", field="sku")
    return template


def fill_terms(
    sku: str,
    *,
    mode: Mode = Mode.OFFLINE,
    term_s: int | None = None,
    limits: Mapping[str, int] | None = None,
    features: Sequence[str] | None = None,
    fingerprints: Sequence[str] = (),
) -> Terms:
    """Make terms of an SKU; what is left out is as its template says.

    `limits` may hold `tokens_total`, the budget, beside the license's limits.

    Raises:
        Invalid: there is no such SKU, or no such limit.
    """
    template = template_of(sku)
    given = dict(limits or {})
    tokens_total = given.pop("tokens_total", template.tokens_total)
    unknown = sorted(set(given) - set(LIMITS))
    if unknown:
        raise Invalid(
            f"Unknown limit {unknown[0]!r}; known are {', '.join(LIMITS)}, tokens_total.",
            field="limits",
        )
    return Terms(
        sku=sku,
        mode=mode,
        term_s=template.term_s if term_s is None else term_s,
        features=template.features if features is None else tuple(features),
        limits=replace(template.limits, **given),
        tokens_total=tokens_total,
        fingerprints=tuple(fingerprints),
    )
