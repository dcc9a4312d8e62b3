"""Keepers of private keys other than files: one module a URI scheme.

Each module opens a key by the rest of its URI and returns a `KeptKey`. Its optional packages are
imported when such a key is opened, never before; `require_extra` says which extra is missing.

Invariants: where a keeper is reached, and with what secret, comes from the settings, never from the
URI: URIs lie in the database, and whoever can write there must not choose a library to load or a
server to send a token to.
"""

import importlib
from typing import Any, Protocol

from portal.domain.ports import SignerUnavailable


class KeptKey(Protocol):
    """A private Ed25519 key in somebody else's keeping."""

    @property
    def name(self) -> str:
        """What the keeper calls the key; it begins with the key's role."""
        ...

    def public_key(self) -> bytes:
        """Return the public half, 32 raw bytes, as the keeper states it.

        Raises:
            SignerUnavailable: the keeper does not answer, or has no such Ed25519 key.
        """
        ...

    def sign(self, message: bytes) -> bytes:
        """Return what the keeper gives as the signature of `message`; nothing is checked yet.

        Raises:
            SignerUnavailable: the keeper does not answer, or refuses.
        """
        ...


def require_extra(module: str, extra: str) -> Any:
    """Import an optional package.

    Raises:
        SignerUnavailable: it is not installed; the message names the extra that brings it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise SignerUnavailable(
            f"{extra}: keys need the package {module.partition('.')[0]}; "
            f"install smart-router-licenses[{extra}]"
        ) from error
