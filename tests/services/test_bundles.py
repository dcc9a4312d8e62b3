"""Bundles: what routers are told of a license follows from its standing."""

from datetime import datetime, timedelta
from typing import Any

import pytest

from licensing.revocation import RevocationEntry
from portal.db.licenses import Hold, License
from portal.domain.standing import HoldCause
from portal.services.bundles import KEEP_EXPIRED, publish_bundle, wanted_entries
from portal.services.context import Transactions
from portal.services.keys import unix
from tests.factories.accounts import COMMAND
from tests.factories.licenses import make_license
from tests.fakes import FakeClock


def hold(transactions: Transactions, license_: License, opened_at: datetime) -> None:
    """Open a hold on what a license was issued from."""
    with transactions.writing(COMMAND) as context:
        number = context.session.query(Hold).count()
        context.session.add(
            Hold(
                id=f"hld_{number}",
                entitlement_id=license_.entitlement_id,
                cause=HoldCause.STAFF,
                reason="x",
                opened_at=opened_at,
            )
        )


def entries(transactions: Transactions) -> list[RevocationEntry]:
    """Return what the next bundle says."""
    with transactions.reading(COMMAND) as context:
        return list(wanted_entries(context))


@pytest.mark.parametrize(
    ("ends", "is_held", "said"),
    [
        ({}, False, None),
        ({}, True, ("suspended", "on-hold", 0)),
        ({"superseded_at": 5}, False, ("superseded", "replaced", 5)),
        ({"superseded_at": 5}, True, ("suspended", "on-hold", 0)),
        ({"superseded_at": -5}, False, ("superseded", "replaced", -5)),
        ({"superseded_at": -5}, True, ("superseded", "replaced", -5)),
        ({"superseded_at": -5, "revoked_at": -1}, True, ("revoked", "withdrawn", -1)),
        ({"revoked_at": -1}, False, ("revoked", "withdrawn", -1)),
    ],
)
def test_one_entry_says_what_the_license_is(
    transactions: Transactions,
    clock: FakeClock,
    ends: dict[str, int],
    is_held: bool,
    said: tuple[str, str, int] | None,
) -> None:
    license_ = make_license(transactions)
    at = clock.at
    with transactions.writing(COMMAND) as context:
        row = context.session.get_one(License, license_.id)
        row.superseded_by = "lic_00000000000000000000000000"
        for name, seconds in ends.items():
            setattr(row, name, at + timedelta(seconds=seconds))
    if is_held:
        hold(transactions, license_, at)
    found = [
        (entry.status, entry.reason, entry.effective_at - unix(at), entry.superseded_by)
        for entry in entries(transactions)
    ]
    successor = "lic_00000000000000000000000000"
    expected: list[Any] = []
    if said is not None:
        expected = [(*said, successor if said[0] == "superseded" else None)]
    assert found == expected


def test_of_several_holds_the_first_tells_since_when(
    transactions: Transactions, clock: FakeClock
) -> None:
    license_ = make_license(transactions)
    for seconds in (30, 10, 20):
        hold(transactions, license_, clock.at + timedelta(seconds=seconds))
    (entry,) = entries(transactions)
    assert entry.effective_at == unix(clock.at) + 10
    with transactions.writing(COMMAND) as context:
        context.session.query(Hold).update({"lifted_at": context.at})
    assert entries(transactions) == []


def test_an_entry_leaves_thirty_days_after_its_license_expired(
    transactions: Transactions, clock: FakeClock
) -> None:
    license_ = make_license(transactions)
    hold(transactions, license_, clock.at)
    clock.advance(seconds=72 * 3600 + int(KEEP_EXPIRED.total_seconds()) - 1)
    assert len(entries(transactions)) == 1
    clock.advance(seconds=1)
    assert entries(transactions) == []


def test_a_bundle_is_published_when_it_says_something_new_or_is_a_day_old(
    transactions: Transactions, clock: FakeClock
) -> None:
    def publish() -> int | None:
        with transactions.writing(COMMAND) as context:
            made = publish_bundle(context, only_if_due=True)
            return None if made is None else made.version

    license_ = make_license(transactions)
    assert publish() is None
    clock.advance(seconds=1)
    hold(transactions, license_, clock.at)
    assert publish() == unix(clock.at)
    assert publish() is None
    clock.advance(days=1)
    assert publish() == unix(clock.at)
