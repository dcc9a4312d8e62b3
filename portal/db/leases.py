"""Leases: the record of every renewal, and the answer to give again when it is asked again.

A renewal is two statements: `read_head` reads all it depends on, `advance` moves the chain and
inserts the lease in one statement that only succeeds while the head is still the one that was read.
So no lock is held while a lease is verified and signed, and of two racing requests one wins.
"""

from datetime import datetime
from typing import Any, NamedTuple, cast

from sqlalchemy import (
    BigInteger,
    ForeignKey,
    LargeBinary,
    Table,
    UniqueConstraint,
    bindparam,
    insert,
    literal_column,
    select,
    update,
)
from sqlalchemy.orm import Mapped, Session, mapped_column

from portal.db.base import Base
from portal.db.bundles import Bundle
from portal.db.instances import Instance
from portal.db.keys import KeysetVersion
from portal.db.licenses import Hold, License
from portal.db.session import DirectStatement
from portal.db.types import RowNumber


class Lease(Base):
    """One lease. The envelope is the stored answer; it is emptied after 90 days, the row stays."""

    __tablename__ = "leases"
    __table_args__ = (
        UniqueConstraint("instance_id", "request_id"),
        UniqueConstraint("instance_id", "epoch", "seq"),
    )

    number: Mapped[int] = mapped_column(RowNumber, primary_key=True)
    id: Mapped[str] = mapped_column(unique=True)
    instance_id: Mapped[str] = mapped_column(ForeignKey("instances.id"))
    license_id: Mapped[str]
    request_id: Mapped[str]
    epoch: Mapped[int]
    seq: Mapped[int] = mapped_column(BigInteger)
    status: Mapped[str]
    payload_sha256: Mapped[str]
    envelope: Mapped[bytes | None] = mapped_column(LargeBinary)
    issued_at: Mapped[datetime] = mapped_column(index=True)


_INSTANCES = cast(Table, Instance.__table__)
_LICENSES = cast(Table, License.__table__)
_LEASES = cast(Table, Lease.__table__)

_HEAD = (
    select(
        _INSTANCES.c.id,
        _INSTANCES.c.account_id,
        _INSTANCES.c.deployment_id,
        _INSTANCES.c.keyid,
        _INSTANCES.c.public_key,
        _INSTANCES.c.fingerprint,
        _INSTANCES.c.retired_at,
        _INSTANCES.c.released_at,
        _INSTANCES.c.slot_free_at,
        _INSTANCES.c.epoch,
        _INSTANCES.c.seq,
        _INSTANCES.c.lease_sha256,
        _INSTANCES.c.lease_issued_at,
        _INSTANCES.c.usage_budget_id,
        _INSTANCES.c.usage_tokens,
        _INSTANCES.c.usage_requests,
        _LEASES.c.id.label("answered_lease_id"),
        _LEASES.c.envelope.label("answer"),
        _LICENSES.c.id.label("license_id"),
        _LICENSES.c.deployment_id.label("license_deployment_id"),
        _LICENSES.c.payload.label("license_payload"),
        _LICENSES.c.payload_sha256.label("license_sha256"),
        _LICENSES.c.released_at.label("license_released_at"),
        _LICENSES.c.superseded_at,
        _LICENSES.c.superseded_by,
        _LICENSES.c.revoked_at,
        select(Hold.id)
        .where(
            Hold.entitlement_id == _LICENSES.c.entitlement_id,
            Hold.lifted_at.is_(None),
        )
        .exists()
        .label("is_held"),
        select(Bundle.version)
        .order_by(Bundle.version.desc())
        .limit(1)
        .scalar_subquery()
        .label("bundle_version"),
        select(KeysetVersion.version)
        .order_by(KeysetVersion.version.desc())
        .limit(1)
        .scalar_subquery()
        .label("keyset_version"),
        select(KeysetVersion.payload_sha256)
        .order_by(KeysetVersion.version.desc())
        .limit(1)
        .scalar_subquery()
        .label("keyset_sha256"),
    )
    .select_from(
        _INSTANCES.outerjoin(
            _LEASES,
            (_LEASES.c.instance_id == _INSTANCES.c.id)
            & (_LEASES.c.request_id == bindparam("request_id")),
        ).outerjoin(_LICENSES, _LICENSES.c.id == bindparam("named_license_id"))
    )
    .where(_INSTANCES.c.keyid == bindparam("signer_keyid"))
)


_DIRECT_HEAD = DirectStatement(_HEAD)


class Head(NamedTuple):
    """All that the answer to a lease request depends on, in the order of the statement above."""

    id: str
    account_id: str
    deployment_id: str
    keyid: str
    public_key: bytes
    fingerprint: str | None
    retired_at: datetime | None
    released_at: datetime | None
    slot_free_at: datetime | None
    epoch: int
    seq: int
    lease_sha256: str
    lease_issued_at: datetime
    usage_budget_id: str | None
    usage_tokens: int
    usage_requests: int
    answered_lease_id: str | None
    """Of the lease this request was answered with before."""
    answer: bytes | None
    license_id: str | None
    license_deployment_id: str | None
    license_payload: bytes | None
    license_sha256: str | None
    license_released_at: datetime | None
    superseded_at: datetime | None
    superseded_by: str | None
    revoked_at: datetime | None
    is_held: bool
    bundle_version: int | None
    keyset_version: int | None
    keyset_sha256: str | None


def read_head(session: Session, keyid: str, request_id: str, license_id: str) -> Head | None:
    """Read, in one statement, all that the answer to a lease request depends on."""
    names = {"signer_keyid": keyid, "request_id": request_id, "named_license_id": license_id}
    if session.get_bind().dialect.name == "postgresql":
        row = _DIRECT_HEAD.row(session, names)
    else:
        row = session.execute(_HEAD, names).one_or_none()
    return None if row is None else Head(*row)


_HEAD_COLUMNS = (
    "epoch",
    "seq",
    "lease_id",
    "lease_sha256",
    "lease_status",
    "lease_issued_at",
    "lease_expires_at",
    "lease_grace_until_at",
    "lease_budget_id",
    "lease_tokens_total",
    "renew_earliest_at",
    "renew_latest_at",
    "software",
    "boot_id",
    "last_seen_at",
    "bundle_version",
    "keyset_version",
    "usage_budget_id",
    "usage_tokens",
    "usage_requests",
    "released_at",
    "slot_free_at",
)
_MOVE = (
    update(_INSTANCES)
    .where(
        _INSTANCES.c.id == bindparam("at_instance"),
        _INSTANCES.c.lease_sha256 == bindparam("read_sha256"),
    )
    .values({name: bindparam(name) for name in _HEAD_COLUMNS})
)
_LEASE_COLUMNS = (
    "id",
    "instance_id",
    "license_id",
    "request_id",
    "epoch",
    "seq",
    "status",
    "payload_sha256",
    "envelope",
    "issued_at",
)
_NEW = {name: bindparam(f"new_{name}", type_=_LEASES.c[name].type) for name in _LEASE_COLUMNS}
_moved = _MOVE.returning(literal_column("1").label("one")).cte("moved")
_DIRECT_MOVE_AND_INSERT = DirectStatement(
    insert(_LEASES).from_select(list(_LEASE_COLUMNS), select(*_NEW.values()).select_from(_moved))
)
_INSERT = insert(_LEASES).values(_NEW)


def advance(
    session: Session, read_sha256: str, head: dict[str, Any], lease: dict[str, Any]
) -> bool:
    """Move an instance's head and insert its lease; False when the head moved meanwhile.

    `head` holds the head's columns, `lease` those of the new row.

    Raises:
        IntegrityError: the request was answered by somebody else meanwhile.
    """
    values = {
        **head,
        "at_instance": lease["instance_id"],
        "read_sha256": read_sha256,
        **{f"new_{name}": lease[name] for name in _LEASE_COLUMNS},
    }
    if session.get_bind().dialect.name == "postgresql":
        return bool(_DIRECT_MOVE_AND_INSERT.count(session, values))
    if not session.execute(_MOVE, values).rowcount:  # type: ignore[attr-defined]
        return False
    session.execute(_INSERT, values)
    return True
