"""Limits on attempts. They are counted in the database before the unit of work opens."""

import hashlib

from flask import g

from portal.domain.errors import RateLimited
from portal.web.portal import portal

QUARTER_HOUR_S = 900
HOUR_S = 3600


def limit(name: str, subject: str, most: int, window_s: int) -> None:
    """Count an attempt of `subject` at `name`.

    Raises:
        RateLimited: there were more than `most` in `window_s` seconds.
    """
    ports = portal().transactions.ports
    # A bucket's name must not contain what was typed: addresses are personal and may be long.
    key = hashlib.sha256(subject.strip().lower().encode("utf-8", "replace")).hexdigest()[:32]
    wait = ports.limiter.hit(f"{name}:{key}", limit=most, window_s=window_s, at=ports.clock.now())
    if wait is not None:
        minutes = -(-wait // 60)
        raise RateLimited(
            f"Too many attempts. Try again in {minutes} minute{'s' if minutes > 1 else ''}.",
            retry_after_s=wait,
        )


def limit_address(name: str, most: int, window_s: int) -> None:
    """Count an attempt from this client's address."""
    limit(f"{name}:address", g.address, most, window_s)


def limit_everybody(name: str, most: int, window_s: int) -> None:
    """Count an attempt, whoever makes it."""
    limit(f"{name}:all", "", most, window_s)
