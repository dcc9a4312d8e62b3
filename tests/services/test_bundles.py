"""Publishing bundles: what is published is still true then, and nobody waits for a signature."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace

import pytest
from sqlalchemy import update

from licensing.envelope import Envelope
from licensing.revocation import RevocationBundle
from portal.db.accounts import Account
from portal.db.audit import AuditRow
from portal.db.bundles import Bundle, latest_bundle
from portal.db.licenses import License
from portal.domain.errors import Unavailable
from portal.domain.ports import Signer, Signers, SignerUnavailable
from portal.services.bundles import publish_bundle
from portal.services.context import Actor, Transactions
from tests.factories.accounts import make_customer, make_deployment
from tests.factories.licenses import issue, make_entitlement
from tests.fakes import FakeClock, MemorySigners

COMMAND = Actor("command")


@dataclass
class SlowSigners:
    """The memory's keys; while each signature is made, something else happens."""

    signers: Signers
    meanwhile: Callable[[], object]

    def signer(self, role: str, uri: str, keyid: str) -> Signer:
        return SlowSigner(self.signers.signer(role, uri, keyid), self.meanwhile)


@dataclass
class SlowSigner:
    """One key that takes its time."""

    signer: Signer
    meanwhile: Callable[[], object]

    @property
    def keyid(self) -> str:
        return self.signer.keyid

    def sign(self, message: bytes) -> bytes:
        self.meanwhile()
        return self.signer.sign(message)


def while_signing(transactions: Transactions, meanwhile: Callable[[], object]) -> Transactions:
    """Return the same portal, in which something happens during each signature."""
    slow = SlowSigners(transactions.ports.signers, meanwhile)
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


def test_others_write_while_a_bundle_is_being_signed(
    transactions: Transactions, clock: FakeClock, database_url: str
) -> None:
    """Also on SQLite, whose one write lock nobody may hold during a signature."""
    written: list[str] = []

    def write() -> None:
        if not transactions.database.is_postgresql:
            path = database_url.removeprefix("sqlite:///")
            # Waits for nobody: were the lock held, this would fail at once.
            with closing(sqlite3.connect(path, timeout=0)) as connection:
                connection.execute("UPDATE accounts SET name = 'Written meanwhile'")
                connection.commit()
        else:
            with transactions.writing(COMMAND) as context:
                context.session.execute(update(Account).values(name="Written meanwhile"))
        written.append("once")

    make_license(transactions)
    clock.advance(seconds=2)
    assert publish_bundle(while_signing(transactions, write), COMMAND) is not None
    assert written == ["once"]


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
