"""E-mails: a message is a row and a job of the transaction that caused it, sent by the worker."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from sqlalchemy import select

from portal.db.accounts import Member
from portal.db.emails import Email
from portal.db.people import Person, StaffRole
from portal.domain.identifiers import EMAIL, new_id
from portal.domain.mails import is_reminder
from portal.services.context import Context
from portal.services.jobs import enqueue
from portal.services.opt_outs import unsubscribe_link

SEND_EMAIL: Final = "send-email"
LONGEST_ERROR: Final = 500


@dataclass(frozen=True)
class Letter:
    """A queued message with all that its template needs, its secret included."""

    to_address: str
    template: str
    facts: Mapping[str, object] = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


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
    """Queue a message to each member of an account who holds one of these roles.

    A reminder goes to those alone who have not declined the account's reminders.
    """
    people = (
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
    if is_reminder(template):
        people = people.where(Member.reminders_off_at.is_(None))
    for person in context.session.scalars(people):
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


def open_letter(context: Context, email_id: str) -> Letter | None:
    """Return a queued message with its secret in clear; None when it was sent or withdrawn.

    The template also gets the instant of sending as `sent_at`, and a reminder the address to
    decline further ones at as `unsubscribe_url`.
    """
    email = context.session.get_one(Email, email_id)
    if email.state in ("sent", "withdrawn"):
        return None
    facts = shown_facts(email, context.at)
    headers = {}
    if email.sealed_secret is not None:
        facts["secret"] = context.ports.secrets.open(email.sealed_secret, email.id).decode()
    if is_reminder(email.template) and email.person_id and email.account_id:
        link = unsubscribe_link(context, email.person_id, email.account_id)
        facts["unsubscribe_url"] = link
        headers["List-Unsubscribe"] = f"<{link}>"
    return Letter(email.to_address, email.template, facts, headers)


def shown_facts(email: Email, at: datetime) -> dict[str, object]:
    """Return what the template is given of a message sent at `at`, without any secret."""
    return {"sent_at": at.isoformat(), **email.facts}


def note_sent(context: Context, email_id: str) -> None:
    """Note that a message was sent, and erase the secret it carried."""
    email = context.session.get_one(Email, email_id)
    email.state = "sent"
    email.sent_at = context.at
    email.attempts += 1
    email.sealed_secret = None
    email.last_error = None


def note_undelivered(context: Context, email_id: str, why: str) -> None:
    """Note why a message could not be sent; it is tried again."""
    email = context.session.get_one(Email, email_id)
    email.state = "failed"
    email.attempts += 1
    email.last_error = why[:LONGEST_ERROR]


def note_withdrawn(context: Context, email_id: str, why: str) -> None:
    """Note why a message is not sent any more."""
    email = context.session.get_one(Email, email_id)
    email.state = "withdrawn"
    email.sealed_secret = None
    email.last_error = why[:LONGEST_ERROR]
