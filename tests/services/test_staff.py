"""Staff: made with roles, found by id or address, permitted by their roles alone."""

import pytest

from portal.db.emails import Email
from portal.db.people import Person
from portal.domain.errors import Conflict, Forbidden, Invalid, NotFound
from portal.domain.roles import KEYS_MANAGE, REQUESTS_DECIDE
from portal.services.context import Transactions
from portal.services.staff import create_staff, find_staff, list_staff, require_staff_permission
from tests.factories.accounts import COMMAND, make_customer, make_staff


def test_staff_are_listed_with_their_roles(transactions: Transactions) -> None:
    make_customer(transactions)
    bob = make_staff(transactions, "bob@vendor.test", "keys")
    ann = make_staff(transactions, "ann@vendor.test", "approver", "admin")
    with transactions.reading(COMMAND) as context:
        assert [(person.id, roles) for person, roles in list_staff(context)] == [
            (ann.id, {"approver", "admin"}),
            (bob.id, {"keys"}),
        ]
        assert find_staff(context, ann.id).id == find_staff(context, " Ann@vendor.test").id


def test_without_a_password_a_link_is_mailed(transactions: Transactions) -> None:
    with transactions.writing(COMMAND) as context:
        create_staff(context, email="ann@vendor.test", roles=frozenset({"support"}))
    with transactions.reading(COMMAND) as context:
        assert context.session.query(Email).one().template == "set-password"
        assert context.session.query(Person).one().name == "ann"


@pytest.mark.parametrize("roles", [frozenset(), frozenset({"approver", "king"})])
def test_roles_are_known_ones_and_at_least_one(
    transactions: Transactions, roles: frozenset[str]
) -> None:
    with pytest.raises(Invalid, match="choose from"), transactions.writing(COMMAND) as context:
        create_staff(context, email="ann@vendor.test", roles=roles)


def test_an_address_is_one_persons(transactions: Transactions) -> None:
    _, owner = make_customer(transactions)
    with pytest.raises(Conflict), transactions.writing(COMMAND) as context:
        create_staff(context, email=owner.email.upper(), roles=frozenset({"support"}))
    with transactions.reading(COMMAND) as context, pytest.raises(NotFound):
        find_staff(context, owner.email)


def test_the_disabled_are_not_found_and_roles_permit_what_they_carry(
    transactions: Transactions,
) -> None:
    ann = make_staff(transactions)
    with transactions.writing(COMMAND) as context:
        require_staff_permission(context, ann, REQUESTS_DECIDE)
        with pytest.raises(Forbidden):
            require_staff_permission(context, ann, KEYS_MANAGE)
        context.session.get_one(Person, ann.id).disabled_at = context.at
        with pytest.raises(NotFound):
            find_staff(context, ann.id)
