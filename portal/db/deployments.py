"""Deployments: installations that customers run, each with its line of licenses."""

from datetime import datetime

from sqlalchemy import ForeignKey, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from portal.db.base import Base


class Deployment(Base):
    """One installation; its licenses count revisions up from 1."""

    __tablename__ = "deployments"

    id: Mapped[str] = mapped_column(primary_key=True)
    account_id: Mapped[str] = mapped_column(ForeignKey("accounts.id"), index=True)
    name: Mapped[str]
    created_at: Mapped[datetime]
    closed_at: Mapped[datetime | None]


def lock_deployment(session: Session, deployment_id: str) -> Deployment | None:
    """Read a deployment and hold its row until the unit of work ends.

    Its key is not held: whoever writes rows that refer to it goes on, so that two units that hold
    an account and a deployment of it never wait for each other.
    """
    return session.scalar(
        select(Deployment)
        .where(Deployment.id == deployment_id)
        .with_for_update(key_share=True)
        .execution_options(populate_existing=True)
    )


def deployments_of(session: Session, account_id: str) -> list[Deployment]:
    """Return an account's open deployments, oldest first."""
    return list(
        session.scalars(
            select(Deployment)
            .where(Deployment.account_id == account_id, Deployment.closed_at.is_(None))
            .order_by(Deployment.created_at, Deployment.id)
        )
    )
