"""Customers replace their own licenses: three times in a year, in force, theirs, the newest."""

from dataclasses import replace
from typing import Any

import pytest

from portal.db.acts import Act
from portal.db.licenses import Hold, License
from portal.domain.errors import Conflict, Invalid, LimitReached, NotFound
from portal.domain.standing import HoldCause
from portal.services.acts.machinery import Stale
from portal.services.context import Actor, Transactions
from portal.services.licenses import issue_pending
from portal.services.replacements import (
    Replacement,
    preview_replacement,
    replace_license,
    replaceable,
)
from tests.factories.accounts import make_customer, make_deployment
from tests.factories.acts import newest
from tests.factories.licenses import issue, make_budgeted_pilot
from tests.fakes import FakeClock

COMMAND = Actor("command")


class Customer:
    """The owner of an account with a budgeted pilot."""

    def __init__(self, transactions: Transactions) -> None:
        self.transactions = transactions
        self.account, self.owner = make_customer(transactions)
        self.deployment = make_deployment(transactions, self.account)
        self.first = issue(transactions, make_budgeted_pilot(transactions, self.deployment))

    @property
    def license(self) -> License:
        """The deployment's newest license."""
        return newest(self.transactions, self.deployment.id)

    def wanted(self, **changes: Any) -> Replacement:
        """Return what is wanted: a new file for a lost one, with changes."""
        return replace(
            Replacement(license_id=self.license.id, reason="The file was lost"), **changes
        )

    def replace(self, wanted: Replacement, seen: str | None = None) -> Act:
        """See what happens, confirm it, and have the license signed."""
        ids = (self.account.id, self.owner.id)
        with self.transactions.writing(COMMAND) as context:
            shown = preview_replacement(context, *ids, wanted)
        with self.transactions.writing(COMMAND) as context:
            act = replace_license(context, *ids, wanted, seen=seen or shown.fingerprint)
        issue_pending(self.transactions, self.deployment.id, COMMAND)
        return act


@pytest.fixture
def customer(transactions: Transactions) -> Customer:
    return Customer(transactions)


def test_a_lost_file_is_replaced_with_the_same_terms_and_budget(customer: Customer) -> None:
    act = customer.replace(customer.wanted(at_once=True))
    made = customer.license
    assert act.outcome is not None
    assert act.outcome["license_id"] == made.id != customer.first.id
    assert made.document is not None
    assert customer.first.document is not None
    for name in ("features", "limits", "budget", "expires_at", "binding"):
        assert getattr(made.document, name) == getattr(customer.first.document, name)
    with customer.transactions.reading(COMMAND) as context:
        before = context.session.get_one(License, customer.first.id)
        assert before.superseded_at == made.released_at
        assert (act.submitted_by, act.reason) == (customer.owner.id, "The file was lost")
        assert replaceable(context, made)
        assert not replaceable(context, before)


def test_a_new_fingerprint_is_bound_and_keeps_the_budget(customer: Customer) -> None:
    customer.replace(customer.wanted(fingerprint="fp_new_host_7"))
    made = customer.license.document
    assert made is not None
    assert customer.first.document is not None
    assert made.binding.fingerprints == ("fp_new_host_7",)
    assert made.budget == customer.first.document.budget
    with pytest.raises(Invalid):
        customer.replace(customer.wanted(fingerprint="short"))


def test_three_in_365_days_then_staff(customer: Customer, clock: FakeClock) -> None:
    for _ in range(3):
        clock.advance(seconds=5)
        customer.replace(customer.wanted())
    with pytest.raises(LimitReached, match="3 times in 365 days"):
        customer.replace(customer.wanted())
    assert customer.license.revision == 4


@pytest.mark.parametrize("state", ["revoked", "suspended", "expired", "older"])
def test_only_the_newest_in_force_is_replaced(
    customer: Customer, clock: FakeClock, state: str
) -> None:
    wanted = customer.wanted()
    if state == "expired":
        clock.advance(days=30)
    elif state == "older":
        customer.replace(wanted)
    else:
        with customer.transactions.writing(COMMAND) as context:
            row = context.session.get_one(License, customer.first.id)
            if state == "revoked":
                row.revoked_at = context.at
            else:
                hold = Hold(
                    id="hld_00000000000000000000000000",
                    entitlement_id=row.entitlement_id,
                    cause=HoldCause.ABUSE,
                    reason="copied",
                    opened_at=context.at,
                )
                context.session.add(hold)
    count = customer.license.revision
    with pytest.raises(Conflict):
        customer.replace(wanted)
    assert customer.license.revision == count


def test_another_accounts_license_is_as_absent_as_none(customer: Customer) -> None:
    other, person = make_customer(customer.transactions, "eve@other.example", "Other")
    wanted = customer.wanted()
    for license_id in (customer.first.id, "lic_00000000000000000000000000"):
        with pytest.raises(NotFound) as refused, customer.transactions.writing(COMMAND) as context:
            replace_license(
                context, other.id, person.id, replace(wanted, license_id=license_id), seen=""
            )
        assert refused.value.message == "There is no such license in this account."


def test_what_was_not_seen_is_not_done(customer: Customer, clock: FakeClock) -> None:
    with pytest.raises(Stale):
        customer.replace(customer.wanted(), seen="0" * 64)
    clock.advance(seconds=20)
    ids = (customer.account.id, customer.owner.id)
    wanted = customer.wanted()
    with customer.transactions.writing(COMMAND) as context:
        seen = preview_replacement(context, *ids, wanted).fingerprint
    clock.advance(seconds=20)
    customer.replace(wanted, seen=seen)
    assert customer.license.revision == 2, "the clock alone makes no preview stale"
