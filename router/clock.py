"""The only module of the router that reads clocks.

`now` is an instant that the portal vouched for, plus the `CLOCK_BOOTTIME` that has passed since.
That clock keeps running while the machine sleeps, cannot be set, and is valid until the next boot.
Without such an instant, `now` is the wall clock.

Source: "Times" of the lease protocol.
"""

import secrets
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Protocol

from router.state.store import Anchor

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
FRESH_S: Final = 60
"""An answer sets the clock only if it arrives this soon after the request was first sent."""
WALL_TOLERANCE_S: Final = 300


class Clock(Protocol):
    """A source of time."""

    @property
    def boot_id(self) -> str:
        """The kernel's id of this boot, 32 hex digits."""
        ...

    def wall(self) -> int:
        """Return the wall clock's Unix time in whole seconds."""
        ...

    def boottime(self) -> int:
        """Return the whole seconds since boot, sleep included."""
        ...


class SystemClock:
    """The machine's clocks."""

    def __init__(self) -> None:
        self.boot_id = _read_boot_id()

    def wall(self) -> int:
        """Return the wall clock's Unix time in whole seconds."""
        return unix_now()

    def boottime(self) -> int:
        """Return the whole seconds since boot, sleep included."""
        return int(time.clock_gettime(time.CLOCK_BOOTTIME))


def unix_now() -> int:
    """Return the current Unix time in whole seconds."""
    return int(time.time())


def present(anchor: Anchor | None, clock: Clock) -> int:
    """Return `now` (Unix time)."""
    if anchor is None or anchor.boot_id != clock.boot_id:
        return clock.wall()
    return anchor.now + max(0, clock.boottime() - anchor.boottime)


def anchor_at(now: int, clock: Clock) -> Anchor:
    """Tie an instant that the portal vouched for to this boot."""
    return Anchor(boot_id=clock.boot_id, boottime=clock.boottime(), now=now)


def instant(seconds: int) -> str:
    """Return Unix time as RFC 3339 in UTC; outside the calendar, the number."""
    try:
        at = datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return f"{seconds} s"
    return at.isoformat().replace("+00:00", "Z")


def dated(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return facts with their instants (`…_at`, at any depth) as people read them."""
    shown: dict[str, Any] = {}
    for name, value in facts.items():
        if isinstance(value, Mapping):
            shown[name] = dated(value)
        elif name.endswith("_at") and isinstance(value, int):
            shown[name] = instant(value)
        else:
            shown[name] = value
    return shown


def _read_boot_id() -> str:
    try:
        return _BOOT_ID.read_text().strip().replace("-", "")
    except OSError:
        # Without the kernel's id, an anchor is useless after this process.
        return secrets.token_hex(16)
