"""The audit trail as it is read: members and staff do not see the same."""

from portal.services.audit import (
    PAGE,
    activity_for_members,
    activity_for_staff,
    record,
    search_trail,
)
from portal.services.context import SYSTEM, Actor, Transactions
from tests.factories.accounts import make_customer, make_staff


def test_members_learn_neither_who_of_staff_acted_nor_why_nor_what_they_noted(
    transactions: Transactions,
) -> None:
    account, owner = make_customer(transactions)
    staff = make_staff(transactions)
    for actor, reason, detail in (
        (Actor("person", owner.id), "the host burned", {}),
        (Actor("staff", staff.id), "smells of fraud", {}),
        (Actor("staff", staff.id), None, {"audience": "staff"}),
        (SYSTEM, "term over", {}),
    ):
        with transactions.writing(actor) as context:
            record(context, "a.done", "a", "a_1", account_id=account.id, reason=reason, **detail)
    with transactions.reading(SYSTEM) as context:
        told = activity_for_members(context, account.id)
        known = activity_for_staff(context, account.id)
    assert [(each.actor_kind, each.actor_name, each.reason) for each in told[:3]] == [
        ("system", None, None),
        ("staff", None, None),
        ("person", owner.name, "the host burned"),
    ]
    assert [(each.actor_name, each.reason) for each in known[:4]] == [
        (None, "term over"),
        (staff.name, None),
        (staff.name, "smells of fraud"),
        (owner.name, "the host burned"),
    ]


def test_an_account_sees_its_own_trail_alone(transactions: Transactions) -> None:
    account, _ = make_customer(transactions)
    other, _ = make_customer(transactions, "kim@widgets.example", "Widgets")
    with transactions.reading(SYSTEM) as context:
        (act,) = activity_for_members(context, account.id)
        (theirs,) = activity_for_members(context, other.id)
    assert (act.action, theirs.action) == ("account.created", "account.created")


def test_the_trail_is_found_by_ids_and_the_beginning_of_an_act_page_by_page(
    transactions: Transactions,
) -> None:
    staff = make_staff(transactions)
    with transactions.writing(Actor("staff", staff.id)) as context:
        for number in range(PAGE + 1):
            record(context, "thing.made", "thing", f"thg_{number}")
    with transactions.reading(SYSTEM) as context:
        page = search_trail(context, "thing.")
        rest = search_trail(context, "thing.", before=page.rows[-1].id)
        one = search_trail(context, "thg_7")
        as_text = search_trail(context, "thing_")
        beyond = search_trail(context, "thing.", before=2**63)
    assert (len(page.rows), len(rest.rows)) == (PAGE, 1)
    assert page.names == {staff.id: staff.name}
    assert [row.subject_id for row in one.rows] == ["thg_7"]
    assert as_text.rows == (), "an underscore stood for any character"
    assert len(beyond.rows) == PAGE
