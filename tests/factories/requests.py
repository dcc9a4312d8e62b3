"""Requests of customers."""

from typing import Any

from sqlalchemy import select

from portal.db.accounts import Member
from portal.db.people import person_by_email
from portal.domain.catalog import fill_terms
from portal.domain.requests import Background, RequestKind
from portal.services.context import Actor, Transactions
from portal.services.requests import Ask, submit_request


def pilot_ask(
    *,
    deployment_id: str | None = None,
    deployment_name: str = "Production",
    goals: str = "Half the cost.",
    contacts: str = "",
    expected_tokens: int = 2_000_000,
) -> Ask:
    """Return what a customer asks for who wants a pilot and expects 2M tokens a week."""
    return Ask(
        kind=RequestKind.PILOT,
        deployment_id=deployment_id,
        deployment_name=deployment_name,
        terms=fill_terms(
            "pilot-30d",
            features=("routing", "usage_reporting"),
        ),
        background=Background(
            purpose="Route the support desk's questions.",
            goals=goals,
            contacts=contacts,
            expected_tokens=expected_tokens,
        ),
    )


def evaluation_ask(**changes: Any) -> Ask:
    """Return what a customer asks for who wants to evaluate; `changes` are of the terms."""
    return Ask(
        kind=RequestKind.EVALUATION,
        deployment_id=None,
        deployment_name="Production",
        terms=fill_terms("eval-72h", **{"features": ("routing",), **changes}),
        background=Background(purpose="a test"),
    )


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
        made = submit_request(
            context,
            account_id=member.account_id,
            person_id=person.id,
            ask=pilot_ask(**changes),
        )
        return made.id
