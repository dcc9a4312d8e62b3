"""Accounts: creating them, and finding them and their members."""

from sqlalchemy import select

from portal.db.accounts import Account, Member
from portal.db.people import Person, person_by_email
from portal.domain.email_addresses import EmailAddress, parse_email
from portal.domain.errors import Conflict, NotFound
from portal.domain.identifiers import ACCOUNT, MEMBER, PERSON, new_id
from portal.domain.names import clean_name
from portal.services.audit import record
from portal.services.context import Context
from portal.services.email_tokens import SET_PASSWORD, send_token


def create_account(
    context: Context, *, name: str, owner_email: str, owner_name: str | None = None
) -> Account:
    """Create an account for a customer; a new owner is mailed a link to set a password.

    Raises:
        Invalid: the name or the address cannot be used.
        Conflict: the address belongs to a staff person.
    """
    address = parse_email(owner_email)
    owner = person_by_email(context.session, address.text)
    is_new = owner is None
    if owner is None:
        owner = add_person(
            context, "customer", address, owner_name or address.text.partition("@")[0]
        )
    elif owner.kind != "customer":
        raise Conflict("Staff cannot belong to a customer account; use another address.")
    account = open_account(context, clean_name(name, "name"), address, owner)
    if is_new:
        send_token(context, owner, SET_PASSWORD, account_id=account.id)
    return account


def open_account(context: Context, name: str, address: EmailAddress, owner: Person) -> Account:
    """Create an account with this person as its owner."""
    account = Account(
        id=new_id(ACCOUNT, context.ports.randomness),
        name=name,
        email_domain=address.domain,
        registrable_domain=address.registrable_domain,
        created_at=context.at,
    )
    context.session.add(account)
    context.session.flush()
    context.session.add(
        Member(
            id=new_id(MEMBER, context.ports.randomness),
            account_id=account.id,
            person_id=owner.id,
            role="owner",
            created_at=context.at,
        )
    )
    record(context, "account.created", "account", account.id, account_id=account.id)
    context.session.flush()
    return account


def add_person(context: Context, kind: str, address: EmailAddress, name: str) -> Person:
    """Create a person who has not signed in yet.

    Raises:
        Invalid: the name cannot be used.
    """
    person = Person(
        id=new_id(PERSON, context.ports.randomness),
        kind=kind,
        email=address.text,
        name=clean_name(name, "name"),
        created_at=context.at,
    )
    context.session.add(person)
    context.session.flush()
    return person


def find_account(context: Context, account_id: str) -> Account:
    """Return an account.

    Raises:
        NotFound: there is none.
    """
    account = context.session.get(Account, account_id)
    if account is None:
        raise NotFound(f"There is no account {account_id}.")
    return account


def members_of(context: Context, account_id: str) -> list[tuple[Member, Person]]:
    """Return the members of an account, by name."""
    rows = context.session.execute(
        select(Member, Person)
        .join(Person, Person.id == Member.person_id)
        .where(Member.account_id == account_id, Member.removed_at.is_(None))
        .order_by(Person.name, Person.id)
    )
    return [(member, person) for member, person in rows]


def search_accounts(context: Context, text: str, most: int = 100) -> list[Account]:
    """Return accounts whose id, name or domain contains `text`, newest first; all if empty."""
    query = select(Account).order_by(Account.created_at.desc(), Account.id).limit(most)
    words = text.strip()
    if words:
        query = query.where(
            (Account.id == words)
            | Account.name.icontains(words, autoescape=True)
            | Account.email_domain.icontains(words, autoescape=True)
        )
    return list(context.session.scalars(query))
