"""`pkcs11:token=LABEL;object=LABEL`: a key in a PKCS#11 token, such as an HSM or SoftHSM2.

The object's label begins with the key's role. The token must hold both halves under that label.
Which library speaks to it, and the PIN, come from the settings.

Source: RFC 7512 for the URI (its attributes `token` and `object`); PKCS#11 v3.0 section 2.3.14 for
CKM_EDDSA, which without parameters is pure Ed25519.
"""

import os
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

from licensing.keys import KEY_BYTES
from portal.domain.ports import SignerUnavailable
from portal.gateways.signers import require_extra

_VALUE: Final = re.compile(r"(?:[A-Za-z0-9._~-]|%[0-9A-Fa-f]{2})+")
_LABEL: Final = re.compile(r"[ -~]{1,32}")
_DER_OCTETS: Final = bytes.fromhex("0420")
"""How a 32-byte OCTET STRING begins in DER; some tokens give the point without it."""
_LOADED_IN: Final[dict[Path, int]] = {}
"""The process each library was loaded in: it is loaded once, and must be told of a fork."""


class TokenLibrary:
    """The library that speaks to tokens, and one session of each token, shared by its keys.

    Logging in counts for a whole process, and a session serves one thread at a time: so whatever
    is done in a token is done here, under a lock.
    """

    def __init__(self, module: Path, pin: Callable[[], str]) -> None:
        self._module = module
        self._pin = pin
        self._lock = threading.Lock()
        self._sessions: dict[str, Any] = {}
        self._process = 0

    def do(self, token: str, act: Callable[[Any], Any]) -> Any:
        """Do something in a token's session; where the session broke, once more in a new one.

        Raises:
            SignerUnavailable: the library or the token cannot be used.
            NoSuchKey: `act` asked for a key that is not there.
        """
        api = require_extra("pkcs11", "pkcs11")
        errors = require_extra("pkcs11.exceptions", "pkcs11")
        with self._lock:
            for is_last in (False, True):
                try:
                    return act(self._session(api, errors, token))
                except errors.NoSuchKey:
                    raise
                except errors.PKCS11Error as error:
                    self._sessions.pop(token, None)
                    if is_last:
                        raise SignerUnavailable(
                            f"the token {token} refused: {type(error).__name__}"
                        ) from error
        raise AssertionError("unreachable")

    def _session(self, api: Any, errors: Any, token: str) -> Any:
        if self._process != os.getpid():
            self._load(api)
        if token not in self._sessions:
            found = api.lib(str(self._module)).get_token(token_label=token)
            try:
                self._sessions[token] = found.open(user_pin=self._pin())
            except errors.UserAlreadyLoggedIn:
                self._sessions[token] = found.open()
        return self._sessions[token]

    def _load(self, api: Any) -> None:
        """Load the library for this process: what was loaded before a fork is of no use."""
        if not self._module.is_file():
            raise SignerUnavailable(f"PORTAL_PKCS11_MODULE: there is no library {self._module}")
        library = api.lib(str(self._module))
        if _LOADED_IN.get(self._module, os.getpid()) != os.getpid():
            library.reinitialize()
        self._sessions.clear()
        self._process = _LOADED_IN[self._module] = os.getpid()


class TokenKey:
    """One key of a token."""

    def __init__(self, rest: str, library: TokenLibrary) -> None:
        """Read the URI's rest; nothing is opened yet.

        Raises:
            SignerUnavailable: it does not name a token and an object.
        """
        self._token, self.name = _labels(rest)
        self._library = library

    def public_key(self) -> bytes:
        """Return the public half.

        Raises:
            SignerUnavailable: the token cannot be used, or holds no such key.
        """
        raw = bytes(self._with("PUBLIC_KEY", lambda api, key: key[api.Attribute.EC_POINT]))
        return raw.removeprefix(_DER_OCTETS) if len(raw) == len(_DER_OCTETS) + KEY_BYTES else raw

    def sign(self, message: bytes) -> bytes:
        """Return the token's signature.

        Raises:
            SignerUnavailable: the token cannot be used, or refuses.
        """
        return bytes(
            self._with(
                "PRIVATE_KEY", lambda api, key: key.sign(message, mechanism=api.Mechanism.EDDSA)
            )
        )

    def _with(self, half: str, act: Callable[[Any, Any], Any]) -> Any:
        api = require_extra("pkcs11", "pkcs11")
        kind = {
            "object_class": api.ObjectClass[half],
            "key_type": api.KeyType.EC_EDWARDS,
            "label": self.name,
        }
        try:
            return self._library.do(self._token, lambda session: act(api, session.get_key(**kind)))
        except api.exceptions.NoSuchKey:
            raise SignerUnavailable(
                f"the token {self._token} holds no Ed25519 key {self.name}"
            ) from None


def _labels(rest: str) -> tuple[str, str]:
    named: dict[str, str] = {}
    for part in rest.split(";"):
        name, _, value = part.partition("=")
        text = unquote(value)
        known = name in ("token", "object") and name not in named
        if not (known and _VALUE.fullmatch(value) and _LABEL.fullmatch(text)):
            break
        named[name] = text
    else:
        if len(named) == 2:
            return named["token"], named["object"]
    raise SignerUnavailable(f"pkcs11:{rest} is not pkcs11:token=LABEL;object=LABEL")
