"""A customer asks to renew, staff grant: by pages alone."""

import pytest

from portal.db.accounts import Account
from portal.db.acts import Act
from portal.db.licenses import License
from portal.services.acts.machinery import approve
from portal.services.context import Actor, Transactions
from tests.factories.accounts import add_member, make_customer, make_deployment, make_staff
from tests.factories.acts import make_annual
from tests.factories.licenses import issue, make_entitlement
from tests.web.conftest import Office, StaffMaker, enter
from tests.web.visitor import Served, Visitor

COMMAND = Actor("command")
NEW = "/account/requests/new/renewal"


def the_account(transactions: Transactions) -> Account:
    """Return the one account."""
    with transactions.reading(COMMAND) as context:
        return context.session.query(Account).one()


@pytest.fixture
def pilot(customer: Visitor, transactions: Transactions) -> License:
    deployment = make_deployment(transactions, the_account(transactions))
    return issue(transactions, make_entitlement(transactions, deployment, sku="pilot-30d"))


@pytest.fixture
def annual(customer: Visitor, transactions: Transactions) -> License:
    deployment = make_deployment(transactions, the_account(transactions))
    return make_annual(transactions, deployment, make_staff(transactions, "cy@vendor.test").id)


def ask_to_renew(customer: Visitor, license_: License, **answers: str) -> str:
    """Go from the license to the request, send it, and return its id."""
    path = f"{NEW}?license={license_.id}"
    assert path in customer.get(f"/account/licenses/{license_.id}").links
    check = customer.send(customer.get(path), {"terms": "y", **answers})
    assert check.title.startswith("Check your answers"), check.errors
    sent = customer.send(check, button="Send the request")
    assert "We have your request" in sent.text
    return sent.path.rsplit("/", 1)[1].removesuffix("?sent=1")


def test_a_pilot_is_renewed_by_pages(
    customer: Visitor, staff: StaffMaker, office: Office, transactions: Transactions, pilot: License
) -> None:
    form = customer.get(f"{NEW}?license={pilot.id}").form()
    assert form.fields["days"] == ["30"]
    assert form.fields["volume_tokens"] == ["10000000"]
    assert form.fields["max_instances"] == ["3"]
    request_id = ask_to_renew(customer, pilot, days="60", max_instances="5")
    ann = staff("approver")
    path = f"/staff/requests/{request_id}"
    check = ann.send(ann.get(f"{path}/approve"), {"days": "45", "note": "45 days, as agreed."})
    assert "Length 30 days 60 days 45 days" in check.text
    assert "issued as soon as you approve" in check.text
    with transactions.reading(COMMAND) as context:
        assert context.session.query(Act).count() == 0
    assert ann.send(check).path == path
    mail = next(
        each for each in office.mails("jo@newco.example") if "renewal is granted" in each.subject
    )
    assert "45 days, as agreed." in mail.text
    assert "Start it by" not in mail.text
    page = customer.get(f"/account/requests/{request_id}")
    assert "60 days" in page.text
    assert "45 days" in page.text
    with transactions.reading(COMMAND) as context:
        renewed = context.session.query(License).order_by(License.revision.desc()).first()
        assert renewed is not None
        assert renewed.document is not None
        assert pilot.document is not None
        assert renewed.document.expires_at == pilot.document.expires_at + 45 * 86400
        assert renewed.document.limits.max_instances == 5
    assert f"/account/licenses/{renewed.id}" in page.links


def test_a_contract_is_submitted_for_a_second_person(
    customer: Visitor,
    staff: StaffMaker,
    office: Office,
    transactions: Transactions,
    annual: License,
) -> None:
    request_id = ask_to_renew(customer, annual)
    ann = staff("approver")
    path = f"/staff/requests/{request_id}"
    form = ann.get(f"{path}/approve")
    assert form.form().fields["features"] == ["audit_export", "routing"]
    assert form.form().fields["max_instances"] == [""], "no limit stays no limit"
    check = ann.send(form)
    assert "a second, different person approves it" in check.text
    page = ann.send(check)
    assert "It waits for a second person" in page.text
    assert "Our staff are reviewing" in customer.get(f"/account/requests/{request_id}").text
    ben = make_staff(transactions, "ben@vendor.test")
    with transactions.writing(COMMAND) as context:
        approve(context, context.session.query(Act).one().id, by=ben.id)
    office.work()
    assert "The license is ready" in customer.get(f"/account/requests/{request_id}").text
    assert "It waits for" not in ann.get(path).text


def test_what_changed_meanwhile_is_shown_to_staff_anew(
    customer: Visitor, staff: StaffMaker, transactions: Transactions, pilot: License
) -> None:
    request_id = ask_to_renew(customer, pilot)
    ann = staff("approver")
    check = ann.send(ann.get(f"/staff/requests/{request_id}/approve"))
    sent = check.form().filled({}) | {"act": "approve", "seen": "0" * 64}
    answer = ann.client.post(f"/staff/requests/{request_id}/approve", data=sent)
    assert answer.status_code == 409
    assert "Something changed meanwhile" in answer.text
    with transactions.reading(COMMAND) as context:
        assert context.session.query(Act).count() == 0


def test_without_a_license_one_is_sent_to_choose_it(customer: Visitor, pilot: License) -> None:
    assert customer.get(NEW).path == "/account/deployments"


def test_another_accounts_license_is_not_there(
    app: Served, customer: Visitor, transactions: Transactions, pilot: License
) -> None:
    make_customer(transactions, "eve@other.example", "Other")
    eve = Visitor(app.test_client())
    enter(eve, "eve@other.example")
    assert eve.client.get(f"{NEW}?license={pilot.id}").status_code == 404
    answer = eve.post(
        NEW, license=pilot.id, step="send", days="30", terms="y", features=["routing"]
    )
    assert answer.status_code == 404


def test_a_viewer_sees_no_renewal(
    app: Served, customer: Visitor, transactions: Transactions, pilot: License
) -> None:
    add_member(transactions, the_account(transactions).id, "viewer", "vi@newco.example")
    viewer = Visitor(app.test_client())
    enter(viewer, "vi@newco.example")
    page = viewer.get(f"/account/licenses/{pilot.id}")
    assert "Change it" not in page.text
    assert viewer.client.get(f"{NEW}?license={pilot.id}").status_code == 403
    assert viewer.client.get(f"/account/licenses/{pilot.id}/replace").status_code == 403
