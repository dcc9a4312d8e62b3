"""A SoftHSM2 token of this process, and keys made in it."""

import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from portal.domain.ports import NewKey
from portal.gateways.signers import KeptKey
from portal.gateways.signers.pkcs11 import TokenKey, TokenLibrary

LIBRARY = Path("/usr/lib/softhsm/libsofthsm2.so")
TOKEN = "portal tests"
PIN = "1234"
WHY_NOT = "SoftHSM2 is not here: run devtools/setup/test-programs.sh (apt-get install softhsm2)"


@dataclass(frozen=True)
class Token:
    """The token, with the PIN of its user."""

    library: Path = LIBRARY

    def keepers(self, pin: str = PIN) -> dict[str, Callable[[str], KeptKey]]:
        """How signers open its keys."""
        return {"pkcs11": partial(TokenKey, library=TokenLibrary(self.library, lambda: pin))}

    def make(self, label: str) -> NewKey:
        """Make an Ed25519 key pair in the token, as an operator would with the token's tools."""
        import pkcs11
        from pkcs11.util.ec import encode_named_curve_parameters

        token = pkcs11.lib(str(self.library)).get_token(token_label=TOKEN)
        try:
            session = token.open(user_pin=PIN, rw=True)
        except pkcs11.exceptions.UserAlreadyLoggedIn:
            session = token.open(rw=True)
        # Closing the last session of a process would log the signers out.
        curve = session.create_domain_parameters(
            pkcs11.KeyType.EC_EDWARDS,
            {pkcs11.Attribute.EC_PARAMS: encode_named_curve_parameters("1.3.101.112")},
            local=True,
        )
        public, _ = curve.generate_keypair(
            mechanism=pkcs11.Mechanism.EC_EDWARDS_KEY_PAIR_GEN, store=True, label=label
        )
        return NewKey(bytes(public[pkcs11.Attribute.EC_POINT])[-32:], uri_of(label))


def uri_of(label: str) -> str:
    """The URI of a key by its label."""
    return f"pkcs11:token={TOKEN.replace(' ', '%20')};object={label}"


def make_token(directory: Path) -> Token:
    """Make the token; the library reads where it lies once, when it is loaded."""
    if shutil.which("softhsm2-util") is None or not LIBRARY.is_file():
        pytest.skip(WHY_NOT)
    tokens = directory / "tokens"
    tokens.mkdir()
    configuration = directory / "softhsm2.conf"
    configuration.write_text(f"directories.tokendir = {tokens}\nlog.level = ERROR\n")
    os.environ["SOFTHSM2_CONF"] = str(configuration)
    command = ["softhsm2-util", "--init-token", "--free", "--label", TOKEN]
    subprocess.run([*command, "--so-pin", "5678", "--pin", PIN], check=True, capture_output=True)
    return Token()
