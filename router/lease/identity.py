"""The instance's own key, the router's only private key. It is made here and never leaves."""

import stat
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from licensing.document import Document
from licensing.envelope import Envelope, Signature, pae
from licensing.keys import key_id
from router.errors import StateError
from router.files import write_atomically

KEY_FILE = "instance-key.pem"


class Identity:
    """An instance's key pair."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public_key = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        """32 raw bytes."""
        self.keyid = key_id(self.public_key)

    def sign(self, document: Document) -> Envelope:
        """Serialize a document canonically and sign it.

        Raises:
            MalformedPayload: a verifier would refuse the document.
        """
        payload = document.to_bytes()
        signature = self._key.sign(pae(document.PAYLOAD_TYPE, payload))
        return Envelope(payload, document.PAYLOAD_TYPE, (Signature(self.keyid, signature),))


def make_identity(directory: Path) -> Identity:
    """Generate a key and store it with mode 0600.

    Raises:
        OSError: the directory cannot be written.
    """
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    write_atomically(directory / KEY_FILE, pem)
    return Identity(key)


def load_identity(directory: Path) -> Identity | None:
    """Load the stored key; None if there is none yet.

    Raises:
        StateError: others can read it, or it is no Ed25519 key.
    """
    path = directory / KEY_FILE
    try:
        status = path.stat()
        pem = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StateError(f"cannot read {path}: {error.strerror}") from error
    if stat.S_IMODE(status.st_mode) & 0o077:
        raise StateError(f"others can read {path}: chmod 600 it")
    try:
        key = load_pem_private_key(pem, None)
    except (ValueError, TypeError):
        raise StateError(
            f"{path} is damaged; restore it, or enroll again with another --state-dir"
        ) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise StateError(f"{path} holds no Ed25519 key")
    return Identity(key)
