"""A whole portal whose every key is in a PKCS#11 token (SoftHSM2)."""

from dataclasses import replace
from pathlib import Path

from licensing.keys import key_id
from licensing.names import ROLES
from licensing.verify import KeysetTrust, verify_bundle, verify_lease, verify_license
from portal.db.session import Database
from portal.domain.keys import ROOT
from portal.gateways.signing import SignerDirectory
from portal.services.bundles import publish_bundle, published_bundle
from portal.services.context import Actor, Transactions
from portal.services.enrollments import enroll
from portal.services.keys import add_key, current_keyset, init_keys, unix
from tests.conftest import units_of_work
from tests.factories.instances import make_code, make_router
from tests.factories.licenses import make_lease_license
from tests.fakes import FakeClock, MemorySigners
from tests.softhsm import Token

COMMAND = Actor("command")


def test_a_token_signs_keysets_licenses_leases_and_bundles(
    database: Database, clock: FakeClock, token: Token, tmp_path: Path
) -> None:
    roles = (ROOT, *ROLES)
    signers = SignerDirectory(tmp_path, b"", roles, token.keepers())
    plain = units_of_work(database, clock, MemorySigners())
    opened = Transactions(database, replace(plain.ports, signers=signers), plain.policy)
    kind = "postgresql" if database.is_postgresql else "sqlite"
    made = {role: token.make(f"{role}-{kind}") for role in roles}
    with opened.writing(COMMAND) as context:
        for role, key in made.items():
            add_key(context, role, signers.find(role, key.uri))
        init_keys(context, signers)
    publish_bundle(opened, COMMAND)
    license_ = make_lease_license(opened)
    router, code = make_router(license_), make_code(opened, license_)
    with opened.writing(COMMAND) as context:
        at = unix(context.at)
        lease = enroll(context, router.enrollment(code, at=at)).envelope
        keyset, bundle = current_keyset(context), published_bundle(context).envelope
    trust = KeysetTrust(keyset.document)
    assert license_.envelope is not None
    signed = {
        ROOT: keyset.keyid,
        "license": verify_license(license_.envelope, trust, at).keyid,
        "lease": verify_lease(lease, trust, at).keyid,
        "revocation": verify_bundle(bundle, trust, at).keyid,
    }
    assert signed == {role: key_id(key.public_key) for role, key in made.items()}
