"""Signing keys: what the database says of a key must be what the keyset says."""

import pytest
from sqlalchemy import update

from licensing.names import ROLES
from portal.db.keys import SigningKey
from portal.db.session import Database
from portal.domain.errors import Conflict, Invalid, Unavailable
from portal.domain.ports import NewKey, SignerUnavailable
from portal.services.context import Actor, Transactions
from portal.services.keys import (
    add_key,
    current_keyset,
    init_keys,
    refuse_misplaced_keys,
    role_signers,
    signer_of,
)
from tests.conftest import units_of_work
from tests.fakes import FakeClock, MemorySigner, MemorySigners

COMMAND = Actor("command")


def test_a_role_that_differs_from_the_keysets_signs_nothing(transactions: Transactions) -> None:
    with transactions.reading(COMMAND) as context:
        keyset = current_keyset(context).document
        assert {role_signers(context, key.role)[0].keyid for key in keyset.keys} == set(
            keyset.by_keyid
        )
    (license_key,) = (key for key in keyset.keys if key.role == "license")
    with transactions.writing(COMMAND) as context:
        context.session.execute(
            update(SigningKey).where(SigningKey.keyid == license_key.keyid).values(role="lease")
        )
    why = (
        f"the key {license_key.keyid} is a license key in the keyset, and a lease key in the "
        "database"
    )
    with transactions.reading(COMMAND) as context:
        with pytest.raises(SignerUnavailable, match=why):
            role_signers(context, "license")
        with pytest.raises(SignerUnavailable, match=why):
            signer_of(context, license_key.keyid)


def test_an_added_key_is_the_first_of_its_role(database: Database, clock: FakeClock) -> None:
    signers = MemorySigners()
    opened = units_of_work(database, clock, signers)
    mine = signers.make("license")
    with opened.writing(COMMAND) as context:
        added = add_key(context, "license", mine).keyid
        init_keys(context, signers)
    with opened.reading(COMMAND) as context:
        assert [signer.keyid for signer in role_signers(context, "license")] == [added]
        assert len(current_keyset(context).document.keys) == len(ROLES)


def test_a_key_is_added_once(transactions: Transactions) -> None:
    made = NewKey(MemorySigner(b"added").public_key, "vault:transit/license-1/1")
    with transactions.writing(COMMAND) as context:
        add_key(context, "license", made)
        with pytest.raises(Conflict, match="was added before"):
            add_key(context, "lease", made)


@pytest.mark.parametrize(
    ("role", "uri", "raw", "why"),
    [
        ("seal", "vault:transit/seal-1/1", None, "The role must be one of"),
        ("root", "aws-kms:alias/root-1", None, "license or lease keys, not root keys"),
        ("revocation", "gcp-kms:x/revocation-1", None, "not revocation keys"),
        ("license", "vault:transit/license-1/1", bytes(32), "small order"),
        ("license", "vault:transit/license-1/1", b"short", "32 bytes"),
    ],
)
def test_a_key_that_could_not_be_used_is_not_added(
    transactions: Transactions, role: str, uri: str, raw: bytes | None, why: str
) -> None:
    key = NewKey(MemorySigner(b"added").public_key if raw is None else raw, uri)
    with transactions.writing(COMMAND) as context, pytest.raises(Invalid, match=why):
        add_key(context, role, key)


def test_a_worker_does_not_start_with_a_key_that_cannot_sign_its_documents(
    transactions: Transactions,
) -> None:
    with transactions.writing(COMMAND) as context:
        refuse_misplaced_keys(context)
        context.session.execute(
            update(SigningKey)
            .where(SigningKey.role == "revocation")
            .values(uri="aws-kms:alias/revocation-1")
        )
    with transactions.reading(COMMAND) as context, pytest.raises(Unavailable, match="4096 bytes"):
        refuse_misplaced_keys(context)
