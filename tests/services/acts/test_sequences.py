"""What routers do while a line changes: the runtime's own engine follows licenses and bundles."""

from typing import Any

import pytest

from portal.db.acts import Act
from portal.db.licenses import License
from portal.domain.entitlements import EndCause
from portal.domain.errors import Conflict
from portal.domain.standing import HoldCause
from portal.domain.terms import Mode
from portal.services.acts.amend import AMEND
from portal.services.acts.end import END
from portal.services.acts.reinstate import REINSTATE
from portal.services.acts.renew import RENEW
from portal.services.acts.replace import REPLACE
from portal.services.acts.revoke import REVOKE
from portal.services.acts.suspend import SUSPEND
from portal.services.acts.top_up import TOP_UP
from portal.services.context import SYSTEM, Transactions
from portal.services.instances import instances_of, retire_instance
from portal.services.licenses import issue_pending
from portal.services.lines import follow
from tests.factories.accounts import COMMAND
from tests.factories.acts import agree, do, make_annual, newest
from tests.factories.followers import BOUND, LeasedFollower, leased, offline
from tests.factories.licenses import issue, make_budgeted_pilot, make_entitlement
from tests.fakes import FakeClock
from tests.services.acts.conftest import Site

M = 1_000_000


def current(transactions: Transactions, site: Site) -> License:
    return newest(transactions, site.deployment.id)


def fact(act: Act, name: str) -> Any:
    assert act.outcome is not None
    return act.outcome[name]


def movable(transactions: Transactions) -> None:
    """Skip where documents are dated by the server's own clock, which nobody moves."""
    if transactions.database.is_postgresql:
        pytest.skip("PostgreSQL's clock cannot be moved")


def test_renew_early_then_refund_offline(transactions: Transactions, site: Site) -> None:
    first = issue(transactions, make_budgeted_pilot(transactions, site.deployment))
    router, behind = offline(transactions, first), offline(transactions, first)
    assert router.serve(3 * M)
    renewal = do(transactions, RENEW, first.id, site.ann)
    assert router.install(current(transactions, site)).fetch_bundle().left == 7 * M
    do(transactions, END, fact(renewal, "entitlement_id"), None, cause=EndCause.REFUND)
    assert router.serves, "it has not heard of it"
    assert not router.fetch_bundle().serves
    assert router.install(current(transactions, site)).left == 7 * M
    assert not behind.fetch_bundle().serves
    assert behind.install(current(transactions, site)).serves


def test_renew_early_then_refund_leased(transactions: Transactions, site: Site) -> None:
    first = issue(
        transactions, make_entitlement(transactions, site.deployment, sku="pilot-30d", mode="lease")
    )
    router = leased(transactions, first)
    renewal = do(transactions, RENEW, first.id, site.ann)
    router.install(current(transactions, site))
    assert router.renew().status == "active"
    do(transactions, END, fact(renewal, "entitlement_id"), None, cause=EndCause.REFUND)
    assert router.serves
    told = router.renew()
    assert told.status == "superseded"
    assert told.superseded_by == current(transactions, site).id
    assert not router.serves
    router.install(current(transactions, site))
    assert router.renew().status == "active"
    assert router.serves


def test_a_pack_on_an_evaluation_then_a_contract(transactions: Transactions, site: Site) -> None:
    evaluation = issue(transactions, make_entitlement(transactions, site.deployment))
    router = offline(transactions, evaluation)
    assert router.serve(300_000)
    do(transactions, TOP_UP, evaluation.id, site.ann, sku="credit-pack-5m")
    router.install(current(transactions, site))
    assert router.left == 5 * M + 700_000
    assert router.serve(M)
    make_annual(transactions, site.deployment, site.ben, limits={"tokens_total": 10 * M})
    router.install(current(transactions, site)).fetch_bundle()
    assert router.left == 10 * M + 4 * M + 700_000
    assert router.decide().features == {"audit_export", "routing"}
    assert not router.serve(10 * M + 4 * M + 700_001)
    assert router.serve(10 * M + 4 * M + 700_000)
    assert router.served == 16 * M, "as many as were granted in all, and no more"


def test_a_pack_then_a_windowed_pilot_then_its_end(
    transactions: Transactions, site: Site, clock: FakeClock
) -> None:
    movable(transactions)
    pack = issue(
        transactions, make_entitlement(transactions, site.deployment, sku="credit-pack-5m")
    )
    router = offline(transactions, pack)
    assert router.serve(M)
    pilot = issue(transactions, make_entitlement(transactions, site.deployment, sku="pilot-30d"))
    assert router.install(pilot).serve(2 * M)
    clock.advance(days=30)
    assert not router.serves
    with transactions.writing(SYSTEM) as context:
        follow(context, site.deployment.id)
    issue_pending(transactions, site.deployment.id, SYSTEM)
    assert router.install(current(transactions, site)).fetch_bundle().left == 4 * M


@pytest.mark.parametrize("mode", ["offline", "lease"])
def test_a_hold_on_the_base_during_the_overlap(
    transactions: Transactions, site: Site, mode: str
) -> None:
    first = issue(transactions, make_budgeted_pilot(transactions, site.deployment, mode=mode))
    follow_it = offline if mode == "offline" else leased
    old, new = follow_it(transactions, first), follow_it(transactions, first)
    if isinstance(new, LeasedFollower):
        # One router at a time: the license is for one.
        new = old
    do(transactions, TOP_UP, first.id, site.ann, sku="credit-pack-5m")
    new.install(current(transactions, site))
    held = do(
        transactions,
        SUSPEND,
        first.id,
        None,
        cause=HoldCause.PAST_DUE,
        entitlement_id=first.entitlement_id,
    )
    for router in (old, new):
        router.fetch_bundle()
        if isinstance(router, LeasedFollower):
            assert router.renew().status == "suspended"
        assert not router.serves
    do(transactions, REINSTATE, first.id, None, hold_id=fact(held, "hold_id"))
    for router in (old, new):
        router.fetch_bundle()
        if isinstance(router, LeasedFollower):
            assert router.renew().status == "active"
        assert router.serves


@pytest.mark.parametrize("is_won", [True, False])
def test_a_dispute_on_a_pack_that_was_carried_over(
    transactions: Transactions, site: Site, *, is_won: bool
) -> None:
    first = issue(
        transactions, make_entitlement(transactions, site.deployment, sku="credit-pack-5m")
    )
    router = offline(transactions, first)
    assert router.serve(M)
    do(transactions, TOP_UP, first.id, site.ann, sku="credit-pack-25m")
    assert router.install(current(transactions, site)).left == 29 * M
    held = do(
        transactions,
        SUSPEND,
        first.id,
        None,
        cause=HoldCause.DISPUTE,
        entitlement_id=first.entitlement_id,
    )
    assert router.install(current(transactions, site)).left == 24 * M
    if is_won:
        do(transactions, REINSTATE, first.id, None, hold_id=fact(held, "hold_id"))
    else:
        do(transactions, END, first.entitlement_id, None, cause=EndCause.DISPUTE)
    router.install(current(transactions, site)).fetch_bundle()
    assert router.left == (29 * M if is_won else 24 * M)


def test_the_evaluation_ends_under_a_pack(
    transactions: Transactions, site: Site, clock: FakeClock
) -> None:
    movable(transactions)
    evaluation = issue(transactions, make_entitlement(transactions, site.deployment))
    ahead, behind = offline(transactions, evaluation), offline(transactions, evaluation)
    do(transactions, TOP_UP, evaluation.id, site.ann, sku="credit-pack-5m")
    ahead.install(current(transactions, site)).fetch_bundle()
    assert ahead.decide().features == {"dynamic_routing", "routing", "usage_reporting"}
    clock.advance(hours=71)
    assert behind.fetch_bundle().serves, "the new file may still be on its way"
    clock.advance(hours=1)
    assert not behind.fetch_bundle().serves
    assert ahead.fetch_bundle().serves


def test_three_leased_routers_go_offline_one_by_one(transactions: Transactions, site: Site) -> None:
    first = issue(
        transactions,
        make_entitlement(
            transactions,
            site.deployment,
            sku="pilot-30d",
            mode="lease",
            limits={"tokens_total": 9 * M, "max_instances": 3},
        ),
    )
    routers = [leased(transactions, first, name) for name in ("a", "b", "c")]
    for router in routers:
        assert router.serve(M)
        router.renew()
    with pytest.raises(Conflict, match="3 routers"):
        do(transactions, AMEND, first.id, site.ann, mode=Mode.OFFLINE)
    with transactions.writing(COMMAND) as context:
        for row in instances_of(context, site.deployment.id):
            if row.keyid != routers[0]._keyid:
                retire_instance(context, row.id, reason="goes offline")
    do(transactions, AMEND, first.id, site.ann, mode=Mode.OFFLINE)
    stays = routers[0]
    assert stays.renew().status == "superseded"
    file = offline(transactions, current(transactions, site))
    file.state = stays.state
    assert file.fetch_bundle().left == 6 * M, "what the others used is gone, and so is its own"


def test_from_offline_to_leases_the_file_stays_good_meanwhile(
    transactions: Transactions, site: Site
) -> None:
    first = issue(transactions, make_budgeted_pilot(transactions, site.deployment))
    router = offline(transactions, first)
    do(transactions, AMEND, first.id, site.ann, mode=Mode.LEASE)
    assert router.fetch_bundle().serves
    enrolled = leased(transactions, current(transactions, site))
    assert enrolled.fetch_bundle().serves


def test_a_new_fingerprint_on_a_half_used_budget(transactions: Transactions, site: Site) -> None:
    first = issue(
        transactions,
        make_budgeted_pilot(transactions, site.deployment, fingerprints=["fp_12345678"]),
    )
    do(transactions, REPLACE, first.id, site.owner, fingerprints=("fp_aaaaaaaa",))
    moved = current(transactions, site)
    router = offline(transactions, moved, BOUND)
    assert router.serve(5 * M)
    assert not router.serve(6 * M)
    do(transactions, REPLACE, first.id, site.owner)
    assert router.install(current(transactions, site)).left == 5 * M


@pytest.mark.parametrize("mode", ["offline", "lease"])
def test_a_revoked_line_never_serves_again(
    transactions: Transactions, site: Site, mode: str
) -> None:
    annual = make_annual(transactions, site.deployment, site.ben, mode=Mode(mode))
    router = offline(transactions, annual) if mode == "offline" else leased(transactions, annual)
    assert router.fetch_bundle().serves
    agree(transactions, do(transactions, REVOKE, annual.id, site.ann), site.ben)
    if isinstance(router, LeasedFollower):
        assert router.renew().status == "revoked"
        assert not router.serves
    assert not router.fetch_bundle().serves
    router.bundle = None
    assert not router.serves, "what was heard once is remembered"
