"""Licenses: each line of signed files a deployment was given."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, LargeBinary, UniqueConstraint, func, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from portal.db.base import Base
from portal.db.types import one_of


class License(Base):
    """One license, from the wish to issue it to its end.

    `issuing` until its signature is stored and verified. Then `issued`, and at last `superseded` or
    `revoked`. The payload is stored before it is signed and never changes; the envelope is stored
    once. So whoever resumes after a crash signs the same bytes.
    """

    __tablename__ = "licenses"
    __table_args__ = (
        UniqueConstraint("deployment_id", "revision"),
        UniqueConstraint("issue_key"),
        one_of("state", "issuing", "issued", "superseded", "revoked"),
        one_of("mode", "offline", "lease"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    account_id: Mapped[str] = mapped_column(ForeignKey("accounts.id"), index=True)
    deployment_id: Mapped[str] = mapped_column(ForeignKey("deployments.id"), index=True)
    entitlement_id: Mapped[str] = mapped_column(ForeignKey("entitlements.id"), index=True)
    issue_key: Mapped[str]
    """Names the cause, so that one cause issues one license however often it is retried."""
    state: Mapped[str]
    sku: Mapped[str]
    mode: Mapped[str]
    created_at: Mapped[datetime]
    """When issuing was asked for."""

    # Fixed with the intent, before the signature.
    revision: Mapped[int | None]
    supersedes: Mapped[str | None] = mapped_column(ForeignKey("licenses.id"))
    budget_id: Mapped[str | None]
    tokens_total: Mapped[int | None] = mapped_column(BigInteger)
    features: Mapped[list[str] | None]
    limits: Mapped[dict[str, Any] | None]
    fingerprints: Mapped[list[str] | None]
    payload: Mapped[bytes | None] = mapped_column(LargeBinary)
    payload_sha256: Mapped[str | None]
    key_id: Mapped[str | None]
    issued_at: Mapped[datetime | None]
    not_before_at: Mapped[datetime | None]
    expires_at: Mapped[datetime | None] = mapped_column(index=True)

    # Stored with the signature.
    envelope: Mapped[bytes | None] = mapped_column(LargeBinary)
    file_sha256: Mapped[str | None]
    released_at: Mapped[datetime | None]

    # Its end.
    superseded_by: Mapped[str | None]
    superseded_at: Mapped[datetime | None]
    """When the overlap ends and the license counts as superseded."""
    revoked_at: Mapped[datetime | None]
    installed_marked_at: Mapped[datetime | None]


class Hold(Base):
    """One reason for which a license's entitlement is suspended; lifted alone."""

    __tablename__ = "holds"
    __table_args__ = (one_of("cause", "dispute", "past-due", "refund", "staff", "abuse"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    entitlement_id: Mapped[str] = mapped_column(ForeignKey("entitlements.id"), index=True)
    cause: Mapped[str]
    reason: Mapped[str]
    opened_at: Mapped[datetime]
    opened_by: Mapped[str | None] = mapped_column(ForeignKey("people.id"))
    lifted_at: Mapped[datetime | None]
    lifted_by: Mapped[str | None] = mapped_column(ForeignKey("people.id"))


_NEWEST_FIRST = (License.revision.desc().nulls_first(), License.created_at.desc())
"""A license that is still issuing has no revision yet and comes before all others."""


def licenses_of(session: Session, deployment_id: str) -> list[License]:
    """Return a deployment's licenses, newest first."""
    return list(
        session.scalars(
            select(License).where(License.deployment_id == deployment_id).order_by(*_NEWEST_FIRST)
        )
    )


def newest_licenses(session: Session, account_id: str) -> dict[str, License]:
    """Return the newest license of each of an account's deployments, by the deployment's id."""
    place = func.row_number().over(partition_by=License.deployment_id, order_by=_NEWEST_FIRST)
    placed = (
        select(License.id, place.label("place")).where(License.account_id == account_id).subquery()
    )
    rows = session.scalars(
        select(License).join(placed, placed.c.id == License.id).where(placed.c.place == 1)
    )
    return {row.deployment_id: row for row in rows}


def current_license(session: Session, deployment_id: str) -> License | None:
    """Return the released license of highest revision, whatever became of it."""
    return session.scalar(
        select(License)
        .where(License.deployment_id == deployment_id, License.released_at.is_not(None))
        .order_by(License.revision.desc())
        .limit(1)
    )
