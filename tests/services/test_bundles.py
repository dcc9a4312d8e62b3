"""Publishing bundles: what is published is still true then, and nobody waits for a signature."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from licensing.envelope import Envelope
from licensing.revocation import RevocationBundle
from portal.db.audit import AuditRow
from portal.db.bundles import Bundle, latest_bundle
from portal.db.licenses import License
from portal.domain.errors import Unavailable
from portal.domain.ports import SignerUnavailable
from portal.services.bundles import publish_bundle
from portal.services.context import Actor, Transactions
from tests.databases import write_at_once
from tests.factories.accounts import make_customer, make_deployment
from tests.factories.licenses import issue, make_entitlement
from tests.fakes import BusySigners, FakeClock, MemorySigners

COMMAND = Actor("command")


def while_signing(transactions: Transactions, meanwhile: Callable[[], object]) -> Transactions:
    """Return the same portal, in which something happens during each signature."""
    slow = BusySigners(transactions.ports.signers, meanwhile)
    return Transactions(
        transactions.database, replace(transactions.ports, signers=slow), transactions.policy
    )


def make_license(transactions: Transactions) -> License:
    """Issue a license."""
    account, _ = make_customer(transactions)
    return issue(
        transactions, make_entitlement(transactions, make_deployment(transactions, account))
    )


def revoke(transactions: Transactions, license_: License) -> None:
    """Revoke a license, as staff will."""
    with transactions.writing(COMMAND) as context:
        row = context.session.get_one(License, license_.id)
        row.state, row.revoked_at = "revoked", context.at


def entries(bundle: Bundle) -> list[str]:
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
    assert entries(stored) == [license_.id]
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
