"""Terms: what a license grants, in one shape from the form to the payload.

What a customer asked, what staff granted, what an entitlement holds and what a license is issued
from are all `Terms`, stored as one JSON value and compared by `compare`.

Invariants: features and fingerprints are sorted, each once. Durations are seconds. Terms never
change; a change makes new ones.

*Terms* are never the legal text, which is called *terms of use*.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import msgspec

from licensing.document import Part
from licensing.encoding import canonical
from licensing.license import License, Limits
from portal.domain.words import LIMIT_NAMES, MODE_NAMES, count, duration, feature_name

FINGERPRINT: Final = r"[A-Za-z0-9._:-]{8,128}"
"""What an instance's fingerprint looks like, as the signed documents have it."""


class Mode(StrEnum):
    """How a router holds its right to serve."""

    OFFLINE = "offline"
    """By the license file alone."""
    LEASE = "lease"
    """By short-lived leases that it renews at the portal."""


class Terms(Part, frozen=True, kw_only=True):
    """What a license grants. Whether it may be granted, `check_terms` of entitlements says."""

    sku: str
    mode: Mode
    term_s: int | None = None
    """Seconds from the start to the end; None for a pack, which takes its base's end."""
    features: tuple[str, ...]
    limits: Limits
    tokens_total: int | None = None
    """The budget in tokens; None: no budget."""
    fingerprints: tuple[str, ...] = ()
    """The instances the license is bound to; empty: any."""
    support_tier: str | None = None

    def __post_init__(self) -> None:
        """Bring the lists into their one order."""
        for name in ("features", "fingerprints"):
            msgspec.structs.force_setattr(self, name, tuple(sorted(set(getattr(self, name)))))


def granted_terms(payload: License) -> Terms:
    """Return what a license grants, as far as its payload says; its end stands beside."""
    return Terms(
        sku=payload.sku,
        mode=Mode(payload.mode),
        features=payload.features,
        limits=payload.limits,
        tokens_total=None if payload.budget is None else payload.budget.tokens_total,
        fingerprints=payload.binding.fingerprints,
        support_tier=payload.support_tier,
    )


def canonical_terms(terms: Terms) -> bytes:
    """Return the one way to write terms down, as restricted canonical JSON.

    Raises:
        MalformedPayload: a value that no signed document could hold.
    """
    return canonical(msgspec.to_builtins(terms))


@dataclass(frozen=True)
class Comparison:
    """One term of two sets of terms, in words for people."""

    term: str
    """The term's name in code, such as `term_s`."""
    title: str
    asked: str
    granted: str
    is_changed: bool


def compare(asked: Terms, granted: Terms) -> tuple[Comparison, ...]:
    """Put two sets of terms side by side, leaving out what neither of them mentions."""
    before, after = _values(asked), _values(granted)
    return tuple(
        Comparison(
            term,
            title,
            _say(term, before[term]),
            _say(term, after[term]),
            before[term] != after[term],
        )
        for term, title in _TITLES.items()
        if before[term] is not None or after[term] is not None
    )


def differences(asked: Terms, granted: Terms) -> tuple[Comparison, ...]:
    """Return the terms that were granted otherwise than asked."""
    return tuple(each for each in compare(asked, granted) if each.is_changed)


def tabulate(*columns: Terms) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Return each term's title with what each of these terms say, as far as any mentions it."""
    values = [_values(each) for each in columns]
    return tuple(
        (title, tuple(_say(term, each[term]) for each in values))
        for term, title in _TITLES.items()
        if any(each[term] is not None for each in values)
    )


_TITLES: Final = {
    "sku": "SKU",
    "mode": "How it runs",
    "term_s": "Length",
    "tokens_total": "Budget",
    "volume": "Volume",
    **{name: LIMIT_NAMES[name] for name in ("max_instances", "max_concurrency", "max_seats")},
    "features": "Features",
    "fingerprints": "Bound to",
    "support_tier": "Support tier",
}


def _values(terms: Terms) -> dict[str, Any]:
    values = msgspec.structs.asdict(terms)
    limits = msgspec.structs.asdict(values.pop("limits"))
    # A window's two numbers are one term: neither means anything without the other.
    tokens, window_s = limits.pop("tokens_per_window"), limits.pop("window_s")
    volume = None if tokens is None or window_s is None else (tokens, window_s)
    return {**values, **limits, "volume": volume}


def _say(term: str, value: Any) -> str:
    if value is None:
        return _ABSENT.get(term, "no limit")
    return _WORDS.get(term, str)(value)


def _volume(value: tuple[int, int]) -> str:
    tokens, window_s = value
    return f"{count(tokens, 'token')} in any {duration(window_s)}"


_ABSENT: Final = {"term_s": "that of its base", "tokens_total": "none", "support_tier": "none"}
_WORDS: Final[dict[str, Callable[[Any], str]]] = {
    "mode": MODE_NAMES.__getitem__,
    "term_s": duration,
    "tokens_total": lambda tokens: count(tokens, "token"),
    "volume": _volume,
    **dict.fromkeys(("max_instances", "max_concurrency", "max_seats"), "{:,}".format),
    "features": lambda features: ", ".join(map(feature_name, features)) or "none",
    "fingerprints": lambda fingerprints: ", ".join(fingerprints) or "any instance",
}
