"""Queuing mail. A message is a row and a job of the transaction that caused it."""

from typing import Any

from sqlalchemy import select

from portal.db.accounts import Member
from portal.db.emails import Email
from portal.db.people import Person, StaffRole
from portal.domain.identifiers import EMAIL, new_id
from portal.services.context import Context
from portal.services.jobs import enqueue

SEND_EMAIL = "send-email"


def queue_email(
    context: Context,
    template: str,
    to_address: str,
    facts: dict[str, Any],
    *,
    account_id: str | None = None,
    person_id: str | None = None,
    secret: str | None = None,
) -> Email:
    """Queue `templates/email/<template>/` to one address.

    `facts` are JSON values of this customer only. `secret` (a token or code, reaching the template
    as `secret`) is kept encrypted and erased after sending.
    """
    email_id = new_id(EMAIL, context.ports.randomness)
    email = Email(
        id=email_id,
        account_id=account_id,
        person_id=person_id,
        to_address=to_address,
        template=template,
        facts=facts,
        sealed_secret=(
            None if secret is None else context.ports.secrets.seal(secret.encode(), email_id)
        ),
        state="queued",
        created_at=context.at,
    )
    context.session.add(email)
    enqueue(context, SEND_EMAIL, email_id, {"email_id": email_id})
    return email


def tell_members(
    context: Context, account_id: str, template: str, facts: dict[str, Any], *roles: str
) -> None:
    """Queue a message to each member of an account who holds one of these roles."""
    people = context.session.scalars(
        select(Person)
        .join(Member, Member.person_id == Person.id)
        .where(
            Member.account_id == account_id,
            Member.role.in_(roles),
            Member.removed_at.is_(None),
            Person.disabled_at.is_(None),
        )
        .order_by(Person.id)
    )
    for person in people:
        queue_email(
            context,
            template,
            person.email,
            {"name": person.name, **facts},
            account_id=account_id,
            person_id=person.id,
        )


def tell_staff(context: Context, template: str, facts: dict[str, Any], *roles: str) -> None:
    """Queue a message to each staff person who holds one of these roles."""
    people = context.session.scalars(
        select(Person)
        .where(
            Person.kind == "staff",
            Person.disabled_at.is_(None),
            Person.id.in_(select(StaffRole.person_id).where(StaffRole.role.in_(roles))),
        )
        .order_by(Person.id)
    )
    for person in people:
        queue_email(
            context, template, person.email, {"name": person.name, **facts}, person_id=person.id
        )
