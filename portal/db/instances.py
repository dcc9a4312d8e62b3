"""Instances: enrolled router processes, the codes they enrolled with, and their forks."""

from datetime import datetime

from sqlalchemy import BigInteger, ForeignKey, LargeBinary, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from portal.db.base import Base
from portal.db.types import RowNumber


class EnrollmentCode(Base):
    """A code that lets routers enroll into a deployment; only its hash is kept."""

    __tablename__ = "enrollment_codes"

    id: Mapped[str] = mapped_column(primary_key=True)
    deployment_id: Mapped[str] = mapped_column(ForeignKey("deployments.id"), index=True)
    code_sha256: Mapped[str] = mapped_column(unique=True)
    uses_allowed: Mapped[int]
    uses: Mapped[int] = mapped_column(default=0)
    created_at: Mapped[datetime]
    created_by: Mapped[str | None] = mapped_column(ForeignKey("people.id"))
    expires_at: Mapped[datetime]
    revoked_at: Mapped[datetime | None]


class Instance(Base):
    """One enrolled router with its own key, and the head of its chain of leases."""

    __tablename__ = "instances"
    __table_args__ = (UniqueConstraint("code_id", "keyid"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    account_id: Mapped[str] = mapped_column(ForeignKey("accounts.id"), index=True)
    deployment_id: Mapped[str] = mapped_column(ForeignKey("deployments.id"), index=True)
    code_id: Mapped[str] = mapped_column(ForeignKey("enrollment_codes.id"))
    keyid: Mapped[str] = mapped_column(unique=True)
    public_key: Mapped[bytes] = mapped_column(LargeBinary)
    """32 raw bytes."""
    fingerprint: Mapped[str | None]
    label: Mapped[str | None]
    enrolled_at: Mapped[datetime]
    released_at: Mapped[datetime | None]
    retired_at: Mapped[datetime | None]
    slot_free_at: Mapped[datetime | None]
    """When a released or retired instance gives its slot up; None while it is in use."""

    # From its last request.
    software: Mapped[str]
    boot_id: Mapped[str | None]
    last_seen_at: Mapped[datetime]
    bundle_version: Mapped[int] = mapped_column(BigInteger, default=0)
    keyset_version: Mapped[int] = mapped_column(default=0)
    usage_budget_id: Mapped[str | None]
    usage_tokens: Mapped[int] = mapped_column(BigInteger, default=0)
    usage_requests: Mapped[int] = mapped_column(BigInteger, default=0)

    # The head of the chain: the current lease.
    epoch: Mapped[int]
    seq: Mapped[int] = mapped_column(BigInteger)
    lease_id: Mapped[str]
    lease_sha256: Mapped[str]
    lease_status: Mapped[str]
    lease_issued_at: Mapped[datetime]
    lease_expires_at: Mapped[datetime]
    lease_grace_until_at: Mapped[datetime]
    lease_budget_id: Mapped[str | None]
    lease_tokens_total: Mapped[int] = mapped_column(BigInteger, default=0)
    """How much of that budget the current lease lets this instance use in all."""
    renew_earliest_at: Mapped[datetime]
    renew_latest_at: Mapped[datetime]


class Fork(Base):
    """A lease request that did not continue the chain."""

    __tablename__ = "forks"

    id: Mapped[int] = mapped_column(RowNumber, primary_key=True)
    instance_id: Mapped[str] = mapped_column(ForeignKey("instances.id"), index=True)
    request_id: Mapped[str]
    noted_at: Mapped[datetime]
    prev_epoch: Mapped[int] = mapped_column(BigInteger)
    prev_seq: Mapped[int] = mapped_column(BigInteger)
    prev_sha256: Mapped[str]
    held_epoch: Mapped[int]
    held_seq: Mapped[int] = mapped_column(BigInteger)
    boot_id: Mapped[str]
    cleared_at: Mapped[datetime | None]
