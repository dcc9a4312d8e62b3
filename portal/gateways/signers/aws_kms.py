"""`aws-kms:alias/NAME` or `aws-kms:ARN-of-an-alias`: a key of AWS KMS, for licenses and leases.

The key's spec is ECC_NIST_EDWARDS25519; the alias begins with the key's role. Region and
credentials are those of the process, found the way AWS's own tools find them.

Source: AWS KMS API Reference, `Sign`: with `ED25519_SHA_512` and `MessageType` RAW it makes pure
Ed25519 signatures of messages of 0 to 4096 bytes. A pre-hashed message, which may be longer, would
be signed by another algorithm (Ed25519ph), which no verifier of ours accepts.
"""

import re
from base64 import b64encode
from typing import Any, Final

from licensing.errors import LicensingError
from licensing.keys import PublicKey
from portal.domain.ports import SignerUnavailable
from portal.gateways.signers import require_extra

EXTRA: Final = "aws-kms"
_REST: Final = re.compile(
    r"(?:arn:aws(?:-[a-z]+)*:kms:[a-z0-9-]+:[0-9]{12}:)?alias/([A-Za-z0-9/_-]{1,250})"
)


class AwsKmsKey:
    """One key of AWS KMS, by its alias."""

    def __init__(self, rest: str, client: Any = None) -> None:
        """Read the URI's rest; KMS is not asked yet.

        Raises:
            SignerUnavailable: it does not name an alias.
        """
        match = _REST.fullmatch(rest)
        if match is None:
            raise SignerUnavailable(f"aws-kms:{rest} is not aws-kms:alias/NAME")
        self._id, self.name = rest, match[1]
        self._client = client

    def public_key(self) -> bytes:
        """Return the public half.

        Raises:
            SignerUnavailable: KMS does not answer, or has no such Ed25519 key.
        """
        der = self._ask("get_public_key", KeyId=self._id)["PublicKey"]
        lines = ("-----BEGIN PUBLIC KEY-----", b64encode(der).decode(), "-----END PUBLIC KEY-----")
        try:
            return PublicKey.from_pem("\n".join(lines).encode()).raw
        except LicensingError as error:
            raise SignerUnavailable(f"{self.name} in AWS KMS is no Ed25519 key") from error

    def sign(self, message: bytes) -> bytes:
        """Return KMS's signature.

        Raises:
            SignerUnavailable: KMS does not answer, or refuses.
        """
        signature: bytes = self._ask(
            "sign",
            KeyId=self._id,
            Message=message,
            MessageType="RAW",
            SigningAlgorithm="ED25519_SHA_512",
        )["Signature"]
        return signature

    def _ask(self, what: str, **values: Any) -> Any:
        errors = require_extra("botocore.exceptions", EXTRA) if self._client is None else None
        known = (OSError,) if errors is None else (errors.BotoCoreError, errors.ClientError)
        if self._client is None:
            try:
                self._client = require_extra("boto3", EXTRA).client("kms")
            except known as error:
                raise SignerUnavailable(f"AWS KMS cannot be used: {error}") from error
        try:
            return getattr(self._client, what)(**values)
        except known as error:
            raise SignerUnavailable(f"AWS KMS refused {what} with {self.name}: {error}") from error
