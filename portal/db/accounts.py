"""Accounts (customer organizations) and their members."""

from datetime import datetime

from sqlalchemy import ForeignKey, UniqueConstraint, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from portal.db.base import Base
from portal.db.types import one_of


class Account(Base):
    """A customer organization; its id is the `customer_id` of licenses."""

    __tablename__ = "accounts"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    email_domain: Mapped[str | None] = mapped_column(index=True)
    """The domain of its first owner's address, in lower case; None if staff named no owner."""
    registrable_domain: Mapped[str | None] = mapped_column(index=True)
    """Its registrable part by the public-suffix list."""
    created_at: Mapped[datetime]
    closed_at: Mapped[datetime | None]


class Member(Base):
    """A person's place in an account."""

    __tablename__ = "members"
    __table_args__ = (
        UniqueConstraint("account_id", "person_id"),
        one_of("role", "owner", "billing", "operator", "viewer"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    account_id: Mapped[str] = mapped_column(ForeignKey("accounts.id"))
    person_id: Mapped[str] = mapped_column(ForeignKey("people.id"), index=True)
    role: Mapped[str]
    created_at: Mapped[datetime]
    removed_at: Mapped[datetime | None]
    reminders_off_at: Mapped[datetime | None]
    """When the person declined this account's reminders; None: they get them."""


def lock_account(session: Session, account_id: str) -> Account | None:
    """Read an account and hold its row until the unit of work ends.

    Its key stays free: whoever holds a deployment may still add rows that name the account, so that
    the two never wait for each other.
    """
    return session.scalar(
        select(Account)
        .where(Account.id == account_id)
        .with_for_update(key_share=True)
        .execution_options(populate_existing=True)
    )


def memberships(session: Session, person_id: str) -> list[tuple[Member, Account]]:
    """Return the open accounts this person belongs to, by name."""
    rows = session.execute(
        select(Member, Account)
        .join(Account, Account.id == Member.account_id)
        .where(
            Member.person_id == person_id,
            Member.removed_at.is_(None),
            Account.closed_at.is_(None),
        )
        .order_by(Account.name, Account.id)
    )
    return [(member, account) for member, account in rows]
