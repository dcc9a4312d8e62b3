"""Acts: previewed by what acts, refused when stale, approved by a second person, recorded."""

from typing import Any

import pytest
from sqlalchemy import func, select

from portal.db.acts import Act
from portal.db.audit import AuditRow
from portal.db.licenses import Hold, License
from portal.db.people import Person
from portal.domain.errors import Conflict, Forbidden, Invalid, NotFound, PortalError
from portal.domain.standing import HoldCause
from portal.services.acts.machinery import (
    Stale,
    approve,
    confirm,
    decline,
    find_act,
    kind_of,
    lapse_acts,
    list_acts,
    require_fresh,
    submit,
)
from portal.services.acts.reinstate import REINSTATE
from portal.services.acts.revoke import REVOKE
from portal.services.acts.suspend import SUSPEND
from portal.services.context import SYSTEM, Transactions
from tests.factories.accounts import COMMAND, make_deployment, make_staff
from tests.factories.acts import agree, ask, do, make_annual, seen, state_of
from tests.factories.licenses import issue, make_entitlement
from tests.fakes import FakeClock
from tests.services.acts.conftest import Site
from tests.services.test_races import at_once


@pytest.fixture
def pilot(transactions: Transactions, site: Site) -> License:
    return issue(transactions, make_entitlement(transactions, site.deployment, sku="pilot-30d"))


@pytest.fixture
def annual(transactions: Transactions, site: Site) -> License:
    return make_annual(transactions, site.deployment, site.ben)


def rows(transactions: Transactions) -> dict[str, int]:
    """Count what an act could have made."""
    with transactions.reading(COMMAND) as context:
        return {
            model.__name__: context.session.scalar(select(func.count()).select_from(model)) or 0
            for model in (Act, AuditRow, Hold, License)
        }


def test_a_preview_says_what_the_act_does_and_changes_nothing(
    transactions: Transactions, site: Site, pilot: License
) -> None:
    before = rows(transactions)
    shown = seen(transactions, SUSPEND, pilot.id, site.ann, cause=HoldCause.STAFF)
    assert rows(transactions) == before
    assert state_of(transactions, pilot.id) == "issued"
    assert shown["act"] == "suspend"
    assert shown["needs_second_person"] is False
    assert shown["licenses"] == {
        "issued": [],
        "ended": [{"license_id": pilot.id, "becomes": "suspended", "at": None}],
    }
    act = do(transactions, SUSPEND, pilot.id, site.ann, cause=HoldCause.STAFF)
    assert act.preview == shown
    assert act.outcome is not None
    assert act.outcome["status"] == shown["status"] == "suspended"
    assert state_of(transactions, pilot.id) == "suspended"


def test_an_act_decided_on_an_old_preview_is_refused_with_the_new_one(
    transactions: Transactions, site: Site, pilot: License
) -> None:
    shown = seen(transactions, REVOKE, pilot.id, site.ann)
    do(transactions, SUSPEND, pilot.id, site.ben, cause=HoldCause.ABUSE)
    before = rows(transactions)
    with pytest.raises(Stale) as refused, transactions.writing(COMMAND) as context:
        submit(context, REVOKE, ask(REVOKE, pilot.id, site.ann), seen=shown["fingerprint"])
    assert refused.value.status == 409
    assert rows(transactions) == before
    now = refused.value.preview
    assert now["fingerprint"] != shown["fingerprint"]
    with transactions.writing(COMMAND) as context:
        submit(context, REVOKE, ask(REVOKE, pilot.id, site.ann), seen=now["fingerprint"])
    assert state_of(transactions, pilot.id) == "revoked"


def test_the_clock_and_usage_make_no_preview_stale(
    transactions: Transactions, site: Site, pilot: License, clock: FakeClock
) -> None:
    shown = seen(transactions, REVOKE, pilot.id, site.ann)
    clock.advance(hours=5)
    again = seen(transactions, REVOKE, pilot.id, site.ben)
    assert again["fingerprint"] == shown["fingerprint"]


def test_an_act_of_two_waits_for_another_person(
    transactions: Transactions, site: Site, annual: License
) -> None:
    act = do(transactions, REVOKE, annual.id, site.ann)
    assert (act.state, act.outcome) == ("pending", None)
    assert state_of(transactions, annual.id) == "issued"
    with transactions.reading(COMMAND) as context:
        assert [each.id for each in list_acts(context)] == [act.id]
    with pytest.raises(Forbidden), transactions.writing(COMMAND) as context:
        approve(context, act.id, by=site.ann)
    done = agree(transactions, act, site.ben)
    assert (done.state, done.submitted_by, done.decided_by) == ("done", site.ann, site.ben)
    assert state_of(transactions, annual.id) == "revoked"
    with pytest.raises(Conflict), transactions.writing(COMMAND) as context:
        approve(context, act.id, by=site.ben)
    with transactions.reading(COMMAND) as context:
        told = context.session.scalars(
            select(AuditRow.action).where(AuditRow.subject_id == act.id).order_by(AuditRow.id)
        ).all()
    assert told == ["act.submitted", "act.done"]


def test_a_stale_act_of_two_goes_back_to_its_first_person(
    transactions: Transactions, site: Site, annual: License
) -> None:
    act = do(transactions, REVOKE, annual.id, site.ann)
    do(transactions, SUSPEND, annual.id, site.ben, cause=HoldCause.STAFF)
    with transactions.writing(COMMAND) as context:
        returned = approve(context, act.id, by=site.ben)
    with pytest.raises(Stale) as refused:
        require_fresh(returned)
    now = refused.value.preview["fingerprint"]
    assert now != act.fingerprint
    assert state_of(transactions, annual.id) == "suspended"
    with pytest.raises(Conflict), transactions.writing(COMMAND) as context:
        approve(context, act.id, by=site.ben)
    for by, fingerprint, refusal in (
        (site.ben, now, Forbidden),
        (site.ann, act.fingerprint, Stale),
    ):
        with pytest.raises(refusal), transactions.writing(COMMAND) as context:
            confirm(context, act.id, by=by, seen=fingerprint)
    with transactions.writing(COMMAND) as context:
        assert confirm(context, act.id, by=site.ann, seen=now).state == "pending"
    agree(transactions, act, site.ben)
    assert state_of(transactions, annual.id) == "revoked"


def test_both_persons_must_be_permitted_when_it_is_done(
    transactions: Transactions, site: Site, annual: License
) -> None:
    act = do(transactions, REVOKE, annual.id, site.ann)
    support = make_staff(transactions, "sue@vendor.test", "support").id
    with pytest.raises(Forbidden), transactions.writing(COMMAND) as context:
        approve(context, act.id, by=support)
    with transactions.writing(COMMAND) as context:
        context.session.get_one(Person, site.ann).disabled_at = context.at
    with pytest.raises(Forbidden, match="no longer"), transactions.writing(COMMAND) as context:
        approve(context, act.id, by=site.ben)
    assert state_of(transactions, annual.id) == "issued"


def test_a_second_person_decides_on_what_they_see(
    transactions: Transactions, site: Site, annual: License
) -> None:
    act = do(transactions, REVOKE, annual.id, site.ann)
    with pytest.raises(Stale), transactions.writing(COMMAND) as context:
        approve(context, act.id, by=site.ben, seen="another")
    with transactions.writing(COMMAND) as context:
        assert approve(context, act.id, by=site.ben, seen=act.fingerprint).state == "done"


def test_a_declined_act_does_nothing_and_stays_declined(
    transactions: Transactions, site: Site, annual: License
) -> None:
    act = do(transactions, REVOKE, annual.id, site.ann)
    with pytest.raises(Invalid), transactions.writing(COMMAND) as context:
        decline(context, act.id, by=site.ben, reason=" ")
    with transactions.writing(COMMAND) as context:
        declined = decline(context, act.id, by=site.ben, reason="wrong customer")
        assert (declined.state, declined.decision_note) == ("declined", "wrong customer")
    for decide in (
        lambda context: approve(context, act.id, by=site.ben),
        lambda context: decline(context, act.id, by=site.ben, reason="again"),
    ):
        with pytest.raises(Conflict), transactions.writing(COMMAND) as context:
            decide(context)
    assert state_of(transactions, annual.id) == "issued"


def test_an_act_lapses_after_three_days(
    transactions: Transactions, site: Site, annual: License, clock: FakeClock
) -> None:
    act = do(transactions, REVOKE, annual.id, site.ann)
    clock.advance(hours=72, seconds=-1)
    with transactions.writing(SYSTEM) as context:
        assert lapse_acts(context) == 0
    clock.advance(seconds=1)
    with pytest.raises(Conflict), transactions.writing(COMMAND) as context:
        approve(context, act.id, by=site.ben)
    for lapsed in (1, 0):
        with transactions.writing(SYSTEM) as context:
            assert lapse_acts(context) == lapsed
    with transactions.reading(COMMAND) as context:
        assert find_act(context, act.id).state == "lapsed"
        assert list_acts(context) == []
        assert [each.id for each in list_acts(context, None)] == [act.id]


def test_an_act_needs_a_reason_and_a_kind_and_a_subject(
    transactions: Transactions, site: Site, pilot: License
) -> None:
    wanted = ask(REVOKE, pilot.id, site.ann)
    object.__setattr__(wanted, "reason", "  ")
    with pytest.raises(Invalid), transactions.writing(COMMAND) as context:
        submit(context, REVOKE, wanted)
    with pytest.raises(Invalid):
        kind_of("bless")
    with pytest.raises(NotFound), transactions.writing(COMMAND) as context:
        submit(context, REVOKE, ask(REVOKE, "lic_0", site.ann))
    with pytest.raises(NotFound), transactions.reading(COMMAND) as context:
        find_act(context, "act_0")


def test_two_second_persons_at_once_do_an_act_once(
    transactions: Transactions, site: Site, annual: License
) -> None:
    act = do(transactions, REVOKE, annual.id, site.ann)

    def decide() -> Any:
        with transactions.writing(COMMAND) as context:
            return require_fresh(approve(context, act.id, by=site.ben))

    outcomes = at_once(decide, decide)
    assert sum(isinstance(each, Act) for each in outcomes) == 1
    assert sum(isinstance(each, Conflict) for each in outcomes) == 1
    with transactions.reading(COMMAND) as context:
        revoked = select(func.count()).where(AuditRow.action == "license.revoked")
        assert context.session.scalar(revoked) == 1


def test_the_same_person_cannot_be_both_however_fast(
    transactions: Transactions, site: Site, annual: License
) -> None:
    act = do(transactions, REVOKE, annual.id, site.ann)

    def decide() -> Any:
        with transactions.writing(COMMAND) as context:
            return approve(context, act.id, by=site.ann)

    assert all(isinstance(each, Forbidden) for each in at_once(decide, decide))
    assert state_of(transactions, annual.id) == "issued"


def test_of_two_who_saw_the_same_preview_one_wins(
    transactions: Transactions, site: Site, pilot: License
) -> None:
    first = seen(transactions, SUSPEND, pilot.id, site.ann, cause=HoldCause.STAFF)
    second = seen(transactions, SUSPEND, pilot.id, site.ben, cause=HoldCause.ABUSE)

    def hold(by: str, cause: HoldCause, shown: dict[str, Any]) -> Any:
        with transactions.writing(COMMAND) as context:
            wanted = ask(SUSPEND, pilot.id, by, cause=cause)
            return submit(context, SUSPEND, wanted, seen=shown["fingerprint"])

    outcomes = at_once(
        lambda: hold(site.ann, HoldCause.STAFF, first),
        lambda: hold(site.ben, HoldCause.ABUSE, second),
    )
    assert sorted(type(each).__name__ for each in outcomes) == ["Act", "Stale"]


def test_approving_while_it_is_declined_leaves_one_decision(
    transactions: Transactions, site: Site, annual: License
) -> None:
    act = do(transactions, REVOKE, annual.id, site.ann)

    def yes() -> Any:
        with transactions.writing(COMMAND) as context:
            return approve(context, act.id, by=site.ben).state

    def no() -> Any:
        with transactions.writing(COMMAND) as context:
            return decline(context, act.id, by=site.ann, reason="a mistake").state

    outcomes = at_once(yes, no)
    assert sum(isinstance(each, PortalError) for each in outcomes) == 1
    with transactions.reading(COMMAND) as context:
        decided = find_act(context, act.id).state
    assert decided in outcomes
    expected = "revoked" if decided == "done" else "issued"
    assert state_of(transactions, annual.id) == expected


def test_the_tenth_revocation_of_a_day_needs_two(
    transactions: Transactions, site: Site, clock: FakeClock
) -> None:
    licenses = []
    for number in range(11):
        deployment = make_deployment(transactions, site.account, f"Site {number}")
        licenses.append(issue(transactions, make_entitlement(transactions, deployment)))
    acts = [do(transactions, REVOKE, each.id, site.ann) for each in licenses[:10]]
    assert [act.state for act in acts] == ["done"] * 9 + ["pending"]
    agree(transactions, acts[-1], site.ben)
    clock.advance(hours=24)
    assert do(transactions, REVOKE, licenses[10].id, site.ann).state == "done"


def test_reinstating_is_recorded_with_its_hold(
    transactions: Transactions, site: Site, pilot: License
) -> None:
    held = do(transactions, SUSPEND, pilot.id, site.ann, cause=HoldCause.STAFF)
    assert held.outcome is not None
    hold_id = held.outcome["hold_id"]
    lifted = do(transactions, REINSTATE, pilot.id, site.ben, hold_id=hold_id)
    with transactions.reading(COMMAND) as context:
        told = context.session.scalars(
            select(AuditRow).where(AuditRow.subject_id.in_([hold_id, held.id, lifted.id]))
        ).all()
    assert {row.action for row in told} == {
        "hold.opened",
        "hold.lifted",
        "hold.lift-sealed",
        "act.done",
    }
    given = [row.reason for row in told if row.action != "hold.lift-sealed"]
    assert set(given) == {"a test"}
