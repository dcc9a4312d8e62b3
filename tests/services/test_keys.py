"""Signing keys: what the database says of a key must be what the keyset says."""

import pytest
from sqlalchemy import update

from portal.db.keys import SigningKey
from portal.domain.ports import SignerUnavailable
from portal.services.context import Actor, Transactions
from portal.services.keys import current_keyset, role_signer, signer_of

COMMAND = Actor("command")


def test_a_role_that_differs_from_the_keysets_signs_nothing(transactions: Transactions) -> None:
    with transactions.reading(COMMAND) as context:
        keyset = current_keyset(context).document
        assert {role_signer(context, key.role).keyid for key in keyset.keys} == set(keyset.by_keyid)
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
            role_signer(context, "license")
        with pytest.raises(SignerUnavailable, match=why):
            signer_of(context, license_key.keyid)
