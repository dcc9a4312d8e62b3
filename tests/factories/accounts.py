"""People, accounts and deployments."""

from portal.db.accounts import Account, Member
from portal.db.deployments import Deployment
from portal.db.people import Person, person_by_email
from portal.domain.email_addresses import parse_email
from portal.domain.identifiers import MEMBER, new_id
from portal.services.accounts import add_person, create_account
from portal.services.context import Actor, Transactions
from portal.services.deployments import create_deployment
from portal.services.sign_ins import begin
from portal.services.staff import create_staff

COMMAND = Actor("command")
PASSWORD = "nobody expects this horse"


def make_staff(transactions: Transactions, email: str = "ann@vendor.test", *roles: str) -> Person:
    """Make a staff person with a password."""
    with transactions.writing(COMMAND) as context:
        return create_staff(
            context,
            email=email,
            roles=frozenset(roles or {"approver"}),
            password_hash=transactions.ports.passwords.hash(PASSWORD),
        )


def sign_staff_in(transactions: Transactions, person: Person) -> None:
    """Sign a staff person in, with the second factor given just now."""
    with transactions.writing(COMMAND) as context:
        begin(context, person.id, user_agent="tests", factor_passed=True)


def make_customer(
    transactions: Transactions, email: str = "jo@newco.example", company: str = "NewCo"
) -> tuple[Account, Person]:
    """Make an account with a confirmed owner who has a password."""
    with transactions.writing(COMMAND) as context:
        account = create_account(context, name=company, owner_email=email, owner_name="Jo Owner")
        owner = person_by_email(context.session, email)
        assert owner is not None
        owner.password_hash = transactions.ports.passwords.hash(PASSWORD)
        owner.email_confirmed_at = context.at
    return account, owner


def add_member(transactions: Transactions, account_id: str, role: str, email: str) -> Person:
    """Add a confirmed person with a password to an account."""
    with transactions.writing(COMMAND) as context:
        person = add_person(context, "customer", parse_email(email), role.title())
        person.email_confirmed_at = context.at
        person.password_hash = context.ports.passwords.hash(PASSWORD)
        context.session.add(
            Member(
                id=new_id(MEMBER, context.ports.randomness),
                account_id=account_id,
                person_id=person.id,
                role=role,
                created_at=context.at,
            )
        )
    return person


def make_deployment(
    transactions: Transactions, account: Account, name: str = "Production"
) -> Deployment:
    """Make a deployment."""
    with transactions.writing(COMMAND) as context:
        return create_deployment(context, account_id=account.id, name=name)
