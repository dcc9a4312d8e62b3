"""Keys in Vault's transit engine, with a server on loopback that answers as its API says."""

import json
import threading
from base64 import b64decode, b64encode
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from licensing.keys import PublicKey, key_id
from portal.domain.ports import SignerUnavailable
from portal.gateways.signers.vault import VaultKey, VaultServer
from portal.gateways.signing import SignerDirectory
from tests.fakes import MemorySigner

SECRET = "hvs.a-token-of-the-tests"
ROLES = ("root", "license", "lease", "revocation")


@dataclass
class FakeVault:
    """What Vault's documentation says of one mount, `transit/`."""

    keys: dict[str, list[MemorySigner]] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)
    asked: list[tuple[str, str, Any]] = field(default_factory=list)
    namespaces: list[str | None] = field(default_factory=list)
    status: int = 200
    spoil: bytes | None = None
    address: str = ""

    def answer(self, method: str, path: str, body: Any, token: str | None) -> tuple[int, Any]:
        self.asked.append((method, path, body))
        if token != SECRET:
            return 403, {"errors": ["permission denied"]}
        _, _, mount, what, name = path.split("/")
        if mount != "transit" or name not in self.keys:
            return 404, {"errors": []}
        if (method, what) == ("GET", "keys"):
            versions = {
                str(number): {"public_key": b64encode(key.public_key).decode(), "name": "ed25519"}
                for number, key in enumerate(self.keys[name], 1)
            }
            kind = self.kinds.get(name, "ed25519")
            return 200, {"data": {"type": kind, "name": name, "keys": versions}}
        if (method, what) == ("POST", "sign"):
            version = body.get("key_version", len(self.keys[name]))
            signature = self.keys[name][version - 1].sign(b64decode(body["input"]))
            text = f"vault:v{version}:{b64encode(signature).decode()}"
            return 200, {"data": {"signature": text, "key_version": version}}
        return 405, {"errors": ["unsupported operation"]}


@pytest.fixture
def vault() -> Iterator[FakeVault]:
    fake = FakeVault({"license-2026": [MemorySigner(b"v1"), MemorySigner(b"v2")]})

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            body = json.loads(self.rfile.read(length)) if length else None
            fake.namespaces.append(self.headers.get("X-Vault-Namespace"))
            token = self.headers.get("X-Vault-Token")
            status, value = fake.answer(self.command, self.path, body, token)
            data = json.dumps(value).encode() if fake.spoil is None else fake.spoil
            self.send_response(fake.status if fake.status != 200 else status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = _answer  # noqa: N815 - what the standard library calls

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    fake.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield fake
    server.shutdown()
    thread.join()
    server.server_close()


def signers(vault: FakeVault, tmp_path: Any, token: str = SECRET) -> SignerDirectory:
    server = VaultServer(vault.address, lambda: token, namespace="portal")
    return SignerDirectory(tmp_path, b"", ROLES, {"vault": lambda rest: VaultKey(rest, server)})


def test_vault_signs_with_the_version_that_is_named(vault: FakeVault, tmp_path: Any) -> None:
    for version in (1, 2):
        public = vault.keys["license-2026"][version - 1].public_key
        uri = f"vault:transit/license-2026/{version}"
        assert signers(vault, tmp_path).find("license", uri).public_key == public
        signer = signers(vault, tmp_path).signer("license", uri, key_id(public))
        assert PublicKey(public).verify(signer.sign(b"a message"), b"a message")
    assert (
        "POST",
        "/v1/transit/sign/license-2026",
        {"input": "YSBtZXNzYWdl", "key_version": 1},
    ) in (vault.asked)
    assert set(vault.namespaces) == {"portal"}


def test_an_opened_key_is_asked_to_sign_and_not_to_introduce_itself_again(
    vault: FakeVault, tmp_path: Any
) -> None:
    opened = signers(vault, tmp_path)
    keyid = vault.keys["license-2026"][0].keyid
    for _ in range(3):
        opened.signer("license", "vault:transit/license-2026/1", keyid).sign(b"a message")
    assert [method for method, _, _ in vault.asked] == ["GET", "POST", "POST", "POST"]


def test_a_signature_that_does_not_verify_is_kept_from_everybody(
    vault: FakeVault, tmp_path: Any
) -> None:
    keyid = vault.keys["license-2026"][0].keyid
    signer = signers(vault, tmp_path).signer("license", "vault:transit/license-2026/1", keyid)
    vault.keys["license-2026"][0] = MemorySigner(b"another")
    with pytest.raises(SignerUnavailable, match="does not verify"):
        signer.sign(b"a message")


@pytest.mark.parametrize(
    ("uri", "why"),
    [
        ("vault:transit/license-2026/3", "has no version 3"),
        ("vault:transit/license-2027/1", "Vault answers 404 to GET"),
        ("vault:other/license-2026/1", "Vault answers 404 to GET"),
        ("vault:transit/root-2026/1", "its name must begin with license-"),
        ("vault:license-2026", "is not vault:MOUNT/NAME/VERSION"),
        ("vault:transit/license-2026/0", "is not vault:MOUNT/NAME/VERSION"),
        ("vault:transit/../license-2026/1", "is not vault:MOUNT/NAME/VERSION"),
        ("vault:http://evil.example/transit/license-1/1", "is not vault:MOUNT/NAME/VERSION"),
    ],
)
def test_a_uri_that_names_no_key_of_ours_says_so(
    vault: FakeVault, tmp_path: Any, uri: str, why: str
) -> None:
    with pytest.raises(SignerUnavailable, match=why):
        signers(vault, tmp_path).find("license", uri)


def test_a_key_of_another_kind_is_refused(vault: FakeVault, tmp_path: Any) -> None:
    vault.kinds["license-2026"] = "ecdsa-p256"
    with pytest.raises(SignerUnavailable, match="is no ed25519 key"):
        signers(vault, tmp_path).find("license", "vault:transit/license-2026/1")


@pytest.mark.parametrize("data", [b"", b"<html>", b"[]", b'{"data": null}', b'{"errors": []}'])
def test_an_answer_that_makes_no_sense_is_no_key(
    vault: FakeVault, tmp_path: Any, data: bytes
) -> None:
    vault.spoil = data
    with pytest.raises(SignerUnavailable, match=r"cannot be read|has no version"):
        signers(vault, tmp_path).find("license", "vault:transit/license-2026/1")


@pytest.mark.parametrize("status", [307, 429, 472, 500, 503])
def test_a_sealed_or_busy_vault_is_unavailable(
    vault: FakeVault, tmp_path: Any, status: int
) -> None:
    vault.status = status
    with pytest.raises(SignerUnavailable, match=f"Vault answers {status}"):
        signers(vault, tmp_path).find("license", "vault:transit/license-2026/1")


def test_a_refused_token_is_not_told(vault: FakeVault, tmp_path: Any) -> None:
    with pytest.raises(SignerUnavailable, match="Vault answers 403") as raised:
        signers(vault, tmp_path, "hvs.wrong").find("license", "vault:transit/license-2026/1")
    assert "hvs.wrong" not in str(raised.value)


def test_a_vault_that_does_not_answer_is_unavailable(tmp_path: Any) -> None:
    nobody = FakeVault(address="http://127.0.0.1:1")
    with pytest.raises(SignerUnavailable, match="does not answer"):
        signers(nobody, tmp_path).find("license", "vault:transit/license-2026/1")
