"""Sealing the audit trail: a hash chain over committed rows, made by the worker every second.

Rows are not chained when they are written: every writer would have to wait for the one before. A
seal covers the committed rows that no earlier seal covers, whatever their numbers, and the lease
rows up to a number below which no open transaction can still write. The newest seal is anchored in
each published bundle. So if somebody changes a row and computes the chain again, it disagrees with
the bundles that others hold.

Each seal also says up to which number all audit rows are sealed for good. The search for unsealed
rows starts there, so it costs what the last minutes hold, not the whole trail.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, TypeVar

from sqlalchemy import Select, func, select, true

from licensing.keys import ZERO_SHA256
from licensing.verify import KeysetTrust, verify_bundle
from portal.db.audit import AuditRow, AuditSeal, SealedRow, append_seal, newest_seal
from portal.db.bundles import Bundle
from portal.db.leases import Lease
from portal.services.context import SYSTEM, Context, Transactions
from portal.services.keys import current_keyset, unix

LEASE_SETTLED: Final = timedelta(minutes=3)
"""Longer than any transaction lasts, clock errors included: no row older than this can appear."""
ROWS_SETTLED: Final = timedelta(minutes=10)
"""More than twice the longest transaction plus twice the largest clock error.

Twice, because the begins of two transactions are compared, and either may have numbered its row at
its very end.
"""
BATCH: Final = 5000
UNSEALED_ALARM: Final = timedelta(seconds=60)


T = TypeVar("T")


@dataclass(frozen=True)
class Broken:
    """Where the chain is broken, and why."""

    seal_number: int
    why: str


def row_facts(row: AuditRow) -> dict[str, Any]:
    """Return the facts of a row that a seal covers: all of them."""
    return {
        "account_id": row.account_id,
        "action": row.action,
        "actor_id": row.actor_id,
        "actor_kind": row.actor_kind,
        "address": row.address,
        "at": row.at.isoformat(),
        "detail": row.detail,
        "http_request_id": row.http_request_id,
        "id": row.id,
        "reason": row.reason,
        "subject_id": row.subject_id,
        "subject_kind": row.subject_kind,
    }


def rows_digest(facts: Iterable[dict[str, Any]]) -> str:
    """Return the SHA-256 over the rows' facts, one JSON line each, in order of their numbers."""
    digest = hashlib.sha256()
    for fact in sorted(facts, key=lambda each: int(each["id"])):
        line = json.dumps(fact, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
        digest.update(line.encode() + b"\n")
    return digest.hexdigest()


def seal_digest(seal: AuditSeal) -> str:
    """Return the SHA-256 that a seal's columns must have."""
    facts = {
        "lease_from": seal.lease_from,
        "lease_to": seal.lease_to,
        "leases_sha256": seal.leases_sha256,
        "number": seal.number,
        "prev_sha256": seal.prev_sha256,
        "row_count": seal.row_count,
        "rows_sha256": seal.rows_sha256,
        "sealed_at": seal.sealed_at.isoformat(),
    }
    return hashlib.sha256(
        json.dumps(facts, sort_keys=True, separators=(",", ":")).encode()
    ).hexdigest()


def seal_committed(transactions: Transactions) -> AuditSeal | None:
    """Seal what no seal covers yet.

    Returns None if there is nothing new, or if another worker has just sealed it. The rows are read
    and hashed before the writing unit opens; that unit only adds the seal.
    """
    with transactions.reading(SYSTEM) as context:
        last = newest_seal(context.session)
        rows = context.session.scalars(
            _without_seal(select(AuditRow), _settled_to(last)).order_by(AuditRow.id).limit(BATCH)
        ).all()
        lease_from = 0 if last is None else last.lease_to
        leases = _settled_leases(context, lease_from)
        if not rows and not leases:
            return None
        seal = AuditSeal(
            number=1 if last is None else last.number + 1,
            sealed_at=context.at,
            row_count=len(rows),
            rows_sha256=rows_digest(row_facts(row) for row in rows),
            lease_from=lease_from,
            lease_to=leases[-1][0] if leases else lease_from,
            leases_sha256=_leases_digest(leases),
            prev_sha256=ZERO_SHA256 if last is None else last.seal_sha256,
            settled_to=_settle(context, rows, _settled_to(last)),
        )
        seal.seal_sha256 = seal_digest(seal)
    with transactions.writing(SYSTEM) as context:
        return seal if append_seal(context.session, seal, [row.id for row in rows]) else None


def _settled_to(last: AuditSeal | None) -> int:
    return 0 if last is None else last.settled_to


def _without_seal(query: Select[T], settled_to: int) -> Select[T]:
    """Narrow a query of audit rows to those without a seal, looking only above a settled number.

    Both sides of the join are bounded, so neither table is read from its beginning.
    """
    return query.outerjoin(
        SealedRow,
        (SealedRow.audit_row_id == AuditRow.id) & (SealedRow.audit_row_id > settled_to),
    ).where(AuditRow.id > settled_to, SealedRow.audit_row_id.is_(None))


def _settle(context: Context, rows: Sequence[AuditRow], settled_to: int) -> int:
    """Return the number up to which everything is sealed once these unsealed rows are.

    A row that is still to come has a higher number than every row older than `ROWS_SETTLED`. This
    is computed after the rows were read, so a row committed in between counts as still to come.
    """
    sealed_to = rows[-1].id if rows else settled_to
    unsettled = context.session.scalar(
        select(func.min(AuditRow.id)).where(
            AuditRow.id > settled_to, AuditRow.at >= context.at - ROWS_SETTLED
        )
    )
    if unsettled is None:
        return sealed_to
    return min(unsettled - 1, sealed_to) if len(rows) == BATCH else unsettled - 1


def _settled_leases(context: Context, lease_from: int) -> list[tuple[int, str]]:
    """Return the last number and the digest of the leases to seal; none can still come below it."""
    before = context.at - LEASE_SETTLED
    unsettled = context.session.scalar(
        select(func.min(Lease.number)).where(Lease.number > lease_from, Lease.issued_at >= before)
    )
    # The clock is read again: a lease may have been committed since.
    leases = context.session.execute(
        select(Lease.number, Lease.payload_sha256)
        .where(Lease.number > lease_from, Lease.issued_at < before)
        .where(true() if unsettled is None else Lease.number < unsettled)
        .order_by(Lease.number)
        .limit(BATCH)
    )
    return [(number, sha256) for number, sha256 in leases]


def _leases_digest(leases: Iterable[tuple[int, str]]) -> str:
    digest = hashlib.sha256()
    for number, payload_sha256 in leases:
        digest.update(f"{number}:{payload_sha256}\n".encode())
    return digest.hexdigest()


def verify_chain(context: Context) -> Broken | None:
    """Check every seal against its rows, its leases and its predecessor; None if all match."""
    prev, leases_to, settled_to = ZERO_SHA256, 0, 0
    seals = context.session.scalars(select(AuditSeal).order_by(AuditSeal.number))
    for number, seal in enumerate(seals, start=1):
        if seal.number != number:
            return Broken(number, "the seal is missing")
        if seal.prev_sha256 != prev or seal.lease_from != leases_to:
            return Broken(number, "it does not continue the seal before it")
        why = _why_broken(context, seal, settled_to)
        if why is not None:
            return Broken(number, why)
        prev, leases_to = seal.seal_sha256, seal.lease_to
        settled_to = max(settled_to, seal.settled_to)
    return None


def _why_broken(context: Context, seal: AuditSeal, settled_to: int) -> str | None:
    """Check one seal against what it covers; `settled_to` comes from the seals before it."""
    session = context.session
    if seal_digest(seal) != seal.seal_sha256:
        return "its own columns were changed"
    rows = session.scalars(
        select(AuditRow)
        .join(SealedRow, SealedRow.audit_row_id == AuditRow.id)
        .where(SealedRow.seal_number == seal.number)
    ).all()
    if len(rows) != seal.row_count or rows_digest(map(row_facts, rows)) != seal.rows_sha256:
        return "a row it covers was changed, removed or added"
    leases = session.execute(
        select(Lease.number, Lease.payload_sha256)
        .where(Lease.number > seal.lease_from, Lease.number <= seal.lease_to)
        .order_by(Lease.number)
    )
    if _leases_digest((number, sha256) for number, sha256 in leases) != seal.leases_sha256:
        return "a lease it covers was changed, removed or added"
    unsealed = session.scalar(
        _without_seal(select(AuditRow.id), settled_to)
        .where(AuditRow.id <= seal.settled_to)
        .limit(1)
    )
    return None if unsealed is None else "a row up to where it settled the trail has no seal"


def check_anchors(context: Context, given: Sequence[bytes] = ()) -> Broken | None:
    """Check that the chain still has the seal that each published bundle names.

    A chain that somebody computed again is consistent in itself, but disagrees with a bundle signed
    before. `given` are bundles from outside this database; access to it cannot change them.

    Raises:
        LicensingError: a bundle does not verify under the keyset.
    """
    trust = KeysetTrust(current_keyset(context).document)
    stored = context.session.scalars(select(Bundle.envelope).order_by(Bundle.version))
    for envelope in (*stored, *given):
        bundle = verify_bundle(envelope, trust, unix(context.at), require_current=False).document
        anchor = (bundle.ext or {}).get("audit_seal")
        if anchor is None:
            continue
        number, sha256 = anchor["number"], anchor["sha256"]
        seal = context.session.get(AuditSeal, number)
        if seal is None or seal.seal_sha256 != sha256:
            return Broken(number, f"bundle {bundle.version} names another seal of this number")
    return None


def unsealed_since(context: Context) -> datetime | None:
    """Return the instant of the first row that no seal covers; None if all are sealed."""
    settled_to = _settled_to(newest_seal(context.session))
    # By number: for the least instant, SQLite would walk the index of instants from its beginning.
    return context.session.scalar(
        _without_seal(select(AuditRow.at), settled_to).order_by(AuditRow.id).limit(1)
    )


def sealing_is_late(context: Context) -> bool:
    """Say whether rows have waited for a seal for over a minute."""
    oldest = unsealed_since(context)
    return oldest is not None and context.at - oldest > UNSEALED_ALARM
