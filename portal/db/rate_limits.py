"""Counted attempts."""

from datetime import datetime

from sqlalchemy.orm import Mapped, mapped_column

from portal.db.base import Base


class RateCount(Base):
    """Attempts counted in one bucket since the start of its window."""

    __tablename__ = "rate_counts"

    bucket: Mapped[str] = mapped_column(primary_key=True)
    window_started_at: Mapped[datetime]
    window_ends_at: Mapped[datetime] = mapped_column(index=True)
    attempts: Mapped[int]
