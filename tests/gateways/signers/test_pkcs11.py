"""Keys in a PKCS#11 token, with SoftHSM2 in the token's place."""

import os
from pathlib import Path

import pytest

from licensing.keys import PublicKey, key_id
from portal.domain.ports import SignerUnavailable
from portal.gateways.signers.pkcs11 import TokenKey, TokenLibrary
from portal.gateways.signing import SignerDirectory
from tests.softhsm import PIN, TOKEN, Token, uri_of

ROLES = ("root", "license", "lease", "revocation")


def signers(token: Token, tmp_path: Path, pin: str = PIN) -> SignerDirectory:
    return SignerDirectory(tmp_path, b"", ROLES, token.keepers(pin))


@pytest.mark.parametrize("role", ROLES)
def test_a_token_signs_as_any_ed25519_key_does(token: Token, tmp_path: Path, role: str) -> None:
    made = token.make(f"{role}-signs")
    signer = signers(token, tmp_path).signer(role, made.uri, key_id(made.public_key))
    for message in (b"", b"a message", bytes(100_000)):
        assert PublicKey(made.public_key).verify(signer.sign(message), message)
    assert signer.sign(b"a message") == signer.sign(b"a message")


def test_a_token_states_the_public_half_of_a_key(token: Token, tmp_path: Path) -> None:
    made = token.make("license-found")
    assert signers(token, tmp_path).find("license", made.uri) == made


def test_a_key_of_another_role_is_not_used(token: Token, tmp_path: Path) -> None:
    made = token.make("root-other-role")
    with pytest.raises(SignerUnavailable, match="its name must begin with license-"):
        signers(token, tmp_path).signer("license", made.uri, key_id(made.public_key))


def test_another_key_under_the_name_is_not_used(token: Token, tmp_path: Path) -> None:
    made, other = token.make("license-one"), token.make("license-two")
    with pytest.raises(SignerUnavailable, match="holds key"):
        signers(token, tmp_path).signer("license", made.uri, key_id(other.public_key))


def test_a_key_that_is_not_there_is_named(token: Token, tmp_path: Path) -> None:
    with pytest.raises(SignerUnavailable, match="holds no Ed25519 key license-absent"):
        signers(token, tmp_path).find("license", uri_of("license-absent"))


def test_a_wrong_pin_is_refused_without_telling_it(token: Token, tmp_path: Path) -> None:
    made = token.make("license-pin")
    signers(token, tmp_path).find("license", made.uri)
    # A session that is logged in would let others in the process in, too: a process of its own.
    child = os.fork()
    if child == 0:
        try:
            signers(token, tmp_path, "9999").find("license", made.uri)
        except SignerUnavailable as error:
            os._exit(0 if "PinIncorrect" in str(error) and "9999" not in str(error) else 2)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_signer_goes_on_in_a_process_that_was_forked(token: Token, tmp_path: Path) -> None:
    made = token.make("lease-forked")
    signer = signers(token, tmp_path).signer("lease", made.uri, key_id(made.public_key))
    before = signer.sign(b"a message")
    child = os.fork()
    if child == 0:
        os._exit(0 if signer.sign(b"a message") == before else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert signer.sign(b"a message") == before


@pytest.mark.parametrize(
    "rest",
    [
        "token=t",
        "object=o",
        "",
        "token=t;object=o;module-path=/tmp/evil.so",
        "token=t;object=o?pin-value=1234",
        "token=t;token=t;object=o",
        "token=;object=o",
        "token=t;object=license%00x",
        f"token={TOKEN};object=license-1",
    ],
)
def test_a_uri_names_a_token_and_an_object_and_nothing_else(rest: str) -> None:
    with pytest.raises(SignerUnavailable, match="is not pkcs11:token=LABEL;object=LABEL"):
        TokenKey(rest, TokenLibrary(Path("/nowhere.so"), lambda: PIN))


def test_a_library_that_is_not_there_is_named() -> None:
    library = TokenLibrary(Path("/nowhere.so"), lambda: PIN)
    with pytest.raises(SignerUnavailable, match=r"PORTAL_PKCS11_MODULE.*/nowhere\.so"):
        TokenKey("token=t;object=license-1", library).public_key()
