"""The rules of the lease chain, of a lease's times, of slots and of shares of a budget.

Source: the lease protocol. All times are integer Unix seconds unless they are datetimes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import Final

ASK_AGAIN_S: Final = (300, 900)
"""When the holder of a lease that is not active asks again."""


@dataclass(frozen=True, order=True)
class Link:
    """One lease of a chain."""

    epoch: int
    seq: int
    sha256: str = ""


class Step(Enum):
    """What a lease request means for the chain."""

    CONTINUE = "continue"
    AHEAD = "ahead"
    """The instance holds a lease this database does not know: it was restored from a backup."""
    FORK = "fork"


def next_step(head: Link, claimed: Link) -> Step:
    """Compare what the instance holds with the head of its chain."""
    if claimed == head:
        return Step.CONTINUE
    if (claimed.epoch, claimed.seq) > (head.epoch, head.seq):
        return Step.AHEAD
    return Step.FORK


@dataclass(frozen=True)
class Span:
    """The times of a lease."""

    expires_at: int
    grace_until_at: int
    renew_earliest_at: int
    renew_latest_at: int


def active_span(at: int, *, ttl_s: int, grace_s: int, license_expires_at: int) -> Span:
    """Return the times of an active lease: none passes the license's end.

    The renewal window is the span from a third to a half of the lease's life.
    """
    expires_at = min(at + ttl_s, license_expires_at)
    return Span(
        expires_at=expires_at,
        grace_until_at=min(expires_at + grace_s, license_expires_at),
        renew_earliest_at=min(at + ttl_s // 3, expires_at),
        renew_latest_at=min(at + ttl_s // 2, expires_at),
    )


def inactive_span(at: int, *, license_expires_at: int) -> Span:
    """Return the times of a lease that is not active: it only says when to ask again."""
    earliest, latest = ASK_AGAIN_S
    ends = min(at + latest, license_expires_at)
    return Span(ends, ends, at + earliest, at + latest)


@dataclass(frozen=True)
class Seat:
    """An instance of a deployment, as far as slots need it."""

    is_active: bool
    grace_until_at: datetime
    slot_free_at: datetime | None


def slots_held(seats: Sequence[Seat], at: datetime) -> int:
    """Count the instances that hold a slot: an active lease, grace included, not given up."""
    return sum(
        seat.is_active
        and seat.grace_until_at > at
        and (seat.slot_free_at is None or seat.slot_free_at > at)
        for seat in seats
    )


def slot_free_at(
    given_up: Sequence[datetime],
    at: datetime,
    *,
    ttl_s: int,
    max_instances: int | None,
    grace_until_at: datetime,
) -> datetime:
    """Say from when on the slot of an instance that is given up now is free.

    At most `max_instances` a lease's life free theirs at once; a further one when its grace ends,
    since a copy of its lease lives on until then.
    """
    if max_instances is None:
        return at
    recent = sum(moment > at - timedelta(seconds=ttl_s) for moment in given_up)
    return at if recent < max_instances else max(at, grace_until_at)


def budget_share(
    *, total: int, used: int, used_by_others: int, granted_to_others: int, slots: int
) -> int:
    """Return how many tokens in all this instance may use of a budget.

    That is what it used, and its share of what is left: one part in `slots`. What others may still
    use under the leases they hold is not given twice, so all together stay within `total`.
    """
    left = max(0, total - used - used_by_others)
    free = max(0, total - used - max(granted_to_others, used_by_others))
    return used + min(free, -(-left // max(1, slots)))
