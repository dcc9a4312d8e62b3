"""What a distribution trusts from the start: the keyset that was built into it.

A source checkout has none and trusts the keyset it is told to. A distribution accepts no other
roots: a keyset counts if it is the embedded one, or a later version signed by the embedded roots
and by its own. A distribution refuses the published test keys.

Source: "Configuration" of the router's design; keyset.v1 of the signed documents.
"""

from pathlib import Path
from typing import Final

from licensing.errors import RolledBack, UntrustedKey
from licensing.keys import Keyset
from licensing.verify import Verified, verify_keyset, verify_keyset_update
from router.documents.test_keys import TEST_KEY_IDS

EMBEDDED: Final = Path(__file__).parent / "keyset.json"


def is_distribution() -> bool:
    """Return whether this is a distribution: a source checkout embeds no keyset."""
    return EMBEDDED.is_file()


def refuse_test_keys(keyset: Keyset) -> None:
    """Refuse a keyset that lists a published test key, as a root or otherwise.

    Raises:
        UntrustedKey: it does.
    """
    listed = {root.keyid for root in keyset.roots} | {key.keyid for key in keyset.keys}
    for keyid in sorted(listed & TEST_KEY_IDS):
        raise UntrustedKey(f"{keyid} is a published test key: anybody can sign with it")


def accept(embedded: bytes, offered: bytes, at: int) -> Verified[Keyset]:
    """Verify a keyset that a distribution is told to use.

    Raises:
        LicensingError: it is neither the embedded one nor a successor its roots signed; or it lists
            a test key.
    """
    held = verify_keyset(embedded, at)
    verified = verify_keyset(offered, at)
    refuse_test_keys(verified.document)
    if verified.payload_sha256 == held.payload_sha256:
        return held
    if verified.document.version == held.document.version:
        raise RolledBack(
            f"another keyset of version {held.document.version} is built into this distribution"
        )
    return verify_keyset_update(offered, held, at, require_current=False)
