"""The audit trail: rows written with the act, and seals that chain committed rows.

The database itself refuses UPDATE and DELETE on all three tables (see the first migration).
"""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from portal.db.base import Base
from portal.db.types import RowNumber, one_of


class AuditRow(Base):
    """Who did what to what, when, why and from where. Holds ids, never personal data."""

    __tablename__ = "audit_rows"
    __table_args__ = (
        one_of("actor_kind", "person", "staff", "system", "command", "instance", "anonymous"),
        Index("ix_audit_rows_subject", "subject_kind", "subject_id"),
    )

    id: Mapped[int] = mapped_column(RowNumber, primary_key=True)
    at: Mapped[datetime] = mapped_column(index=True)
    action: Mapped[str]
    """Noun and verb in the past: `license.issued`, `request.approved`."""
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
    rows with their digest, and the seal before it.
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


class SealedRow(Base):
    """Says which seal covers an audit row."""

    __tablename__ = "sealed_rows"

    audit_row_id: Mapped[int] = mapped_column(
        RowNumber, ForeignKey("audit_rows.id"), primary_key=True, autoincrement=False
    )
    seal_number: Mapped[int] = mapped_column(ForeignKey("audit_seals.number"), index=True)
