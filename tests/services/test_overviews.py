"""The pages that gather several nouns show this account's, and what is still to do."""

import pytest

from portal.domain.errors import NotFound
from portal.services.context import Transactions
from portal.services.entitlements import start_entitlement
from portal.services.overviews import account_overview, security_page, staff_account_page
from portal.services.sign_ins import begin
from tests.factories.accounts import COMMAND, make_customer, make_deployment
from tests.factories.licenses import make_entitlement
from tests.factories.requests import ask_for_pilot


def test_an_account_sees_what_is_open_and_staff_see_all_of_it(transactions: Transactions) -> None:
    account, owner = make_customer(transactions)
    make_customer(transactions, "kim@widgets.example", "Widgets")
    ask_for_pilot(transactions, "kim@widgets.example")
    request_id = ask_for_pilot(transactions)
    granted = make_entitlement(transactions, make_deployment(transactions, account, "Berlin"))
    with transactions.reading(COMMAND) as context:
        shown = account_overview(context, account.id)
        known = staff_account_page(context, account.id)
    assert {each.deployment.name for each in shown.deployments} == {"Production", "Berlin"}
    assert [each.id for each in shown.open_requests] == [request_id]
    assert [each.id for each in shown.grants] == [granted.id]
    assert known.account.id == account.id
    assert [each.id for each in known.requests] == [request_id]
    assert [person.id for _, person in known.members] == [owner.id]
    assert "account.created" in {each.action for each in known.activity}
    with transactions.writing(COMMAND) as context:
        start_entitlement(context, account_id=account.id, entitlement_id=granted.id)
    with transactions.reading(COMMAND) as context:
        assert account_overview(context, account.id).grants == ()


def test_staff_are_told_that_there_is_no_such_account(transactions: Transactions) -> None:
    with transactions.reading(COMMAND) as context, pytest.raises(NotFound):
        staff_account_page(context, "cus_0")


def test_ones_own_security_is_ones_own(transactions: Transactions) -> None:
    _, owner = make_customer(transactions)
    _, other = make_customer(transactions, "kim@widgets.example", "Widgets")
    with transactions.writing(COMMAND) as context:
        begin(context, owner.id, user_agent="mine")
        begin(context, other.id, user_agent="theirs")
    with transactions.reading(COMMAND) as context:
        page = security_page(context, owner.id)
    assert [each.user_agent for each in page.sign_ins] == ["mine"]
    assert page.recovery_codes_left == 0
