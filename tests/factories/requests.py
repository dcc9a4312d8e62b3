"""Requests of customers."""

from typing import Any

from sqlalchemy import select

from portal.db.accounts import Member
from portal.db.people import person_by_email
from portal.services.context import Actor, Transactions
from portal.services.requests import PilotAsk, submit_pilot

PILOT = {
    "deployment_id": None,
    "deployment_name": "Production",
    "purpose": "Route the support desk's questions.",
    "features": ("routing", "usage_reporting"),
    "mode": "offline",
    "bind": False,
    "fingerprint": None,
    "goals": "Half the cost.",
    "volume_tokens": 2_000_000,
}


def ask_for_pilot(
    transactions: Transactions, email: str = "jo@newco.example", **changes: Any
) -> str:
    """Ask for a pilot as a member of an account; return the request's id."""
    with transactions.writing(Actor("command")) as context:
        person = person_by_email(context.session, email)
        assert person is not None
        member = context.session.scalars(
            select(Member).where(Member.person_id == person.id)
        ).first()
        assert member is not None
        made = submit_pilot(
            context,
            account_id=member.account_id,
            person_id=person.id,
            ask=PilotAsk(**{**PILOT, **changes}),
        )
        return made.id
