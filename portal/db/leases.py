"""Leases: the record of every renewal, and the answer to repeat if the request is repeated.

A renewal is two statements: `read_head` reads all it depends on, `advance` moves the chain and
inserts the lease in one statement that only succeeds if the head is still the one that was read. So
no lock is held while a lease is verified and signed, and one of two racing requests wins.
"""

from dataclasses import fields
from datetime import datetime
from typing import Any, Final, TypeVar, cast

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    ForeignKey,
    LargeBinary,
    ScalarSelect,
    Table,
    UniqueConstraint,
    bindparam,
    exists,
    insert,
    literal_column,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import InstrumentedAttribute, Mapped, Session, aliased, mapped_column

from portal.db.base import Base
from portal.db.bundles import Bundle
from portal.db.direct import DirectStatement
from portal.db.entitlements import Entitlement
from portal.db.instances import Instance
from portal.db.keys import KeysetVersion, SigningKey
from portal.db.licenses import Hold, License
from portal.db.types import RowNumber
from portal.domain.leases import Head, Known, NextLease

T = TypeVar("T")


class Lease(Base):
    """One lease. The envelope is the stored answer; it is removed after 90 days, the row stays."""

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

HEAD_COLUMNS: Final = tuple(field.name for field in fields(Head))
"""Columns of the instances that a renewal reads and writes."""


def _newest(
    column: InstrumentedAttribute[T], version: InstrumentedAttribute[int]
) -> ScalarSelect[T]:
    return select(column).order_by(version.desc()).limit(1).scalar_subquery()


_OTHER, _HELD = aliased(Instance), aliased(Entitlement)
_KNOWN: Final[dict[str, ColumnElement[Any]]] = {
    "instance_id": _INSTANCES.c.id,
    "account_id": _INSTANCES.c.account_id,
    "deployment_id": _INSTANCES.c.deployment_id,
    "keyid": _INSTANCES.c.keyid,
    "public_key": _INSTANCES.c.public_key,
    "retired_at": _INSTANCES.c.retired_at,
    "has_others": exists().where(
        _OTHER.deployment_id == _INSTANCES.c.deployment_id, _OTHER.id != _INSTANCES.c.id
    ),
    "answered_lease_id": _LEASES.c.id,
    "answer": _LEASES.c.envelope,
    "license_id": _LICENSES.c.id,
    "license_deployment_id": _LICENSES.c.deployment_id,
    "license_payload": _LICENSES.c.payload,
    "license_sha256": _LICENSES.c.payload_sha256,
    "license_released_at": _LICENSES.c.released_at,
    "superseded_at": _LICENSES.c.superseded_at,
    "superseded_by": _LICENSES.c.superseded_by,
    "revoked_at": _LICENSES.c.revoked_at,
    "is_held": exists().where(
        Hold.entitlement_id == _HELD.id,
        _HELD.deployment_id == _LICENSES.c.deployment_id,
        Hold.lifted_at.is_(None),
        Hold.suspends_line,
    ),
    "latest_bundle": _newest(Bundle.version, Bundle.version),
    "keyset_sha256": _newest(KeysetVersion.payload_sha256, KeysetVersion.version),
    "has_stopped_keys": exists().where(SigningKey.stopped_at.is_not(None)),
}
"""The column of each fact of `Known`."""

_READ = (
    select(
        *(_INSTANCES.c[name].label(f"head_{name}") for name in HEAD_COLUMNS),
        *(column.label(name) for name, column in _KNOWN.items()),
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
_DIRECT_READ = DirectStatement(_READ)


def read_head(
    session: Session, keyid: str, request_id: str, license_id: str
) -> tuple[Head, Known] | None:
    """Read, in one statement, everything that the answer to a lease request depends on.

    Returns the chain's head and what else is known, or None if no instance has the key.
    """
    names = {"signer_keyid": keyid, "request_id": request_id, "named_license_id": license_id}
    if session.get_bind().dialect.name == "postgresql":
        row = _DIRECT_READ.row(session, names)
    else:
        row = session.execute(_READ, names).one_or_none()
    if row is None:
        return None
    ours = len(HEAD_COLUMNS)
    head = Head(**dict(zip(HEAD_COLUMNS, row[:ours], strict=True)))
    return head, Known(**dict(zip(_KNOWN, row[ours:], strict=True)))


def other_heads(session: Session, deployment_id: str, instance_id: str = "") -> list[Head]:
    """Return the heads of a deployment's instances other than this one."""
    rows = session.execute(
        select(*(_INSTANCES.c[name] for name in HEAD_COLUMNS)).where(
            _INSTANCES.c.deployment_id == deployment_id, _INSTANCES.c.id != instance_id
        )
    )
    return [Head(**row) for row in rows.mappings()]


_MOVE = (
    update(_INSTANCES)
    .where(
        _INSTANCES.c.id == bindparam("at_instance"),
        _INSTANCES.c.lease_sha256 == bindparam("read_sha256"),
        # An instance that was given up in the meantime stays given up.
        _INSTANCES.c.slot_free_at.is_not_distinct_from(
            bindparam("read_slot_free_at", type_=_INSTANCES.c.slot_free_at.type)
        ),
    )
    .values({name: bindparam(name) for name in HEAD_COLUMNS})
)
_LEASE_COLUMNS: Final = tuple(column.name for column in _LEASES.c if column.name != "number")
_NEW = {name: bindparam(f"new_{name}", type_=_LEASES.c[name].type) for name in _LEASE_COLUMNS}
_moved = _MOVE.returning(literal_column("1").label("one")).cte("moved")
_DIRECT_MOVE_AND_INSERT = DirectStatement(
    insert(_LEASES).from_select(list(_LEASE_COLUMNS), select(*_NEW.values()).select_from(_moved))
)
_INSERT = insert(_LEASES).values(_NEW)


class ChainMoved(Exception):
    """Between reading and writing, the chain moved or was given up, or the request was answered."""


def lease_row(decided: NextLease, envelope: bytes) -> dict[str, Any]:
    """Return the row for a signed lease."""
    lease, head = decided.lease, decided.head
    return {
        "id": lease.lease_id,
        "instance_id": lease.instance_id,
        "license_id": lease.license_id,
        "request_id": lease.request_id,
        "epoch": lease.epoch,
        "seq": lease.seq,
        "status": lease.status,
        "payload_sha256": head.lease_sha256,
        "envelope": envelope,
        "issued_at": head.lease_issued_at,
    }


def advance(session: Session, read: Head, decided: NextLease, envelope: bytes) -> None:
    """Move an instance's head from the one that was read, and insert its lease.

    Raises:
        ChainMoved: the head has changed, or the request has been answered; nothing is written.
    """
    row = lease_row(decided, envelope)
    values = {
        **vars(decided.head),
        "at_instance": decided.lease.instance_id,
        "read_sha256": read.lease_sha256,
        "read_slot_free_at": read.slot_free_at,
        **{f"new_{name}": row[name] for name in _LEASE_COLUMNS},
    }
    try:
        if session.get_bind().dialect.name == "postgresql":
            moved = _DIRECT_MOVE_AND_INSERT.count(session, values)
        else:
            moved = session.execute(_MOVE, values).rowcount  # type: ignore[attr-defined]
            if moved:
                session.execute(_INSERT, values)
    except IntegrityError as error:
        raise ChainMoved from error
    if not moved:
        raise ChainMoved
