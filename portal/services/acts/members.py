"""What members of an account do to their own licenses: replace one, and see what that does.

Renewals, top-ups and other changes of theirs are requests; staff grant them by acts.
"""

from dataclasses import dataclass

from portal.db.acts import Act
from portal.db.licenses import License
from portal.services.acts.kinds import Ask
from portal.services.acts.machinery import Preview, preview, submit
from portal.services.acts.replace import REPLACE, Replace, replacements_left
from portal.services.context import Context
from portal.services.licenses import account_license


@dataclass(frozen=True)
class MemberAct:
    """Who acts on which license of theirs, and why."""

    account_id: str
    license_id: str
    person_id: str
    reason: str


def preview_replacement(context: Context, wanted: MemberAct, params: Replace) -> Preview:
    """Say what replacing a license would do. Needs a writing unit.

    Raises:
        NotFound: there is none in this account.
        PortalError: it would be refused.
    """
    return preview(context, REPLACE, _ask(context, wanted, params))


def replace_license(context: Context, wanted: MemberAct, params: Replace, *, seen: str) -> Act:
    """Replace a license, as the preview with this fingerprint showed.

    Raises:
        NotFound: there is none in this account.
        LimitReached: it was replaced three times in 365 days.
        Stale: what they saw no longer holds.
    """
    return submit(context, REPLACE, _ask(context, wanted, params), seen=seen)


def replacements_left_for(context: Context, license_: License) -> int:
    """Return how often members may still replace a license of this deployment by themselves."""
    return replacements_left(context, license_.deployment_id)


def _ask(context: Context, wanted: MemberAct, params: Replace) -> Ask:
    license_ = account_license(context, wanted.account_id, wanted.license_id)
    return Ask(subject_id=license_.id, params=params, reason=wanted.reason, by=wanted.person_id)
