"""Sealing the audit trail: a hash chain over committed rows, made by the worker every second.

Rows are not chained when they are written, which would make every writer wait for the one before. A
seal covers the committed rows no earlier seal covers, whatever their numbers, and the lease rows up
to a number below which no open transaction can still write. The newest seal is anchored in each
published bundle, so that a chain computed anew after a change disagrees with a bundle somebody
holds.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import func, select, true

from licensing.keys import ZERO_SHA256
from licensing.verify import KeysetTrust, verify_bundle
from portal.db.audit import AuditRow, AuditSeal, SealedRow
from portal.db.bundles import Bundle
from portal.db.leases import Lease
from portal.db.turns import take_turn
from portal.services.context import Context
from portal.services.keys import current_keyset, unix

SEAL_TURN: Final = "audit-seal"
LEASE_SETTLED: Final = timedelta(minutes=3)
"""Longer than a transaction lasts, on a clock as wrong as it may be: no row before comes later."""
BATCH: Final = 5000
UNSEALED_ALARM: Final = timedelta(seconds=60)


@dataclass(frozen=True)
class Broken:
    """Where the chain does not hold, and why."""

    seal_number: int
    why: str


def row_facts(row: AuditRow) -> dict[str, Any]:
    """Return what a seal covers of a row: all of it."""
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
    """Return the SHA-256 that a seal's own columns must give."""
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


def seal_committed(context: Context) -> AuditSeal | None:
    """Seal what no seal covers yet; None when there is nothing new."""
    session = context.session
    take_turn(session, SEAL_TURN)
    rows = session.scalars(
        select(AuditRow)
        .outerjoin(SealedRow, SealedRow.audit_row_id == AuditRow.id)
        .where(SealedRow.audit_row_id.is_(None))
        .order_by(AuditRow.id)
        .limit(BATCH)
    ).all()
    last = session.scalar(select(AuditSeal).order_by(AuditSeal.number.desc()).limit(1))
    lease_from = 0 if last is None else last.lease_to
    unsettled = session.scalar(
        select(func.min(Lease.number)).where(
            Lease.number > lease_from, Lease.issued_at >= context.at - LEASE_SETTLED
        )
    )
    leases = session.execute(
        select(Lease.number, Lease.payload_sha256)
        .where(Lease.number > lease_from)
        .where(true() if unsettled is None else Lease.number < unsettled)
        .order_by(Lease.number)
        .limit(BATCH)
    )
    sealed_leases = [(number, sha256) for number, sha256 in leases]
    if not rows and not sealed_leases:
        return None
    seal = AuditSeal(
        number=1 if last is None else last.number + 1,
        sealed_at=context.at,
        row_count=len(rows),
        rows_sha256=rows_digest(row_facts(row) for row in rows),
        lease_from=lease_from,
        lease_to=sealed_leases[-1][0] if sealed_leases else lease_from,
        leases_sha256=_leases_digest(sealed_leases),
        prev_sha256=ZERO_SHA256 if last is None else last.seal_sha256,
        seal_sha256="",
    )
    seal.seal_sha256 = seal_digest(seal)
    session.add(seal)
    session.flush()
    session.add_all(SealedRow(audit_row_id=row.id, seal_number=seal.number) for row in rows)
    session.flush()
    return seal


def _leases_digest(leases: Iterable[tuple[int, str]]) -> str:
    digest = hashlib.sha256()
    for number, payload_sha256 in leases:
        digest.update(f"{number}:{payload_sha256}\n".encode())
    return digest.hexdigest()


def verify_chain(context: Context) -> Broken | None:
    """Check every seal against its rows, its leases and its predecessor; None when all hold."""
    prev, leases_to = ZERO_SHA256, 0
    seals = context.session.scalars(select(AuditSeal).order_by(AuditSeal.number))
    for number, seal in enumerate(seals, start=1):
        if seal.number != number:
            return Broken(number, "the seal is missing")
        if seal.prev_sha256 != prev or seal.lease_from != leases_to:
            return Broken(number, "it does not continue the seal before it")
        if seal_digest(seal) != seal.seal_sha256:
            return Broken(number, "its own columns were changed")
        rows = context.session.scalars(
            select(AuditRow)
            .join(SealedRow, SealedRow.audit_row_id == AuditRow.id)
            .where(SealedRow.seal_number == number)
        ).all()
        if len(rows) != seal.row_count or rows_digest(map(row_facts, rows)) != seal.rows_sha256:
            return Broken(number, "a row it covers was changed, removed or added")
        leases = context.session.execute(
            select(Lease.number, Lease.payload_sha256)
            .where(Lease.number > seal.lease_from, Lease.number <= seal.lease_to)
            .order_by(Lease.number)
        )
        if _leases_digest((lease.number, lease.payload_sha256) for lease in leases) != (
            seal.leases_sha256
        ):
            return Broken(number, "a lease it covers was changed, removed or added")
        prev, leases_to = seal.seal_sha256, seal.lease_to
    return None


def check_anchors(context: Context, given: Sequence[bytes] = ()) -> Broken | None:
    """Check that the chain still has the seal each published bundle names.

    A chain that somebody computed anew holds by itself; it disagrees with a bundle signed before.
    `given` are bundles from outside this database, which nobody with access to it could change.

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
    """Return the instant of the oldest row that no seal covers; None when all are sealed."""
    return context.session.scalar(
        select(func.min(AuditRow.at))
        .outerjoin(SealedRow, SealedRow.audit_row_id == AuditRow.id)
        .where(SealedRow.audit_row_id.is_(None))
    )


def sealing_is_late(context: Context) -> bool:
    """Say whether rows have waited for a seal for more than a minute."""
    oldest = unsealed_since(context)
    return oldest is not None and context.at - oldest > UNSEALED_ALARM
