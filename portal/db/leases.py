"""Leases: the record of every renewal, and the answer to give again when it is asked again."""

from datetime import datetime

from sqlalchemy import BigInteger, ForeignKey, LargeBinary, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from portal.db.base import Base
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
