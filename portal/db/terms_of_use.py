"""Who accepted the terms of use, and when."""

from datetime import datetime

from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from portal.db.base import Base
from portal.db.types import one_of


class TermsOfUseAcceptance(Base):
    """Who accepted which version of the terms of use, and from where."""

    __tablename__ = "terms_of_use_acceptances"
    __table_args__ = (one_of("occasion", "sign-up", "request", "purchase"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    person_id: Mapped[str] = mapped_column(ForeignKey("people.id"), index=True)
    account_id: Mapped[str | None] = mapped_column(ForeignKey("accounts.id"), index=True)
    version: Mapped[str]
    occasion: Mapped[str]
    subject_id: Mapped[str | None]
    accepted_at: Mapped[datetime]
