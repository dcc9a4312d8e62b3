"""Renewals, amendments, packs and replacements on a line: what is issued, and what it replaces."""

from datetime import timedelta
from typing import Any

import pytest

from licensing.license import License as LicensePayload
from portal.db.licenses import License
from portal.domain.entitlements import EndCause
from portal.domain.errors import Conflict, Forbidden, Invalid, LimitReached, NotFound
from portal.domain.standing import HoldCause
from portal.domain.succession import ARRIVAL
from portal.domain.terms import Mode
from portal.jobs.handlers import Handlers
from portal.services.acts.amend import AMEND
from portal.services.acts.end import END
from portal.services.acts.reinstate import REINSTATE
from portal.services.acts.renew import RENEW
from portal.services.acts.replace import REPLACE, replacements_left
from portal.services.acts.replace_base import REPLACE_BASE
from portal.services.acts.suspend import SUSPEND
from portal.services.acts.top_up import TOP_UP
from portal.services.context import SYSTEM, Transactions
from portal.services.entitlements import find_entitlement
from portal.services.licenses import issue_pending
from portal.services.lines import follow, look_after_lines
from tests.factories.accounts import COMMAND, make_deployment
from tests.factories.acts import agree, do, make_annual, newest, seen, state_of
from tests.factories.licenses import issue, make_budgeted_pilot, make_entitlement
from tests.fakes import FakeClock
from tests.services.acts.conftest import Site

DAY = timedelta(days=1)


@pytest.fixture
def pilot(transactions: Transactions, site: Site) -> License:
    return issue(transactions, make_budgeted_pilot(transactions, site.deployment))


@pytest.fixture
def annual(transactions: Transactions, site: Site) -> License:
    return make_annual(transactions, site.deployment, site.ben)


def says(license_: License) -> LicensePayload:
    """Return what a license says."""
    assert license_.document is not None
    return license_.document


def current(transactions: Transactions, site: Site) -> License:
    return newest(transactions, site.deployment.id)


def good_for(transactions: Transactions, license_: License, clock: FakeClock) -> timedelta | None:
    """Return how long a license that was replaced stays good; None: it was not."""
    with transactions.reading(COMMAND) as context:
        ends = context.session.get_one(License, license_.id).superseded_at
    return None if ends is None else ends - clock.at


def look(transactions: Transactions, site: Site) -> None:
    """Do what the worker does for a line at a known end."""
    with transactions.writing(SYSTEM) as context:
        follow(context, site.deployment.id)
    issue_pending(transactions, site.deployment.id, SYSTEM)


def test_a_renewal_gives_one_license_with_the_new_end(
    transactions: Transactions, site: Site, pilot: License, clock: FakeClock
) -> None:
    act = do(transactions, RENEW, pilot.id, site.ann)
    renewed = current(transactions, site)
    assert act.outcome is not None
    assert act.outcome["license_id"] == renewed.id
    assert says(renewed).expires_at == says(pilot).expires_at + 30 * 86400
    assert says(renewed).budget == says(pilot).budget
    assert good_for(transactions, pilot, clock) == 30 * DAY
    with transactions.reading(COMMAND) as context:
        entitlement = find_entitlement(context, act.outcome["entitlement_id"])
        assert (entitlement.renews, entitlement.state) == (pilot.entitlement_id, "live")
        assert entitlement.starts_at == pilot.expires_at
    with pytest.raises(Conflict, match="renewed already"):
        do(transactions, RENEW, pilot.id, site.ann)


def test_a_contract_is_renewed_by_two(
    transactions: Transactions, site: Site, annual: License
) -> None:
    act = do(transactions, RENEW, annual.id, site.ann, term_s=100 * 86400)
    assert act.state == "pending"
    assert act.preview["needs_second_person"] is True
    (issued,) = act.preview["licenses"]["issued"]
    agree(transactions, act, site.ben)
    renewed = current(transactions, site)
    assert says(renewed).expires_at == says(annual).expires_at + 100 * 86400
    assert issued["revision"] == renewed.revision == 2
    assert renewed.expires_at is not None
    assert issued["expires_at"] == renewed.expires_at.isoformat().replace("+00:00", "Z")


@pytest.mark.parametrize("sku", ["eval-72h", "credit-pack-5m"])
def test_what_cannot_be_renewed_says_what_to_do(
    transactions: Transactions, site: Site, sku: str
) -> None:
    license_ = issue(transactions, make_entitlement(transactions, site.deployment, sku=sku))
    with pytest.raises(Conflict, match=r"ask for a pilot|top up"):
        do(transactions, RENEW, license_.id, site.ann)


def test_a_renewal_refunded_before_it_begins_gives_the_old_end_back_at_once(
    transactions: Transactions, site: Site, pilot: License, clock: FakeClock
) -> None:
    act = do(transactions, RENEW, pilot.id, site.ann)
    renewed = current(transactions, site)
    assert act.outcome is not None
    do(transactions, END, act.outcome["entitlement_id"], None, cause=EndCause.REFUND)
    back = current(transactions, site)
    assert says(back).expires_at == says(pilot).expires_at
    assert says(back).budget == says(pilot).budget
    assert state_of(transactions, renewed.id) == "superseded"
    assert state_of(transactions, back.id) == "issued"


def test_a_hold_on_a_renewal_only_leaves_it_out(
    transactions: Transactions, site: Site, pilot: License
) -> None:
    act = do(transactions, RENEW, pilot.id, site.ann)
    assert act.outcome is not None
    held = do(
        transactions,
        SUSPEND,
        pilot.id,
        None,
        cause=HoldCause.PAST_DUE,
        entitlement_id=act.outcome["entitlement_id"],
    )
    without = current(transactions, site)
    assert says(without).expires_at == says(pilot).expires_at
    assert state_of(transactions, without.id) == "issued"
    assert held.outcome is not None
    do(transactions, REINSTATE, pilot.id, None, hold_id=held.outcome["hold_id"])
    assert says(current(transactions, site)).expires_at > says(pilot).expires_at


def test_a_hold_on_the_base_suspends_the_line_overlap_included(
    transactions: Transactions, site: Site, pilot: License
) -> None:
    do(transactions, TOP_UP, pilot.id, site.ann, sku="credit-pack-5m")
    packed = current(transactions, site)
    held = do(
        transactions,
        SUSPEND,
        packed.id,
        None,
        cause=HoldCause.DISPUTE,
        entitlement_id=pilot.entitlement_id,
    )
    for license_ in (pilot, packed):
        assert state_of(transactions, license_.id) == "suspended"
    assert held.outcome is not None
    do(transactions, REINSTATE, packed.id, None, hold_id=held.outcome["hold_id"])
    for license_ in (pilot, packed):
        assert state_of(transactions, license_.id) == "issued"
    assert current(transactions, site).id == packed.id


def test_an_amendment_keeps_the_budget_and_supersedes_by_what_it_takes(
    transactions: Transactions, site: Site, pilot: License, clock: FakeClock
) -> None:
    do(transactions, AMEND, pilot.id, site.ann, limits={"max_concurrency": 64})
    limited = current(transactions, site)
    assert says(limited).limits.max_concurrency == 64
    assert says(limited).budget == says(pilot).budget
    assert good_for(transactions, pilot, clock) == ARRIVAL, "an offline file needs time to arrive"
    do(transactions, AMEND, pilot.id, site.ann, limits={"max_concurrency": 128})
    assert good_for(transactions, limited, clock) == 30 * DAY
    assert says(current(transactions, site)).revision == 3


@pytest.mark.parametrize(
    ("params", "refusal"),
    [
        ({}, Invalid),
        ({"limits": {"tokens_total": 5}}, Invalid),
        ({"features": ("flying",)}, Invalid),
        ({"fingerprints": ("x",)}, Invalid),
    ],
)
def test_an_amendment_that_cannot_be_is_refused(
    transactions: Transactions,
    site: Site,
    pilot: License,
    params: dict[str, Any],
    refusal: type[Exception],
) -> None:
    with pytest.raises(refusal):
        do(transactions, AMEND, pilot.id, site.ann, **params)
    assert current(transactions, site).id == pilot.id


def test_going_offline_takes_effect_at_once_and_going_online_leaves_time(
    transactions: Transactions, site: Site, clock: FakeClock
) -> None:
    leased = issue(transactions, make_budgeted_pilot(transactions, site.deployment, mode="lease"))
    do(transactions, AMEND, leased.id, site.ann, mode=Mode.OFFLINE)
    offline = current(transactions, site)
    assert offline.mode == "offline"
    assert state_of(transactions, leased.id) == "superseded"
    assert says(offline).budget == says(leased).budget
    do(transactions, AMEND, leased.id, site.ann, mode=Mode.LEASE)
    assert good_for(transactions, offline, clock) == 30 * DAY


def test_a_pack_ends_an_evaluation_and_carries_its_budget(
    transactions: Transactions, site: Site, clock: FakeClock
) -> None:
    evaluation = issue(
        transactions,
        make_entitlement(transactions, site.deployment, mode="lease", fingerprints=["fp_12345678"]),
    )
    shown = seen(transactions, TOP_UP, evaluation.id, site.ann, sku="credit-pack-5m")
    assert {"Features", "Expiry"} <= {each["term"] for each in shown["changes"]}
    act = do(transactions, TOP_UP, evaluation.id, site.ann, sku="credit-pack-5m")
    pack = says(current(transactions, site))
    assert (pack.mode, pack.binding.fingerprints) == ("lease", ("fp_12345678",))
    assert pack.expires_at - pack.not_before_at == 365 * 86400
    first = says(evaluation).budget
    assert first is not None
    assert pack.budget is not None
    assert pack.budget.carry_over_from == first.budget_id
    assert act.outcome is not None
    assert act.outcome["budget_id"] == pack.budget.budget_id
    assert act.outcome["carry_over_from"] == first.budget_id
    with transactions.reading(COMMAND) as context:
        ended = find_entitlement(context, evaluation.entitlement_id)
        assert (ended.state, ended.end_reason) == ("ended", EndCause.REPLACED)


def test_a_pack_adds_nothing_where_there_is_no_budget(
    transactions: Transactions, site: Site, annual: License
) -> None:
    with pytest.raises(Conflict, match="no budget"):
        do(transactions, TOP_UP, annual.id, site.ann, sku="credit-pack-5m")
    with pytest.raises(Invalid, match="no credit pack"):
        do(transactions, TOP_UP, annual.id, site.ann, sku="pilot-30d")


def test_a_pack_that_is_disputed_and_lost_lowers_the_newest_budget(
    transactions: Transactions, site: Site, pilot: License
) -> None:
    first = do(transactions, TOP_UP, pilot.id, site.ann, sku="credit-pack-5m")
    do(transactions, TOP_UP, pilot.id, site.ann, sku="credit-pack-25m")
    whole = current(transactions, site)
    assert first.outcome is not None
    disputed = first.outcome["entitlement_id"]
    held = do(
        transactions, SUSPEND, pilot.id, None, cause=HoldCause.DISPUTE, entitlement_id=disputed
    )
    less = says(current(transactions, site)).budget
    before = says(whole).budget
    assert less is not None
    assert before is not None
    assert (less.budget_id, less.carry_over_from) == (before.budget_id, before.carry_over_from)
    assert less.tokens_total == 20_000_000
    assert held.outcome is not None
    do(transactions, REINSTATE, pilot.id, None, hold_id=held.outcome["hold_id"])
    assert says(current(transactions, site)).budget == before
    do(transactions, END, disputed, None, cause=EndCause.DISPUTE)
    assert says(current(transactions, site)).budget == less
    assert state_of(transactions, whole.id) == "superseded"
    with pytest.raises(Conflict, match="ended"):
        do(transactions, END, disputed, None, cause=EndCause.DISPUTE)


def test_a_partial_refund_lowers_by_its_part_however_often_it_is_told(
    transactions: Transactions, site: Site, pilot: License
) -> None:
    act = do(transactions, TOP_UP, pilot.id, site.ann, sku="credit-pack-5m")
    assert act.outcome is not None
    pack = act.outcome["entitlement_id"]
    for _ in range(2):
        do(transactions, END, pack, None, cause=EndCause.REFUND, tokens=2_000_000)
    budget = says(current(transactions, site)).budget
    assert budget is not None
    assert (budget.tokens_total, current(transactions, site).revision) == (3_000_000, 3)
    with pytest.raises(Invalid):
        do(transactions, END, pack, None, cause=EndCause.REFUND, tokens=5_000_000)


def test_when_nothing_remains_an_end_revokes(
    transactions: Transactions, site: Site, pilot: License
) -> None:
    for cause, by in ((EndCause.REFUND, site.ann), (EndCause.WITHDRAWN, None)):
        with pytest.raises(Forbidden):
            do(transactions, END, pilot.entitlement_id, by, cause=cause)
    act = do(transactions, END, pilot.entitlement_id, None, cause=EndCause.REFUND)
    assert act.outcome is not None
    assert act.outcome["status"] == "revoked"
    assert state_of(transactions, pilot.id) == "revoked"


def test_one_person_cannot_end_a_contract_instead_of_revoking_it(
    transactions: Transactions, site: Site, annual: License
) -> None:
    act = do(transactions, END, annual.entitlement_id, site.ann)
    assert act.state == "pending"
    assert state_of(transactions, annual.id) == "issued"


def test_a_customer_replaces_three_times_a_year(
    transactions: Transactions, site: Site, pilot: License, clock: FakeClock
) -> None:
    for left in (3, 2, 1):
        with transactions.reading(COMMAND) as context:
            assert replacements_left(context, site.deployment.id) == left
        do(transactions, REPLACE, pilot.id, site.owner)
    assert says(current(transactions, site)).revision == 4
    assert says(current(transactions, site)).budget == says(pilot).budget
    with pytest.raises(LimitReached):
        do(transactions, REPLACE, pilot.id, site.owner)
    do(transactions, REPLACE, pilot.id, site.ann)
    assert says(current(transactions, site)).revision == 5


def test_a_new_fingerprint_on_a_budget_leaves_three_days(
    transactions: Transactions, site: Site, pilot: License, clock: FakeClock
) -> None:
    do(transactions, REPLACE, pilot.id, site.owner, fingerprints=("fp_aaaaaaaa",))
    bound = current(transactions, site)
    do(transactions, REPLACE, pilot.id, site.owner, fingerprints=("fp_bbbbbbbb",))
    assert good_for(transactions, bound, clock) == ARRIVAL
    assert says(current(transactions, site)).binding.fingerprints == ("fp_bbbbbbbb",)
    assert says(current(transactions, site)).budget == says(pilot).budget
    rebound = current(transactions, site)
    do(transactions, REPLACE, pilot.id, site.owner, at_once=True)
    assert state_of(transactions, rebound.id) == "superseded"


def test_the_base_is_replaced_by_staff_who_see_what_is_lost(
    transactions: Transactions, site: Site, annual: License
) -> None:
    smaller = make_entitlement(transactions, site.deployment, sku="pilot-30d")
    act = do(transactions, REPLACE_BASE, annual.id, site.ann, entitlement_id=smaller.id)
    assert act.state == "pending"
    assert {"SKU", "Features", "Expiry"} <= {each["term"] for each in act.preview["changes"]}
    agree(transactions, act, site.ben)
    assert current(transactions, site).sku == "pilot-30d"
    with transactions.reading(COMMAND) as context:
        assert find_entitlement(context, annual.entitlement_id).state == "ended"


def test_only_an_approved_base_of_the_deployment_replaces_another(
    transactions: Transactions, site: Site, pilot: License
) -> None:
    other = make_deployment(transactions, site.account, "Other")
    foreign = make_entitlement(transactions, other, sku="pilot-30d")
    pack = make_entitlement(transactions, site.deployment, sku="credit-pack-5m")
    for entitlement_id, refusal in (
        (foreign.id, NotFound),
        ("ent_0", NotFound),
        (pack.id, Invalid),
        (pilot.entitlement_id, Conflict),
    ):
        with pytest.raises(refusal):
            do(transactions, REPLACE_BASE, pilot.id, site.ann, entitlement_id=entitlement_id)


def sqlite_alone(transactions: Transactions) -> None:
    """Skip where documents are dated by the server's own clock, which nobody moves."""
    if transactions.database.is_postgresql:
        pytest.skip("PostgreSQL's clock cannot be moved")


def test_when_one_ends_and_others_remain_the_worker_issues_by_itself(
    transactions: Transactions, site: Site, clock: FakeClock
) -> None:
    sqlite_alone(transactions)
    pack = issue(
        transactions, make_entitlement(transactions, site.deployment, sku="credit-pack-5m")
    )
    pilot = issue(transactions, make_entitlement(transactions, site.deployment, sku="pilot-30d"))
    assert says(pilot).budget is None
    clock.advance(days=30)
    with transactions.writing(SYSTEM) as context:
        assert look_after_lines(context) == 1
    look(transactions, site)
    again = current(transactions, site)
    assert (again.sku, says(again).budget) == ("credit-pack-5m", says(pack).budget)
    with transactions.writing(SYSTEM) as context:
        assert look_after_lines(context) == 0
    clock.advance(days=335)
    look(transactions, site)
    assert current(transactions, site).id == again.id
    assert state_of(transactions, again.id) == "expired"


def test_a_renewal_begins_by_itself_with_its_own_budget(
    transactions: Transactions, site: Site, pilot: License, clock: FakeClock
) -> None:
    sqlite_alone(transactions)
    do(transactions, RENEW, pilot.id, site.ann)
    both = current(transactions, site)
    clock.advance(days=30)
    look(transactions, site)
    begun = says(current(transactions, site))
    first = says(both).budget
    assert begun.budget is not None
    assert first is not None
    assert begun.budget.carry_over_from == first.budget_id
    assert begun.expires_at == says(both).expires_at
    look(transactions, site)
    assert current(transactions, site).revision == begun.revision


def test_a_base_that_ended_is_renewed_from_now_on(
    transactions: Transactions, site: Site, pilot: License, clock: FakeClock
) -> None:
    sqlite_alone(transactions)
    clock.advance(days=40)
    look(transactions, site)
    do(transactions, RENEW, pilot.id, site.ann)
    late = says(current(transactions, site))
    assert late.expires_at - late.not_before_at == 30 * 86400
    assert late.budget is not None
    assert late.budget.carry_over_from is None


def test_the_worker_looks_at_each_known_end(transactions: Transactions) -> None:
    assert "follow-line" in Handlers(transactions, None, None).by_kind()  # type: ignore[arg-type]
