"""The people of a development portal: one customer and one staff person, created once."""

import os
import secrets
from pathlib import Path

import pyotp

from portal.config import Settings
from portal.db.people import person_by_email
from portal.db.second_factors import SecondFactor
from portal.services.accounts import create_account
from portal.services.context import Actor, Context
from portal.services.second_factors import confirm_setup, start_setup
from portal.services.sign_ups import accept_terms_of_use
from portal.services.staff import create_staff
from portal.wiring import wire_command

STAFF_EMAIL = "staff@vendor.test"
CUSTOMER_EMAIL = "customer@acme.test"
ROLES = frozenset({"support", "approver", "keys", "admin"})
ACTOR = Actor("command")


def password_file(settings: Settings) -> Path:
    """Return the file with the password of both people."""
    return settings.data_dir / "secrets" / "development-password"


def make_people(settings: Settings) -> str:
    """Create both people unless they exist; return the password they share."""
    path = password_file(settings)
    if not path.exists():
        write_private(path, f"{secrets.token_urlsafe(12)}\n")
    password = path.read_text().strip()
    transactions = wire_command(settings).transactions
    password_hash = transactions.ports.passwords.hash(password)
    with transactions.writing(ACTOR) as context:
        if person_by_email(context.session, STAFF_EMAIL) is None:
            person = create_staff(
                context,
                email=STAFF_EMAIL,
                roles=ROLES,
                name="Sam Staff",
                password_hash=password_hash,
            )
            set_up_factor(context, person.id)
    with transactions.writing(ACTOR) as context:
        if person_by_email(context.session, CUSTOMER_EMAIL) is None:
            create_account(
                context, name="Acme", owner_email=CUSTOMER_EMAIL, owner_name="Casey Customer"
            )
            owner = person_by_email(context.session, CUSTOMER_EMAIL)
            if owner is not None:
                owner.password_hash = password_hash
                owner.email_confirmed_at = context.at
                accept_terms_of_use(context, owner.id, None, "sign-up")
    return password


def set_up_factor(context: Context, person_id: str) -> None:
    """Set up a second factor as the pages would; the previous code confirms it."""
    secret = start_setup(context, person_id)
    step_ago = context.at.timestamp() - 30
    confirm_setup(context, person_id, pyotp.TOTP(secret).at(int(step_ago)))


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)


def current_code(settings: Settings, email: str) -> str:
    """Return the code a person's authenticator app would show now.

    Raises:
        LookupError: there is no such person, or they have no second factor.
    """
    transactions = wire_command(settings).transactions
    with transactions.reading(ACTOR) as context:
        person = person_by_email(context.session, email)
        factor = None if person is None else context.session.get(SecondFactor, person.id)
        if factor is None:
            raise LookupError(f"{email} has no second factor")
        secret = context.ports.secrets.open(factor.sealed_secret, factor.person_id).decode()
        return pyotp.TOTP(secret).at(int(context.at.timestamp()))
