"""Secrets sent by mail: single use, short-lived, stored hashed.

A link's token has 256 bits. A confirmation also carries a short code, for people who read mail on
another device. The code is bound to the row and stops working after a few wrong tries.
"""

import base64
import hashlib
from datetime import timedelta
from typing import Final

from sqlalchemy import select, update

from portal.db.email_tokens import EmailToken
from portal.db.people import Person
from portal.domain.identifiers import EMAIL_TOKEN, new_id
from portal.services.context import Context
from portal.services.emails import queue_email

CONFIRM_EMAIL: Final = "confirm-email"
RESET_PASSWORD: Final = "reset-password"
SET_PASSWORD: Final = "set-password"

_LIFETIME: Final = {
    CONFIRM_EMAIL: timedelta(hours=24),
    RESET_PASSWORD: timedelta(hours=1),
    SET_PASSWORD: timedelta(hours=72),
}
_PATH: Final = {
    CONFIRM_EMAIL: "/confirm-email?token={token}",
    RESET_PASSWORD: "/reset-password/{token}",
    SET_PASSWORD: "/reset-password/{token}",
}
CODE_DIGITS: Final = 8
MAX_CODE_ATTEMPTS: Final = 5


def token_hash(token: str) -> str:
    """Return the SHA-256 by which a token is found."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def new_token(context: Context) -> str:
    """Return 256 unpredictable bits as URL-safe text."""
    return base64.urlsafe_b64encode(context.ports.randomness.token(32)).rstrip(b"=").decode()


def send_token(
    context: Context, person: Person, purpose: str, *, account_id: str | None = None
) -> None:
    """Create a token, end older ones for the same purpose, and queue the mail that carries it."""
    context.session.execute(
        update(EmailToken)
        .where(
            EmailToken.person_id == person.id,
            EmailToken.purpose == purpose,
            EmailToken.used_at.is_(None),
        )
        .values(used_at=context.at)
    )
    token = new_token(context)
    row_id = new_id(EMAIL_TOKEN, context.ports.randomness)
    number = int.from_bytes(context.ports.randomness.token(8), "big") % 10**CODE_DIGITS
    code = f"{number:0{CODE_DIGITS}d}"
    context.session.add(
        EmailToken(
            id=row_id,
            person_id=person.id,
            purpose=purpose,
            token_sha256=token_hash(token),
            code_sha256=token_hash(f"{row_id}:{code}") if purpose == CONFIRM_EMAIL else None,
            created_at=context.at,
            expires_at=context.at + _LIFETIME[purpose],
        )
    )
    link = context.policy.origin + _PATH[purpose].format(token=token)
    queue_email(
        context,
        purpose,
        person.email,
        {"name": person.name, "hours": int(_LIFETIME[purpose].total_seconds() // 3600)},
        account_id=account_id,
        person_id=person.id,
        secret=f"{link}\n{code}" if purpose == CONFIRM_EMAIL else link,
    )


def live_token(context: Context, token: str, *purposes: str) -> EmailToken | None:
    """Return the unused, unexpired row of a token."""
    return context.session.scalar(
        select(EmailToken).where(
            EmailToken.token_sha256 == token_hash(token),
            EmailToken.purpose.in_(purposes),
            EmailToken.used_at.is_(None),
            EmailToken.expires_at > context.at,
        )
    )


def use_token(context: Context, row: EmailToken) -> bool:
    """Use a token up; False if it has just been used by another request."""
    burned = context.session.execute(
        update(EmailToken)
        .where(EmailToken.id == row.id, EmailToken.used_at.is_(None))
        .values(used_at=context.at)
        .returning(EmailToken.id)
    ).first()
    return burned is not None


def code_matches(context: Context, person_id: str, code: str) -> EmailToken | None:
    """Return the person's open confirmation if `code` is its code; count a wrong try."""
    row = context.session.scalar(
        select(EmailToken)
        .where(
            EmailToken.person_id == person_id,
            EmailToken.purpose == CONFIRM_EMAIL,
            EmailToken.used_at.is_(None),
            EmailToken.expires_at > context.at,
        )
        .with_for_update()
    )
    if row is None or row.code_attempts >= MAX_CODE_ATTEMPTS:
        return None
    digits = "".join(character for character in code if character.isdigit())
    if row.code_sha256 == token_hash(f"{row.id}:{digits}"):
        return row
    row.code_attempts += 1
    return None
