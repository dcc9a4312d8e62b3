"""How people prove who they are besides a password: a TOTP secret and recovery codes."""

from datetime import datetime

from sqlalchemy import ForeignKey, LargeBinary
from sqlalchemy.orm import Mapped, mapped_column

from portal.db.base import Base


class SecondFactor(Base):
    """A person's TOTP secret, encrypted for this row; it counts once it is confirmed."""

    __tablename__ = "second_factors"

    person_id: Mapped[str] = mapped_column(ForeignKey("people.id"), primary_key=True)
    sealed_secret: Mapped[bytes] = mapped_column(LargeBinary)
    created_at: Mapped[datetime]
    confirmed_at: Mapped[datetime | None]
    last_step: Mapped[int] = mapped_column(default=0)
    """The newest time step that was used; it and older ones no longer work."""


class RecoveryCode(Base):
    """One single-use code that replaces a lost second factor."""

    __tablename__ = "recovery_codes"

    id: Mapped[str] = mapped_column(primary_key=True)
    person_id: Mapped[str] = mapped_column(ForeignKey("people.id"), index=True)
    code_sha256: Mapped[str] = mapped_column(unique=True)
    used_at: Mapped[datetime | None]
