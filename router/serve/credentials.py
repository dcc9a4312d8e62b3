"""Who asks: callers and scrapers by bearer token, administrators by password.

Invariants: tokens are compared by their SHA-256 or whole, in constant time. Passwords are verified
off the event loop, and an unknown user costs as much time as a known one. Whatever bytes a header
holds, the answer is yes or no.
"""

import asyncio
import base64
import hashlib
import hmac
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Final

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from router.config import AdminConfig, Caller

REMEMBER_S: Final = 300
"""How long a verified password need not be hashed again."""
_REMEMBERED: Final = 64


class Passwords:
    """Verifies basic auth against argon2id hashes, a few at once, off the event loop.

    A verified password is remembered for a while, under a keyed hash whose key ends with the
    process.
    """

    def __init__(self, admin: AdminConfig, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._users = dict(admin.users)
        self._monotonic = monotonic
        self._key = secrets.token_bytes(32)
        self._known: OrderedDict[bytes, float] = OrderedDict()
        self._turns = asyncio.Semaphore(2)

    async def accept(self, header: str | None) -> bool:
        """Say whether an Authorization header names a user with the right password."""
        given = _basic(header)
        if given is None or not self._users:
            return False
        user, password = given
        seal = hmac.digest(self._key, f"{user}\0{password}".encode(), "sha256")
        if self._known.get(seal, 0.0) > self._monotonic():
            return True
        # An unknown user takes as long as a known one.
        encoded = self._users.get(user) or next(iter(self._users.values()))
        async with self._turns:
            good = await asyncio.to_thread(_verify, encoded, password)
        if not good or user not in self._users:
            return False
        self._known[seal] = self._monotonic() + REMEMBER_S
        while len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        return True


class Callers:
    """Knows callers by the SHA-256 of their token."""

    def __init__(self, callers: tuple[Caller, ...]) -> None:
        self._callers = callers

    def find(self, header: str | None) -> Caller | None:
        """Return the caller; every hash is compared, in constant time."""
        token = _bearer(header)
        if token is None:
            return None
        given = hashlib.sha256(token).hexdigest()
        found = None
        for caller in self._callers:
            if hmac.compare_digest(caller.token_sha256, given):
                found = caller
        return found


async def brings_token(header: str | None, file: Path) -> bool:
    """Say whether an Authorization header carries the token in the first line of a file."""
    wanted = await asyncio.to_thread(_read_token, file)
    given = _bearer(header)
    return bool(wanted) and given is not None and hmac.compare_digest(wanted, given)


def _basic(header: str | None) -> tuple[str, str] | None:
    scheme, _, encoded = (header or "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        text = base64.b64decode(encoded.strip(), validate=True).decode("utf-8")
    except ValueError:
        return None
    user, colon, password = text.partition(":")
    return (user, password) if colon else None


def _bearer(header: str | None) -> bytes | None:
    scheme, _, token = (header or "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        return None
    # aiohttp keeps bytes that are not UTF-8 as surrogates.
    return token.strip().encode("utf-8", "surrogateescape")


def _verify(encoded: str, password: str) -> bool:
    try:
        return PasswordHasher().verify(encoded, password)
    except (VerificationError, InvalidHashError):
        return False


def _read_token(path: Path) -> bytes:
    """Return the first line of a token file; empty if there is none."""
    try:
        return path.read_bytes()[:4096].split(b"\n")[0].strip()
    except OSError:
        return b""
