"""Bundles: what they say follows from standings, still holds then, and nobody waits meanwhile."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from licensing.envelope import Envelope
from licensing.revocation import RevocationBundle, RevocationEntry
from portal.db.audit import AuditRow
from portal.db.bundles import Bundle, latest_bundle
from portal.db.licenses import Hold, License
from portal.domain.errors import Unavailable
from portal.domain.ports import SignerUnavailable
from portal.domain.standing import HoldCause
from portal.services.bundles import publish_bundle, wanted_entries
from portal.services.context import Transactions
from portal.services.custody import KEEP_EXPIRED
from portal.services.keys import unix
from tests.databases import write_at_once
from tests.factories.accounts import COMMAND
from tests.factories.licenses import make_license
from tests.fakes import BusySigners, FakeClock, MemorySigners


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
        made = publish_bundle(transactions, COMMAND, only_if_due=True)
        return None if made is None else made.version

    license_ = make_license(transactions)
    assert publish() is None
    clock.advance(seconds=1)
    hold(transactions, license_, clock.at)
    assert publish() == unix(clock.at)
    assert publish() is None
    clock.advance(days=1)
    assert publish() == unix(clock.at)


def while_signing(transactions: Transactions, meanwhile: Callable[[], object]) -> Transactions:
    """Return the same portal, in which something happens during each signature."""
    slow = BusySigners(transactions.ports.signers, meanwhile)
    return Transactions(
        transactions.database, replace(transactions.ports, signers=slow), transactions.policy
    )


def revoke(transactions: Transactions, license_: License) -> None:
    """Revoke a license, as staff will."""
    with transactions.writing(COMMAND) as context:
        row = context.session.get_one(License, license_.id)
        row.revoked_at = context.at


def told_by(bundle: Bundle) -> list[str]:
    """Return the licenses a bundle tells of."""
    parsed = RevocationBundle.parse(Envelope.parse(bundle.envelope).payload)
    return [entry.license_id for entry in parsed.entries]


def count_published(transactions: Transactions) -> int:
    """Return how many bundles there are; each has its audit row."""
    with transactions.reading(COMMAND) as context:
        bundles = context.session.query(Bundle).count()
        told = context.session.query(AuditRow).filter_by(action="bundle.published").count()
    assert bundles == told
    return bundles


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_others_write_while_a_bundle_is_being_signed(
    transactions: Transactions, clock: FakeClock, database_url: str
) -> None:
    """SQLite has one write lock, and nobody may hold it during a signature."""
    written: list[None] = []

    def write() -> None:
        write_at_once(database_url)
        written.append(None)

    make_license(transactions)
    clock.advance(seconds=2)
    assert publish_bundle(while_signing(transactions, write), COMMAND) is not None
    assert len(written) == 1


def test_a_license_revoked_during_the_signature_is_in_the_bundle(
    transactions: Transactions, clock: FakeClock
) -> None:
    license_ = make_license(transactions)
    clock.advance(seconds=2)
    signed: list[str] = []

    def meanwhile() -> None:
        if not signed:
            revoke(transactions, license_)
        signed.append("once")

    stored = publish_bundle(while_signing(transactions, meanwhile), COMMAND)
    assert stored is not None
    assert told_by(stored) == [license_.id]
    assert len(signed) == 2
    assert count_published(transactions) == 2, "the one `portal init` published, and this one"


def test_of_two_publishers_the_slower_one_signs_anew(
    transactions: Transactions, clock: FakeClock
) -> None:
    clock.advance(seconds=2)
    quick: list[Bundle | None] = []

    def meanwhile() -> None:
        if not quick:
            quick.append(publish_bundle(transactions, COMMAND))

    slow = publish_bundle(while_signing(transactions, meanwhile), COMMAND)
    assert slow is not None
    assert quick[0] is not None
    assert slow.version > quick[0].version
    assert count_published(transactions) == 3


def test_a_due_bundle_that_somebody_else_published_is_not_published_again(
    transactions: Transactions, clock: FakeClock
) -> None:
    clock.advance(days=1, seconds=2)
    quick: list[Bundle | None] = []

    def meanwhile() -> None:
        if not quick:
            quick.append(publish_bundle(transactions, COMMAND, only_if_due=True))

    slow = publish_bundle(while_signing(transactions, meanwhile), COMMAND, only_if_due=True)
    assert slow is None
    assert quick[0] is not None
    assert count_published(transactions) == 2


def test_it_gives_up_when_something_changes_each_time(
    transactions: Transactions, clock: FakeClock
) -> None:
    clock.advance(seconds=2)
    with transactions.reading(COMMAND) as context:
        before = latest_bundle(context.session)
    assert before is not None

    def meanwhile() -> None:
        publish_bundle(transactions, COMMAND)

    with pytest.raises(Unavailable):
        publish_bundle(while_signing(transactions, meanwhile), COMMAND)


def test_nothing_is_written_without_the_key(
    transactions: Transactions, signers: MemorySigners
) -> None:
    signers.absent.add("revocation")
    with pytest.raises(SignerUnavailable):
        publish_bundle(transactions, COMMAND)
    assert count_published(transactions) == 1
