"""Keys in the clouds' key services: what is asked of them, and what they cannot do."""

from base64 import b64decode, b64encode
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from licensing.keys import PublicKey
from portal.domain.ports import SignerUnavailable
from portal.gateways.signers import KeptKey
from portal.gateways.signers.aws_kms import AwsKmsKey
from portal.gateways.signers.gcp_kms import GcpKmsKey
from portal.gateways.signing import SignerDirectory
from tests.fakes import MemorySigner

ROLES = ("root", "license", "lease", "revocation")
KEY = MemorySigner(b"a key in a cloud")
GCP = "projects/p/locations/europe-west1/keyRings/r/cryptoKeys/{}/cryptoKeyVersions/2"


def public(encoding: Encoding) -> bytes:
    loaded = Ed25519PublicKey.from_public_bytes(KEY.public_key)
    return loaded.public_bytes(encoding, PublicFormat.SubjectPublicKeyInfo)


@dataclass
class FakeAws:
    """The two calls of the KMS client that are used."""

    asked: list[dict[str, Any]] = field(default_factory=list)

    def get_public_key(self, **values: Any) -> dict[str, Any]:
        return {"PublicKey": public(Encoding.DER), "KeySpec": "ECC_NIST_EDWARDS25519"}

    def sign(self, **values: Any) -> dict[str, Any]:
        self.asked.append(values)
        return {"Signature": KEY.sign(values["Message"])}


def fake_gcp(method: str, url: str, body: dict[str, str] | None = None) -> Any:
    if (method, url.rpartition("/")[2]) == ("GET", "publicKey"):
        return {"pem": public(Encoding.PEM).decode(), "algorithm": "EC_SIGN_ED25519"}
    assert url.startswith("https://cloudkms.googleapis.com/v1/projects/p/")
    assert (method, url.rpartition("/")[2]) == ("POST", "2:asymmetricSign")
    assert body is not None
    return {"signature": b64encode(KEY.sign(b64decode(body["data"]))).decode()}


def signers(tmp_path: Path) -> SignerDirectory:
    named: dict[str, Callable[[str], KeptKey]] = {
        "aws-kms": lambda rest: AwsKmsKey(rest, FakeAws()),
        "gcp-kms": lambda rest: GcpKmsKey(rest, fake_gcp),
    }
    return SignerDirectory(tmp_path, b"", ROLES, named)


def uri_of(scheme: str, name: str) -> str:
    return f"aws-kms:alias/{name}" if scheme == "aws-kms" else f"gcp-kms:{GCP.format(name)}"


@pytest.mark.parametrize("scheme", ["aws-kms", "gcp-kms"])
@pytest.mark.parametrize("role", ["license", "lease"])
def test_a_cloud_signs_short_documents(tmp_path: Path, scheme: str, role: str) -> None:
    signer = signers(tmp_path).signer(role, uri_of(scheme, f"{role}-2026"), KEY.keyid)
    assert PublicKey(KEY.public_key).verify(signer.sign(bytes(4096)), bytes(4096))
    with pytest.raises(SignerUnavailable, match="at most 4096 bytes; this one has 4097"):
        signer.sign(bytes(4097))


@pytest.mark.parametrize("scheme", ["aws-kms", "gcp-kms"])
@pytest.mark.parametrize("role", ["root", "revocation"])
def test_a_cloud_holds_no_key_of_long_documents(tmp_path: Path, scheme: str, role: str) -> None:
    uri = uri_of(scheme, f"{role}-2026")
    for ask in (
        lambda: signers(tmp_path).signer(role, uri, KEY.keyid),
        lambda: signers(tmp_path).find(role, uri),
    ):
        with pytest.raises(SignerUnavailable, match=f"license or lease keys, not {role} keys"):
            ask()


def test_aws_is_asked_for_pure_ed25519() -> None:
    aws = FakeAws()
    AwsKmsKey("alias/license-2026", aws).sign(b"a message")
    assert aws.asked == [
        {
            "KeyId": "alias/license-2026",
            "Message": b"a message",
            "MessageType": "RAW",
            "SigningAlgorithm": "ED25519_SHA_512",
        }
    ]


@pytest.mark.parametrize(
    ("uri", "why"),
    [
        ("aws-kms:alias/root-2026", "its name must begin with license-"),
        ("aws-kms:1234abcd-12ab-34cd-56ef-1234567890ab", "is not aws-kms:alias/NAME"),
        ("aws-kms:https://evil.example/alias/license-1", "is not aws-kms:alias/NAME"),
        (f"gcp-kms:{GCP.format('root-2026')}", "its name must begin with license-"),
        ("gcp-kms:projects/p", "is not gcp-kms:projects/P"),
        ("gcp-kms:" + GCP.format("../license-1"), "is not gcp-kms:projects/P"),
        ("azure:license-1", "this process knows file:, aws-kms:, gcp-kms:"),
        ("file:license-0011223344556677.pem", "file: keys are made by the portal"),
    ],
)
def test_a_uri_that_names_no_key_of_ours_says_so(tmp_path: Path, uri: str, why: str) -> None:
    with pytest.raises(SignerUnavailable, match=why):
        signers(tmp_path).find("license", uri)


@pytest.mark.parametrize(
    ("kept", "extra"),
    [(AwsKmsKey("alias/license-1"), "aws-kms"), (GcpKmsKey(GCP.format("license-1")), "gcp-kms")],
)
def test_a_package_that_is_missing_is_named_with_its_extra(kept: KeptKey, extra: str) -> None:
    # The environment that tests run in has neither package.
    why = rf"install smart-router-licenses\[{extra}\]"
    with pytest.raises(SignerUnavailable, match=why):
        kept.public_key()
