"""Right documents for the tests of this room, made with the published test keys."""

from typing import Final

from devtools.vectors.build import EXPIRES, ISSUED, KEYSET, NOW, signed
from devtools.vectors.bundles import entry
from licensing.keys import Keyset
from licensing.verify import KeysetTrust, Verified, verify_keyset

HELD: Final[Verified[Keyset]] = verify_keyset(KEYSET, NOW)
TRUST: Final = KeysetTrust(HELD.document)
LICENSE_FILE: Final = signed("license")
LEASE_FILE: Final = signed("lease")
BUNDLE_FILE: Final = signed("revocation-bundle")
REVOKING_FILE: Final = signed("revocation-bundle", entries=[entry()])

__all__ = [
    "BUNDLE_FILE",
    "EXPIRES",
    "HELD",
    "ISSUED",
    "KEYSET",
    "LEASE_FILE",
    "LICENSE_FILE",
    "NOW",
    "REVOKING_FILE",
    "TRUST",
]
