"""Password hashes: argon2id, with a limit on how many are computed at the same time.

Source: RFC 9106; OWASP's password storage recommendations (19 MiB, two passes or more).
"""

from base64 import b64encode
from secrets import token_bytes
from threading import BoundedSemaphore

from argon2 import PasswordHasher as Argon2
from argon2.exceptions import InvalidHashError, VerificationError
from argon2.low_level import ARGON2_VERSION


class Argon2Passwords:
    """Hashes with argon2id. The cost is an argument, so that tests can make it cheap."""

    def __init__(
        self, *, memory_kib: int = 64 * 1024, passes: int = 3, lanes: int = 1, at_once: int = 2
    ) -> None:
        self._argon2 = Argon2(time_cost=passes, memory_cost=memory_kib, parallelism=lanes)
        self._turn = BoundedSemaphore(at_once)
        self._nothing = _encode_nothing(self._argon2)

    def hash(self, password: str) -> str:
        """Return the encoded hash of `password`."""
        with self._turn:
            return self._argon2.hash(password)

    def verify(self, encoded: str, password: str) -> bool:
        """Return whether `password` matches `encoded`."""
        with self._turn:
            try:
                return self._argon2.verify(encoded, password)
            except (VerificationError, InvalidHashError):
                return False

    def verify_nothing(self, password: str) -> None:
        """Take as long as one `verify`."""
        self.verify(self._nothing, password)

    def needs_rehash(self, encoded: str) -> bool:
        """Return whether `encoded` was made with other parameters than today's."""
        return self._argon2.check_needs_rehash(encoded)


def _encode_nothing(hasher: Argon2) -> str:
    """Return a hash that matches no known password and costs as much to check as any other.

    It is put together rather than computed: every process needs one, and few ever check it.
    """
    salt, tag = token_bytes(hasher.salt_len), token_bytes(hasher.hash_len)
    return "$".join(
        (
            f"$argon2id$v={ARGON2_VERSION}",
            f"m={hasher.memory_cost},t={hasher.time_cost},p={hasher.parallelism}",
            b64encode(salt).decode().rstrip("="),
            b64encode(tag).decode().rstrip("="),
        )
    )
