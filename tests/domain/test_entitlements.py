"""Entitlements: what a deployment's license says, computed from what is live."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from licensing.license import Limits
from portal.domain.catalog import CATALOG, PACK_FEATURES, fill_terms
from portal.domain.entitlements import Grant, check_terms, compute_terms
from portal.domain.errors import Invalid
from portal.domain.terms import Mode, Terms

AT = datetime(2026, 11, 23, 12, tzinfo=UTC)
CONTRACT = Grant(
    terms=Terms(
        sku="enterprise-annual",
        mode=Mode.OFFLINE,
        term_s=365 * 86400,
        features=("routing", "audit_export"),
        limits=Limits(max_concurrency=32),
        fingerprints=("fp_12345678",),
        support_tier="gold",
    ),
    budget_id=None,
    starts_at=AT,
    ends_at=AT + timedelta(days=365),
)
PACK = Grant(
    terms=Terms(
        sku="credit-pack-5m",
        mode=Mode.OFFLINE,
        features=(),
        limits=Limits(max_instances=1),
        tokens_total=5_000_000,
    ),
    budget_id="bud_00000000000000000000000000",
    starts_at=AT + timedelta(days=10),
    ends_at=None,
)
EVALUATION = replace(
    CONTRACT,
    terms=structs.replace(CONTRACT.terms, sku="eval-72h", features=("routing",)),
    ends_at=AT + timedelta(hours=72),
)


def test_nothing_live_is_no_license() -> None:
    with pytest.raises(Invalid, match="no live entitlement"):
        compute_terms([])


def test_a_pack_changes_budget_and_sku_and_nothing_else_of_its_base() -> None:
    computed = compute_terms([CONTRACT, PACK])
    assert computed.terms == structs.replace(
        CONTRACT.terms,
        sku="credit-pack-5m",
        tokens_total=5_000_000,
        limits=Limits(max_concurrency=32, max_instances=1),
    )
    assert (computed.budget_id, computed.expires_at) == (PACK.budget_id, CONTRACT.ends_at)


@pytest.mark.parametrize("base", [[], [EVALUATION]])
def test_a_pack_without_a_lasting_base_is_good_for_a_year(base: list[Grant]) -> None:
    computed = compute_terms([*base, PACK])
    assert computed.expires_at == PACK.starts_at + timedelta(days=365)
    assert computed.terms.features == (("routing",) if base else tuple(sorted(PACK_FEATURES)))


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
    computed = compute_terms(live)
    assert computed.budget_id == "bud_0000000000000000000000000A"
    assert computed.terms.support_tier == "gold"
    assert computed.expires_at == later.ends_at


def test_a_lease_license_runs_by_the_plan_of_its_base() -> None:
    leased = replace(CONTRACT, terms=structs.replace(CONTRACT.terms, mode=Mode.LEASE))
    computed = compute_terms([leased, PACK])
    assert computed.leases == CATALOG["enterprise-annual"].leases
    assert computed.terms.limits.max_instances is None
    assert compute_terms([CONTRACT]).leases is None


def test_a_base_without_an_end_is_refused() -> None:
    with pytest.raises(Invalid, match="no end"):
        compute_terms([replace(CONTRACT, ends_at=None)])


@pytest.mark.parametrize("sku", ["eval-72h", "pilot-30d", "credit-pack-5m", "credit-pack-25m"])
def test_each_template_passes_its_own_check(sku: str) -> None:
    check_terms(fill_terms(sku))


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"sku": "free-forever"}, "sku"),
        ({"sku": "lease-monthly"}, "mode"),
        ({"sku": "credit-pack-5m"}, "term"),
        ({"term_s": None}, "term"),
        ({"term_s": 59}, "term"),
        ({"term_s": 6 * 366 * 86400}, "term"),
        ({"features": ()}, "features"),
        ({"features": ("flying",)}, "features"),
        ({"features": ("routing",)}, "features"),
        ({"limits": Limits(max_instances=0)}, "limits"),
        ({"limits": Limits(max_instances=True)}, "limits"),
        ({"limits": Limits(max_instances=2**53)}, "limits"),
        ({"limits": Limits(tokens_per_window=5)}, "limits"),
        ({"tokens_total": 0}, "limits"),
        ({"tokens_total": 5, "limits": Limits(max_instances=2)}, "limits"),
        ({"fingerprints": ("fp_cafe\u0301123",)}, "fingerprint"),
        ({"fingerprints": ("fp_12345678", "short")}, "fingerprint"),
        ({"fingerprints": ("fp_12345678\n",)}, "fingerprint"),
    ],
)
def test_terms_that_cannot_be_name_their_field(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(Invalid) as refused:
        check_terms(structs.replace(fill_terms("pilot-30d"), **changes))
    assert refused.value.field == field


def test_what_is_left_out_is_as_the_template_says() -> None:
    filled = fill_terms("pilot-30d", limits={"max_instances": 5, "tokens_total": 7})
    assert filled == Terms(
        sku="pilot-30d",
        mode=Mode.OFFLINE,
        term_s=30 * 86400,
        features=CATALOG["pilot-30d"].features,
        limits=Limits(tokens_per_window=10_000_000, window_s=7 * 86400, max_instances=5),
        tokens_total=7,
    )
    assert fill_terms("pilot-30d", features=()).features == ()


@pytest.mark.parametrize(
    ("sku", "limits", "field"),
    [("free-forever", {}, "sku"), ("pilot-30d", {"max_dreams": 1}, "limits")],
)
def test_what_nobody_knows_cannot_be_filled_in(
    sku: str, limits: dict[str, int], field: str
) -> None:
    with pytest.raises(Invalid) as refused:
        fill_terms(sku, limits=limits)
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
    assert CATALOG["eval-72h"].limits == Limits(max_instances=1, max_concurrency=4)
    assert CATALOG["pilot-30d"].term_s == 30 * 86400
    assert CATALOG["pilot-30d"].limits == Limits(
        tokens_per_window=10_000_000, window_s=7 * 86400, max_instances=3
    )
    assert CATALOG["credit-pack-5m"].tokens_total == 5_000_000
    assert CATALOG["credit-pack-25m"].tokens_total == 25_000_000
    assert set(PACK_FEATURES) == {"routing", "usage_reporting", "dynamic_routing"}
    assert everything - set(CATALOG["lease-monthly"].features) == {"private_upstreams"}
