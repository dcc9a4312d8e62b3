"""Holds: each with its cause, lifted by its own side, telling routers through leases and bundle."""

import pytest

from portal.db.emails import Email
from portal.db.licenses import License
from portal.domain.entitlements import EndCause
from portal.domain.errors import Conflict, Forbidden, NotFound
from portal.domain.standing import HoldCause, RevokedReason
from portal.services.acts.reinstate import REINSTATE
from portal.services.acts.revoke import REVOKE
from portal.services.acts.suspend import SUSPEND
from portal.services.bundles import wanted_entries
from portal.services.context import Transactions
from portal.services.entitlements import find_entitlement
from portal.services.licenses import issue_license, request_issue
from tests.factories.accounts import COMMAND, make_deployment
from tests.factories.acts import do, newest, state_of
from tests.factories.licenses import issue, make_budgeted_pilot, make_entitlement
from tests.services.acts.conftest import Site

HOLD_MAILS = ("license-suspended", "license-reinstated")


@pytest.fixture
def pilot(transactions: Transactions, site: Site) -> License:
    return issue(transactions, make_budgeted_pilot(transactions, site.deployment))


def told(transactions: Transactions) -> dict[str, str]:
    """Return what the next bundle says of each license."""
    with transactions.reading(COMMAND) as context:
        return {each.license_id: each.reason for each in wanted_entries(context)}


def hold(transactions: Transactions, license_: License, by: str | None, cause: HoldCause) -> str:
    """Open a hold; return its id."""
    act = do(transactions, SUSPEND, license_.id, by, cause=cause)
    assert act.outcome is not None
    return str(act.outcome["hold_id"])


def test_of_two_causes_each_has_to_be_lifted(
    transactions: Transactions, site: Site, pilot: License
) -> None:
    staff = hold(transactions, pilot, site.ann, HoldCause.STAFF)
    abuse = hold(transactions, pilot, site.ben, HoldCause.ABUSE)
    assert told(transactions) == {pilot.id: "on-hold"}
    do(transactions, REINSTATE, pilot.id, site.ben, hold_id=staff)
    assert state_of(transactions, pilot.id) == "suspended"
    do(transactions, REINSTATE, pilot.id, site.ann, hold_id=abuse)
    assert state_of(transactions, pilot.id) == "issued"
    assert told(transactions) == {}
    assert newest(transactions, site.deployment.id).id == pilot.id, "the same bytes are back"
    with transactions.reading(COMMAND) as context:
        rows = context.session.query(Email).filter(Email.template.in_(HOLD_MAILS))
        mails = [(each.template, each.facts["still_held"]) for each in rows]
    assert sorted(mails) == [
        ("license-reinstated", False),
        ("license-reinstated", True),
        ("license-suspended", True),
        ("license-suspended", True),
    ]


def test_only_its_own_side_opens_and_lifts_a_hold(
    transactions: Transactions, site: Site, pilot: License
) -> None:
    with pytest.raises(Forbidden):
        hold(transactions, pilot, site.ann, HoldCause.DISPUTE)
    dispute = hold(transactions, pilot, None, HoldCause.DISPUTE)
    assert hold(transactions, pilot, None, HoldCause.DISPUTE) == dispute
    with pytest.raises(Forbidden):
        do(transactions, REINSTATE, pilot.id, site.ann, hold_id=dispute)
    staff = hold(transactions, pilot, site.ann, HoldCause.STAFF)
    with pytest.raises(Forbidden):
        do(transactions, REINSTATE, pilot.id, None, hold_id=staff)
    with pytest.raises(Conflict, match="already"):
        hold(transactions, pilot, site.ben, HoldCause.STAFF)
    do(transactions, REINSTATE, pilot.id, None, hold_id=dispute)
    with pytest.raises(Conflict, match="already"):
        do(transactions, REINSTATE, pilot.id, None, hold_id=dispute)
    assert state_of(transactions, pilot.id) == "suspended"


def test_a_hold_is_of_its_own_deployment(
    transactions: Transactions, site: Site, pilot: License
) -> None:
    other = make_deployment(transactions, site.account, "Other")
    another = issue(transactions, make_entitlement(transactions, other))
    staff = hold(transactions, pilot, site.ann, HoldCause.STAFF)
    assert state_of(transactions, another.id) == "issued"
    for license_id, hold_id in ((another.id, staff), (pilot.id, "hld_0")):
        with pytest.raises(NotFound):
            do(transactions, REINSTATE, license_id, site.ann, hold_id=hold_id)
    with pytest.raises(NotFound):
        do(
            transactions,
            SUSPEND,
            pilot.id,
            None,
            cause=HoldCause.DISPUTE,
            entitlement_id=another.entitlement_id,
        )


def test_a_staff_hold_stops_the_whole_line_and_what_is_issued_meanwhile(
    transactions: Transactions, site: Site, pilot: License
) -> None:
    pack = issue(
        transactions, make_entitlement(transactions, site.deployment, sku="credit-pack-5m")
    )
    hold(transactions, pilot, site.ann, HoldCause.STAFF)
    second = issue(
        transactions, make_entitlement(transactions, site.deployment, sku="credit-pack-5m")
    )
    for license_ in (pilot, pack, second):
        assert state_of(transactions, license_.id) == "suspended"


def test_revoking_ends_the_whole_line_for_good(
    transactions: Transactions, site: Site, pilot: License
) -> None:
    pack = make_entitlement(transactions, site.deployment, sku="credit-pack-5m")
    current = issue(transactions, pack)
    waiting = make_entitlement(transactions, site.deployment, sku="credit-pack-25m")
    do(transactions, REVOKE, pilot.id, site.ann)
    for license_ in (pilot, current):
        assert state_of(transactions, license_.id) == "revoked"
    assert told(transactions) == {pilot.id: "withdrawn", current.id: "withdrawn"}
    with transactions.reading(COMMAND) as context:
        for entitlement_id in (pilot.entitlement_id, pack.id, waiting.id):
            row = find_entitlement(context, entitlement_id)
            assert (row.state, row.end_reason) == ("ended", EndCause.REVOKED)
    for kind, params in ((REVOKE, {}), (SUSPEND, {"cause": HoldCause.STAFF})):
        with pytest.raises(Conflict):
            do(transactions, kind, pilot.id, site.ann, **params)
    with pytest.raises(Conflict), transactions.writing(COMMAND) as context:
        request_issue(context, waiting.id, cause="start")


def test_a_license_revoked_while_it_is_issued_never_comes_out(
    transactions: Transactions, site: Site
) -> None:
    granted = make_entitlement(transactions, site.deployment)
    with transactions.writing(COMMAND) as context:
        asked = request_issue(context, granted.id, cause="start")
    do(transactions, REVOKE, asked.id, site.ann)
    with pytest.raises(Conflict):
        issue_license(transactions, asked.id, COMMAND)
    assert state_of(transactions, asked.id) == "revoked"
    with transactions.reading(COMMAND) as context:
        assert context.session.get_one(License, asked.id).envelope is None


def test_the_bundle_says_that_a_key_was_compromised(
    transactions: Transactions, site: Site, pilot: License
) -> None:
    do(transactions, REVOKE, pilot.id, None, because=RevokedReason.KEY_COMPROMISE)
    assert told(transactions) == {pilot.id: "key-compromise"}
