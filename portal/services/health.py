"""The portal's health: the same facts for `portal doctor`, the staff health page and readiness."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from sqlalchemy import func, select

from licensing.errors import LicensingError
from portal.db import migrate
from portal.db.bundles import latest_bundle
from portal.db.emails import Email
from portal.db.heartbeats import last_beat
from portal.db.jobs import Job
from portal.db.session import Database, clock_difference
from portal.domain.errors import PortalError
from portal.domain.ports import SignerUnavailable
from portal.services.audit_seals import sealing_is_late
from portal.services.context import Context
from portal.services.keys import current_keyset, role_signers, unix

WORKER_SILENT: Final = timedelta(seconds=60)
KEYSET_WARNING_S: Final = 30 * 86400
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
    found += [check_signer(context, role) for role in roles]
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


def _count_parked(context: Context) -> int:
    return (
        context.session.scalar(
            select(func.count()).select_from(Job).where(Job.parked_at.is_not(None))
        )
        or 0
    )
