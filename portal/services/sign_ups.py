"""Sign-up, confirmation of the address, and passwords by mail.

Invariants: an answer never tells whether an address is known; only the mail does. Opening a link in
a mail changes nothing by itself, because scanners open links.
"""

from sqlalchemy import update

from portal.db.people import Person, person_by_email
from portal.db.terms_of_use import TermsOfUseAcceptance
from portal.domain.email_addresses import EmailAddress, parse_email
from portal.domain.errors import Conflict
from portal.domain.identifiers import TERMS_OF_USE_ACCEPTANCE, new_id
from portal.domain.names import clean_name
from portal.services.accounts import add_person, open_account
from portal.services.audit import record
from portal.services.context import Context
from portal.services.email_tokens import (
    CONFIRM_EMAIL,
    RESET_PASSWORD,
    SET_PASSWORD,
    code_matches,
    live_token,
    send_token,
    use_token,
)
from portal.services.emails import queue_email
from portal.services.sign_ins import end_all


def sign_up(context: Context, *, email: str, name: str, company: str, password_hash: str) -> None:
    """Sign a person up. A new address is mailed a confirmation, a known one a reminder.

    Raises:
        Invalid: the address, the name or the company cannot be used.
    """
    address = parse_email(email)
    name, company = clean_name(name, "name"), clean_name(company, "company")
    person = person_by_email(context.session, address.text)
    if person is not None and person.email_confirmed_at is not None:
        queue_email(
            context,
            "sign-up-again",
            person.email,
            {"name": person.name, "url": f"{context.policy.origin}/sign-in"},
            person_id=person.id,
        )
        return
    if person is None:
        person = add_person(context, "customer", address, name)
    elif person.kind != "customer":
        return
    # The owner of the address decides: a later sign-up replaces an unconfirmed one.
    person.name = name
    person.company = company
    person.password_hash = password_hash
    person.password_changed_at = context.at
    accept_terms_of_use(context, person.id, None, "sign-up")
    record(context, "person.signed-up", "person", person.id)
    send_token(context, person, CONFIRM_EMAIL)


def accept_terms_of_use(
    context: Context,
    person_id: str,
    account_id: str | None,
    occasion: str,
    subject_id: str | None = None,
) -> None:
    """Record that a person accepted the current terms of use."""
    context.session.add(
        TermsOfUseAcceptance(
            id=new_id(TERMS_OF_USE_ACCEPTANCE, context.ports.randomness),
            person_id=person_id,
            account_id=account_id,
            version=context.policy.terms_of_use_version,
            occasion=occasion,
            subject_id=subject_id,
            accepted_at=context.at,
        )
    )


def confirm_by_token(context: Context, token: str) -> bool:
    """Confirm an address by the mailed link; False if the link is used, expired or wrong."""
    row = live_token(context, token, CONFIRM_EMAIL)
    if row is None or not use_token(context, row):
        return False
    _confirm(context, context.session.get_one(Person, row.person_id))
    return True


def confirm_by_code(context: Context, email: str, code: str) -> bool:
    """Confirm an address by the mailed code; False if it is wrong, used or expired."""
    person = person_by_email(context.session, email)
    if person is None:
        return False
    row = code_matches(context, person.id, code)
    if row is None or not use_token(context, row):
        return False
    _confirm(context, person)
    return True


def _confirm(context: Context, person: Person) -> None:
    if person.email_confirmed_at is not None:
        return
    person.email_confirmed_at = context.at
    record(context, "person.email-confirmed", "person", person.id)
    if person.kind == "customer" and person.company is not None:
        open_account(context, person.company, _address(person), person)


def _address(person: Person) -> EmailAddress:
    return parse_email(person.email)


def send_confirmation_again(context: Context, email: str) -> None:
    """Mail a new confirmation if the address belongs to a person who needs one."""
    person = person_by_email(context.session, email)
    if person is not None and person.email_confirmed_at is None:
        send_token(context, person, CONFIRM_EMAIL)


def request_reset(context: Context, email: str) -> None:
    """Mail a link to set a new password if the address belongs to a person."""
    person = person_by_email(context.session, email)
    if person is None or person.disabled_at is not None:
        return
    send_token(context, person, RESET_PASSWORD)
    record(context, "person.reset-requested", "person", person.id)


def email_of_reset(context: Context, token: str) -> str | None:
    """Return whose password a link sets; None if the link is used, expired or wrong."""
    row = live_token(context, token, RESET_PASSWORD, SET_PASSWORD)
    return None if row is None else context.session.get_one(Person, row.person_id).email


def set_password_by_token(context: Context, token: str, password_hash: str) -> None:
    """Set a password by a mailed link. It ends every sign-in and leaves the second factor alone.

    Raises:
        Conflict: the link is used, expired or wrong.
    """
    row = live_token(context, token, RESET_PASSWORD, SET_PASSWORD)
    if row is None or not use_token(context, row):
        raise Conflict("This link has been used or has expired. Ask for a new one.")
    person = context.session.get_one(Person, row.person_id)
    person.password_hash = password_hash
    person.password_changed_at = context.at
    # Reading the mail proves that the address is theirs.
    _confirm(context, person)
    end_all(context, person.id, "new password")
    record(context, "person.password-changed", "person", person.id)
    queue_email(
        context,
        "password-changed",
        person.email,
        {"name": person.name, "url": f"{context.policy.origin}/forgot-password"},
        person_id=person.id,
    )


def change_password(context: Context, person_id: str, old_hash: str, new_hash: str) -> None:
    """Change a password after the old one was checked; every other sign-in ends.

    Raises:
        Conflict: it was changed in the meantime.
    """
    changed = context.session.execute(
        update(Person)
        .where(Person.id == person_id, Person.password_hash == old_hash)
        .values(password_hash=new_hash, password_changed_at=context.at)
        .returning(Person.id)
    ).first()
    if changed is None:
        raise Conflict("The password was changed in the meantime.")
    end_all(context, person_id, "new password")
    record(context, "person.password-changed", "person", person_id)
    person = context.session.get_one(Person, person_id)
    queue_email(
        context,
        "password-changed",
        person.email,
        {"name": person.name, "url": f"{context.policy.origin}/forgot-password"},
        person_id=person_id,
    )
