"""Entitlements: what may start beside what, and what a deployment's license says."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from licensing.license import Budget, Limits
from portal.domain.catalog import CATALOG, PACK_FEATURES, fill_terms
from portal.domain.entitlements import (
    RANKS,
    EndCause,
    Grant,
    LicenseTerms,
    Line,
    check_terms,
    compute_terms,
    judge_start,
)
from portal.domain.errors import Conflict, Invalid
from portal.domain.terms import Mode, Terms

AT = datetime(2026, 11, 23, 12, tzinfo=UTC)
DAY = timedelta(days=1)
TERM_DAYS = {
    "eval-72h": 3,
    "pilot-30d": 30,
    "lease-monthly": 30,
    "marketplace-seat": 365,
    "enterprise-annual": 365,
}
"""The bases there are, from the lowest rank to the highest, and how long each is in these tests."""


def budget_id(number: int) -> str:
    return f"bud_{number:026d}"


def grant(
    sku: str = "enterprise-annual",
    *,
    day: float = 0,
    budget: int | None = None,
    terms: dict[str, Any] | None = None,
    **facts: Any,
) -> Grant:
    """Return a grant that starts so many days after `AT`; `budget` numbers its budget."""
    template = CATALOG[sku]
    starts_at = AT + day * DAY
    given = {
        "mode": template.modes[0],
        "features": ["routing"],
        "limits": {"tokens_total": 100} if budget is not None and not template.is_pack else {},
    }
    filled = fill_terms(sku, **{**given, **(terms or {})})
    return Grant(
        id=facts.pop("id", f"{sku} {day:g}"),
        terms=filled,
        budget_id=None if budget is None else budget_id(budget),
        starts_at=starts_at,
        ends_at=facts.pop(
            "ends_at", None if template.is_pack else starts_at + TERM_DAYS[sku] * DAY
        ),
        **facts,
    )


def said(*grants: Grant, day: float = 0) -> LicenseTerms:
    """Return what the license says so many days after `AT`."""
    computed = compute_terms(Line(grants, AT + day * DAY))
    assert computed is not None
    return computed


def budget_of(*grants: Grant, day: float) -> tuple[int, int, int | None] | None:
    """Return number, tokens and predecessor of the license's budget."""
    budget = said(*grants, day=day).budget
    if budget is None:
        return None
    before = budget.carry_over_from
    return (
        int(budget.budget_id[4:]),
        budget.tokens_total,
        None if before is None else int(before[4:]),
    )


PACK = grant("credit-pack-5m", day=10, budget=1)
M5 = 5_000_000
M25 = 25_000_000


def test_nothing_live_is_no_license() -> None:
    assert compute_terms(Line((), AT)) is None
    for over in (grant(), grant("credit-pack-5m", budget=1)):
        assert compute_terms(Line((over,), AT + 364 * DAY)) is not None
        assert compute_terms(Line((over,), AT + 365 * DAY)) is None
        assert compute_terms(Line((replace(over, ended_at=AT + DAY),), AT + DAY)) is None


def test_a_pack_changes_budget_and_sku_and_nothing_else_of_its_base() -> None:
    base = grant(budget=0, terms={"fingerprints": ("fp_12345678",)})
    before, after = said(base, day=9), said(base, PACK, day=10)
    assert after.terms == structs.replace(
        before.terms, sku="credit-pack-5m", tokens_total=M5, limits=Limits(max_instances=1)
    )
    assert after.expires_at == before.expires_at
    assert budget_of(base, PACK, day=10) == (1, M5, 0)


def test_packs_rest_under_a_base_without_a_budget_and_count_again_when_it_ends() -> None:
    base = grant("pilot-30d", day=20)
    assert budget_of(PACK, day=19) == (1, M5, None)
    resting = said(PACK, base, day=20)
    assert (resting.budget, resting.terms.sku) == (None, "pilot-30d")
    assert resting.expires_at == base.ends_at
    again = said(PACK, base, day=50)
    assert (again.terms.sku, again.expires_at) == ("credit-pack-5m", AT + 375 * DAY)
    assert budget_of(PACK, base, day=50) == (1, M5, None)


def test_a_pack_without_a_base_is_good_for_a_year_with_its_own_features() -> None:
    alone = said(replace(PACK, terms=structs.replace(PACK.terms, features=())), day=10)
    assert alone.expires_at == PACK.starts_at + 365 * DAY
    assert alone.terms.features == tuple(sorted(PACK_FEATURES))


def test_a_pack_lasts_as_long_as_the_base_that_stands_when_its_year_is_over() -> None:
    base = grant(day=300, budget=0)
    renewal = grant(day=665, budget=2, renews=base.id)
    line = Line((PACK, base, renewal), AT + 300 * DAY)
    assert line.over_at(PACK) == renewal.ends_at
    assert line.over_at(replace(PACK, ended_at=AT)) == AT


def test_a_new_budget_carries_over_from_what_was_live_at_that_moment() -> None:
    evaluation = grant("eval-72h", day=8, budget=0, ended_at=AT + 10 * DAY)
    assert budget_of(evaluation, PACK, day=10) == (1, M5, 0)
    early = grant("eval-72h", budget=0)
    assert budget_of(early, PACK, day=10) == (1, M5, None)
    more = grant("credit-pack-25m", day=11, budget=2)
    assert budget_of(early, PACK, more, day=11) == (2, M25, 1)


@pytest.mark.parametrize("how", ["held", "refunded"])
def test_a_pack_that_is_left_out_lowers_the_newest_budget(how: str) -> None:
    ways: dict[str, dict[str, Any]] = {
        "held": {"held_since": AT + 12 * DAY},
        "refunded": {"ended_at": AT + 12 * DAY, "end_cause": EndCause.REFUND},
    }
    out = ways[how]
    first, second = grant("credit-pack-5m", budget=1), grant("credit-pack-25m", day=5, budget=2)
    assert budget_of(first, second, day=12) == (2, M25, 1)
    assert budget_of(replace(first, **out), second, day=12) == (2, M25 - M5, 1)
    assert budget_of(first, replace(second, **out), day=12) == (2, 1, 1)
    small, large = grant("credit-pack-25m", budget=1), grant("credit-pack-5m", day=5, budget=2)
    computed = said(replace(small, **out), large, day=12)
    assert computed.shortfall == M25 - M5
    assert computed.budget == Budget(budget_id=budget_id(2), tokens_total=1)


def test_a_refund_in_part_lowers_by_that_part() -> None:
    part: dict[str, Any] = {"taken_tokens": 2_000_000, "taken_at": AT + 12 * DAY}
    first, second = grant("credit-pack-5m", budget=1), grant("credit-pack-25m", day=5, budget=2)
    assert budget_of(replace(first, **part), second, day=12) == (2, M25 - 2_000_000, 1)
    assert budget_of(replace(first, **part), day=12) == (1, 3_000_000, None)


def test_what_was_taken_out_of_an_earlier_budget_is_not_taken_out_again() -> None:
    first = grant("credit-pack-5m", budget=1, ended_at=AT + 4 * DAY, end_cause=EndCause.REFUND)
    base, second = grant(budget=0, day=-1), grant("credit-pack-25m", day=5, budget=2)
    assert budget_of(base, first, day=4) == (1, 1, 0)
    assert budget_of(base, first, second, day=5) == (2, M25, None)


def test_the_line_never_returns_to_an_earlier_budget() -> None:
    base = grant(budget=0)
    lost = replace(PACK, ended_at=AT + 12 * DAY, end_cause=EndCause.DISPUTE)
    after = said(base, lost, day=12)
    assert after.terms.sku == "enterprise-annual"
    assert budget_of(base, lost, day=12) == (1, 1, 0)


def test_a_hold_suspends_the_line_only_where_nothing_else_stands() -> None:
    held: dict[str, Any] = {"held_since": AT + DAY}
    base, pack = grant(budget=0), grant("credit-pack-5m", budget=1)
    other = grant("credit-pack-5m", day=0.5, budget=2)

    def suspending(*grants: Grant) -> set[str]:
        return set(Line(grants, AT + 2 * DAY).suspending)

    assert suspending(replace(base, **held), pack) == {base.id}
    assert suspending(base, replace(pack, **held)) == set()
    assert suspending(replace(pack, **held)) == {pack.id}
    assert suspending(replace(pack, **held), other) == set()
    assert suspending(replace(pack, **held), replace(other, **held)) == {pack.id, other.id}
    assert suspending(base, grant(day=365, renews=base.id, **held)) == set()
    # What suspends the line is not left out as well: lifted, the same license counts again.
    assert said(replace(pack, **held), day=2) == said(pack, day=2)
    assert said(replace(base, **held), pack, day=2) == said(base, pack, day=2)


def test_until_the_old_end_a_renewal_gives_the_wider_of_both_terms() -> None:
    old = grant(
        budget=0,
        terms={
            "features": ["routing", "audit_export"],
            "limits": {"tokens_total": 100, "max_concurrency": 8, "max_seats": 5},
            "fingerprints": ("fp_aaaaaaaa",),
        },
    )
    new = grant(
        day=365,
        budget=1,
        renews=old.id,
        terms={
            "features": ["routing", "pii_filtering"],
            "limits": {"tokens_total": 900, "max_concurrency": 16},
            "fingerprints": ("fp_bbbbbbbb",),
        },
    )
    both = said(old, new, day=100)
    assert both.terms.features == ("audit_export", "pii_filtering", "routing")
    assert both.terms.limits == Limits(max_concurrency=16, max_instances=1)
    assert both.terms.fingerprints == ("fp_aaaaaaaa", "fp_bbbbbbbb")
    assert both.expires_at == new.ends_at
    assert budget_of(old, new, day=100) == (0, 100, None)
    then = said(old, new, day=365)
    assert then.terms.features == new.terms.features
    assert then.expires_at == new.ends_at
    assert budget_of(old, new, day=365) == (1, 900, 0)


def test_a_renewal_that_is_held_or_lost_before_it_begins_gives_the_old_end_back() -> None:
    old = grant()
    ways: tuple[dict[str, Any], ...] = (
        {"held_since": AT + DAY},
        {"ended_at": AT + DAY, "end_cause": EndCause.REFUND},
    )
    for out in ways:
        new = grant(day=365, renews=old.id, **out)
        assert said(old, new, day=2) == said(old, day=2)


def test_a_renewal_whose_base_was_lost_waits_for_its_own_beginning() -> None:
    old = grant(ended_at=AT + DAY, end_cause=EndCause.REFUND)
    new = grant(day=365, budget=1, renews=old.id)
    computed = said(old, new, day=2)
    assert (computed.not_before_at, computed.expires_at) == (new.starts_at, new.ends_at)
    assert computed.budget == Budget(budget_id=budget_id(1), tokens_total=100)


def test_a_window_is_widened_only_by_one_that_lets_everything_through() -> None:
    def windowed(tokens: int, window_s: int, **facts: Any) -> Grant:
        limits = {"tokens_per_window": tokens, "window_s": window_s}
        return grant("pilot-30d", terms={"limits": limits}, **facts)

    old = windowed(100, 60)
    for tokens, window_s, widened in (
        (99, 60, False),
        (100, 30, True),
        (100, 120, False),
        (200, 120, True),
        (199, 90, False),
    ):
        new = windowed(tokens, window_s, day=30, renews=old.id)
        kept = said(old, new).terms.limits
        expected = new if widened else old
        assert kept.tokens_per_window == expected.terms.limits.tokens_per_window, (tokens, window_s)


def test_of_several_live_bases_the_highest_in_rank_counts() -> None:
    """A database from before the rules may hold an evaluation beside the contract it hid."""
    contract, evaluation = grant(), grant("eval-72h", day=1)
    assert said(contract, evaluation, day=2).terms.sku == "enterprise-annual"


def test_a_lease_license_runs_by_the_plan_of_its_base() -> None:
    leased = grant(budget=0, terms={"mode": Mode.LEASE})
    computed = said(leased, PACK, day=10)
    assert computed.leases == CATALOG["enterprise-annual"].leases
    assert computed.terms.limits.max_instances is None
    assert said(grant(terms={"mode": Mode.OFFLINE})).leases is None


def test_a_base_without_an_end_is_refused() -> None:
    with pytest.raises(Invalid, match="no end"):
        said(grant(ends_at=None))


@pytest.mark.parametrize("new", TERM_DAYS)
@pytest.mark.parametrize("there", TERM_DAYS)
def test_only_a_base_of_higher_rank_takes_a_live_ones_place(there: str, new: str) -> None:
    """Each pair of bases, live and ended."""
    standing = grant(there)
    terms = grant(new).terms
    live, ended = Line((standing,), AT + DAY), Line((standing,), AT + 366 * DAY)
    assert judge_start(ended, terms) == ()
    if list(TERM_DAYS).index(new) > list(TERM_DAYS).index(there):
        assert judge_start(live, terms) == (standing,)
        return
    with pytest.raises(Conflict, match=there):
        judge_start(live, terms)
    assert judge_start(live, terms, replaces=standing.id) == (standing,)
    with pytest.raises(Conflict):
        judge_start(live, terms, replaces="another")


def test_ranks_are_those_of_the_design() -> None:
    by_rank = sorted(TERM_DAYS, key=lambda sku: RANKS[CATALOG[sku].source])
    assert by_rank == list(TERM_DAYS)


def test_an_evaluation_is_for_a_deployment_that_has_nothing() -> None:
    evaluation = grant("eval-72h").terms
    assert judge_start(Line((), AT), evaluation) == ()
    with pytest.raises(Conflict, match="credit-pack-5m until 2027-12-03"):
        judge_start(Line((PACK,), AT + 10 * DAY), evaluation)
    old = grant(ended_at=AT + DAY, end_cause=EndCause.REFUND)
    with pytest.raises(Conflict, match="enterprise-annual"):
        judge_start(Line((old, grant(day=365, renews=old.id)), AT + 2 * DAY), evaluation)


def test_a_higher_base_ends_the_lower_one_and_its_renewal() -> None:
    pilot = grant("pilot-30d")
    renewal = grant("pilot-30d", day=30, renews=pilot.id)
    assert judge_start(Line((pilot, renewal), AT), grant().terms) == (pilot, renewal)


def test_a_pack_ends_an_evaluation_and_needs_a_budget_beside_any_other_base() -> None:
    evaluation = grant("eval-72h", budget=0)
    assert judge_start(Line((evaluation,), AT), PACK.terms) == (evaluation,)
    assert judge_start(Line((), AT), PACK.terms) == ()
    assert judge_start(Line((grant(budget=0),), AT), PACK.terms) == ()
    with pytest.raises(Conflict, match="no budget"):
        judge_start(Line((grant("pilot-30d"),), AT), PACK.terms)


SKUS = st.sampled_from([*TERM_DAYS, "credit-pack-5m", "credit-pack-25m"])


@st.composite
def lines(draw: st.DrawFn) -> tuple[Grant, ...]:
    """Any grants in any state, each budget its own."""
    grants = []
    for number in range(draw(st.integers(1, 5))):
        sku = draw(SKUS)
        has_budget = CATALOG[sku].is_pack or draw(st.booleans())
        day = draw(st.integers(0, 40))
        facts: dict[str, Any] = {}
        if draw(st.booleans()):
            cause = draw(st.sampled_from([EndCause.REFUND, EndCause.REPLACED]))
            facts |= {"ended_at": AT + draw(st.integers(day, 60)) * DAY, "end_cause": cause}
        if draw(st.booleans()):
            facts["held_since"] = AT + draw(st.integers(day, 60)) * DAY
        budget = number if has_budget else None
        grants.append(grant(sku, day=day, budget=budget, id=str(number), **facts))
    return tuple(grants)


@given(lines(), st.integers(0, 60))
def test_a_license_grants_no_more_than_it_is_computed_from(
    grants: tuple[Grant, ...], day: int
) -> None:
    line = Line(grants, AT + day * DAY)
    computed = compute_terms(line)
    if computed is None:
        return
    if computed.budget is not None:
        own = next(e for e in grants if e.budget_id == computed.budget.budget_id)
        assert computed.budget.tokens_total <= (own.terms.tokens_total or 0)
        assert computed.budget.carry_over_from != computed.budget.budget_id
    ends = [line.over_at(each) for each in grants]
    assert computed.expires_at in ends
    granted = {name for each in grants for name in each.terms.features}
    assert set(computed.terms.features) <= granted


@given(lines(), st.integers(0, 59))
def test_budget_ids_only_go_forward(grants: tuple[Grant, ...], day: int) -> None:
    """The line may have no budget for a while, but never one that is older than the last."""
    starts = {each.budget_id: each.starts_at for each in grants if each.budget_id}
    newest: datetime | None = None
    for moment in range(day, 61):
        known = tuple(each for each in grants if each.starts_at <= AT + moment * DAY)
        computed = compute_terms(Line(known, AT + moment * DAY))
        if computed is None or computed.budget is None:
            continue
        start = starts[computed.budget.budget_id]
        assert newest is None or start >= newest
        newest = start


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
