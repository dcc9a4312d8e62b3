"""Licenses: the signed files of each deployment, in a line."""

from collections.abc import Collection
from datetime import UTC, datetime

from sqlalchemy import ForeignKey, LargeBinary, UniqueConstraint, func, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from licensing.license import License as LicensePayload
from portal.db.base import Base
from portal.db.types import one_of
from portal.domain.leases import parse_license
from portal.domain.standing import HoldCause, LicenseFacts
from portal.domain.terms import Mode


class License(Base):
    """One license, from the order to issue it to its end.

    The payload is stored before it is signed and never changes; the envelope is stored once. So the
    same bytes are signed again after a crash. The license's standing is not stored; see
    `portal.domain.standing`.

    Some columns repeat facts of the payload for the sake of queries: `sku` is searched and `mode`
    shown before there is a payload, `revision` is unique in its line, the newest `issued_at` and
    the next `expires_at` are searched, files are found by `file_sha256`, and a renewal's one
    statement compares `payload_sha256`. For the same statement, `superseded_by` names the license
    whose payload supersedes this one.
    """

    __tablename__ = "licenses"
    __table_args__ = (
        UniqueConstraint("deployment_id", "revision"),
        UniqueConstraint("issue_key"),
        one_of("mode", *Mode),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    account_id: Mapped[str] = mapped_column(ForeignKey("accounts.id"), index=True)
    deployment_id: Mapped[str] = mapped_column(ForeignKey("deployments.id"), index=True)
    entitlement_id: Mapped[str] = mapped_column(ForeignKey("entitlements.id"), index=True)
    issue_key: Mapped[str]
    """The cause of issuing; one cause issues one license, however often it is retried."""
    sku: Mapped[str]
    """The entitlement's until the payload is fixed, as is the mode."""
    mode: Mapped[Mode]
    created_at: Mapped[datetime]
    """When issuing was requested."""

    # Fixed with the intent, before the signature.
    revision: Mapped[int | None]
    payload: Mapped[bytes | None] = mapped_column(LargeBinary)
    payload_sha256: Mapped[str | None]
    key_id: Mapped[str | None]
    issued_at: Mapped[datetime | None]
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

    @property
    def document(self) -> LicensePayload | None:
        """The license's payload; None until it is fixed."""
        return None if self.payload is None else parse_license(self.payload)

    @property
    def not_before_at(self) -> datetime | None:
        """When it becomes valid; None until its payload is fixed."""
        document = self.document
        return None if document is None else datetime.fromtimestamp(document.not_before_at, UTC)

    def facts(self, *, is_held: bool) -> LicenseFacts:
        """Return the facts its standing depends on."""
        return LicenseFacts(
            released_at=self.released_at,
            not_before_at=self.not_before_at,
            expires_at=self.expires_at,
            superseded_at=self.superseded_at,
            superseded_by=self.superseded_by,
            revoked_at=self.revoked_at,
            is_held=is_held,
        )


class Hold(Base):
    """One reason for which an entitlement's licenses are suspended; each is lifted separately."""

    __tablename__ = "holds"
    __table_args__ = (one_of("cause", *HoldCause),)

    id: Mapped[str] = mapped_column(primary_key=True)
    entitlement_id: Mapped[str] = mapped_column(ForeignKey("entitlements.id"), index=True)
    cause: Mapped[HoldCause]
    reason: Mapped[str]
    opened_at: Mapped[datetime]
    opened_by: Mapped[str | None] = mapped_column(ForeignKey("people.id"))
    lifted_at: Mapped[datetime | None]
    lifted_by: Mapped[str | None] = mapped_column(ForeignKey("people.id"))


def held_since(
    session: Session, entitlement_ids: Collection[str] | None = None
) -> dict[str, datetime]:
    """Return since when entitlements (these, or all) are on hold, by id, if they are."""
    query = (
        select(Hold.entitlement_id, func.min(Hold.opened_at))
        .where(Hold.lifted_at.is_(None))
        .group_by(Hold.entitlement_id)
    )
    if entitlement_ids is not None:
        query = query.where(Hold.entitlement_id.in_(entitlement_ids))
    return dict(session.execute(query).all())


_NEWEST_FIRST = (License.revision.desc().nulls_first(), License.created_at.desc())
"""A license that is still issuing has no revision yet and comes first."""


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
    """Return the published license with the highest revision, whatever its standing."""
    return session.scalar(
        select(License)
        .where(License.deployment_id == deployment_id, License.released_at.is_not(None))
        .order_by(License.revision.desc())
        .limit(1)
    )
