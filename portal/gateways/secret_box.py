"""Small secrets at rest: AES-256-GCM with the row's id as associated data."""

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from portal.domain.ports import Randomness, SealBroken

_NONCE_BYTES = 12


class AesGcmBox:
    """Seals secrets with a key derived from the data key (32 bytes or more)."""

    def __init__(self, data_key: bytes, randomness: Randomness) -> None:
        key = HKDF(SHA256(), 32, salt=None, info=b"smart-router-licenses secret box 1")
        self._cipher = AESGCM(key.derive(data_key))
        self._randomness = randomness

    def seal(self, secret: bytes, row_id: str) -> bytes:
        """Encrypt `secret` so that it opens only for `row_id`."""
        nonce = self._randomness.token(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, secret, row_id.encode())

    def open(self, sealed: bytes, row_id: str) -> bytes:
        """Decrypt a secret.

        Raises:
            SealBroken: the ciphertext was altered, belongs to another row, or was sealed with
                another key.
        """
        try:
            return self._cipher.decrypt(
                sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], row_id.encode()
            )
        except (InvalidTag, ValueError):
            # A ciphertext too short for a nonce raises ValueError.
            raise SealBroken(f"the secret of {row_id} does not open") from None
