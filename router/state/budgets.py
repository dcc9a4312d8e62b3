"""Counting tokens: budgets, rolling windows and open reservations, as one frozen value.

Every method returns a new `Budgets`; nothing here reads a clock or a file. `journal.py` makes each
step durable, `store.py` stores the whole.

    budgets = budgets.serving(terms)                    a license serves: limits, carry-over
    budgets = budgets.reserve(id, terms, tokens, at)    before the upstream call; LimitExceeded
    budgets = budgets.settle(id, tokens, at)            what it really used; None: the reservation
    budgets = budgets.release(id)                       it never ran
    budgets = budgets.spend_open(at)                    after a crash: what is open counts as spent

Invariants: `used` of a budget never falls. What is reserved is part of the count from the moment it
is reserved. A budget carries over at most once, when it first serves; the budget it came from is
spent in the same value and gives nothing again. A window never counts less than was used in it: a
bucket counts until its last second has left the window, and open reservations count whole.

Source: "Budgets" of the signed documents; "Limits" of the router's design.
"""

from dataclasses import dataclass
from typing import Final

import msgspec

from licensing.document import BudgetId, Count, DeploymentId, Positive, UnixTime
from licensing.encoding import MAX_INTEGER
from licensing.license import Budget
from router.errors import RouterError

BUCKETS: Final = 168
"""Into how many parts a window is divided: a week into hours."""
_MAX_BUCKETS: Final = BUCKETS + 8


class LimitExceeded(RouterError):
    """Less is left than was asked for; nothing was reserved.

    `limit` says which: `budget` or `window`. `left` and `asked` are tokens. `retry_after_s` is when
    the window has room (seconds); None where waiting does not help.
    """

    code = "license-limit-exceeded"

    def __init__(self, limit: str, *, left: int, asked: int, retry_after_s: int | None) -> None:
        super().__init__(f"{asked} tokens were asked for; the {limit} has {left} left")
        self.limit = limit
        self.left = left
        self.asked = asked
        self.retry_after_s = retry_after_s


@dataclass(frozen=True)
class Terms:
    """What counts at this moment: of the license, or of the lease where that narrows or replaces.

    `budget` is the lease's where it has one that applies, else the license's.
    """

    deployment_id: str
    budget: Budget | None = None
    tokens_per_window: int | None = None
    window_s: int | None = None
    """Length of the rolling window in seconds; stands exactly beside `tokens_per_window`."""

    @property
    def limited(self) -> bool:
        """Whether there is anything to count."""
        return self.budget is not None or self.tokens_per_window is not None


class Fact(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """A part of the stored state."""


class Tally(Fact, frozen=True, kw_only=True):
    """The counters of one budget, in tokens."""

    limit: Count
    """`tokens_total` of the terms that served last."""
    used: Count = 0
    reserved: Count = 0
    """Open reservations."""
    requests: Count = 0
    """Settled requests."""
    saw_serving: bool = False
    spent: bool = False
    """What was left went to a successor."""
    carried_over_from: BudgetId | None = None
    carried_tokens: Count = 0
    carry_counts: bool = False
    """Whether the terms that served last still name `carried_over_from`."""

    @property
    def total(self) -> int:
        """The limit with what was carried over, while that counts."""
        return self.limit + (self.carried_tokens if self.carry_counts else 0)

    @property
    def left(self) -> int:
        """What can still be reserved."""
        return 0 if self.spent else max(0, self.total - self.used - self.reserved)


class Window(Fact, frozen=True, kw_only=True):
    """A rolling window of one deployment, in buckets of equal width."""

    window_s: Positive
    reserved: Count = 0
    """Open reservations of the deployment, in tokens."""
    buckets: tuple[tuple[int, Count], ...] = ()
    """(number, tokens), ascending. Bucket n holds the seconds from n * width on."""

    @property
    def width_s(self) -> int:
        """Seconds in a bucket."""
        return -(-self.window_s // BUCKETS)

    def used(self, at: int) -> int:
        """Return the tokens that count at this instant, open reservations included."""
        return self.reserved + sum(tokens for _, tokens in self._counting(at))

    def add(self, tokens: int, at: int) -> "Window":
        """Return the window with tokens used at this instant; what has left it is forgotten."""
        buckets = dict(self._counting(at))
        number = at // self.width_s
        buckets[number] = min(MAX_INTEGER, buckets.get(number, 0) + tokens)
        return msgspec.structs.replace(self, buckets=_bounded(buckets))

    def resized(self, window_s: int) -> "Window":
        """Return the same use in a window of another length.

        A bucket goes where its last second falls. What the old window has let go stays forgotten.
        """
        if window_s == self.window_s:
            return self
        resized = Window(window_s=window_s, reserved=self.reserved)
        buckets: dict[int, int] = {}
        for number, tokens in self.buckets:
            last = (number + 1) * self.width_s - 1
            moved = last // resized.width_s
            buckets[moved] = min(MAX_INTEGER, buckets.get(moved, 0) + tokens)
        return msgspec.structs.replace(resized, buckets=_bounded(buckets))

    def room_in_s(self, tokens: int, limit: int, at: int) -> int | None:
        """Return in how many seconds this many tokens fit, if no more is used; None: never."""
        counted = self.used(at)
        for number, bucket in self._counting(at):
            if counted + tokens <= limit:
                break
            counted -= bucket
            free_at = (number + 1) * self.width_s + self.window_s
            if counted + tokens <= limit:
                return max(1, free_at - at)
        return 0 if counted + tokens <= limit else None

    def _counting(self, at: int) -> list[tuple[int, int]]:
        since = at - self.window_s
        width = self.width_s
        return [bucket for bucket in self.buckets if (bucket[0] + 1) * width > since]


def _bounded(buckets: dict[int, int]) -> tuple[tuple[int, int], ...]:
    """Sort buckets; where a jumping clock made too many, the oldest join the next."""
    listed = sorted(buckets.items())
    while len(listed) > _MAX_BUCKETS:
        (_, oldest), (number, tokens) = listed[:2]
        listed[:2] = [(number, min(MAX_INTEGER, oldest + tokens))]
    return tuple(listed)


class Reservation(Fact, frozen=True, kw_only=True):
    """Tokens that were promised to a request."""

    deployment_id: DeploymentId
    budget_id: BudgetId | None = None
    tokens: Count
    at: UnixTime


class Budgets(Fact, frozen=True, kw_only=True):
    """All counters of a router."""

    tallies: dict[str, Tally] = msgspec.field(default_factory=dict)
    """By budget id."""
    windows: dict[str, Window] = msgspec.field(default_factory=dict)
    """By deployment id."""
    reservations: dict[str, Reservation] = msgspec.field(default_factory=dict)
    """Open ones, by reservation id."""

    def left(self, terms: Terms, at: int) -> int | None:
        """Return how many tokens could be reserved now; None where nothing limits them."""
        rests = []
        if terms.budget is not None:
            tally = self.tallies.get(terms.budget.budget_id)
            rests.append(terms.budget.tokens_total if tally is None else tally.left)
        if terms.tokens_per_window is not None:
            window = self.windows.get(terms.deployment_id)
            used = 0 if window is None else window.used(at)
            rests.append(max(0, terms.tokens_per_window - used))
        return min(rests, default=None)

    def serving(self, terms: Terms) -> "Budgets":
        """Return the counters once these terms serve: new limits, and what is carried over.

        The same terms again change nothing.
        """
        return msgspec.structs.replace(
            self, windows=self._windows_under(terms), tallies=self._tallies_under(terms.budget)
        )

    def reserve(self, reservation_id: str, terms: Terms, tokens: int, at: int) -> "Budgets":
        """Promise tokens to a request.

        Raises:
            LimitExceeded: less is left.
            ValueError: the terms never served, the id is open already, or the number is not one.
        """
        _require_count(tokens, "tokens")
        _require_count(at, "seconds")
        if reservation_id in self.reservations:
            raise ValueError(f"the reservation {reservation_id} is open already")
        budget_id = None if terms.budget is None else terms.budget.budget_id
        if budget_id is not None:
            tally = self.tallies.get(budget_id)
            if tally is None or not tally.saw_serving:
                raise ValueError(f"the budget {budget_id} never served")
            if tally.left < tokens:
                raise LimitExceeded("budget", left=tally.left, asked=tokens, retry_after_s=None)
        if terms.tokens_per_window is not None:
            window = self.windows.get(terms.deployment_id)
            if window is None:
                raise ValueError(f"the window of {terms.deployment_id} never served")
            left = terms.tokens_per_window - window.used(at)
            if left < tokens:
                wait = window.room_in_s(tokens, terms.tokens_per_window, at)
                raise LimitExceeded("window", left=max(0, left), asked=tokens, retry_after_s=wait)
        return self.hold(
            reservation_id,
            Reservation(
                deployment_id=terms.deployment_id, budget_id=budget_id, tokens=tokens, at=at
            ),
        )

    def hold(self, reservation_id: str, reservation: Reservation) -> "Budgets":
        """Take up a reservation that was granted, without asking for limits again.

        Raises:
            KeyError: its budget is not known.
        """
        held = {**self.reservations, reservation_id: reservation}
        return self._changed(reservation, held, reserved=reservation.tokens)

    def settle(self, reservation_id: str, tokens: int | None, at: int) -> "Budgets":
        """Count what a request really used; None counts the reservation.

        Raises:
            KeyError: no such reservation is open.
            ValueError: the number is not one.
        """
        reservation = self.reservations[reservation_id]
        used = reservation.tokens if tokens is None else tokens
        _require_count(used, "tokens")
        _require_count(at, "seconds")
        return self._changed(
            reservation,
            self._without(reservation_id),
            reserved=-reservation.tokens,
            used=used,
            requests=1,
            at=at,
        )

    def release(self, reservation_id: str) -> "Budgets":
        """Give back a reservation whose request never reached the upstream.

        Raises:
            KeyError: no such reservation is open.
        """
        reservation = self.reservations[reservation_id]
        rest = self._without(reservation_id)
        return self._changed(reservation, rest, reserved=-reservation.tokens)

    def spend_open(self, at: int) -> "Budgets":
        """Count every open reservation as spent: nobody is left who knows better."""
        spent = self
        for reservation_id, reservation in self.reservations.items():
            spent = spent.settle(reservation_id, None, max(at, reservation.at))
        return spent

    def _without(self, reservation_id: str) -> dict[str, Reservation]:
        return {name: each for name, each in self.reservations.items() if name != reservation_id}

    def _changed(
        self,
        reservation: Reservation,
        reservations: dict[str, Reservation],
        *,
        reserved: int,
        used: int = 0,
        requests: int = 0,
        at: int = 0,
    ) -> "Budgets":
        """Change the counters a reservation belongs to; `reservations` are open from now on."""
        tallies, windows = self.tallies, self.windows
        if reservation.budget_id is not None:
            tally = tallies[reservation.budget_id]
            tally = msgspec.structs.replace(
                tally,
                reserved=tally.reserved + reserved,
                used=min(MAX_INTEGER, tally.used + used),
                requests=min(MAX_INTEGER, tally.requests + requests),
            )
            tallies = {**tallies, reservation.budget_id: tally}
        window = windows.get(reservation.deployment_id)
        if window is not None:
            window = msgspec.structs.replace(window, reserved=window.reserved + reserved)
            window = window.add(used, at) if used else window
            windows = {**windows, reservation.deployment_id: window}
        return msgspec.structs.replace(
            self, tallies=tallies, windows=windows, reservations=reservations
        )

    def _windows_under(self, terms: Terms) -> dict[str, Window]:
        if terms.window_s is None:
            return self.windows
        window = self.windows.get(terms.deployment_id)
        if window is None:
            reserved = sum(
                each.tokens
                for each in self.reservations.values()
                if each.deployment_id == terms.deployment_id
            )
            window = Window(window_s=terms.window_s, reserved=reserved)
        return {**self.windows, terms.deployment_id: window.resized(terms.window_s)}

    def _tallies_under(self, budget: Budget | None) -> dict[str, Tally]:
        if budget is None:
            return self.tallies
        known = self.tallies.get(budget.budget_id, Tally(limit=budget.tokens_total))
        tallies = dict(self.tallies)
        tally = msgspec.structs.replace(known, limit=budget.tokens_total, saw_serving=True)
        source = tallies.get(budget.carry_over_from or "")
        if not known.saw_serving and source is not None and _may_give(source):
            tally = msgspec.structs.replace(
                tally, carried_over_from=budget.carry_over_from, carried_tokens=source.left
            )
            assert budget.carry_over_from is not None
            tallies[budget.carry_over_from] = msgspec.structs.replace(source, spent=True)
        named = tally.carried_over_from
        tally = msgspec.structs.replace(
            tally, carry_counts=named is not None and named == budget.carry_over_from
        )
        tallies[budget.budget_id] = tally
        return tallies


def _may_give(source: Tally) -> bool:
    return source.saw_serving and not source.spent


def _require_count(number: int, of: str) -> None:
    if type(number) is not int or not 0 <= number <= MAX_INTEGER:
        raise ValueError(f"{number!r} is no number of {of}")
