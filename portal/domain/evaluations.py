"""The policy that decides whether an evaluation is granted without staff.

Source: "evaluate" of the portal's flows.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

WORKING_HOURS_START: Final = 9
"""UTC, Monday to Friday."""
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
    """When this account was last granted an evaluation."""
    last_of_domain: datetime | None
    """When anybody in this registrable domain was last granted one."""


@dataclass(frozen=True)
class Decision:
    """What the policy says, and why."""

    reasons: tuple[str, ...]
    """For staff: the reasons against an automatic grant; empty if it is granted."""

    @property
    def granted(self) -> bool:
        """Whether the evaluation is granted automatically."""
        return not self.reasons


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
    return Decision(tuple(reasons))


def promised_answer(at: datetime, within: timedelta) -> datetime:
    """Return the deadline for answering a request made at `at`, counted in working hours (UTC)."""
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
