"""Telling owners and operators what became of a license, once each.

Whoever acts on a license calls `tell_license_changed` in the transaction of the act: the notice,
the mails and the act stand or fall together. What time and use bring about is found by
`portal.services.reminders`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from licensing.license import License as LicensePayload
from portal.db.deployments import Deployment
from portal.db.licenses import License, suspended_since
from portal.db.notices import note_told
from portal.domain.catalog import CATALOG
from portal.domain.notices import NoticeKind, kind_of_release
from portal.domain.standing import HoldCause
from portal.domain.terms import Mode, Terms, differences
from portal.services.context import Context
from portal.services.emails import tell_members

TOLD: Final = ("owner", "operator")
"""The roles of members who are told."""
TEMPLATES: Final = {
    NoticeKind.EXPIRES_30D: "license-expiring",
    NoticeKind.EXPIRES_14D: "license-expiring",
    NoticeKind.EXPIRES_7D: "license-expiring",
    NoticeKind.EXPIRES_1D: "license-expiring",
    NoticeKind.EXPIRES_24H: "license-expiring",
    NoticeKind.EXPIRES_4H: "license-expiring",
    NoticeKind.EXPIRED: "license-expired",
    NoticeKind.BUDGET_80: "license-budget-low",
    NoticeKind.BUDGET_100: "license-budget-used",
    NoticeKind.INSTALL: "license-install",
    NoticeKind.INSTALL_7D: "license-install",
    NoticeKind.INSTALL_1D: "license-install",
    NoticeKind.ISSUED: "license-issued",
    NoticeKind.REPLACED: "license-replaced",
    NoticeKind.TOPPED_UP: "license-topped-up",
    NoticeKind.SUSPENDED: "license-suspended",
    NoticeKind.REINSTATED: "license-reinstated",
    NoticeKind.REVOKED: "license-revoked",
    NoticeKind.CONTRACTS_ENDING: "contracts-ending",
}


@dataclass(frozen=True)
class Step:
    """What the reader is asked to do, where that can be done today."""

    label: str
    """Of the button."""
    path: str
    text: str = ""
    """What it leads to, in a sentence."""


def tell_license_changed(
    context: Context,
    license_: License,
    kind: NoticeKind,
    *,
    subject_id: str | None = None,
    cause: HoldCause | None = None,
    note: str = "",
) -> bool:
    """Tell an account's owners and operators what was done to a license; False: told before.

    Args:
        context: the unit of work of the act.
        license_: the license the account has to look at.
        kind: what was done.
        subject_id: what it is told of once: the hold for `suspended` and `reinstated`, since a
            license can be held again. None: the license.
        cause: why it is on hold, or was.
        note: words of whoever acted to the customer. Never the reason that is for staff alone.
    """
    held = suspended_since(context.session, {license_.deployment_id})
    facts = {
        "cause": None if cause is None else cause.value,
        "note": note,
        "still_held": license_.deployment_id in held,
    }
    return tell(context, license_, kind, facts, subject_id=subject_id)


def tell_released(context: Context, license_: License) -> None:
    """Tell that a license was released: the first of its line, a replacement or a top-up."""
    after = license_.document
    if after is None:
        return
    old = None if after.supersedes is None else context.session.get(License, after.supersedes)
    before = None if old is None else old.document
    facts: dict[str, Any] = {"changes": changes(before, after), "old_ends_at": None}
    if old is not None and old.superseded_at is not None and old.expires_at is not None:
        facts["old_ends_at"] = min(old.superseded_at, old.expires_at).isoformat()
    tell(context, license_, kind_of_release(before, after), facts)


def tell(
    context: Context,
    license_: License,
    kind: NoticeKind,
    facts: Mapping[str, Any],
    *,
    subject_id: str | None = None,
    step: Step | None = None,
) -> bool:
    """Note that something is told of a license and queue its mails; False when it was told before.

    `facts` are what the template needs beside those of the license.
    """
    if not note_told(context.session, subject_id or license_.id, kind, context.at):
        return False
    page = f"/account/licenses/{license_.id}"
    step = step or Step("Open the license", page)
    deployment = context.session.get_one(Deployment, license_.deployment_id)
    title = CATALOG[license_.sku].title if license_.sku in CATALOG else license_.sku
    tell_members(
        context,
        license_.account_id,
        TEMPLATES[kind],
        {
            "kind": kind.value,
            "deployment": deployment.name,
            "sku": license_.sku,
            "title": title,
            "mode": license_.mode.value,
            "license_id": license_.id,
            "expires_at": license_.expires_at.isoformat() if license_.expires_at else "",
            "url": context.policy.origin + step.path,
            "action": step.label,
            "step": step.text,
            "license_url": context.policy.origin + page,
            **facts,
        },
        *TOLD,
    )
    return True


def changes(before: LicensePayload | None, after: LicensePayload) -> list[dict[str, str]]:
    """Return what a license grants otherwise than the one before, in words."""
    if before is None:
        return []
    return [
        {"term": each.title, "before": each.asked, "after": each.granted}
        for each in differences(_terms(before), _terms(after))
    ]


def _terms(payload: LicensePayload) -> Terms:
    return Terms(
        sku=payload.sku,
        mode=Mode(payload.mode),
        features=payload.features,
        limits=payload.limits,
        tokens_total=None if payload.budget is None else payload.budget.tokens_total,
        fingerprints=payload.binding.fingerprints,
        support_tier=payload.support_tier,
    )
