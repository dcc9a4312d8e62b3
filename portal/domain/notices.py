"""Which notices of a license are due: a rule over facts and an instant.

Each notice is told once. Of what counts down (days before expiry, shares of a budget) only the step
that was reached last is due: a worker that comes late sends one mail, not all that it missed, and
once a later step was told, a clock that goes back brings no earlier one. A step that was reached
before the license was released is never told, and news that is days old is none.

Nothing is due for a license that another took the place of, or is about to.

Source: "Notices" of the life of a license.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final

from licensing.license import License
from portal.domain.catalog import CATALOG
from portal.domain.standing import LicenseState, Standing
from portal.domain.terms import Mode


class NoticeKind(StrEnum):
    """What a notice tells."""

    # Of time and use: found by the worker.
    EXPIRES_30D = "expires-30d"
    EXPIRES_14D = "expires-14d"
    EXPIRES_7D = "expires-7d"
    EXPIRES_1D = "expires-1d"
    EXPIRES_24H = "expires-24h"
    """Of evaluations, like the next."""
    EXPIRES_4H = "expires-4h"
    EXPIRED = "expired"
    BUDGET_80 = "budget-80"
    BUDGET_100 = "budget-100"
    INSTALL = "install"
    """An offline license was not marked as installed."""
    INSTALL_7D = "install-7d"
    """So before the license stops whose place it takes."""
    INSTALL_1D = "install-1d"

    # Of acts: told by whoever acts.
    ISSUED = "issued"
    REPLACED = "replaced"
    TOPPED_UP = "topped-up"
    SUSPENDED = "suspended"
    REINSTATED = "reinstated"
    REVOKED = "revoked"

    # To staff.
    CONTRACTS_ENDING = "contracts-ending"


NEWS_FOR: Final = timedelta(days=3)
"""How long after it a license's expiry is still told."""
ENDING_WITHIN: Final = timedelta(days=60)
"""How far the weekly list of ending contracts looks ahead."""
LIST_HOUR: Final = 6
"""When the weekly list is made: on Mondays, at this hour of UTC or later."""
BUDGET_SHARES: Final = ((NoticeKind.BUDGET_80, 80), (NoticeKind.BUDGET_100, 100))
"""Percent of a budget that was used."""

_BEFORE_EXPIRY: Final = (
    (NoticeKind.EXPIRES_30D, timedelta(days=30)),
    (NoticeKind.EXPIRES_14D, timedelta(days=14)),
    (NoticeKind.EXPIRES_7D, timedelta(days=7)),
    (NoticeKind.EXPIRES_1D, timedelta(days=1)),
)
_BEFORE_EVALUATION_ENDS: Final = (
    (NoticeKind.EXPIRES_24H, timedelta(hours=24)),
    (NoticeKind.EXPIRES_4H, timedelta(hours=4)),
)
FIRST_NOTICE: Final = _BEFORE_EXPIRY[0][1]
"""How long before the expiry of any license its first notice can be due."""
_BEFORE_PREDECESSOR_ENDS: Final = (
    (NoticeKind.INSTALL_7D, timedelta(days=7)),
    (NoticeKind.INSTALL_1D, timedelta(days=1)),
)
_UNTIL_ASKED: Final = timedelta(days=3)
_UNTIL_ASKED_OF_EVALUATION: Final = timedelta(hours=24)
ASKED_FOR: Final = timedelta(days=7)
"""How long the first reminder to install is worth sending after it was due."""


@dataclass(frozen=True, kw_only=True)
class NoticeFacts:
    """What the notices of a released license depend on."""

    standing: Standing
    """What it is at the instant that is asked about."""
    sku: str
    mode: Mode
    released_at: datetime
    expires_at: datetime
    is_being_replaced: bool = False
    """Whether a newer license of its line is being issued."""
    is_installed: bool = False
    """Whether somebody marked it as installed."""
    predecessor_ends_at: datetime | None = None
    """When the license stops whose place it took; None: it took none's."""
    tokens_total: int | None = None
    """The budget; None: it has none."""
    tokens_used: int = 0
    """Of that budget, as far as routers reported it."""
    told: frozenset[NoticeKind] = frozenset()

    @property
    def is_evaluation(self) -> bool:
        """Whether hours count instead of days."""
        return self.sku in CATALOG and CATALOG[self.sku].source == "evaluation"


@dataclass(frozen=True)
class _Step:
    """One step of what counts down: due from one instant until another."""

    kind: NoticeKind
    due_at: datetime
    until: datetime


def due_notices(facts: NoticeFacts, at: datetime) -> tuple[NoticeKind, ...]:
    """Return what is due at `at` and was not told; of each countdown one step at most."""
    if facts.standing.replaced_by is not None or facts.is_being_replaced:
        return ()
    if facts.standing.state is LicenseState.EXPIRED:
        is_news = at < facts.expires_at + NEWS_FOR and NoticeKind.EXPIRED not in facts.told
        return (NoticeKind.EXPIRED,) if is_news else ()
    if facts.standing.state is not LicenseState.ISSUED or NoticeKind.EXPIRED in facts.told:
        return ()
    found = (
        _reached(_countdown(facts), facts, at),
        _budget(facts),
        _reached(_installing(facts), facts, at),
    )
    return tuple(kind for kind in found if kind is not None)


def _countdown(facts: NoticeFacts) -> list[_Step]:
    spans = _BEFORE_EVALUATION_ENDS if facts.is_evaluation else _BEFORE_EXPIRY
    return [_Step(kind, facts.expires_at - span, facts.expires_at) for kind, span in spans]


def _installing(facts: NoticeFacts) -> list[_Step]:
    if facts.mode is not Mode.OFFLINE or facts.is_installed:
        return []
    ends_at = facts.predecessor_ends_at
    if ends_at is not None and ends_at > facts.released_at:
        return [_Step(kind, ends_at - span, ends_at) for kind, span in _BEFORE_PREDECESSOR_ENDS]
    wait = _UNTIL_ASKED_OF_EVALUATION if facts.is_evaluation else _UNTIL_ASKED
    due_at = facts.released_at + wait
    return [_Step(NoticeKind.INSTALL, due_at, due_at + ASKED_FOR)]


def _reached(steps: Sequence[_Step], facts: NoticeFacts, at: datetime) -> NoticeKind | None:
    """Return the step reached last, unless it or a later one was told or its time is over."""
    reached = [place for place, step in enumerate(steps) if facts.released_at < step.due_at <= at]
    if not reached:
        return None
    last = reached[-1]
    if at >= steps[last].until or any(step.kind in facts.told for step in steps[last:]):
        return None
    return steps[last].kind


def _budget(facts: NoticeFacts) -> NoticeKind | None:
    if facts.tokens_total is None:
        return None
    reached = [
        kind
        for kind, percent in BUDGET_SHARES
        if facts.tokens_used * 100 >= percent * facts.tokens_total
    ]
    kinds = [kind for kind, _ in BUDGET_SHARES]
    if not reached or facts.told & set(kinds[len(reached) - 1 :]):
        return None
    return reached[-1]


def kind_of_release(before: License | None, after: License) -> NoticeKind:
    """Say what a license that was just released is to its customer.

    A pack's new budget is a top-up; any other license that follows one is a replacement.
    """
    if before is None:
        return NoticeKind.ISSUED
    is_pack = after.sku in CATALOG and CATALOG[after.sku].is_pack
    if not is_pack or after.budget is None:
        return NoticeKind.REPLACED
    same = before.budget is not None and before.budget.budget_id == after.budget.budget_id
    return NoticeKind.REPLACED if same else NoticeKind.TOPPED_UP


def week_of_list(at: datetime) -> str | None:
    """Return the week, such as `2026-W48`, whose list of ending contracts may be made at `at`."""
    moment = at.astimezone(UTC)
    if moment.isoweekday() == 1 and moment.hour < LIST_HOUR:
        return None
    year, week, _ = moment.isocalendar()
    return f"{year}-W{week:02d}"
