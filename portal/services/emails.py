"""E-mails: a message is a row and a job of the transaction that caused it, sent by the worker.

Staff see every message, and can send one again to whom it was for. A message that carried a secret
is neither shown nor sent again: its link or code worked once, and whoever needs a new one asks for
it themselves.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import select, update

from portal.db.accounts import Account, Member
from portal.db.emails import Email
from portal.db.jobs import Job
from portal.db.people import Person, StaffRole
from portal.domain.errors import Conflict, NotFound
from portal.domain.identifiers import EMAIL, new_id
from portal.domain.mails import MAILS, is_reminder
from portal.services.audit import record
from portal.services.context import Context
from portal.services.jobs import enqueue
from portal.services.opt_outs import unsubscribe_link

SEND_EMAIL: Final = "send-email"
LONGEST_ERROR: Final = 500
STATES: Final = ("queued", "sent", "failed", "withdrawn")
PAGE: Final = 50
"""Messages on a page of the log."""
RESEND_AFTER: Final = timedelta(minutes=5)
"""How long after a message was sent again it can be so once more."""


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


@dataclass(frozen=True)
class Wanted:
    """Which messages staff look for; None and an empty text mean any."""

    recipient: str = ""
    """A part of the address."""
    state: str | None = None
    template: str | None = None


@dataclass(frozen=True)
class EmailList:
    """A page of the log, newest first."""

    rows: tuple[Email, ...]
    older: str | None
    """The message after which the next page begins; None: this is the last."""


@dataclass(frozen=True)
class EmailPage:
    """What staff see of one message."""

    email: Email
    account: Account | None
    person: Person | None
    next_attempt_at: datetime | None
    """When the worker tries again; None: it does not."""
    given_up_at: datetime | None
    resent_as: Email | None
    """The newest message that repeats this one."""
    why_not_resent: str | None
    """Why it cannot be sent again; None: it can."""

    @property
    def carries_secret(self) -> bool:
        """Whether it holds a link or code that works once."""
        return carries_secret(self.email.template)


def carries_secret(template: str) -> bool:
    """Say whether the mails of a template hold a link or code that works once.

    One that is no longer known counts as one that did.
    """
    return template not in MAILS or MAILS[template].carries_secret


def search_emails(context: Context, wanted: Wanted, *, after: str | None = None) -> EmailList:
    """Return messages, newest first, from the one on that is older than the message `after`."""
    query = select(Email).order_by(Email.created_at.desc(), Email.id.desc()).limit(PAGE + 1)
    if wanted.recipient:
        query = query.where(Email.to_address.icontains(wanted.recipient, autoescape=True))
    if wanted.state is not None:
        query = query.where(Email.state == wanted.state)
    if wanted.template is not None:
        query = query.where(Email.template == wanted.template)
    last = None if after is None else context.session.get(Email, after)
    if last is not None:
        query = query.where(
            (Email.created_at < last.created_at)
            | ((Email.created_at == last.created_at) & (Email.id < last.id))
        )
    rows = tuple(context.session.scalars(query))
    return EmailList(rows[:PAGE], rows[PAGE - 1].id if len(rows) > PAGE else None)


def email_page(context: Context, email_id: str) -> EmailPage:
    """Return what staff's page of a message shows.

    Raises:
        NotFound: there is none.
    """
    email = _find(context, email_id)
    job = _job_of(context, email)
    waits = job is not None and job.done_at is None and job.parked_at is None
    newest = (
        select(Email)
        .where(Email.resent_from == email.id)
        .order_by(Email.created_at.desc(), Email.id.desc())
        .limit(1)
    )
    return EmailPage(
        email,
        None if email.account_id is None else context.session.get(Account, email.account_id),
        None if email.person_id is None else context.session.get(Person, email.person_id),
        job.run_at if job is not None and waits else None,
        None if job is None else job.parked_at,
        context.session.scalar(newest),
        _why_not_resent(context, email),
    )


def resend_email(context: Context, email_id: str) -> Email:
    """Send a message again, and return the one that will go out.

    One that never arrived is tried again as it is, now; of one that was sent a copy goes to the
    person's address of today.

    Raises:
        NotFound: there is none.
        Conflict: it must not be sent again, or was so just now.
    """
    _find(context, email_id)
    email = context.session.scalars(
        select(Email)
        .where(Email.id == email_id)
        .with_for_update()
        .execution_options(populate_existing=True)
    ).one()
    why_not = _why_not_resent(context, email)
    if why_not is not None:
        raise Conflict(why_not)
    if email.state == "sent":
        person = None if email.person_id is None else context.session.get(Person, email.person_id)
        again = queue_email(
            context,
            email.template,
            email.to_address if person is None else person.email,
            dict(email.facts),
            account_id=email.account_id,
            person_id=email.person_id,
        )
        again.resent_from = email.id
    else:
        again = email
        _try_now(context, email)
    record(
        context,
        "email.resent",
        "email",
        email.id,
        account_id=email.account_id,
        template=email.template,
        sent_as=again.id,
    )
    context.session.flush()
    return again


def _find(context: Context, email_id: str) -> Email:
    email = context.session.get(Email, email_id)
    if email is None:
        raise NotFound(f"There is no e-mail {email_id}.")
    return email


def _job_of(context: Context, email: Email) -> Job | None:
    return context.session.scalar(
        select(Job).where(Job.kind == SEND_EMAIL, Job.unique_key == email.id)
    )


def _try_now(context: Context, email: Email) -> None:
    """Let the worker try a message now that it has failed to send, or has given up."""
    revived = context.session.execute(
        update(Job)
        .where(Job.kind == SEND_EMAIL, Job.unique_key == email.id)
        .values(run_at=context.at, parked_at=None, done_at=None, attempts=0)
        .returning(Job.id)
    ).first()
    if revived is None:
        enqueue(context, SEND_EMAIL, email.id, {"email_id": email.id})
    email.state = "queued"


def _why_not_resent(context: Context, email: Email) -> str | None:
    """Say why a message cannot be sent again; None: it can."""
    recent = select(Email.id).where(
        Email.resent_from == email.id, Email.created_at > context.at - RESEND_AFTER
    )
    reasons = (
        (
            carries_secret(email.template),
            "Its link or code works once and is not kept; a new one is asked for at sign-in.",
        ),
        (email.state == "queued", "It waits to be sent and goes out by itself."),
        (
            email.state == "withdrawn",
            "It was withdrawn because what it says no longer holds.",
        ),
        (
            not _may_receive(context, email),
            "The person can no longer sign in, or has left the account it is about.",
        ),
        (
            context.session.scalar(recent) is not None,
            "It was sent again within the last five minutes.",
        ),
    )
    return next((why for applies, why in reasons if applies), None)


def _may_receive(context: Context, email: Email) -> bool:
    """Say whether a message's person is there, and still belongs to the account it is about."""
    if email.person_id is None:
        return True
    query = select(Person.id).where(Person.id == email.person_id, Person.disabled_at.is_(None))
    if email.account_id is not None:
        query = query.join(Member, Member.person_id == Person.id).where(
            Member.account_id == email.account_id, Member.removed_at.is_(None)
        )
    return context.session.scalar(query) is not None
