"""Entitlements: what a deployment's license says, computed from what is live."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portal.domain.catalog import CATALOG, PACK_FEATURES
from portal.domain.entitlements import Grant, check_terms, compute_terms
from portal.domain.errors import Invalid

AT = datetime(2026, 11, 23, 12, tzinfo=UTC)
CONTRACT = Grant(
    sku="enterprise-annual",
    mode="offline",
    features=("routing", "audit_export"),
    limits={"max_concurrency": 32},
    tokens_total=None,
    budget_id=None,
    fingerprints=("fp_12345678",),
    support_tier="gold",
    starts_at=AT,
    ends_at=AT + timedelta(days=365),
)
PACK = Grant(
    sku="credit-pack-5m",
    mode="offline",
    features=(),
    limits={"max_instances": 1},
    tokens_total=5_000_000,
    budget_id="bud_00000000000000000000000000",
    fingerprints=(),
    support_tier=None,
    starts_at=AT + timedelta(days=10),
    ends_at=None,
)
EVALUATION = replace(
    CONTRACT, sku="eval-72h", ends_at=AT + timedelta(hours=72), features=("routing",)
)


def test_nothing_live_is_no_license() -> None:
    with pytest.raises(Invalid, match="no live entitlement"):
        compute_terms([])


def test_a_pack_changes_budget_and_sku_and_nothing_else_of_its_base() -> None:
    terms = compute_terms([CONTRACT, PACK])
    assert terms.sku == "credit-pack-5m"
    assert (terms.tokens_total, terms.budget_id) == (5_000_000, PACK.budget_id)
    assert terms.features == ("audit_export", "routing")
    assert terms.fingerprints == ("fp_12345678",)
    assert terms.limits == {"max_concurrency": 32, "max_instances": 1}
    assert terms.expires_at == CONTRACT.ends_at


@pytest.mark.parametrize("base", [[], [EVALUATION]])
def test_a_pack_without_a_lasting_base_is_good_for_a_year(base: list[Grant]) -> None:
    terms = compute_terms([*base, PACK])
    assert terms.expires_at == PACK.starts_at + timedelta(days=365)
    assert terms.features == (("routing",) if base else tuple(sorted(PACK_FEATURES)))


@given(
    st.permutations(
        [
            CONTRACT,
            PACK,
            replace(
                PACK, starts_at=AT + timedelta(days=20), budget_id="bud_0000000000000000000000000A"
            ),
            EVALUATION,
        ]
    )
)
def test_the_order_of_entitlements_does_not_matter(live: list[Grant]) -> None:
    later = replace(CONTRACT, starts_at=AT + timedelta(seconds=1))
    live = [later if each is CONTRACT else each for each in live]
    terms = compute_terms(live)
    assert terms.budget_id == "bud_0000000000000000000000000A"
    assert terms.support_tier == "gold"
    assert terms.expires_at == later.ends_at


def proposed(sku_: str, **changes: object) -> dict[str, object]:
    template = CATALOG[sku_]
    terms: dict[str, object] = {
        "sku": sku_,
        "mode": template.modes[0],
        "term_s": template.term_s,
        "features": template.features,
        "limits": dict(template.limits),
        "tokens_total": template.tokens_total,
        "fingerprints": (),
    }
    return {**terms, **changes}


@pytest.mark.parametrize("sku", ["eval-72h", "pilot-30d", "credit-pack-5m", "credit-pack-25m"])
def test_each_template_passes_its_own_check(sku: str) -> None:
    check_terms(**proposed(sku))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"sku": "free-forever"}, "sku"),
        ({"mode": "magic"}, "mode"),
        ({"term_s": None}, "term"),
        ({"term_s": 59}, "term"),
        ({"term_s": 6 * 366 * 86400}, "term"),
        ({"features": ()}, "features"),
        ({"features": ("flying",)}, "features"),
        ({"features": ("routing",)}, "features"),
        ({"limits": {"max_dreams": 1}}, "limits"),
        ({"limits": {"max_instances": 0}}, "limits"),
        ({"limits": {"max_instances": True}}, "limits"),
        ({"limits": {"max_instances": 2**53}}, "limits"),
        ({"limits": {"tokens_per_window": 5}}, "limits"),
        ({"tokens_total": 0}, "limits"),
        ({"tokens_total": 5, "limits": {"max_instances": 2}}, "limits"),
        ({"fingerprints": ("fp_cafe\u0301123",)}, "fingerprint"),
    ],
)
def test_terms_that_cannot_be_name_their_field(changes: dict[str, object], field: str) -> None:
    with pytest.raises(Invalid) as refused:
        check_terms(**proposed("pilot-30d", **changes))  # type: ignore[arg-type]
    assert refused.value.field == field


def test_the_catalog_is_the_published_one() -> None:
    everything = set(CATALOG["pilot-30d"].features)
    assert len(everything) == 11
    assert everything - set(CATALOG["eval-72h"].features) == {
        "external_policy_routing",
        "private_upstreams",
        "audit_export",
    }
    assert CATALOG["eval-72h"].term_s == 72 * 3600
    assert CATALOG["eval-72h"].tokens_total == 1_000_000
    assert dict(CATALOG["eval-72h"].limits) == {"max_instances": 1, "max_concurrency": 4}
    assert CATALOG["pilot-30d"].term_s == 30 * 86400
    assert dict(CATALOG["pilot-30d"].limits) == {
        "tokens_per_window": 10_000_000,
        "window_s": 7 * 86400,
        "max_instances": 3,
    }
    assert CATALOG["credit-pack-5m"].tokens_total == 5_000_000
    assert CATALOG["credit-pack-25m"].tokens_total == 25_000_000
    assert set(PACK_FEATURES) == {"routing", "usage_reporting", "dynamic_routing"}
    assert everything - set(CATALOG["lease-monthly"].features) == {"private_upstreams"}
