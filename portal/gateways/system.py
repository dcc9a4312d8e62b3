"""The system's clock and randomness: the only module of the portal that reads the wall clock."""

import secrets
from datetime import UTC, datetime


class SystemClock:
    """The machine's wall clock."""

    def now(self) -> datetime:
        """Return the current instant in UTC."""
        return datetime.now(UTC)


class SystemRandomness:
    """The operating system's random source."""

    def token(self, size: int) -> bytes:
        """Return `size` unpredictable bytes."""
        return secrets.token_bytes(size)
