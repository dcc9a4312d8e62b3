"""Acts on a license in front of a browser: reason, preview, confirmation, and the second person."""

import pytest
from sqlalchemy import func, select

from portal.db.acts import Act
from portal.db.bundles import Bundle
from portal.db.deployments import Deployment
from portal.db.jobs import Job
from portal.db.licenses import License
from portal.domain.acts import ActState
from portal.domain.standing import HoldCause, LicenseState
from portal.services.acts.amend import AMEND
from portal.services.acts.keys import ROTATE_KEY
from portal.services.acts.machinery import submit
from portal.services.acts.revoke import REVOKE
from portal.services.acts.suspend import SUSPEND
from portal.services.context import Transactions
from tests.factories.accounts import COMMAND, make_customer, make_deployment, make_staff
from tests.factories.acts import ask, do, make_annual, newest, state_of
from tests.factories.licenses import issue, make_entitlement
from tests.fakes import FakeClock
from tests.web.conftest import Office, StaffMaker
from tests.web.visitor import Page, Visitor

LATER = "bob@vendor.test"


@pytest.fixture
def deployment(transactions: Transactions) -> Deployment:
    account, _ = make_customer(transactions)
    return make_deployment(transactions, account)


@pytest.fixture
def pilot(transactions: Transactions, deployment: Deployment) -> License:
    return issue(transactions, make_entitlement(transactions, deployment, sku="pilot-30d"))


@pytest.fixture
def annual(transactions: Transactions, deployment: Deployment) -> License:
    person = make_staff(transactions, "zoe@vendor.test", "approver")
    return make_annual(transactions, deployment, person.id)


def path_of(license_: License, act: str) -> str:
    return f"/staff/licenses/{license_.id}/acts/{act}"


def previewed(visitor: Visitor, license_: License, act: str, **values: str | list[str]) -> Page:
    page = visitor.get(path_of(license_, act))
    return visitor.send(page, {"reason": "They asked for it.", **values}, button="Preview")


def acts(transactions: Transactions) -> list[Act]:
    with transactions.reading(COMMAND) as context:
        return list(context.session.scalars(select(Act).order_by(Act.submitted_at, Act.id)))


def test_the_page_says_first_what_the_license_is_and_what_can_be_done(
    pilot: License, staff: StaffMaker
) -> None:
    page = staff("approver").get(f"/staff/licenses/{pilot.id}")
    assert "This license counts" in page.text
    offered = {link.rpartition("/")[2] for link in page.links if "/acts/" in link}
    assert offered == {"renew", "amend", "replace", "suspend", "end", "revoke"}


def test_each_act_that_is_offered_has_a_form_and_a_preview(
    transactions: Transactions, pilot: License, deployment: Deployment, staff: StaffMaker
) -> None:
    """Every preview is made and nothing is done."""
    visitor = staff("approver")
    entitlement = make_entitlement(transactions, deployment)
    values: dict[str, dict[str, str | list[str]]] = {
        "renew": {"days": "20"},
        "amend": {"max_instances": "9"},
        "replace": {},
        "replace-base": {"entitlement_id": entitlement.id},
        "suspend": {"cause": "staff"},
        "end": {"entitlement_id": pilot.entitlement_id},
        "revoke": {},
    }
    for act, typed in values.items():
        page = previewed(visitor, pilot, act, **typed)
        assert "What stops, and when" in page.text, act
    assert acts(transactions) == []
    assert state_of(transactions, pilot.id) is LicenseState.ISSUED


def test_a_hold_is_opened_and_lifted(
    transactions: Transactions, pilot: License, staff: StaffMaker
) -> None:
    visitor = staff("approver")
    page = previewed(visitor, pilot, "suspend", cause="abuse")
    assert "Suspended until every hold is lifted" in page.text
    page = visitor.send(page, button="Suspend")
    assert "This license is suspended" in page.text
    assert state_of(transactions, pilot.id) is LicenseState.SUSPENDED
    form = visitor.get(path_of(pilot, "reinstate"))
    hold_id = next(
        each.get("value", "") for each in form.root.iter() if each.get("name") == "hold_id"
    )
    page = previewed(visitor, pilot, "reinstate", hold_id=hold_id)
    page = visitor.send(page, button="Reinstate")
    assert "This license counts" in page.text
    assert [each.state for each in acts(transactions)] == [ActState.DONE, ActState.DONE]


def test_an_amendment_says_what_changes_and_keeps_what_was_not_touched(
    transactions: Transactions, pilot: License, staff: StaffMaker, office: Office
) -> None:
    visitor = staff("approver")
    page = previewed(visitor, pilot, "amend", max_instances="9")
    assert "Instances" in page.text
    visitor.send(page, button="Amend")
    (act,) = acts(transactions)
    assert act.params == {"limits": {"max_instances": 9}}
    office.work()
    document = newest(transactions, pilot.deployment_id).document
    assert document is not None
    assert document.limits.max_instances == 9


def test_a_reason_is_required(pilot: License, staff: StaffMaker) -> None:
    visitor = staff("approver")
    page = visitor.get(path_of(pilot, "revoke"))
    refused = visitor.send(page, button="Preview", status=400)
    assert refused.errors == ["Say why. It stays in the audit trail."]


def test_what_the_rules_refuse_stands_at_the_form(pilot: License, staff: StaffMaker) -> None:
    visitor = staff("approver")
    page = visitor.get(path_of(pilot, "amend"))
    refused = visitor.send(page, {"reason": "none"}, button="Preview", status=400)
    assert refused.errors == ["Say what changes."]


def test_a_stale_preview_is_refused_and_shown_anew(
    transactions: Transactions, pilot: License, staff: StaffMaker
) -> None:
    visitor = staff("approver")
    person = make_staff(transactions, LATER, "approver")
    page = previewed(visitor, pilot, "revoke")
    do(transactions, AMEND, pilot.id, person.id, limits={"max_instances": 9})
    stale = visitor.send(page, button="Revoke", status=409)
    assert "Something changed meanwhile" in stale.text
    assert state_of(transactions, pilot.id) is LicenseState.ISSUED
    visitor.send(stale, button="Revoke")
    assert state_of(transactions, pilot.id) is LicenseState.REVOKED


def test_a_made_up_fingerprint_does_nothing(
    transactions: Transactions, pilot: License, staff: StaffMaker
) -> None:
    visitor = staff("approver")
    answer = visitor.post(path_of(pilot, "revoke"), reason="now", step="confirm")
    assert answer.status_code == 409
    assert acts(transactions) == []


@pytest.mark.parametrize("role", ["support", "keys", "admin", "auditor"])
def test_who_does_not_approve_reads_and_acts_on_nothing(
    transactions: Transactions, pilot: License, staff: StaffMaker, role: str
) -> None:
    visitor = staff(role)
    page = visitor.get(f"/staff/licenses/{pilot.id}")
    assert not [link for link in page.links if "/acts/" in link]
    assert visitor.client.get(path_of(pilot, "revoke")).status_code == 403
    answer = visitor.post(path_of(pilot, "revoke"), reason="now", step="confirm")
    assert answer.status_code == 403
    assert acts(transactions) == []


def test_an_act_asks_who_one_is_after_a_quarter_of_an_hour(
    transactions: Transactions, pilot: License, staff: StaffMaker, clock: FakeClock
) -> None:
    visitor = staff("approver")
    page = previewed(visitor, pilot, "revoke")
    clock.advance(minutes=16)
    asked = visitor.send(page, button="Revoke")
    assert asked.path.startswith("/sign-in/again")
    assert acts(transactions) == []


def test_a_contract_is_revoked_by_two_different_people(
    transactions: Transactions, annual: License, staff: StaffMaker
) -> None:
    ann = staff("approver")
    page = previewed(ann, annual, "revoke")
    assert "A second person has to approve this" in page.text
    pending = ann.send(page, button="Submit for approval")
    assert "Any other approver can" in pending.text
    (act,) = acts(transactions)
    assert act.state is ActState.PENDING
    with_own_hands = ann.post(f"/staff/acts/{act.id}/approve", seen=act.fingerprint)
    assert with_own_hands.status_code == 403
    assert state_of(transactions, annual.id) is LicenseState.ISSUED
    bob = staff("approver", email=LATER)
    assert "waits for a second person" in bob.get("/staff").text
    assert "waits for a second person" in bob.get(f"/staff/licenses/{annual.id}").text
    shown = bob.get(f"/staff/acts/{act.id}")
    done = bob.send(shown, button="Approve and do it", action=f"/staff/acts/{act.id}/approve")
    assert "Approved and done" in done.html
    assert state_of(transactions, annual.id) is LicenseState.REVOKED


def test_an_act_that_does_something_else_now_goes_back_to_its_first_person(
    transactions: Transactions, annual: License, staff: StaffMaker
) -> None:
    ann = staff("approver")
    ann.send(previewed(ann, annual, "revoke"), button="Submit for approval")
    (act,) = acts(transactions)
    bob = staff("approver", email=LATER)
    shown = bob.get(f"/staff/acts/{act.id}")
    do(transactions, SUSPEND, annual.id, act.submitted_by, cause=HoldCause.STAFF)
    assert "It does something else" in bob.get(f"/staff/acts/{act.id}").text
    approve = f"/staff/acts/{act.id}/approve"
    stale = bob.send(shown, action=approve, button="Approve and do it", status=409)
    assert "Nothing was done" in stale.text
    assert state_of(transactions, annual.id) is LicenseState.SUSPENDED
    again = ann.get(f"/staff/acts/{act.id}")
    ann.send(again, action=f"/staff/acts/{act.id}/confirm", button="Submit it anew")
    bob.send(bob.get(f"/staff/acts/{act.id}"), action=approve, button="Approve and do it")
    assert state_of(transactions, annual.id) is LicenseState.REVOKED


def test_an_act_is_declined_with_a_reason(
    transactions: Transactions, annual: License, staff: StaffMaker
) -> None:
    person = make_staff(transactions, LATER, "approver")
    act = do(transactions, REVOKE, annual.id, person.id)
    visitor = staff("approver")
    page, where = visitor.get(f"/staff/acts/{act.id}"), f"/staff/acts/{act.id}/decline"
    refused = visitor.send(page, action=where, button="Decline", status=400)
    assert refused.errors == ["Say why; its first person reads it."]
    said = {"reason": "They paid after all."}
    declined = visitor.send(page, said, action=where, button="Decline")
    assert "They paid after all." in declined.text
    assert state_of(transactions, annual.id) is LicenseState.ISSUED
    late = visitor.post(f"/staff/acts/{act.id}/approve", seen=act.fingerprint)
    assert late.status_code == 409


def test_the_bundle_page_says_what_the_next_one_changes_and_publishes_it(
    transactions: Transactions, pilot: License, staff: StaffMaker, office: Office
) -> None:
    office.work()
    visitor = staff("approver", "keys")
    before = visitor.get("/staff/bundles")
    assert "The next bundle says the same" in before.text
    person = make_staff(transactions, LATER, "approver")
    do(transactions, REVOKE, pilot.id, person.id)
    changed = visitor.get("/staff/bundles")
    assert "What the next bundle changes" in changed.text
    assert pilot.id in changed.text
    visitor.send(changed, action="/staff/bundles/publish", button="Publish now")
    with transactions.reading(COMMAND) as context:
        assert context.session.scalar(select(func.count()).where(Job.kind == "publish-bundle")) == 1
        old = context.session.scalar(select(func.max(Bundle.version)))
    office.work()
    after = visitor.get("/staff/bundles")
    assert "The next bundle says the same" in after.text
    assert "withdrawn" in after.text
    kept = visitor.get(f"/staff/bundles?version={old}")
    assert "A kept bundle" in kept.text
    visitor.get("/staff/bundles?version=7", status=404)


def test_only_keepers_of_keys_publish(pilot: License, staff: StaffMaker) -> None:
    visitor = staff("approver")
    page = visitor.get("/staff/bundles")
    assert "Publish now" not in page.text
    assert visitor.post("/staff/bundles/publish").status_code == 403


def test_an_auditor_follows_a_license_from_its_approver_to_its_key(
    transactions: Transactions, annual: License, staff: StaffMaker
) -> None:
    page = staff("auditor").get(f"/staff/licenses/{annual.id}/audit")
    assert "zoe" in page.text
    assert annual.payload_sha256 is not None
    assert annual.key_id is not None
    for words in (annual.payload_sha256, annual.key_id, "never downloaded", "License issued"):
        assert words in page.text, words


def test_a_change_of_a_key_is_decided_on_elsewhere(
    transactions: Transactions, staff: StaffMaker
) -> None:
    person = make_staff(transactions, LATER, "keys")
    with transactions.writing(COMMAND) as context:
        act = submit(context, ROTATE_KEY, ask(ROTATE_KEY, "license", person.id))
    visitor = staff("approver")
    visitor.get(f"/staff/acts/{act.id}", status=404)
    for step in ("approve", "confirm", "decline"):
        sent = {"seen": act.fingerprint, "reason": "no"}
        assert visitor.post(f"/staff/acts/{act.id}/{step}", **sent).status_code == 403, step
    assert [each.state for each in acts(transactions)] == [ActState.PENDING]
