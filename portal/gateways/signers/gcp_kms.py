"""`gcp-kms:projects/…/cryptoKeyVersions/N`: a key of Google Cloud KMS, for licenses and leases.

The algorithm is EC_SIGN_ED25519; the name of the crypto key begins with the key's role. Credentials
are the application default ones of the process.

Source: Cloud KMS REST reference, `cryptoKeyVersions.getPublicKey` and `.asymmetricSign`, whose
field `data` takes the message itself for algorithms that do not sign a digest.
"""

import re
from base64 import b64decode, b64encode
from typing import Any, Final, Protocol

from licensing.errors import LicensingError
from licensing.keys import PublicKey
from portal.domain.ports import SignerUnavailable
from portal.gateways.signers import require_extra

EXTRA: Final = "gcp-kms"
ORIGIN: Final = "https://cloudkms.googleapis.com"
SCOPE: Final = "https://www.googleapis.com/auth/cloudkms"
TIMEOUT_S: Final = 5
_PART: Final = r"[A-Za-z0-9_.:-]{1,63}"
_REST: Final = re.compile(
    rf"projects/{_PART}/locations/{_PART}/keyRings/{_PART}/cryptoKeys/({_PART})"
    r"/cryptoKeyVersions/[1-9][0-9]{0,8}"
)


class Caller(Protocol):
    """Calls Google's API with the process's credentials."""

    def __call__(self, method: str, url: str, body: dict[str, str] | None = None) -> Any:
        """Return the JSON object of the answer.

        Raises:
            SignerUnavailable: no answer, or a refusal.
        """
        ...


class GcpKmsKey:
    """One key version of Cloud KMS."""

    def __init__(self, rest: str, call: Caller | None = None) -> None:
        """Read the URI's rest; KMS is not asked yet.

        Raises:
            SignerUnavailable: it does not name a key version.
        """
        match = _REST.fullmatch(rest)
        if match is None:
            raise SignerUnavailable(
                f"gcp-kms:{rest} is not gcp-kms:projects/P/locations/L/keyRings/R/cryptoKeys/K"
                "/cryptoKeyVersions/N"
            )
        self._url, self.name = f"{ORIGIN}/v1/{rest}", match[1]
        self._call = call

    def public_key(self) -> bytes:
        """Return the public half.

        Raises:
            SignerUnavailable: KMS does not answer, or has no such Ed25519 key.
        """
        try:
            return PublicKey.from_pem(self._ask("GET", "/publicKey")["pem"].encode()).raw
        except (LicensingError, KeyError, TypeError, AttributeError) as error:
            raise SignerUnavailable(f"{self.name} in Cloud KMS is no Ed25519 key") from error

    def sign(self, message: bytes) -> bytes:
        """Return KMS's signature.

        Raises:
            SignerUnavailable: KMS does not answer, or refuses.
        """
        answer = self._ask("POST", ":asymmetricSign", {"data": b64encode(message).decode()})
        try:
            return b64decode(answer["signature"], validate=True)
        except (ValueError, KeyError, TypeError) as error:
            raise SignerUnavailable(
                f"Cloud KMS's answer for {self.name} is no signature"
            ) from error

    def _ask(self, method: str, what: str, body: dict[str, str] | None = None) -> Any:
        if self._call is None:
            self._call = _authorized_caller()
        return self._call(method, self._url + what, body)


def _authorized_caller() -> Caller:
    auth = require_extra("google.auth", EXTRA)
    errors = require_extra("google.auth.exceptions", EXTRA)
    requests = require_extra("requests", EXTRA)
    transport = require_extra("google.auth.transport.requests", EXTRA)
    try:
        credentials, _ = auth.default(scopes=[SCOPE])
    except errors.GoogleAuthError as error:
        raise SignerUnavailable(f"Cloud KMS cannot be used: {error}") from error
    session = transport.AuthorizedSession(credentials)

    def call(method: str, url: str, body: dict[str, str] | None = None) -> Any:
        try:
            answer = session.request(method, url, json=body, timeout=TIMEOUT_S)
            answer.raise_for_status()
            return answer.json()
        except (errors.GoogleAuthError, requests.RequestException, ValueError) as error:
            raise SignerUnavailable(f"Cloud KMS refused {method} {url}: {error}") from error

    return call
