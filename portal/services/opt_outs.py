"""Declining reminders: for one person and one account, by the link in each reminder.

The link works without signing in, since whoever wants no mail need not remember a password. It
holds person and account encrypted under the data key, so nobody can make one for somebody else, and
all it can do is to switch that person's reminders of that account off and on.
"""

import base64
import binascii
from dataclasses import dataclass
from typing import Final

from sqlalchemy import select

from portal.db.accounts import Account, Member
from portal.domain.errors import NotFound
from portal.domain.ports import SealBroken
from portal.services.audit import record
from portal.services.context import Context

_PURPOSE: Final = "unsubscribe"
"""What the token is bound to: no other secret opens as one."""
LONGEST_TOKEN: Final = 400


@dataclass(frozen=True)
class OptOut:
    """Whose reminders a link is about, and how they stand."""

    account_name: str
    is_off: bool


def unsubscribe_link(context: Context, person_id: str, account_id: str) -> str:
    """Return the address at which a person declines an account's reminders."""
    sealed = context.ports.secrets.seal(f"{person_id} {account_id}".encode(), _PURPOSE)
    token = base64.urlsafe_b64encode(sealed).rstrip(b"=").decode()
    return f"{context.policy.origin}/unsubscribe/{token}"


def opt_out_of(context: Context, token: str) -> OptOut:
    """Return what a link is about.

    Raises:
        NotFound: the link was not made here, or the person has left the account.
    """
    member, account = _place(context, token)
    return OptOut(account.name, member.reminders_off_at is not None)


def switch_reminders(context: Context, token: str, *, off: bool) -> OptOut:
    """Switch a person's reminders of an account off or on; as they are already, change nothing.

    Raises:
        NotFound: the link was not made here, or the person has left the account.
    """
    member, account = _place(context, token)
    if (member.reminders_off_at is not None) != off:
        member.reminders_off_at = context.at if off else None
        record(
            context,
            "person.reminders-stopped" if off else "person.reminders-resumed",
            "person",
            member.person_id,
            account_id=account.id,
        )
    return OptOut(account.name, off)


def _place(context: Context, token: str) -> tuple[Member, Account]:
    person_id, account_id = _ids(context, token)
    found = context.session.execute(
        select(Member, Account)
        .join(Account, Account.id == Member.account_id)
        .where(
            Member.person_id == person_id,
            Member.account_id == account_id,
            Member.removed_at.is_(None),
        )
    ).one_or_none()
    if found is None:
        raise NotFound("This link is about an account that you have left.")
    member, account = found
    return member, account


def _ids(context: Context, token: str) -> tuple[str, str]:
    broken = NotFound("This link is incomplete. Copy all of it from the e-mail.")
    if len(token) > LONGEST_TOKEN:
        raise broken
    try:
        sealed = base64.b64decode(f"{token}{'=' * (-len(token) % 4)}", b"-_", validate=True)
        person_id, account_id = context.ports.secrets.open(sealed, _PURPOSE).decode().split(" ")
    except (binascii.Error, ValueError, SealBroken):
        raise broken from None
    return person_id, account_id
