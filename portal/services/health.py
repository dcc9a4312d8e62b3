"""The portal's health: the same facts for `portal doctor`, the staff health page and readiness."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from sqlalchemy import func, select

from licensing.errors import LicensingError
from portal.db import migrate
from portal.db.audit import AuditRow
from portal.db.bundles import latest_bundle
from portal.db.emails import Email
from portal.db.heartbeats import last_beat
from portal.db.jobs import Job
from portal.db.session import Database, clock_difference
from portal.domain.causes import APPROVALS_REST_ON
from portal.domain.errors import PortalError
from portal.domain.ports import SignerUnavailable
from portal.services.adoption import count_unadopted
from portal.services.audit_seals import sealing_is_late
from portal.services.context import Context
from portal.services.custody import known_keyset
from portal.services.keys import current_keyset, role_signers, unix
from portal.services.license_checks import check_licenses, last_check
from portal.services.refusals import unreviewed_alarms

WORKER_SILENT: Final = timedelta(seconds=60)
KEYSET_WARNING_S: Final = 30 * 86400
CHECK_LATE: Final = timedelta(hours=36)
MOST_FAULTS: Final = 5
SEAL: Final = "seal"
MAX_CLOCK_DIFFERENCE_S: Final = 60


@dataclass(frozen=True)
class Finding:
    """The result of one check."""

    name: str
    well: bool
    detail: str
    """What was found and, if something is wrong, how to mend it."""


def worker_is_silent(context: Context) -> bool:
    """Say whether no worker has given a sign of life for a minute."""
    seen = last_beat(context.session, "worker")
    return seen is None or context.at - seen > WORKER_SILENT


def check_signer(context: Context, role: str) -> Finding:
    """Say whether this process can sign with the active key of a role."""
    name = f"{role} key"
    try:
        signers = role_signers(context, role)
    except (SignerUnavailable, PortalError, LicensingError) as error:
        return Finding(name, False, str(error))
    return Finding(name, True, " and ".join(signer.keyid for signer in signers))


def check_keyset(context: Context) -> Finding:
    """Say whether there is a keyset that will not expire soon."""
    try:
        keyset = current_keyset(context).document
    except (PortalError, LicensingError) as error:
        return Finding("keyset", False, str(error))
    left = keyset.expires_at - unix(context.at)
    detail = f"version {keyset.version}, {left // 86400} days left"
    return Finding("keyset", left > KEYSET_WARNING_S, detail)


def check_schema(database: Database) -> Finding:
    """Say whether the database is at this code's schema."""
    current, head = migrate.current(database.engine), migrate.head()
    if current != head:
        return Finding("schema", False, f"at {current}, not {head}; run `portal db upgrade`")
    return Finding("schema", True, head)


def check_clock(context: Context) -> Finding:
    """Say whether this machine's clock agrees with the database's."""
    difference = clock_difference(context.session, context.at)
    detail = f"{difference:+.1f} s from the database's clock"
    return Finding("clock", abs(difference) <= MAX_CLOCK_DIFFERENCE_S, detail)


def findings(context: Context, roles: tuple[str, ...]) -> list[Finding]:
    """Check everything a portal needs; `roles` are those whose keys this process should hold."""
    found = [check_keyset(context), check_clock(context)]
    found += [check_signer(context, role) for role in roles if role != SEAL]
    found += _custody_findings(context, holds_seal=SEAL in roles)
    bundle = latest_bundle(context.session)
    if bundle is None:
        found.append(Finding("bundle", False, "none published; run `portal bundle publish`"))
    else:
        age = context.at - bundle.issued_at
        found.append(
            Finding("bundle", age < timedelta(days=2), f"version {bundle.version}, {age.days} days")
        )
    silent = worker_is_silent(context)
    found.append(
        Finding(
            "worker",
            not silent,
            "silent for a minute; start `portal worker`" if silent else "running",
        )
    )
    late = sealing_is_late(context)
    found.append(
        Finding(
            "audit seals",
            not late,
            "rows have waited over a minute for a seal" if late else "current",
        )
    )
    parked = _count_parked(context)
    found.append(
        Finding(
            "jobs",
            parked == 0,
            f"{parked} given up; see their last error" if parked else "none given up",
        )
    )
    failed = context.session.scalar(
        select(func.count()).select_from(Email).where(Email.state == "failed")
    )
    found.append(
        Finding("mail", not failed, f"{failed} could not be sent" if failed else "none undelivered")
    )
    return found


def check_seal(context: Context) -> Finding:
    """Say whether this process can seal causes and knows the published keyset."""
    try:
        keyid = context.ports.custody.seal(b"doctor").keyid
        known_keyset(context)
    except (SignerUnavailable, PortalError, LicensingError) as error:
        return Finding("seal key", False, str(error))
    return Finding("seal key", True, keyid)


def check_issued(context: Context) -> Finding:
    """Verify and compute anew every license and bundle, as the nightly check does."""
    try:
        checked = check_licenses(context)
    except (SignerUnavailable, PortalError, LicensingError) as error:
        return Finding("licenses", False, str(error))
    return _told(checked.licenses, checked.bundles, [str(each) for each in checked.faults])


def _told(licenses: int, bundles: int, faults: Sequence[str]) -> Finding:
    detail = f"{licenses} licenses and {bundles} bundles checked"
    if faults:
        detail = f"{detail}; {len(faults)} fall short: {'; '.join(faults[:MOST_FAULTS])}"
    return Finding("licenses", not faults, detail)


def _custody_findings(context: Context, *, holds_seal: bool) -> list[Finding]:
    found = [check_seal(context)] if holds_seal else []
    found.append(Finding("approvals", True, APPROVALS_REST_ON[context.policy.approvals]))
    waiting = count_unadopted(context)
    found.append(
        Finding(
            "causes",
            waiting == 0,
            f"{waiting} entitlements were never proved; review them: `portal custody adopt`"
            if waiting
            else "every live entitlement was proved",
        )
    )
    refused: Sequence[AuditRow] = ()
    try:
        refused = unreviewed_alarms(context, holds_seal=holds_seal)
    except SignerUnavailable:
        refused = unreviewed_alarms(context, holds_seal=False)
    found.append(
        Finding(
            "refusals",
            not refused,
            f"{len(refused)} since the last review, the last for {refused[0].subject_id}: "
            f"{refused[0].reason}; see `portal custody review`"
            if refused
            else "none since the last review",
        )
    )
    last = last_check(context)
    if last is None:
        found.append(Finding("licenses", True, "not checked yet; the worker does it each night"))
    else:
        told = _told(
            int(last.detail["licenses"]), int(last.detail["bundles"]), last.detail["first"]
        )
        age = context.at - last.at
        recent = age < CHECK_LATE
        detail = f"{told.detail}, {age.days} days ago"
        found.append(Finding("licenses", told.well and recent, detail))
    return found


def _count_parked(context: Context) -> int:
    return (
        context.session.scalar(
            select(func.count()).select_from(Job).where(Job.parked_at.is_not(None))
        )
        or 0
    )
