"""Keys at rest: private to their owner, opened by passphrase, used for their own role alone."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from licensing.keys import PublicKey, key_id
from portal.domain.ports import NewKey, SignerUnavailable
from portal.gateways.signing import SignerDirectory

PASSPHRASE = b"a passphrase that tests alone may use"
ROLES = ("root", "license", "lease", "revocation")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
def made(directory: Path) -> NewKey:
    """A license key."""
    return SignerDirectory(directory, PASSPHRASE, ROLES).make("license")


def opened(
    directory: Path, key: NewKey, *, passphrase: bytes = PASSPHRASE, keyid: str | None = None
) -> bytes:
    """Sign in a process that has just started; return the signature."""
    signers = SignerDirectory(directory, passphrase, ["license"])
    signer = signers.signer("license", key.uri, keyid or key_id(key.public_key))
    return signer.sign(b"a message")


def file_of(directory: Path, key: NewKey) -> Path:
    return directory / key.uri.removeprefix("file:")


def test_a_made_key_signs(directory: Path, made: NewKey) -> None:
    assert PublicKey(made.public_key).verify(opened(directory, made), b"a message")


@pytest.mark.asvs("13.3.1")
def test_a_key_is_written_encrypted_and_for_its_owner_alone(directory: Path, made: NewKey) -> None:
    path = file_of(directory, made)
    before = os.umask(0)
    try:
        loose = SignerDirectory(directory, PASSPHRASE, ROLES).make("lease")
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(file_of(directory, loose).stat().st_mode) == 0o600
    assert path.read_bytes().startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY-----")
    with pytest.raises(TypeError):
        load_pem_private_key(path.read_bytes(), None)


@pytest.mark.asvs("13.3.1")
def test_a_signer_shows_its_key_id_and_nothing_else(directory: Path, made: NewKey) -> None:
    signers = SignerDirectory(directory, PASSPHRASE, ["license"])
    signer = signers.signer("license", made.uri, key_id(made.public_key))
    assert repr(signer) == f"KeySigner({key_id(made.public_key)})"
    assert PASSPHRASE.decode() not in repr(signers)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660, 0o700, 0o777])
def test_a_key_that_others_could_read_is_refused(directory: Path, made: NewKey, mode: int) -> None:
    path = file_of(directory, made)
    path.chmod(mode)
    with pytest.raises(SignerUnavailable, match=f"{path.name} has mode {mode:04o}; chmod 600 it"):
        opened(directory, made)
    path.chmod(0o400)
    assert opened(directory, made)


def test_a_wrong_passphrase_is_said_to_be_wrong(directory: Path, made: NewKey) -> None:
    with pytest.raises(SignerUnavailable, match="does not open with the key passphrase") as raised:
        opened(directory, made, passphrase=b"another passphrase that is no good at all")
    assert raised.value.__cause__ is None


def _other_kind() -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(PASSPHRASE))


def _plain() -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda pem: b"", "does not open"),
        (lambda pem: pem[: len(pem) // 2], "does not open"),
        (lambda pem: pem.replace(b"ENCRYPTED ", b""), "does not open"),
        (lambda pem: pem[:60] + b"!" + pem[61:], "does not open"),
        (lambda pem: bytes(2000), "does not open"),
        (lambda pem: _other_kind(), "does not hold an Ed25519 key"),
        (lambda pem: _plain(), "does not open"),
    ],
)
def test_a_damaged_key_file_says_so(
    directory: Path, made: NewKey, spoil: Callable[[bytes], bytes], why: str
) -> None:
    path = file_of(directory, made)
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(SignerUnavailable, match=why):
        opened(directory, made)


def test_a_missing_key_file_is_named(directory: Path, made: NewKey) -> None:
    path = file_of(directory, made)
    path.unlink()
    with pytest.raises(SignerUnavailable, match=f"cannot open {path}: No such file"):
        opened(directory, made)


def test_a_key_is_used_only_under_its_own_id(directory: Path, made: NewKey) -> None:
    other = SignerDirectory(directory, PASSPHRASE, ROLES).make("license")
    wanted = key_id(other.public_key)
    why = f"is not the file of key {wanted}; that is called license-{wanted[:16]}.pem"
    with pytest.raises(SignerUnavailable, match=why):
        opened(directory, made, keyid=wanted)
    file_of(directory, made).rename(file_of(directory, other))
    with pytest.raises(SignerUnavailable, match=f"holds key {key_id(made.public_key)}, not"):
        opened(directory, other)


@pytest.mark.parametrize("held", ["root", "license", "revocation"])
@pytest.mark.asvs("13.3.1")
def test_a_role_changed_in_the_database_opens_no_other_roles_key(
    directory: Path, held: str
) -> None:
    key = SignerDirectory(directory, PASSPHRASE, ROLES).make(held)
    keyid = key_id(key.public_key)
    web = SignerDirectory(directory, PASSPHRASE, ["lease"])
    # The file cannot be read at all: a refusal for its name came before any attempt to open it.
    file_of(directory, key).unlink()
    why = f"is no lease key: by its name it is a {held} key"
    with pytest.raises(SignerUnavailable, match=why):
        web.signer("lease", key.uri, keyid)


def test_a_role_may_have_a_directory_of_its_own(directory: Path) -> None:
    everything = SignerDirectory(directory, PASSPHRASE, ROLES)
    shared = everything.make("license")
    (directory / "lease").mkdir(mode=0o700)
    own = everything.make("lease")
    assert (directory / "lease" / own.uri.removeprefix("file:")).is_file()
    web = SignerDirectory(directory, PASSPHRASE, ["lease"])
    assert web.signer("lease", own.uri, key_id(own.public_key))
    assert opened(directory, shared)
    (directory / "license").mkdir(mode=0o700)
    with pytest.raises(SignerUnavailable, match=f"cannot open {directory}/license/license-"):
        opened(directory, shared)
    file_of(directory, shared).rename(directory / "license" / file_of(directory, shared).name)
    assert opened(directory, shared)


@pytest.mark.parametrize(
    "uri", ["file:", "file:../key.pem", "file:/etc/passwd", "file:.hidden", "file:a/b.pem"]
)
@pytest.mark.asvs("5.3.2")
def test_a_uri_names_a_file_of_the_key_directory_alone(directory: Path, uri: str) -> None:
    with pytest.raises(SignerUnavailable, match="not the name of a file"):
        opened(directory, NewKey(bytes(32), uri))


@pytest.mark.parametrize("uri", ["", "vault:x", "FILE:x", "license.pem"])
def test_an_unknown_scheme_is_refused(directory: Path, uri: str) -> None:
    with pytest.raises(SignerUnavailable, match="no signer for"):
        opened(directory, NewKey(bytes(32), uri))


def test_a_link_in_place_of_a_key_is_not_followed(directory: Path, made: NewKey) -> None:
    path = file_of(directory, made)
    moved = path.rename(directory / "moved.pem")
    path.symlink_to(moved)
    with pytest.raises(SignerUnavailable, match="cannot open"):
        opened(directory, made)


@pytest.mark.parametrize("role", ROLES)
def test_a_process_uses_and_makes_keys_of_its_roles_alone(directory: Path, role: str) -> None:
    key = SignerDirectory(directory, PASSPHRASE, ROLES).make(role)
    keyid = key_id(key.public_key)
    before = set(directory.iterdir())
    for held in ROLES:
        signers = SignerDirectory(directory, PASSPHRASE, [held])
        if held == role:
            assert signers.signer(role, key.uri, keyid).keyid == keyid
            continue
        with pytest.raises(SignerUnavailable, match=f"does not hold {role} keys"):
            signers.signer(role, key.uri, keyid)
        with pytest.raises(SignerUnavailable, match=f"does not make {role} keys"):
            signers.make(role)
    assert set(directory.iterdir()) == before


def test_an_open_key_does_not_pass_to_another_role(directory: Path) -> None:
    key = SignerDirectory(directory, PASSPHRASE, ROLES).make("license")
    signers = SignerDirectory(directory, PASSPHRASE, ["license"])
    assert signers.signer("license", key.uri, key_id(key.public_key))
    with pytest.raises(SignerUnavailable):
        signers.signer("revocation", key.uri, key_id(key.public_key))


def test_a_key_that_cannot_be_written_says_why(tmp_path: Path) -> None:
    signers = SignerDirectory(tmp_path / "nowhere", PASSPHRASE, ROLES)
    with pytest.raises(SignerUnavailable, match=r"cannot write .*No such file or directory"):
        signers.make("license")
