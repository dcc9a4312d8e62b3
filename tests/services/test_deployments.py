"""Deployments: how many, named how, and what their pages are told."""

from datetime import timedelta

import pytest

from portal.db.licenses import Hold
from portal.domain.errors import Conflict, Invalid, LimitReached, NotFound
from portal.domain.identifiers import new_id
from portal.services.acts.amend import AMEND
from portal.services.acts.machinery import submit
from portal.services.acts.renew import RENEW
from portal.services.acts.replace import REPLACE
from portal.services.context import Transactions
from portal.services.deployments import (
    MAX_DEPLOYMENTS,
    create_deployment,
    deployment_list,
    deployment_page,
)
from portal.services.enrollments import revoke_enrollment_code
from portal.services.lines import newest_license
from tests.factories.accounts import COMMAND, make_customer, make_deployment, make_staff
from tests.factories.acts import ask, do
from tests.factories.instances import make_code
from tests.factories.licenses import issue, make_entitlement
from tests.fakes import FakeClock


def test_names_are_unique_in_an_account_and_free_in_the_next(transactions: Transactions) -> None:
    account, _ = make_customer(transactions)
    other, _ = make_customer(transactions, "kim@widgets.example", "Widgets")
    make_deployment(transactions, account, "Berlin")
    make_deployment(transactions, other, "Berlin")
    with pytest.raises(Conflict), transactions.writing(COMMAND) as context:
        create_deployment(context, account_id=account.id, name=" Berlin ")


@pytest.mark.parametrize("name", ["", " \t ", "x" * 201, "a\x1bb"])
def test_an_unfit_name_is_refused(transactions: Transactions, name: str) -> None:
    account, _ = make_customer(transactions)
    with pytest.raises(Invalid), transactions.writing(COMMAND) as context:
        create_deployment(context, account_id=account.id, name=name)


def test_an_account_has_so_many_and_a_closed_one_gets_none(transactions: Transactions) -> None:
    account, _ = make_customer(transactions)
    with transactions.writing(COMMAND) as context:
        for number in range(MAX_DEPLOYMENTS):
            create_deployment(context, account_id=account.id, name=f"Site {number}")
        with pytest.raises(LimitReached):
            create_deployment(context, account_id=account.id, name="One more")
    with transactions.writing(COMMAND) as context:
        context.session.merge(account).closed_at = context.at
        with pytest.raises(NotFound):
            create_deployment(context, account_id=account.id, name="Too late")


def test_the_list_shows_each_one_with_its_newest_license(
    transactions: Transactions, clock: FakeClock
) -> None:
    account, _ = make_customer(transactions)
    made = []
    for name in ("Bare", "Held", "Issuing"):
        made.append(make_deployment(transactions, account, name))
        clock.advance(seconds=1)
    bare, held, issuing = made
    granted = make_entitlement(transactions, held)
    first = issue(transactions, granted)
    entitlement = make_entitlement(transactions, issuing)
    second = issue(transactions, entitlement)
    with transactions.writing(COMMAND) as context:
        submit(context, REPLACE, ask(REPLACE, second.id, None))
        asked = newest_license(context, issuing.id)
        assert asked is not None
        context.session.add(
            Hold(
                id=new_id("hld", context.ports.randomness),
                entitlement_id=granted.id,
                cause="staff",
                reason="a test",
                opened_at=context.at,
            )
        )
    with transactions.reading(COMMAND) as context:
        listed = deployment_list(context, account.id)
    assert [
        (
            each.deployment.id,
            each.license and each.license.id,
            each.standing and each.standing.state,
            each.routers,
        )
        for each in listed
    ] == [
        (bare.id, None, None, ()),
        (held.id, first.id, "suspended", ()),
        (issuing.id, asked.id, "issuing", ()),
    ]
    clock.advance(days=4)
    with transactions.reading(COMMAND) as context:
        page = deployment_page(context, account.id, issuing.id)
    assert [now.state for _, now in page.licenses] == ["issuing", "expired"]
    assert page.current is not None
    assert page.current.id != asked.id, "what is being issued is not current"


def test_the_page_shows_codes_that_can_still_be_used(
    transactions: Transactions, clock: FakeClock
) -> None:
    account, _ = make_customer(transactions)
    deployment = make_deployment(transactions, account)
    license_ = issue(transactions, make_entitlement(transactions, deployment, mode="lease"))
    make_code(transactions, license_)
    make_code(transactions, license_)
    with transactions.writing(COMMAND) as context:
        code, left = deployment_page(context, account.id, deployment.id).codes
        revoke_enrollment_code(context, account_id=account.id, code_id=code.id)
    with transactions.reading(COMMAND) as context:
        assert [each.id for each in deployment_page(context, account.id, deployment.id).codes] == [
            left.id
        ]
    clock.at = left.expires_at + timedelta(seconds=1)
    with transactions.reading(COMMAND) as context:
        assert deployment_page(context, account.id, deployment.id).codes == ()


def test_another_accounts_deployment_is_as_absent_as_none(transactions: Transactions) -> None:
    account, _ = make_customer(transactions)
    other, _ = make_customer(transactions, "kim@widgets.example", "Widgets")
    theirs = make_deployment(transactions, other)
    with transactions.reading(COMMAND) as context:
        messages = set()
        for deployment_id in (theirs.id, "dep_00000000000000000000000000"):
            with pytest.raises(NotFound) as refused:
                deployment_page(context, account.id, deployment_id)
            messages.add(str(refused.value))
        assert len(messages) == 1
        assert deployment_list(context, account.id) == ()


def test_the_history_says_what_each_revision_changed(transactions: Transactions) -> None:
    account, _ = make_customer(transactions)
    deployment = make_deployment(transactions, account)
    ann = make_staff(transactions)
    first = issue(transactions, make_entitlement(transactions, deployment, sku="pilot-30d"))
    do(transactions, AMEND, first.id, ann.id, limits={"max_instances": 5})
    do(transactions, REPLACE, first.id, ann.id)
    do(transactions, RENEW, first.id, ann.id)
    with transactions.reading(COMMAND) as context:
        history = deployment_page(context, account.id, deployment.id).history
    assert [each.license.revision for each in history] == [4, 3, 2, 1]
    said = [[(one.title, one.asked, one.granted) for one in each.changes] for each in history]
    assert said == [[], [], [("Instances", "3", "5")], []]
    renewed, replaced, amended, made = history
    assert renewed.expires == (replaced.license.expires_at, renewed.license.expires_at)
    assert (replaced.expires, amended.expires, made.expires) == (None, None, None)
    assert [each.now.state for each in history] == ["issued"] * 4, "their overlap lasts"
