"""What is true of a license at an instant: the one place that says so.

Pages, lists, leases, the revocation bundle, mails, the command and the simulator ask `standing_of`.
Nothing of its answer is stored.

Source: "Standing has one precedence" of the life of a license.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final


class LicenseState(StrEnum):
    """What a license is; the first that applies, in this order."""

    REVOKED = "revoked"
    SUPERSEDED = "superseded"
    """Its overlap with the license that replaced it has ended."""
    SUSPENDED = "suspended"
    EXPIRED = "expired"
    NOT_YET_VALID = "not-yet-valid"
    ISSUING = "issuing"
    """Requested; its signature is not stored yet."""
    ISSUED = "issued"


class HoldCause(StrEnum):
    """Why a license is suspended."""

    DISPUTE = "dispute"
    PAST_DUE = "past-due"
    REFUND = "refund"
    STAFF = "staff"
    ABUSE = "abuse"


class RevokedReason(StrEnum):
    """Why a license was revoked, as bundles say it."""

    WITHDRAWN = "withdrawn"
    KEY_COMPROMISE = "key-compromise"


COMMERCE_CAUSES: Final = frozenset({HoldCause.DISPUTE, HoldCause.PAST_DUE, HoldCause.REFUND})
"""Causes that lie in what was paid: such a hold is on that alone."""


@dataclass(frozen=True, kw_only=True)
class LicenseFacts:
    """What is stored of a license, as far as its standing depends on it."""

    released_at: datetime | None
    """When its signature was stored; None if it is not signed yet."""
    not_before_at: datetime | None = None
    """None until the payload is fixed, as is the end."""
    expires_at: datetime | None = None
    superseded_at: datetime | None = None
    """When it stops counting because another replaced it; this may lie ahead."""
    superseded_by: str | None = None
    revoked_at: datetime | None = None
    is_held: bool = False
    """Whether its line is suspended."""


@dataclass(frozen=True)
class Standing:
    """What is true of a license at an instant."""

    state: LicenseState
    replaced_by: str | None = None
    """The license that replaced it, even while they overlap."""

    @property
    def reason(self) -> str | None:
        """The reason that leases and bundle entries give; None while the license may serve."""
        return _REASONS.get(self.state)


_REASONS: Final = {
    LicenseState.REVOKED: "withdrawn",
    LicenseState.SUPERSEDED: "replaced",
    LicenseState.SUSPENDED: "on-hold",
    LicenseState.EXPIRED: "expired",
}


def standing_of(facts: LicenseFacts, at: datetime) -> Standing:
    """Say what is true of a license at `at`."""
    applies = {
        LicenseState.REVOKED: _reached(facts.revoked_at, at),
        LicenseState.SUPERSEDED: _reached(facts.superseded_at, at),
        LicenseState.SUSPENDED: facts.is_held,
        LicenseState.EXPIRED: _reached(facts.expires_at, at),
        LicenseState.NOT_YET_VALID: facts.not_before_at is not None and at < facts.not_before_at,
        LicenseState.ISSUING: facts.released_at is None,
        LicenseState.ISSUED: True,
    }
    state = next(state for state in LicenseState if applies[state])
    return Standing(state, facts.superseded_by)


def _reached(moment: datetime | None, at: datetime) -> bool:
    return moment is not None and moment <= at
