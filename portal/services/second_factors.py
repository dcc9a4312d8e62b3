"""The second factor: time-based codes (RFC 6238), and recovery codes for a lost device.

Invariants: a secret is stored encrypted for its row. A time step and a recovery code can each be
used once; a conditional UPDATE sees to that, so a race has one winner.
"""

import base64
import hashlib
import hmac
from typing import Final

import pyotp
from sqlalchemy import delete, select, update

from licensing.encoding import crockford
from portal.db.people import Person
from portal.db.second_factors import RecoveryCode, SecondFactor
from portal.domain.errors import Conflict, Forbidden
from portal.domain.identifiers import RECOVERY_CODE, new_id
from portal.services.audit import record
from portal.services.context import Context
from portal.services.emails import queue_email
from portal.services.keys import unix

ISSUER: Final = "Smart Router Licenses"
STEP_S: Final = 30
TOLERATED_STEPS: Final = 1
SECRET_BYTES: Final = 20
RECOVERY_CODES: Final = 10


def start_setup(context: Context, person_id: str) -> str:
    """Return the secret to set up, in base32; it stays the same until it is confirmed.

    Raises:
        Conflict: a second factor is already set up.
    """
    factor = context.session.get(SecondFactor, person_id)
    if factor is not None and factor.confirmed_at is not None:
        raise Conflict("A second factor is already set up.")
    if factor is not None:
        return _secret(context, factor)
    secret = base64.b32encode(context.ports.randomness.token(SECRET_BYTES)).decode()
    context.session.add(
        SecondFactor(
            person_id=person_id,
            sealed_secret=context.ports.secrets.seal(secret.encode(), person_id),
            created_at=context.at,
            last_step=0,
        )
    )
    context.session.flush()
    return secret


def provisioning_uri(secret: str, email: str) -> str:
    """Return the `otpauth:` address an authenticator app scans."""
    return pyotp.TOTP(secret).provisioning_uri(name=email, issuer_name=ISSUER)


def confirm_setup(context: Context, person_id: str, code: str) -> list[str] | None:
    """Confirm the factor by its first code; return the recovery codes, shown this once.

    None if the code is wrong.
    """
    factor = context.session.get(SecondFactor, person_id, with_for_update=True)
    if factor is None or factor.confirmed_at is not None or not _use_step(context, factor, code):
        return None
    factor.confirmed_at = context.at
    record(context, "person.factor-set-up", "person", person_id)
    _tell(context, person_id, "factor-set-up")
    return new_recovery_codes(context, person_id)


def new_recovery_codes(context: Context, person_id: str) -> list[str]:
    """Create recovery codes that replace all earlier ones."""
    context.session.execute(delete(RecoveryCode).where(RecoveryCode.person_id == person_id))
    codes = []
    for _ in range(RECOVERY_CODES):
        text = crockford(context.ports.randomness.token(16))[-16:]
        codes.append("-".join(text[start : start + 4] for start in range(0, 16, 4)))
        context.session.add(
            RecoveryCode(
                id=new_id(RECOVERY_CODE, context.ports.randomness),
                person_id=person_id,
                code_sha256=_recovery_hash(person_id, codes[-1]),
            )
        )
    context.session.flush()
    return codes


def check_code(context: Context, person_id: str, code: str) -> bool:
    """Say whether a code is right: the current time step's, or an unused recovery code."""
    factor = context.session.get(SecondFactor, person_id)
    if factor is None or factor.confirmed_at is None:
        return False
    if _use_step(context, factor, code):
        return True
    burned = context.session.execute(
        update(RecoveryCode)
        .where(
            RecoveryCode.person_id == person_id,
            RecoveryCode.code_sha256 == _recovery_hash(person_id, code),
            RecoveryCode.used_at.is_(None),
        )
        .values(used_at=context.at)
        .returning(RecoveryCode.id)
    ).first()
    if burned is None:
        return False
    record(context, "person.recovery-code-used", "person", person_id)
    _tell(context, person_id, "recovery-code-used")
    return True


def unused_recovery_codes(context: Context, person_id: str) -> int:
    """Count the recovery codes a person has left."""
    return len(
        context.session.scalars(
            select(RecoveryCode.id).where(
                RecoveryCode.person_id == person_id, RecoveryCode.used_at.is_(None)
            )
        ).all()
    )


def remove_factor(context: Context, person_id: str) -> None:
    """Remove a customer's second factor and recovery codes, and tell them by mail.

    Raises:
        Forbidden: the person is staff, who must have one.
    """
    if context.session.get_one(Person, person_id).kind == "staff":
        raise Forbidden("Staff must have a second factor.")
    context.session.execute(delete(RecoveryCode).where(RecoveryCode.person_id == person_id))
    context.session.execute(delete(SecondFactor).where(SecondFactor.person_id == person_id))
    record(context, "person.factor-removed", "person", person_id)
    _tell(context, person_id, "factor-removed")


def _use_step(context: Context, factor: SecondFactor, code: str) -> bool:
    digits = "".join(character for character in code if not character.isspace())
    if not digits.isascii() or not digits.isdigit():
        return False
    totp = pyotp.TOTP(_secret(context, factor))
    now = unix(context.at) // STEP_S
    for step in range(now - TOLERATED_STEPS, now + TOLERATED_STEPS + 1):
        if hmac.compare_digest(totp.at(step * STEP_S), digits):
            used = context.session.execute(
                update(SecondFactor)
                .where(SecondFactor.person_id == factor.person_id, SecondFactor.last_step < step)
                .values(last_step=step)
                .returning(SecondFactor.person_id)
            ).first()
            return used is not None
    return False


def _secret(context: Context, factor: SecondFactor) -> str:
    return context.ports.secrets.open(factor.sealed_secret, factor.person_id).decode()


def _recovery_hash(person_id: str, code: str) -> str:
    plain = "".join(character for character in code.upper() if character.isalnum())
    return hashlib.sha256(f"{person_id}:{plain}".encode()).hexdigest()


def _tell(context: Context, person_id: str, template: str) -> None:
    person = context.session.get_one(Person, person_id)
    queue_email(
        context,
        template,
        person.email,
        {"name": person.name, "url": f"{context.policy.origin}/sign-in"},
        person_id=person_id,
    )
