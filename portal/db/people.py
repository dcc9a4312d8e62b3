"""People: who signs in, how they prove it, and what they accepted."""

from datetime import datetime

from sqlalchemy import ForeignKey, Index, LargeBinary, select
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
    """What a customer said at sign-up; the account made at confirmation bears this name."""
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


class SecondFactor(Base):
    """A person's TOTP secret, encrypted for this row; it counts once it was confirmed."""

    __tablename__ = "second_factors"

    person_id: Mapped[str] = mapped_column(ForeignKey("people.id"), primary_key=True)
    sealed_secret: Mapped[bytes] = mapped_column(LargeBinary)
    created_at: Mapped[datetime]
    confirmed_at: Mapped[datetime | None]
    last_step: Mapped[int] = mapped_column(default=0)
    """The newest time step that was used; it and older ones are dead."""


class RecoveryCode(Base):
    """One single-use code that stands in for a lost second factor."""

    __tablename__ = "recovery_codes"

    id: Mapped[str] = mapped_column(primary_key=True)
    person_id: Mapped[str] = mapped_column(ForeignKey("people.id"), index=True)
    code_sha256: Mapped[str] = mapped_column(unique=True)
    used_at: Mapped[datetime | None]


class EmailToken(Base):
    """A secret sent by mail: confirms an address, resets a password or sets a first one."""

    __tablename__ = "email_tokens"
    __table_args__ = (one_of("purpose", "confirm-email", "reset-password", "set-password"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    person_id: Mapped[str] = mapped_column(ForeignKey("people.id"), index=True)
    purpose: Mapped[str]
    token_sha256: Mapped[str] = mapped_column(unique=True)
    code_sha256: Mapped[str | None]
    """The short code a person types instead of following the link, hashed with the row's id."""
    code_attempts: Mapped[int] = mapped_column(default=0)
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    used_at: Mapped[datetime | None]


class TermsAcceptance(Base):
    """Who accepted which version of the terms, where."""

    __tablename__ = "terms_acceptances"
    __table_args__ = (one_of("occasion", "sign-up", "request", "purchase"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    person_id: Mapped[str] = mapped_column(ForeignKey("people.id"), index=True)
    account_id: Mapped[str | None] = mapped_column(ForeignKey("accounts.id"), index=True)
    version: Mapped[str]
    occasion: Mapped[str]
    subject_id: Mapped[str | None]
    accepted_at: Mapped[datetime]


class SignIn(Base):
    """A signed-in browser. The cookie holds a 256-bit token; its SHA-256 is the key here."""

    __tablename__ = "sign_ins"
    __table_args__ = (Index("ix_sign_ins_person_id_ended_at", "person_id", "ended_at"),)

    token_sha256: Mapped[str] = mapped_column(primary_key=True)
    public_id: Mapped[str] = mapped_column(unique=True)
    """Names the row on pages, where the token must not stand."""
    person_id: Mapped[str] = mapped_column(ForeignKey("people.id"))
    account_id: Mapped[str | None] = mapped_column(ForeignKey("accounts.id"))
    """The account a customer is looking at."""
    created_at: Mapped[datetime]
    last_seen_at: Mapped[datetime]
    reauthenticated_at: Mapped[datetime]
    factor_passed_at: Mapped[datetime | None]
    """When the second factor was given; staff pages need it."""
    expires_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
    end_reason: Mapped[str | None]
    address: Mapped[str]
    user_agent: Mapped[str]


class FormDraft(Base):
    """What a person had typed when their session ended, kept for an hour to be given back."""

    __tablename__ = "form_drafts"

    token_sha256: Mapped[str] = mapped_column(primary_key=True)
    person_id: Mapped[str] = mapped_column(ForeignKey("people.id"))
    path: Mapped[str]
    sealed_fields: Mapped[bytes] = mapped_column(LargeBinary)
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime] = mapped_column(index=True)


class RateCount(Base):
    """Attempts counted in one bucket since the start of its window."""

    __tablename__ = "rate_counts"

    bucket: Mapped[str] = mapped_column(primary_key=True)
    window_started_at: Mapped[datetime]
    window_ends_at: Mapped[datetime] = mapped_column(index=True)
    attempts: Mapped[int]


def person_by_email(session: Session, email: str) -> Person | None:
    """Find the person of this address, compared without case."""
    return session.scalar(select(Person).where(Person.email == email.strip().lower()))


def staff_roles(session: Session, person_id: str) -> frozenset[str]:
    """Return the roles this staff person holds now."""
    return frozenset(
        session.scalars(select(StaffRole.role).where(StaffRole.person_id == person_id))
    )
