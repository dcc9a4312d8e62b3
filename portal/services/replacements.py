"""Customers replace their own licenses: the file was lost, or the instance has a new fingerprint.

Invariant: a customer replaces only the newest license of their own deployment, while it is in
force; so nobody gets around a hold or a revocation this way, and no old file comes to life again.
How often is judged by the act itself while it holds the deployment.
"""

from dataclasses import dataclass

from portal.db.acts import Act
from portal.db.licenses import License
from portal.domain.advice import INSTALLABLE
from portal.domain.errors import Conflict
from portal.services.acts.kinds import Ask
from portal.services.acts.machinery import Preview, preview, submit
from portal.services.acts.replace import REPLACE, Replace
from portal.services.context import Context
from portal.services.licenses import account_license, standing
from portal.services.lines import lock_line, newest_license


@dataclass(frozen=True, kw_only=True)
class Replacement:
    """What a customer wants to replace, and why."""

    license_id: str
    fingerprint: str | None = None
    """The new one; None: as it is."""
    at_once: bool = False
    """Whether the old file stops counting at once."""
    reason: str


def preview_replacement(
    context: Context, account_id: str, person_id: str, wanted: Replacement
) -> Preview:
    """Say what a replacement would do. Needs a writing unit.

    Raises:
        NotFound: there is no such license in this account.
        Conflict: it is not the newest, or not in force.
        LimitReached: it was replaced often enough.
        Invalid: the fingerprint is unfit.
    """
    _require_own(context, account_id, wanted.license_id)
    return preview(context, REPLACE, _ask(person_id, wanted))


def replace_license(
    context: Context, account_id: str, person_id: str, wanted: Replacement, *, seen: str
) -> Act:
    """Replace a license; `seen` is the fingerprint of the preview that the person confirmed.

    Raises:
        NotFound, Conflict, LimitReached, Invalid: as the preview.
        Stale: something changed since the preview.
    """
    _require_own(context, account_id, wanted.license_id)
    return submit(context, REPLACE, _ask(person_id, wanted), seen=seen)


def replaceable(context: Context, license_: License) -> bool:
    """Say whether customers can replace this license: the newest of its line, and in force."""
    newest = newest_license(context, license_.deployment_id)
    is_newest = newest is not None and newest.id == license_.id
    return is_newest and standing(context, license_).state in INSTALLABLE


def _ask(person_id: str, wanted: Replacement) -> Ask:
    fingerprints = () if wanted.fingerprint is None else (wanted.fingerprint,)
    return Ask(
        subject_id=wanted.license_id,
        params=Replace(fingerprints=fingerprints, at_once=wanted.at_once),
        reason=wanted.reason,
        by=person_id,
    )


def _require_own(context: Context, account_id: str, license_id: str) -> None:
    license_ = account_license(context, account_id, license_id)
    # The deployment is held, so that what is judged here still holds when the act runs.
    lock_line(context, license_.deployment_id)
    context.session.refresh(license_)
    if not replaceable(context, license_):
        state = standing(context, license_).state
        if state in INSTALLABLE:
            raise Conflict("A newer license of this deployment is there or on its way; use that.")
        raise Conflict(f"This license is {state}; only one in force can be replaced.")
