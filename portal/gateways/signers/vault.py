"""`vault:MOUNT/NAME/VERSION`: a key of HashiCorp Vault's transit engine, over its HTTP API.

The key's type is `ed25519` and its name begins with its role. VERSION is the key's version in
Vault: rotating it there gives another key, which the portal knows nothing of until it is added.
The server, the token and the certificates to trust come from the settings.

Source: Vault's HTTP API, transit secrets engine: "Read key" (`GET /v1/MOUNT/keys/NAME`, public keys
by version, base64 of 32 bytes) and "Sign data" (`POST /v1/MOUNT/sign/NAME`, answering
`vault:vVERSION:BASE64`). Needs no package besides the standard library.
"""

import http.client
import json
import re
import ssl
from base64 import b64decode, b64encode
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from portal.domain.ports import SignerUnavailable

TIMEOUT_S: Final = 5
MAX_ANSWER_BYTES: Final = 1024 * 1024
_REST: Final = re.compile(r"([a-z0-9_-]+(?:/[a-z0-9_-]+)*)/([A-Za-z0-9_-]+)/([1-9][0-9]{0,8})")


@dataclass(frozen=True)
class VaultServer:
    """Where Vault is, and what it is asked with."""

    address: str
    """An origin, such as `https://vault.example.com:8200`."""
    token: Callable[[], str]
    """Read for each request: an agent may renew the file."""
    namespace: str | None = None
    ca_file: Path | None = None

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """Return the `data` of Vault's answer.

        Raises:
            SignerUnavailable: no answer, or another one than 200; the token is never told.
        """
        parts = urlsplit(self.address)
        connection: http.client.HTTPConnection
        if parts.scheme == "https":
            trusted = ssl.create_default_context(cafile=self.ca_file and str(self.ca_file))
            connection = http.client.HTTPSConnection(
                parts.hostname or "", parts.port, timeout=TIMEOUT_S, context=trusted
            )
        else:
            connection = http.client.HTTPConnection(
                parts.hostname or "", parts.port, timeout=TIMEOUT_S
            )
        headers = {"X-Vault-Token": self.token(), "X-Vault-Request": "true"}
        if self.namespace is not None:
            headers["X-Vault-Namespace"] = self.namespace
        try:
            connection.request(
                method, path, None if body is None else json.dumps(body).encode(), headers
            )
            answer = connection.getresponse()
            data = answer.read(MAX_ANSWER_BYTES)
            if answer.status != http.HTTPStatus.OK:
                raise SignerUnavailable(f"Vault answers {answer.status} to {method} {path}")
            return json.loads(data)["data"]
        except (OSError, http.client.HTTPException) as error:
            raise SignerUnavailable(f"Vault at {self.address} does not answer: {error}") from error
        except (ValueError, KeyError, TypeError) as error:
            raise SignerUnavailable(f"Vault's answer to {path} cannot be read") from error
        finally:
            connection.close()


class VaultKey:
    """One version of a transit key."""

    def __init__(self, rest: str, server: VaultServer) -> None:
        """Read the URI's rest; Vault is not asked yet.

        Raises:
            SignerUnavailable: it does not name a mount, a key and a version.
        """
        match = _REST.fullmatch(rest)
        if match is None:
            raise SignerUnavailable(f"vault:{rest} is not vault:MOUNT/NAME/VERSION")
        self._mount, self.name, self._version = match[1], match[2], int(match[3])
        self._server = server

    def public_key(self) -> bytes:
        """Return the public half.

        Raises:
            SignerUnavailable: Vault does not answer, or has no such Ed25519 key.
        """
        data = self._server.ask("GET", f"/v1/{self._mount}/keys/{self.name}")
        try:
            if data["type"] != "ed25519":
                raise SignerUnavailable(f"Vault's key {self.name} is no ed25519 key")
            return b64decode(data["keys"][str(self._version)]["public_key"], validate=True)
        except (ValueError, KeyError, TypeError) as error:
            raise SignerUnavailable(
                f"Vault's key {self.name} has no version {self._version}"
            ) from error

    def sign(self, message: bytes) -> bytes:
        """Return Vault's signature.

        Raises:
            SignerUnavailable: Vault does not answer, or refuses.
        """
        asked = {"input": b64encode(message).decode(), "key_version": self._version}
        data = self._server.ask("POST", f"/v1/{self._mount}/sign/{self.name}", asked)
        try:
            prefix = f"vault:v{self._version}:"
            if not data["signature"].startswith(prefix):
                raise SignerUnavailable(f"Vault signed with another version of {self.name}")
            return b64decode(data["signature"].removeprefix(prefix), validate=True)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise SignerUnavailable(f"Vault's signature by {self.name} cannot be read") from error
