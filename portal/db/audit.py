"""The audit trail: rows written together with the act, and seals that chain committed rows.

The database itself refuses UPDATE and DELETE on all three tables (see the first migration).
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Index, insert, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Mapped, Session, mapped_column

from portal.db.base import Base
from portal.db.types import RowNumber, one_of


class AuditRow(Base):
    """Who did what to what, when, why and from where. Holds ids, never personal data."""

    __tablename__ = "audit_rows"
    __table_args__ = (
        one_of("actor_kind", "person", "staff", "system", "command", "instance", "anonymous"),
        Index("ix_audit_rows_subject", "subject_kind", "subject_id"),
        Index("ix_audit_rows_action_at", "action", "at"),
    )

    id: Mapped[int] = mapped_column(RowNumber, primary_key=True)
    at: Mapped[datetime] = mapped_column(index=True)
    action: Mapped[str]
    """A noun and a past participle: `license.issued`, `request.approved`."""
    actor_kind: Mapped[str]
    actor_id: Mapped[str | None]
    account_id: Mapped[str | None] = mapped_column(index=True)
    subject_kind: Mapped[str]
    subject_id: Mapped[str]
    reason: Mapped[str | None]
    detail: Mapped[dict[str, Any]]
    address: Mapped[str | None]
    http_request_id: Mapped[str | None]


class AuditSeal(Base):
    """One link of the chain over committed rows.

    `seal_sha256` covers the number, the instant, the digest of the sealed rows, the range of lease
    rows with their digest, and the seal before it. It leaves out `settled_to`, which only saves the
    sealer work; the check of the chain compares it with the rows themselves.
    """

    __tablename__ = "audit_seals"

    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    sealed_at: Mapped[datetime]
    row_count: Mapped[int]
    rows_sha256: Mapped[str]
    lease_from: Mapped[int] = mapped_column(BigInteger)
    lease_to: Mapped[int] = mapped_column(BigInteger)
    leases_sha256: Mapped[str]
    prev_sha256: Mapped[str]
    seal_sha256: Mapped[str]
    settled_to: Mapped[int] = mapped_column(BigInteger, server_default="0")
    """Every audit row up to this number has a seal, and no transaction can still add one there."""


class SealedRow(Base):
    """Which seal covers an audit row."""

    __tablename__ = "sealed_rows"

    audit_row_id: Mapped[int] = mapped_column(
        RowNumber, ForeignKey("audit_rows.id"), primary_key=True, autoincrement=False
    )
    seal_number: Mapped[int] = mapped_column(ForeignKey("audit_seals.number"), index=True)


def newest_seal(session: Session) -> AuditSeal | None:
    """Return the last seal of the chain."""
    return session.scalar(select(AuditSeal).order_by(AuditSeal.number.desc()).limit(1))


def append_seal(session: Session, seal: AuditSeal, row_ids: Sequence[int]) -> bool:
    """Add a seal over these audit rows; False if another seal already has its number."""
    newest = newest_seal(session)
    if (0 if newest is None else newest.number) != seal.number - 1:
        return False
    postgres = session.get_bind().dialect.name == "postgresql"
    columns = {each.key: getattr(seal, each.key) for each in AuditSeal.__mapper__.column_attrs}
    added = session.execute(
        (postgresql.insert if postgres else sqlite.insert)(AuditSeal)
        .values(columns)
        .on_conflict_do_nothing()
        .returning(AuditSeal.number)
    ).first()
    if added is None:
        return False
    if row_ids:
        covered = [{"audit_row_id": each, "seal_number": seal.number} for each in row_ids]
        session.execute(insert(SealedRow), covered)
    return True
