"""Sign-ins: each signed-in browser is a row on the server, keyed by the hash of its token.

Invariants: the cookie's token is 256 random bits and is never stored in clear. It changes at
sign-in, at the second factor and at re-authentication. Signing out, disabling the person and a new
password end rows immediately. A row of staff lasts 12 h, or 2 h without use; a customer's lasts 14
days.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import select, update

from portal.db.accounts import Account, Member, memberships
from portal.db.people import Person, person_by_email, staff_roles
from portal.db.second_factors import SecondFactor
from portal.db.sign_ins import SignIn
from portal.domain.errors import NotFound
from portal.domain.identifiers import SIGN_IN, new_id
from portal.domain.roles import account_permissions, staff_permissions
from portal.services.audit import record
from portal.services.context import Context
from portal.services.email_tokens import new_token, token_hash
from portal.services.second_factors import check_code, confirm_setup

LIFETIME: Final = {"customer": timedelta(days=14), "staff": timedelta(hours=12)}
IDLE: Final = {"customer": timedelta(days=14), "staff": timedelta(hours=2)}
TOUCH_EVERY: Final = timedelta(minutes=5)
FRESH: Final = timedelta(minutes=15)
"""How recent re-authentication must be for a sensitive act."""


@dataclass(frozen=True)
class Credentials:
    """What checking a password needs. It is read first and checked outside any transaction."""

    person_id: str
    kind: str
    password_hash: str
    confirmed: bool


@dataclass(frozen=True)
class Place:
    """An account a person belongs to."""

    account_id: str
    name: str
    role: str


@dataclass(frozen=True)
class SignedIn:
    """Who is signed in, with everything pages need to know; read again for each request."""

    token: str
    public_id: str
    person_id: str
    kind: str
    name: str
    email: str
    places: tuple[Place, ...]
    place: Place | None
    """The account a customer is looking at."""
    staff_roles: frozenset[str]
    permissions: frozenset[str]
    factor_wanted: bool
    """Whether the second factor has to be given or set up before anything else."""
    factor_is_set_up: bool
    reauthenticated_at: datetime
    last_seen_at: datetime

    def is_fresh(self, at: datetime) -> bool:
        """Say whether the person proved who they are a short while ago."""
        return at - self.reauthenticated_at <= FRESH


def credentials(context: Context, email: str) -> Credentials | None:
    """Return what checking this address's password needs; None if nobody can sign in with it."""
    person = person_by_email(context.session, email)
    if person is None or person.disabled_at is not None or person.password_hash is None:
        return None
    return Credentials(
        person.id, person.kind, person.password_hash, person.email_confirmed_at is not None
    )


def begin(
    context: Context,
    person_id: str,
    *,
    user_agent: str,
    rehashed: str | None = None,
    factor_passed: bool = False,
) -> str:
    """Sign in a person whose password was checked; return the new token.

    Args:
        context: the unit of work.
        person_id: whose password was checked.
        user_agent: the browser's name for itself; shown to the person.
        rehashed: the password's hash with today's parameters, if the stored one is weaker.
        factor_passed: whether this browser has given the second factor before.
    """
    person = context.session.get_one(Person, person_id)
    if rehashed is not None:
        person.password_hash = rehashed
    token = new_token(context)
    places = memberships(context.session, person.id)
    context.session.add(
        SignIn(
            token_sha256=token_hash(token),
            public_id=new_id(SIGN_IN, context.ports.randomness),
            person_id=person.id,
            account_id=places[0][1].id if places else None,
            created_at=context.at,
            last_seen_at=context.at,
            reauthenticated_at=context.at,
            factor_passed_at=context.at if factor_passed else None,
            expires_at=context.at + LIFETIME[person.kind],
            address=context.actor.address or "",
            user_agent=user_agent[:200],
        )
    )
    record(context, "person.signed-in", "person", person.id)
    context.session.flush()
    return token


def load(context: Context, token: str) -> SignedIn | None:
    """Return who holds this token; None if the sign-in was ended, expired or idle too long."""
    row = context.session.execute(
        select(SignIn, Person, SecondFactor)
        .join(Person, Person.id == SignIn.person_id)
        .outerjoin(SecondFactor, SecondFactor.person_id == Person.id)
        .where(SignIn.token_sha256 == token_hash(token))
    ).one_or_none()
    if row is None:
        return None
    sign_in, person, factor = row
    over = (
        sign_in.ended_at is not None
        or person.disabled_at is not None
        or context.at >= sign_in.expires_at
        or context.at - sign_in.last_seen_at > IDLE[person.kind]
    )
    if over:
        return None
    has_factor = factor is not None and factor.confirmed_at is not None
    places = tuple(
        Place(account.id, account.name, member.role)
        for member, account in memberships(context.session, person.id)
    )
    place = next((each for each in places if each.account_id == sign_in.account_id), None)
    roles: frozenset[str] = frozenset()
    if person.kind == "staff":
        roles = staff_roles(context.session, person.id)
        permissions = staff_permissions(roles)
    else:
        place = place or (places[0] if places else None)
        permissions = account_permissions(place.role) if place else frozenset()
    return SignedIn(
        token=token,
        public_id=sign_in.public_id,
        person_id=person.id,
        kind=person.kind,
        name=person.name,
        email=person.email,
        places=places,
        place=place,
        staff_roles=roles,
        permissions=permissions,
        factor_wanted=(has_factor or person.kind == "staff") and sign_in.factor_passed_at is None,
        factor_is_set_up=has_factor,
        reauthenticated_at=sign_in.reauthenticated_at,
        last_seen_at=sign_in.last_seen_at,
    )


def person_of_token(context: Context, token: str) -> str | None:
    """Return whose token this is or was, to keep what they typed; None if it is nobody's."""
    return context.session.scalar(
        select(SignIn.person_id).where(SignIn.token_sha256 == token_hash(token))
    )


def touch(context: Context, token: str) -> None:
    """Record that the browser is still in use."""
    context.session.execute(
        update(SignIn)
        .where(SignIn.token_sha256 == token_hash(token), SignIn.ended_at.is_(None))
        .values(last_seen_at=context.at)
    )


def pass_factor(context: Context, who: SignedIn, code: str) -> str | None:
    """Return the browser's new token if the code is a right second factor, otherwise None."""
    if not check_code(context, who.person_id, code):
        return None
    return rotate(context, who.token, factor_passed=True)


def set_up_factor(context: Context, who: SignedIn, code: str) -> tuple[str, list[str]] | None:
    """Confirm a new second factor by its first code.

    Returns the browser's new token and the recovery codes; None if the code is wrong.
    """
    codes = confirm_setup(context, who.person_id, code)
    if codes is None:
        return None
    return rotate(context, who.token, factor_passed=True), codes


def rotate(
    context: Context, token: str, *, factor_passed: bool = False, reauthenticated: bool = False
) -> str:
    """Give the browser a new token after it proved more; the old one ends immediately.

    Raises:
        NotFound: the sign-in has just ended.
    """
    fresh = new_token(context)
    values: dict[str, Any] = {"token_sha256": token_hash(fresh), "last_seen_at": context.at}
    if factor_passed:
        values["factor_passed_at"] = context.at
    if reauthenticated or factor_passed:
        values["reauthenticated_at"] = context.at
    moved = context.session.execute(
        update(SignIn)
        .where(SignIn.token_sha256 == token_hash(token), SignIn.ended_at.is_(None))
        .values(**values)
        .returning(SignIn.public_id)
    ).first()
    if moved is None:
        raise NotFound("This sign-in has ended.")
    return fresh


def end(context: Context, token: str) -> None:
    """Sign out; a copy of the cookie is useless from then on."""
    row = context.session.get(SignIn, token_hash(token))
    if row is not None and row.ended_at is None:
        row.ended_at = context.at
        row.end_reason = "signed out"
        record(context, "person.signed-out", "person", row.person_id)


def end_one(context: Context, person_id: str, public_id: str) -> None:
    """End one of a person's own sign-ins.

    Raises:
        NotFound: the person has no such sign-in.
    """
    row = context.session.scalar(
        select(SignIn).where(SignIn.public_id == public_id, SignIn.person_id == person_id)
    )
    if row is None:
        raise NotFound("There is no such sign-in.")
    if row.ended_at is None:
        row.ended_at = context.at
        row.end_reason = "ended from another browser"
        record(context, "person.sign-in-ended", "person", person_id, sign_in=public_id)


def end_all(context: Context, person_id: str, reason: str) -> None:
    """End every sign-in of a person."""
    context.session.execute(
        update(SignIn)
        .where(SignIn.person_id == person_id, SignIn.ended_at.is_(None))
        .values(ended_at=context.at, end_reason=reason)
    )


def open_sign_ins(context: Context, person_id: str) -> list[SignIn]:
    """Return a person's sign-ins, last used first."""
    return list(
        context.session.scalars(
            select(SignIn)
            .where(
                SignIn.person_id == person_id,
                SignIn.ended_at.is_(None),
                SignIn.expires_at > context.at,
            )
            .order_by(SignIn.last_seen_at.desc())
        )
    )


def switch_account(context: Context, token: str, person_id: str, account_id: str) -> None:
    """Switch to another of the person's accounts.

    Raises:
        NotFound: the person does not belong to it.
    """
    member = context.session.scalar(
        select(Member)
        .join(Account, Account.id == Member.account_id)
        .where(
            Member.person_id == person_id,
            Member.account_id == account_id,
            Member.removed_at.is_(None),
            Account.closed_at.is_(None),
        )
    )
    if member is None:
        raise NotFound("You do not belong to that account.")
    context.session.execute(
        update(SignIn).where(SignIn.token_sha256 == token_hash(token)).values(account_id=account_id)
    )
