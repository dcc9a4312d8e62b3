"""The policy that decides whether an evaluation is granted without staff, over plain facts.

Source: "evaluate" of the portal's flows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, Final

from portal.domain.catalog import CATALOG
from portal.domain.errors import Invalid

WORKING_HOURS_START: Final = 9
"""UTC, on Monday to Friday."""
WORKING_HOURS_END: Final = 17


@dataclass(frozen=True)
class Applicant:
    """The facts the policy looks at."""

    email_confirmed: bool
    domain: str | None
    registrable_domain: str | None
    is_free_mail: bool
    is_denied: bool
    last_of_account: datetime | None
    """When an evaluation was last granted to this account."""
    last_of_domain: datetime | None
    """When one was last granted to anybody in this registrable domain."""


@dataclass(frozen=True)
class Decision:
    """What the policy says, and why."""

    granted: bool
    reasons: tuple[str, ...]
    """For staff: the reasons against an automatic grant; empty if it is granted."""


def decide_evaluation(applicant: Applicant, at: datetime, interval: timedelta) -> Decision:
    """Grant an evaluation immediately, or leave the decision to staff."""
    reasons = []
    if not applicant.email_confirmed:
        reasons.append("The address is not confirmed.")
    if applicant.registrable_domain is None:
        reasons.append("The address has no registrable domain.")
    if applicant.is_free_mail:
        reasons.append(f"{applicant.domain} provides free mailboxes.")
    if applicant.is_denied:
        reasons.append(f"{applicant.domain} is on the deny list.")
    for last, whose in (
        (applicant.last_of_account, "This account"),
        (applicant.last_of_domain, f"Somebody at {applicant.registrable_domain}"),
    ):
        if last is not None and at - last < interval:
            reasons.append(
                f"{whose} had an evaluation on {last:%Y-%m-%d}; "
                f"the interval is {interval.days} days."
            )
    return Decision(not reasons, tuple(reasons))


def promised_answer(at: datetime, within: timedelta) -> datetime:
    """Return when a request made at `at` must have its answer: in working hours, UTC."""
    answer = at + within
    if answer.hour >= WORKING_HOURS_END:
        answer += timedelta(days=1)
    while answer.weekday() >= 5:
        answer += timedelta(days=1)
    return answer.replace(
        hour=max(WORKING_HOURS_START, min(answer.hour, WORKING_HOURS_END)),
        minute=0,
        second=0,
        microsecond=0,
    )


def check_features(sku: str, features: Sequence[str]) -> list[str]:
    """Return the requested features, sorted, with those the SKU always includes.

    Raises:
        Invalid: no feature was requested, or one that the SKU does not offer.
    """
    template = CATALOG[sku]
    unknown = sorted(set(features) - set(template.features))
    if unknown:
        raise Invalid(f"{sku} does not offer {', '.join(unknown)}.", field="features")
    if not features:
        raise Invalid("Choose at least one feature.", field="features")
    return sorted({*features, *template.always})


def check_start(starts_on: date, today: date) -> None:
    """Require a start date that staff can still arrange.

    Raises:
        Invalid: the date is in the past, or more than 180 days ahead.
    """
    if starts_on < today:
        raise Invalid("The start date is in the past.", field="starts_on")
    if starts_on > today + timedelta(days=180):
        raise Invalid("Choose a start date within 180 days.", field="starts_on")


@dataclass(frozen=True)
class Difference:
    """One term that staff changed."""

    term: str
    asked: str
    granted: str


def differences(asked: dict[str, Any], granted: dict[str, Any]) -> list[Difference]:
    """Return how the grant differs from the request; both hold plain JSON values."""
    found = []
    for term in ("mode", "days", "volume_tokens", "max_instances", "features", "fingerprint"):
        if term not in asked:
            continue
        wanted, given = asked[term], granted.get(term)
        if wanted != given:
            found.append(Difference(term, _said(term, wanted), _said(term, given)))
    return found


def _said(term: str, value: Any) -> str:
    if value is None:
        return "any instance" if term == "fingerprint" else "none"
    if isinstance(value, list):
        return ", ".join(str(each) for each in value) or "none"
    if term == "days":
        return f"{value} days"
    if term == "volume_tokens":
        return f"{value:,} tokens in any 7 days"
    return str(value)
