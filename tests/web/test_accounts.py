"""The account's own pages say what is so to whoever may know it."""

from flask import Flask

from portal.db.accounts import Account
from portal.services.context import Actor, Transactions
from portal.services.requests import decline_request
from tests.factories.accounts import add_member, make_deployment, make_staff
from tests.factories.licenses import make_entitlement
from tests.factories.requests import ask_for_pilot
from tests.web.conftest import COMMAND, sign_in
from tests.web.visitor import Visitor


def test_a_grant_is_offered_to_those_who_can_start_it(
    app: Flask, customer: Visitor, transactions: Transactions
) -> None:
    with transactions.reading(COMMAND) as context:
        account = context.session.query(Account).one()
    make_entitlement(transactions, make_deployment(transactions, account))
    add_member(transactions, account.id, "viewer", "v@newco.example")
    viewer = Visitor(app.test_client())
    sign_in(viewer, "v@newco.example")
    assert "See what was granted and start" in customer.get("/account").text
    assert "See what was granted and start" not in viewer.get("/account").text
    assert "See what was granted" in viewer.get("/account").text


def test_activity_names_members_and_not_staff(
    customer: Visitor, transactions: Transactions
) -> None:
    staff = make_staff(transactions)
    request_id = ask_for_pilot(transactions)
    with transactions.writing(Actor("staff", staff.id)) as context:
        decline_request(context, request_id, staff_id=staff.id, note="Not now.")
    customer.send(customer.get("/account/deployments/new"), {"name": "Berlin"})
    page = customer.get("/account/activity")
    assert "Request declined" in page.text
    assert "Deployment created" in page.text
    assert "Jo Owner" in page.text
    assert staff.name not in page.text.split()
