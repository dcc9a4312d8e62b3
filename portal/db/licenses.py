"""Licenses: the signed files of each deployment, in a line."""

from collections.abc import Collection
from datetime import UTC, datetime

from sqlalchemy import ForeignKey, LargeBinary, UniqueConstraint, func, select, text, true
from sqlalchemy.orm import Mapped, Session, mapped_column

from licensing.license import License as LicensePayload
from portal.db.base import Base
from portal.db.entitlements import Entitlement
from portal.db.types import one_of
from portal.domain.leases import parse_license
from portal.domain.standing import HoldCause, LicenseFacts, RevokedReason
from portal.domain.succession import Hurry
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
        one_of("hurry", *Hurry),
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
    """When issuing was asked for."""
    hurry: Mapped[Hurry] = mapped_column(default=Hurry.NONE, server_default=Hurry.NONE.value)
    """How soon it takes the place of the license before it."""

    # Fixed with the intent, before the signature.
    revision: Mapped[int | None]
    payload: Mapped[bytes | None] = mapped_column(LargeBinary)
    payload_sha256: Mapped[str | None]
    key_id: Mapped[str | None]
    """The newest key it is signed with."""
    also_signed_by: Mapped[list[str]] = mapped_column(default=list, server_default=text("'[]'"))
    """The other keys it is signed with, in the order of the file: while two keys of the role are
    active, and where a license takes the place of one whose key is compromised."""
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
    revoked_reason: Mapped[RevokedReason | None]
    installed_marked_at: Mapped[datetime | None]

    @property
    def document(self) -> LicensePayload | None:
        """The license's payload; None until it is fixed."""
        return None if self.payload is None else parse_license(self.payload)

    @property
    def key_ids(self) -> tuple[str, ...]:
        """The keys it is signed with; empty until they are fixed."""
        return () if self.key_id is None else (self.key_id, *self.also_signed_by)

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
    """One reason for which a line is suspended, or what was paid for is left out; lifted alone."""

    __tablename__ = "holds"
    __table_args__ = (one_of("cause", *HoldCause),)

    id: Mapped[str] = mapped_column(primary_key=True)
    entitlement_id: Mapped[str] = mapped_column(ForeignKey("entitlements.id"), index=True)
    """What it was opened on."""
    cause: Mapped[HoldCause]
    suspends_line: Mapped[bool] = mapped_column(default=True, server_default=true())
    """Whether it suspends every license of the deployment.

    A staff or abuse hold always does. Of a hold on what was paid it follows from what else is
    live, and is written whenever that changes.
    """
    reason: Mapped[str]
    opened_at: Mapped[datetime]
    opened_by: Mapped[str | None] = mapped_column(ForeignKey("people.id"))
    lifted_at: Mapped[datetime | None]
    lifted_by: Mapped[str | None] = mapped_column(ForeignKey("people.id"))


def suspended_since(
    session: Session, deployment_ids: Collection[str] | None = None
) -> dict[str, datetime]:
    """Return since when deployments (these, or all) are suspended, by id; others are left out."""
    query = (
        select(Entitlement.deployment_id, func.min(Hold.opened_at))
        .join(Hold, Hold.entitlement_id == Entitlement.id)
        .where(Hold.lifted_at.is_(None), Hold.suspends_line)
        .group_by(Entitlement.deployment_id)
    )
    if deployment_ids is not None:
        query = query.where(Entitlement.deployment_id.in_(deployment_ids))
    return dict(session.execute(query).all())


def open_holds(session: Session, deployment_id: str) -> list[Hold]:
    """Return the open holds of a deployment, oldest first."""
    return list(
        session.scalars(
            select(Hold)
            .join(Entitlement, Entitlement.id == Hold.entitlement_id)
            .where(Entitlement.deployment_id == deployment_id, Hold.lifted_at.is_(None))
            .order_by(Hold.opened_at, Hold.id)
        )
    )


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
