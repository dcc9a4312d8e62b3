"""People: who they are, and the roles of those who are staff."""

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import ForeignKey, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from portal.db.base import Base
from portal.db.types import one_of


class Person(Base):
    """A human being who can sign in: a customer's or one of the vendor's, never both."""

    __tablename__ = "people"
    __table_args__ = (one_of("kind", "customer", "staff"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str]
    email: Mapped[str] = mapped_column(unique=True)
    """The address as compared: lower case."""
    name: Mapped[str]
    company: Mapped[str | None]
    """Given at sign-up; the account that is created at confirmation gets this name."""
    password_hash: Mapped[str | None]
    """None until the person has set a password."""
    created_at: Mapped[datetime]
    email_confirmed_at: Mapped[datetime | None]
    disabled_at: Mapped[datetime | None]
    password_changed_at: Mapped[datetime | None]


class StaffRole(Base):
    """One role a staff person holds."""

    __tablename__ = "staff_roles"
    __table_args__ = (one_of("role", "support", "approver", "keys", "admin", "auditor"),)

    person_id: Mapped[str] = mapped_column(ForeignKey("people.id"), primary_key=True)
    role: Mapped[str] = mapped_column(primary_key=True)
    granted_at: Mapped[datetime]


def person_by_email(session: Session, email: str) -> Person | None:
    """Find the person with this address, ignoring case."""
    return session.scalar(select(Person).where(Person.email == email.strip().lower()))


def people_of(session: Session, person_ids: Collection[str | None]) -> dict[str, Person]:
    """Return these people by id; None and unknown ids are left out."""
    wanted = {each for each in person_ids if each is not None}
    return {each.id: each for each in session.scalars(select(Person).where(Person.id.in_(wanted)))}


def staff_roles(session: Session, person_id: str) -> frozenset[str]:
    """Return the roles this staff person holds now."""
    return frozenset(
        session.scalars(select(StaffRole.role).where(StaffRole.person_id == person_id))
    )
