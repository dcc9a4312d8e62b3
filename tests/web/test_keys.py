"""The keys page: what each key is, how far the keyset has spread, and what to do next."""

from typing import Any

from sqlalchemy import event

from portal.domain.acts import ActState
from portal.domain.ports import NewKey
from portal.services.acts import machinery
from portal.services.acts.keys import ROTATE_KEY, RotateKey
from portal.services.acts.kinds import Ask
from portal.services.context import Actor, Transactions
from portal.services.key_changes import KeyOrder, run_order, stop_signing
from portal.services.key_overview import KeyRow, KeysPage, KeyState, NextStep, keys_page
from portal.services.keys import add_key
from tests.factories.accounts import make_staff
from tests.factories.licenses import make_license
from tests.fakes import FakeClock, MemorySigner, MemorySigners
from tests.web.conftest import StaffMaker

COMMAND = Actor("command")


def shown(transactions: Transactions) -> KeysPage:
    with transactions.reading(COMMAND) as context:
        return keys_page(context)


def rows_of(transactions: Transactions, role: str) -> list[KeyRow]:
    return [key for key in shown(transactions).keys if key.role == role]


def test_a_key_says_what_it_signed(transactions: Transactions) -> None:
    (before,) = rows_of(transactions, "license")
    assert (before.state, before.signed, before.used_at) == (KeyState.ACTIVE, None, None)
    license_ = make_license(transactions)
    (after,) = rows_of(transactions, "license")
    assert (after.signed, after.used_at) == (1, license_.released_at)
    (bundles,) = rows_of(transactions, "revocation")
    assert bundles.signed == 1
    (leases,) = rows_of(transactions, "lease")
    assert (leases.signed, leases.used_at) == (0, None)


def test_the_next_step_follows_a_rotation(
    transactions: Transactions, signers: MemorySigners, clock: FakeClock
) -> None:
    license_ = make_license(transactions, sku="pilot-30d")

    def steps() -> list[tuple[str, str]]:
        return [(key.state.value, key.next_step.value) for key in rows_of(transactions, "license")]

    assert steps() == [("active", "nothing")]
    order = KeyOrder("act_1", "rotate-key", "license")
    run_order(transactions, signers, order, COMMAND)
    assert steps() == [("active", "nothing"), ("announced", "bring")]
    clock.advance(days=15)
    assert steps() == [("active", "wait"), ("active", "nothing")]
    clock.advance(days=16)
    assert license_.expires_at is not None
    assert license_.expires_at < clock.now()
    assert steps() == [("active", "retire"), ("active", "nothing")]
    old = rows_of(transactions, "license")[0].keyid
    run_order(transactions, signers, KeyOrder("act_2", "retire-key", old), COMMAND)
    assert steps() == [("retired", "nothing"), ("active", "nothing")]


def test_an_old_key_asks_for_its_successor(transactions: Transactions, clock: FakeClock) -> None:
    clock.advance(days=366)
    for role in ("license", "lease", "revocation"):
        (key,) = rows_of(transactions, role)
        assert key.next_step is NextStep.ROTATE


def test_the_page_is_read_without_scripts(
    transactions: Transactions, signers: MemorySigners, staff: StaffMaker
) -> None:
    make_license(transactions, sku="pilot-30d")
    lease = rows_of(transactions, "lease")[0].keyid
    with transactions.writing(COMMAND) as context:
        stop_signing(context, lease)
        added = NewKey(MemorySigner(b"next").public_key, "vault:transit/lease-2027/1")
        add_key(context, "lease", added)
    order = KeyOrder("act_1", "rotate-key", "license")
    run_order(transactions, signers, order, COMMAND)
    page = staff("keys").get("/staff/keys")
    assert page.heading == "Keys"
    for words in (
        "Keyset 2",
        "0 of 1",
        "1 router lacks it",
        "Deployments that lack keyset 2",
        "Announced",
        "Signs nothing",
        "Not published",
        "vault",
        "Approve or decline the compromise",
        "Bring it to every process that signs with it",
        lease,
    ):
        assert words in page.text, words


def test_the_page_takes_a_constant_number_of_statements(
    transactions: Transactions, signers: MemorySigners
) -> None:
    def count() -> int:
        seen: list[str] = []
        engine = transactions.database.engine

        def listener(*args: Any) -> None:
            seen.append(args[2])

        event.listen(engine, "before_cursor_execute", listener)
        try:
            shown(transactions)
        finally:
            event.remove(engine, "before_cursor_execute", listener)
        return len(seen)

    before = count()
    make_license(transactions)
    for number, role in enumerate(("license", "lease", "revocation")):
        order = KeyOrder(f"act_{number}", "rotate-key", role, activate_in_s=0)
        run_order(transactions, signers, order, COMMAND)
    assert count() == before


def test_a_second_person_approves_a_key_change_on_its_page(
    transactions: Transactions, staff: StaffMaker
) -> None:
    first = make_staff(transactions, "kim@vendor.test", "keys").id
    with transactions.writing(COMMAND) as context:
        ask = Ask(subject_id="license", params=RotateKey(), reason="yearly rotation", by=first)
        act_id = machinery.submit(context, ROTATE_KEY, ask).id
    visitor = staff("keys")
    page = visitor.get("/staff/keys")
    assert "yearly rotation" in page.text
    page = visitor.get(f"/staff/keys/changes/{act_id}")
    assert "14 days" in page.text
    action = f"/staff/keys/changes/{act_id}/decline"
    refused = visitor.send(page, {"note": " "}, action=action, status=400)
    assert "Say why the change is declined." in refused.text
    done = visitor.send(page, {}, action=f"/staff/keys/changes/{act_id}/approve")
    assert f"portal keys run {act_id}" in done.text
    with transactions.reading(COMMAND) as context:
        assert machinery.find_act(context, act_id).state is ActState.DONE
    visitor.get(f"/staff/keys/changes/{act_id}", 404)
