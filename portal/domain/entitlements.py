"""What a deployment may have: bases and packs, what may start, and what its license says.

A base is an evaluation, pilot, contract, marketplace seat or plan; a pack adds a budget. Mode,
features, binding, other limits and expiry come from the base. Without a base a pack is good for 365
days and brings its own features.

Invariants: of the live bases one counts, the highest rank first. Nothing of lower or equal rank
takes a live base's place but its renewal or `replaces`. A line never returns to an earlier budget
id, and no id gets more tokens than its own grant brought. A license never expires later than what
it is computed from. Nothing here reads a clock or a database.

Source: "Bases and packs" and "Budgets through change" of the life of a license.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from functools import cached_property
from typing import Final

from msgspec.structs import asdict, replace

from licensing.encoding import MAX_INTEGER
from licensing.license import Budget, Limits
from licensing.names import FEATURES
from portal.domain.catalog import CATALOG, PACK_FEATURES, LeasePlan, Source, template_of
from portal.domain.errors import Conflict, Invalid
from portal.domain.terms import FINGERPRINT, Mode, Terms

PACK_TERM: Final = timedelta(days=365)
MAX_TERM: Final = timedelta(days=5 * 366)
RANKS: Final[dict[Source, int]] = {
    "evaluation": 1,
    "pilot": 2,
    "subscription": 3,
    "marketplace": 4,
    "contract": 5,
}
"""How high a base stands; packs are no bases and have none."""


class EntitlementState(StrEnum):
    """How far an entitlement has come; it only moves forward."""

    PROPOSED = "proposed"
    """Waits for approval."""
    APPROVED = "approved"
    """Waits to be started."""
    LIVE = "live"
    """Started, or due to start when the base it renews ends."""
    ENDED = "ended"


class EndCause(StrEnum):
    """Why an entitlement ended."""

    NOT_STARTED = "not started"
    TERM_OVER = "term over"
    REPLACED = "replaced"
    """By a base of higher rank, by *Replace the base*, or an evaluation by a pack."""
    REFUND = "refund"
    DISPUTE = "dispute"
    CANCELED = "canceled"
    WITHDRAWN = "withdrawn"
    REVOKED = "revoked"


LOST: Final = frozenset({EndCause.REFUND, EndCause.DISPUTE, EndCause.WITHDRAWN})
"""Ends that take back what was granted: the tokens are taken from the newest budget."""


@dataclass(frozen=True, kw_only=True)
class Grant:
    """A started entitlement, as far as the rules need it."""

    id: str
    terms: Terms
    budget_id: str | None = None
    starts_at: datetime
    """Lies ahead for a renewal that has not begun."""
    ends_at: datetime | None = None
    """None for a pack."""
    renews: str | None = None
    """The base whose end this one begins at."""
    ended_at: datetime | None = None
    end_cause: EndCause | None = None
    held_since: datetime | None = None
    """Since when a hold is open on what was paid for it."""
    taken_tokens: int = 0
    taken_at: datetime | None = None

    @property
    def is_pack(self) -> bool:
        """Whether this grant is a credit pack."""
        return CATALOG[self.terms.sku].is_pack

    @property
    def rank(self) -> int:
        """The rank of a base; 0 for a pack."""
        return RANKS.get(CATALOG[self.terms.sku].source, 0)

    @property
    def lost_since(self) -> datetime | None:
        """Since when its tokens are left out; None while they count."""
        if self.end_cause in LOST:
            return self.ended_at
        return self.held_since

    def left_out(self, since: datetime) -> int:
        """Return how many of its tokens were taken out at `since` or later."""
        tokens = self.terms.tokens_total or 0
        if self.lost_since is not None and self.lost_since >= since:
            return tokens
        partly = self.taken_at is not None and self.taken_at >= since
        return min(self.taken_tokens, tokens) if partly else 0


@dataclass(frozen=True)
class Line:
    """Every grant that a deployment ever had, seen at an instant."""

    grants: tuple[Grant, ...]
    """In the order in which they were made."""
    at: datetime

    @cached_property
    def bases(self) -> tuple[Grant, ...]:
        """Every base there was or will be, in the order of their starts."""
        bases = (each for each in self.grants if not each.is_pack)
        return tuple(sorted(bases, key=lambda each: each.starts_at))

    @cached_property
    def base(self) -> Grant | None:
        """The live base that counts: the highest in rank, then the latest."""
        live = [each for each in self.bases if self.is_live(each)]
        return max(live, key=lambda each: (each.rank, each.starts_at), default=None)

    @cached_property
    def coming(self) -> Grant | None:
        """The renewal that has not begun."""
        ahead = (e for e in self.bases if e.starts_at > self.at and e.ended_at is None)
        return next(ahead, None)

    @cached_property
    def packs(self) -> tuple[Grant, ...]:
        """The live packs, in the order of their starts."""
        packs = (each for each in self.grants if each.is_pack and self.is_live(each))
        return tuple(sorted(packs, key=lambda each: each.starts_at))

    @property
    def live(self) -> tuple[Grant, ...]:
        """Everything live that counts: the base, if any, and the packs."""
        return self.packs if self.base is None else (self.base, *self.packs)

    @property
    def suspending(self) -> frozenset[str]:
        """The grants whose hold on what was paid suspends the whole line.

        That is the base; or, without one, the packs when each of them is held.
        """
        if self.base is not None:
            return frozenset({self.base.id} if self.base.held_since is not None else ())
        all_held = all(each.held_since is not None for each in self.packs)
        return frozenset(each.id for each in self.packs if all_held)

    def is_live(self, grant: Grant) -> bool:
        """Say whether a grant has begun and is not over."""
        over_at = self.over_at(grant)
        return grant.starts_at <= self.at and (over_at is None or over_at > self.at)

    def over_at(self, grant: Grant) -> datetime | None:
        """Return when a grant ended or will end; None for a base without an end.

        A pack ends after its 365 days, or with the base that stands at that moment.
        """
        if grant.ended_at is not None:
            return grant.ended_at
        if not grant.is_pack:
            return grant.ends_at
        end = grant.starts_at + PACK_TERM
        for base in self.bases:
            base_end = base.ended_at or base.ends_at
            if base_end is not None and base.starts_at <= end < base_end:
                end = base_end
        return end

    @property
    def next_change_at(self) -> datetime | None:
        """The next known instant at which a grant ends or begins; None when there is none."""
        known = [self.over_at(each) for each in self.grants if each.ended_at is None]
        known += [each.starts_at for each in self.grants if each.ended_at is None]
        return min((moment for moment in known if moment and moment > self.at), default=None)


@dataclass(frozen=True, kw_only=True)
class LicenseTerms:
    """What the next license of a deployment says."""

    entitlement_id: str
    """The grant that leads: the newest pack that counts, else the base."""
    terms: Terms
    budget: Budget | None
    not_before_at: datetime
    expires_at: datetime
    leases: LeasePlan | None
    """How its leases run; None for an offline license."""
    shortfall: int = 0
    """Tokens that were taken back and that the newest budget could not give."""


def compute_terms(line: Line) -> LicenseTerms | None:
    """Compute what a deployment's license says; None when nothing grants one.

    Raises:
        Invalid: the base has no end.
    """
    counted = _counted_packs(line)
    coming = line.coming if line.coming and line.coming.held_since is None else None
    shape = line.base or (counted[-1] if counted else coming)
    if shape is None:
        return None
    lead = _lead(line, shape, counted)
    budget, shortfall = _budget(line, shape)
    terms = replace(
        shape.terms,
        sku=lead.terms.sku,
        features=shape.terms.features or PACK_FEATURES,
        tokens_total=None if budget is None else budget.tokens_total,
    )
    if coming is not None and coming is not shape and shape is line.base:
        terms = _wider(terms, coming.terms)
    if budget is not None and terms.mode is Mode.OFFLINE:
        # One state file counts an offline budget.
        terms = replace(terms, limits=replace(terms.limits, max_instances=1))
    return LicenseTerms(
        entitlement_id=lead.id,
        terms=terms,
        budget=budget,
        not_before_at=max(line.at, shape.starts_at),
        expires_at=_expiry(line, shape, coming, counted),
        leases=CATALOG[shape.terms.sku].leases if terms.mode is Mode.LEASE else None,
        shortfall=shortfall,
    )


def _counted_packs(line: Line) -> tuple[Grant, ...]:
    """Return the packs that count: none under a base without budget, and none that is left out."""
    if line.base is not None and line.base.terms.tokens_total is None:
        return ()
    suspending = line.suspending
    return tuple(e for e in line.packs if e.held_since is None or e.id in suspending)


def _lead(line: Line, shape: Grant, counted: Sequence[Grant]) -> Grant:
    """Return whose SKU the license bears: that of the newest budget that counts."""
    with_budget = [*counted, *(each for each in (line.base,) if each and each.budget_id)]
    return max(with_budget, key=lambda each: each.starts_at, default=shape)


def _expiry(line: Line, shape: Grant, coming: Grant | None, counted: Sequence[Grant]) -> datetime:
    ends = [line.over_at(each) for each in (counted if shape.is_pack else (shape,))]
    if coming is not None and not shape.is_pack:
        ends.append(coming.ends_at)
    known = [end for end in ends if end is not None]
    if len(known) != len(ends):
        raise Invalid(f"The {shape.terms.sku} entitlement has no end.")
    return max(known)


def _budget(line: Line, shape: Grant) -> tuple[Budget | None, int]:
    """Return the newest budget, less what was taken back, and how much it could not give."""
    if not shape.is_pack and shape.terms.tokens_total is None:
        return None, 0
    chain = _budget_chain(line, shape)
    if not chain:
        return None, 0
    newest = chain[-1]
    taken = sum(each.left_out(newest.starts_at) for each in chain if not _suspends(line, each))
    total = newest.terms.tokens_total or 0
    shortfall = max(0, taken - total)
    before = chain[-2].budget_id if len(chain) > 1 and shortfall == 0 else None
    return (
        Budget(
            budget_id=newest.budget_id or "",
            tokens_total=max(1, total - taken),
            carry_over_from=before,
        ),
        shortfall,
    )


def _suspends(line: Line, grant: Grant) -> bool:
    """Whether a hold on this grant stops the whole line, so that nothing is taken out for it."""
    return grant.id in line.suspending and grant.end_cause not in LOST


def _budget_chain(line: Line, shape: Grant) -> list[Grant]:
    """Return the grants whose budgets carry into one another, up to the newest that has begun."""
    begun = [e for e in line.grants if e.budget_id and (e.starts_at <= line.at or e is shape)]
    chain: list[Grant] = []
    for grant in sorted(begun, key=lambda each: each.starts_at):
        over_at = line.over_at(chain[-1]) if chain else None
        if chain and over_at is not None and over_at < grant.starts_at:
            chain = []
        chain.append(grant)
    return chain


def _wider(ours: Terms, theirs: Terms) -> Terms:
    """Return the wider of two sets of terms; mode, SKU and budget stay ours."""
    both_bound = ours.fingerprints and theirs.fingerprints
    return replace(
        ours,
        features=(*ours.features, *theirs.features),
        limits=_wider_limits(ours.limits, theirs.limits),
        fingerprints=(*ours.fingerprints, *theirs.fingerprints) if both_bound else (),
        support_tier=ours.support_tier or theirs.support_tier,
    )


def _wider_limits(ours: Limits, theirs: Limits) -> Limits:
    def larger(one: int | None, other: int | None) -> int | None:
        return None if one is None or other is None else max(one, other)

    # A window is wider only when it holds more tokens and lets them go as fast.
    window = theirs if window_covers(theirs, ours) else ours
    return Limits(
        tokens_per_window=window.tokens_per_window,
        window_s=window.window_s,
        max_concurrency=larger(ours.max_concurrency, theirs.max_concurrency),
        max_instances=larger(ours.max_instances, theirs.max_instances),
        max_seats=larger(ours.max_seats, theirs.max_seats),
    )


def window_covers(one: Limits, other: Limits) -> bool:
    """Say whether one rolling window lets through whatever another does."""
    if one.tokens_per_window is None or one.window_s is None:
        return True
    if other.tokens_per_window is None or other.window_s is None:
        return False
    # Of any span of `one`, `other` lets at most this many of its own windows through.
    spans = -(-one.window_s // other.window_s)
    return one.tokens_per_window >= spans * other.tokens_per_window


def judge_start(line: Line, terms: Terms, *, replaces: str | None = None) -> tuple[Grant, ...]:
    """Return which grants end when these terms start.

    `replaces` is the base that staff chose to replace whatever its rank.

    Raises:
        Conflict: they cannot start beside what is there; the message names it.
    """
    template = template_of(terms.sku)
    if template.is_pack:
        return _judge_pack(line, terms.sku)
    if template.source == "evaluation":
        there = line.base or line.coming or (line.packs[-1] if line.packs else None)
        if there is not None and replaces is None:
            raise Conflict(
                f"This deployment has {_named(line, there)}; an evaluation is for a deployment"
                " that has nothing. Make a new deployment for it."
            )
    there = line.base or line.coming
    if there is None:
        return ()
    if there.id != replaces and RANKS[template.source] <= there.rank:
        raise Conflict(
            f"This deployment has {_named(line, there)}; {terms.sku} does not take its place."
            " Renew or amend what is there."
        )
    return tuple(each for each in line.bases if line.is_live(each) or each is line.coming)


def _judge_pack(line: Line, sku: str) -> tuple[Grant, ...]:
    base = line.base
    if base is None:
        return ()
    if CATALOG[base.terms.sku].source == "evaluation":
        return (base,)
    if base.terms.tokens_total is None:
        raise Conflict(
            f"This deployment has {_named(line, base)}, which has no budget:"
            f" {sku} would add nothing to it."
        )
    return ()


def _named(line: Line, grant: Grant) -> str:
    over_at = line.over_at(grant)
    until = "" if over_at is None else f" until {over_at:%Y-%m-%d %H:%M} UTC"
    return f"{grant.terms.sku}{until}"


def check_terms(terms: Terms) -> None:
    """Check proposed terms against the catalog, before anybody approves or signs them.

    Raises:
        Invalid: the message names the value and what would be right.
    """
    template = template_of(terms.sku)
    if terms.mode not in template.modes:
        raise Invalid(
            f"{terms.sku} works in {' or '.join(template.modes)} mode only.", field="mode"
        )
    _check_term(terms, is_pack=template.is_pack)
    _check_features(terms, template.always, is_pack=template.is_pack)
    _check_limits(terms)
    if not all(re.fullmatch(FINGERPRINT, text) for text in terms.fingerprints):
        raise Invalid(
            "A fingerprint has 8 to 128 letters, digits and . _ : - only.", field="fingerprint"
        )


def _check_term(terms: Terms, *, is_pack: bool) -> None:
    if is_pack:
        if terms.term_s is not None:
            raise Invalid(f"{terms.sku} takes its term from its base.", field="term")
    elif terms.term_s is None:
        raise Invalid(f"{terms.sku} needs a term, such as 365d.", field="term")
    elif not 60 <= terms.term_s <= MAX_TERM.total_seconds():
        raise Invalid("A term is between one minute and five years.", field="term")


def _check_features(terms: Terms, always: Sequence[str], *, is_pack: bool) -> None:
    unknown = sorted(set(terms.features) - set(FEATURES))
    if unknown:
        raise Invalid(
            f"Unknown feature {', '.join(unknown)}; known are {', '.join(FEATURES)}.",
            field="features",
        )
    if not terms.features and not is_pack:
        raise Invalid("Name at least one feature.", field="features")
    missing = sorted(set(always) - set(terms.features))
    if missing:
        raise Invalid(f"{terms.sku} always includes {', '.join(missing)}.", field="features")


def _check_limits(terms: Terms) -> None:
    limits = {name: value for name, value in asdict(terms.limits).items() if value is not None}
    if terms.tokens_total is not None:
        limits["tokens_total"] = terms.tokens_total
    for name, value in limits.items():
        if isinstance(value, bool) or not 1 <= value <= MAX_INTEGER:
            raise Invalid(f"The limit {name} must be a whole number from 1 up.", field="limits")
    if ("tokens_per_window" in limits) != ("window_s" in limits):
        raise Invalid("tokens_per_window and window_s stand together.", field="limits")
    if (
        terms.mode is Mode.OFFLINE
        and terms.tokens_total is not None
        and terms.limits.max_instances not in (None, 1)
    ):
        raise Invalid(
            "An offline license with a budget has one instance: its budget is counted in one "
            "state file. Use lease mode for more.",
            field="limits",
        )
