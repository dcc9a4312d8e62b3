"""People, accounts and deployments."""

from portal.db.accounts import Account
from portal.db.deployments import Deployment
from portal.db.people import Person, person_by_email
from portal.services.accounts import create_account
from portal.services.context import Actor, Transactions
from portal.services.deployments import create_deployment
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


def make_deployment(
    transactions: Transactions, account: Account, name: str = "Production"
) -> Deployment:
    """Make a deployment."""
    with transactions.writing(COMMAND) as context:
        return create_deployment(context, account_id=account.id, name=name)
