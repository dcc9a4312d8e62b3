"""Requests: what customers ask staff for, and what a request must say.

Source: "evaluate" and "pilot" of the portal's flows.
"""

from collections.abc import Sequence
from datetime import date, timedelta
from enum import StrEnum
from typing import Final

import msgspec
from msgspec.structs import replace

from licensing.license import Limits
from portal.domain.catalog import DAY_S, template_of
from portal.domain.entitlements import window_covers
from portal.domain.errors import Invalid
from portal.domain.terms import Terms

MAX_TEXT: Final = 4000
"""The most characters of a single text on a request."""
MAX_TOKENS: Final = 10**12
FURTHEST_START: Final = timedelta(days=180)


class RequestKind(StrEnum):
    """What a request is for."""

    EVALUATION = "evaluation"
    PILOT = "pilot"
    RENEWAL = "renewal"
    REPLACEMENT = "replacement"


class RequestState(StrEnum):
    """The state of a request."""

    OPEN = "open"
    APPROVED = "approved"
    DECLINED = "declined"
    WITHDRAWN = "withdrawn"


class Audience(StrEnum):
    """Who reads a message on a request."""

    CUSTOMER = "customer"
    """The customer and staff."""
    STAFF = "staff"
    """Staff alone."""


class Background(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a customer says beside the terms. It helps staff decide and limits nothing."""

    purpose: str
    goals: str = ""
    contacts: str = ""
    starts_on: date | None = None
    """When the customer wants to start; None means as soon as possible."""
    expected_tokens: int | None = None
    """Tokens the customer expects to use in a week: a wish, never a limit by itself."""


def wished_terms(asked: Terms, background: Background) -> Terms:
    """Return the terms asked for, with the volume expected where they do not let it through.

    What is granted is compared with these: a customer who expects more than the plan allows sees
    what they get instead, and one who expects less is not cut down to it.
    """
    if background.expected_tokens is None:
        return asked
    wish = Limits(tokens_per_window=background.expected_tokens, window_s=7 * DAY_S)
    if window_covers(asked.limits, wish):
        return asked
    limits = replace(asked.limits, tokens_per_window=wish.tokens_per_window, window_s=wish.window_s)
    return replace(asked, limits=limits)


def clean_text(text: str, field: str) -> str:
    """Return a text without surrounding white space.

    Raises:
        Invalid: it is longer than `MAX_TEXT` characters.
    """
    if len(text) > MAX_TEXT:
        raise Invalid(f"Use at most {MAX_TEXT:,} characters.", field=field)
    return text.strip()


def clean_background(background: Background, kind: RequestKind, today: date) -> Background:
    """Return the background with its texts cleaned.

    Raises:
        Invalid: a text is too long, or something this kind of request needs is missing or wrong.
    """
    texts = {
        name: clean_text(getattr(background, name), name)
        for name in ("purpose", "goals", "contacts")
    }
    if not texts["purpose"] and kind is not RequestKind.RENEWAL:
        raise Invalid("Say what it is for.", field="purpose")
    if kind is RequestKind.PILOT:
        if not texts["goals"]:
            raise Invalid("Say what the pilot should show.", field="goals")
        if not 1 <= (background.expected_tokens or 0) <= MAX_TOKENS:
            raise Invalid("Enter the tokens you expect in a week.", field="expected_tokens")
    if background.starts_on is not None:
        _check_start(background.starts_on, today)
    return msgspec.structs.replace(background, **texts)


def _check_start(starts_on: date, today: date) -> None:
    """Require a start that staff can arrange."""
    if starts_on < today:
        raise Invalid("Choose today or a later day.", field="starts_on")
    if starts_on > today + FURTHEST_START:
        raise Invalid(f"Choose a start within {FURTHEST_START.days} days.", field="starts_on")


def offered_features(sku: str, features: Sequence[str]) -> tuple[str, ...]:
    """Return the features asked for and those the SKU always includes, sorted.

    Raises:
        Invalid: there are none, or one that the SKU does not offer.
    """
    template = template_of(sku)
    unknown = sorted(set(features) - set(template.features))
    if unknown:
        raise Invalid(f"{sku} does not offer {', '.join(unknown)}.", field="features")
    if not features:
        raise Invalid("Choose at least one feature.", field="features")
    return tuple(sorted({*features, *template.always}))
