"""Quota state of routers before signed state: read once, never written.

The file stands where the signed state will stand, and has no HMAC:

    {"version": 1, "quota": {"<budget id>": {"used": <tokens>}}, "last_seen_at": <Unix time>}

Anything else is refused whole: a quota that is read in part would be a quota refilled.
"""

from collections.abc import Mapping
from typing import Final, Literal

import msgspec

from licensing.document import BudgetId, Count, UnixTime
from licensing.encoding import parse_json
from licensing.errors import LicensingError
from router.errors import UsageError

FLAG: Final = "SMART_LLMROUTER_ALLOW_UNSIGNED_STATE_MIGRATION"
MAX_BYTES: Final = 1024 * 1024


class LegacyQuota(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one budget had used."""

    used: Count


class LegacyState(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A whole unsigned state."""

    version: Literal[1]
    quota: dict[BudgetId, LegacyQuota]
    last_seen_at: UnixTime = 0
    """The latest instant the old router saw (Unix time)."""


def migration_allowed(environ: Mapping[str, str]) -> bool:
    """Say whether the operator allows the import.

    Raises:
        UsageError: the flag has another value than 1, 0 or nothing.
    """
    value = environ.get(FLAG, "")
    if value not in ("", "0", "1"):
        raise UsageError(f"{FLAG} is 1 or not set, not {value!r}")
    return value == "1"


def read_legacy(data: bytes) -> LegacyState | None:
    """Read unsigned state; None when the bytes are not of that form."""
    try:
        return msgspec.convert(parse_json(data, max_bytes=MAX_BYTES), LegacyState)
    except (LicensingError, msgspec.ValidationError):
        return None
