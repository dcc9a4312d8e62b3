"""Public keys, key ids and the keyset's own rules."""

import base64
import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import x25519
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from devtools.vectors.build import keyset_payload
from devtools.vectors.keys import LEASE, LICENSE, LICENSE_COMPROMISED, TEST_KEYS, TestKey
from licensing.errors import MalformedPayload
from licensing.keys import Keyset, PublicKey, key_id, loaded_key
from router.documents.test_keys import TEST_KEY_IDS

P = 2**255 - 19
SPKI = PublicFormat.SubjectPublicKeyInfo


def pem(raw: bytes) -> bytes:
    return Ed25519PublicKey.from_public_bytes(raw).public_bytes(Encoding.PEM, SPKI)


@pytest.mark.parametrize("key", TEST_KEYS, ids=lambda key: key.name)
def test_key_id_is_the_hash_of_the_der(key: TestKey) -> None:
    raw = key.raw
    der = Ed25519PublicKey.from_public_bytes(raw).public_bytes(Encoding.DER, SPKI)
    assert key_id(raw) == hashlib.sha256(der).hexdigest()
    assert key_id(raw) in TEST_KEY_IDS


def test_key_id_as_openssl_gives_it(tmp_path: Path) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("the program `openssl` is not installed")
    file = tmp_path / "key.pem"
    file.write_bytes(pem(LICENSE.raw))
    command = [openssl, "pkey", "-pubin", "-in", str(file), "-outform", "DER"]
    der = subprocess.run(command, capture_output=True, check=True, timeout=60).stdout
    assert hashlib.sha256(der).hexdigest() == LICENSE.keyid


def test_forms_of_one_key() -> None:
    key = PublicKey(LICENSE.raw)
    assert key == PublicKey.from_base64(LICENSE.public_key) == PublicKey.from_pem(pem(key.raw))
    assert key.to_base64() == LICENSE.public_key
    assert key.keyid == LICENSE.keyid
    assert len({key, PublicKey(LICENSE.raw), PublicKey(LEASE.raw)}) == 2
    assert key != PublicKey(LEASE.raw)
    assert key != LICENSE.raw
    assert repr(key) == f"PublicKey({LICENSE.keyid})"


def test_pem_with_other_line_ends() -> None:
    assert PublicKey.from_pem(pem(LICENSE.raw).replace(b"\n", b"\r\n") + b"\r\n").raw == LICENSE.raw


@pytest.mark.parametrize(
    "data",
    [
        b"",
        LICENSE.raw,
        pem(LICENSE.raw).replace(b"PUBLIC", b"PRIVATE"),
        pem(LICENSE.raw) * 2,
        pem(LICENSE.raw).replace(b"MC", b"M*"),
        b"note\n" + pem(LICENSE.raw),
        x25519.X25519PublicKey.from_public_bytes(LICENSE.raw).public_bytes(Encoding.PEM, SPKI),
    ],
    ids=["empty", "raw", "private", "two", "not-base64", "text-before", "x25519"],
)
def test_other_pem(data: bytes) -> None:
    with pytest.raises(MalformedPayload):
        PublicKey.from_pem(data)


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_length(length: int) -> None:
    with pytest.raises(MalformedPayload, match="32 bytes"):
        PublicKey(LICENSE.raw.ljust(64, b"\0")[:length])


def test_half_of_all_numbers_are_no_point() -> None:
    refused = 0
    for y in range(2, 202):
        try:
            PublicKey(y.to_bytes(32, "little"))
        except MalformedPayload as error:
            refused += "not a point" in error.detail
    assert 70 < refused < 130


def test_points_are_those_cryptography_verifies_with() -> None:
    """What is accepted here loads there, so that verifying never raises."""
    for y in range(2, 202):
        try:
            key = PublicKey(y.to_bytes(32, "little"))
        except MalformedPayload:
            continue
        assert not key.verify(bytes(64), b"")


@pytest.mark.parametrize("text", ["", "AAAA", LICENSE.public_key[:-1], LICENSE.public_key + "\n"])
def test_other_base64(text: str) -> None:
    with pytest.raises(MalformedPayload):
        PublicKey.from_base64(text)


def test_keys_are_loaded_once() -> None:
    assert loaded_key(LICENSE.raw) is loaded_key(LICENSE.raw)


def test_find() -> None:
    keyset = Keyset.parse(keyset_payload())
    found = keyset.find(LICENSE.keyid, "license")
    assert found is not None
    assert found.public.raw == LICENSE.raw
    assert keyset.find(LICENSE.keyid, "lease") is None
    assert keyset.find("0" * 64, "license") is None
    compromised = keyset.find(LICENSE_COMPROMISED.keyid, "license")
    assert compromised is not None
    assert not compromised.covers(compromised.not_before_at)
    assert keyset.roots_by_keyid.keys() == {root.keyid for root in keyset.roots}


@pytest.mark.parametrize(("offset", "covers"), [(-1, False), (0, True)])
def test_window(offset: int, covers: bool) -> None:
    key = Keyset.parse(keyset_payload()).by_keyid[LICENSE.keyid]
    assert key.covers(key.not_before_at + offset) is covers
    assert key.covers(key.not_after_at + offset) is not covers


def test_keyset_is_written_as_it_was_read() -> None:
    body = keyset_payload()
    assert Keyset.parse(body).to_bytes() == body


def test_public_key_base64_is_strict_in_keysets() -> None:
    """The last character of 32 bytes' base64 carries two bits that must be zero."""
    text = LICENSE.public_key
    last = chr(ord(text[-2]) + 1)
    loose = text[:-2] + last + "="
    assert base64.b64decode(loose) == LICENSE.raw
    with pytest.raises(MalformedPayload):
        Keyset.parse(keyset_payload().replace(text.encode(), loose.encode()))
