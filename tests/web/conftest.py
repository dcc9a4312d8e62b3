"""The application over real databases, a visitor, and a worker that runs when it is told to."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyotp
import pytest
from flask.testing import FlaskClient

from portal.config import load_settings
from portal.db.people import person_by_email
from portal.db.second_factors import SecondFactor
from portal.domain.ports import Mail
from portal.jobs.handlers import Handlers
from portal.jobs.worker import Worker
from portal.services.context import Actor, Transactions
from portal.services.second_factors import confirm_setup, start_setup
from tests.applications import ORIGIN, mail_templates, make_app
from tests.factories.accounts import PASSWORD, make_customer, make_staff
from tests.fakes import FakeClock, FakeMailer
from tests.web.visitor import Page, Served, Visitor

COMMAND = Actor("command")


@pytest.fixture
def app(transactions: Transactions, tmp_path: Path) -> Served:
    """The application with all surfaces, in clear on loopback."""
    settings = load_settings({"PORTAL_DATA_DIR": str(tmp_path)})
    return make_app(settings, transactions)


@pytest.fixture
def client(app: Served) -> Iterator[FlaskClient]:
    """A client without any session."""
    with app.test_client() as opened:
        yield opened


@pytest.fixture
def visitor(app: Served) -> Visitor:
    """Somebody who is not signed in."""
    return Visitor(app.test_client())


@dataclass
class Office:
    """The worker and the mails it sends."""

    worker: Worker
    mailer: FakeMailer

    def work(self) -> None:
        """Do all that is due."""
        while self.worker.run_once():
            pass

    def mails(self, to: str) -> list[Mail]:
        """Work, then return what was sent to an address, oldest first."""
        self.work()
        return [mail for mail in self.mailer.sent if mail.to == to]

    def link(self, to: str, path: str) -> str:
        """Return the newest mailed link to a path of the portal, without its origin."""
        for mail in reversed(self.mails(to)):
            found = re.search(rf"{re.escape(ORIGIN)}({re.escape(path)}\S*)", mail.text)
            if found:
                return found.group(1)
        raise AssertionError(f"no link to {path} was mailed to {to}")


@pytest.fixture
def office(transactions: Transactions) -> Office:
    """A worker with the real mail templates."""
    mailer = FakeMailer()
    handlers = Handlers(transactions, mail_templates(), mailer)
    return Office(
        Worker(transactions, handlers.by_kind(), handlers.schedules(), "the worker"), mailer
    )


def sign_in(visitor: Visitor, email: str, password: str = PASSWORD) -> Page:
    """Sign in by the form."""
    return visitor.send(visitor.get("/sign-in"), {"email": email, "password": password})


def enter(visitor: Visitor, email: str) -> None:
    """Sign in by the form, without a look at the pages on the way: other tests look at those."""
    sent = {"csrf_token": visitor.token(), "email": email, "password": PASSWORD}
    assert visitor.client.post("/sign-in", data=sent).status_code == 302


def set_up_factor(transactions: Transactions, person_id: str) -> str:
    """Set up a second factor with a code of a step ago; return its secret."""
    with transactions.writing(COMMAND) as context:
        secret = start_setup(context, person_id)
        step_ago = int(context.at.timestamp()) - 30
        assert confirm_setup(context, person_id, pyotp.TOTP(secret).at(step_ago)) is not None
    return secret


def current_code(transactions: Transactions, email: str) -> str:
    """Return the code an authenticator app shows now."""
    with transactions.reading(COMMAND) as context:
        person = person_by_email(context.session, email)
        assert person is not None
        factor = context.session.get_one(SecondFactor, person.id)
        secret = context.ports.secrets.open(factor.sealed_secret, person.id).decode()
        return pyotp.TOTP(secret).at(int(context.at.timestamp()))


@pytest.fixture
def customer(app: Served, transactions: Transactions) -> Visitor:
    """The owner of the account NewCo, signed in."""
    make_customer(transactions)
    visitor = Visitor(app.test_client())
    enter(visitor, "jo@newco.example")
    return visitor


StaffMaker = Callable[..., Visitor]


@pytest.fixture
def staff(app: Served, transactions: Transactions, clock: FakeClock) -> StaffMaker:
    """Make staff with roles, signed in with their second factor."""

    def make(*roles: str, email: str = "ann@vendor.test") -> Visitor:
        person = make_staff(transactions, email, *roles)
        set_up_factor(transactions, person.id)
        visitor = Visitor(app.test_client())
        enter(visitor, email)
        path = "/sign-in/second-factor"
        sent = {"csrf_token": visitor.token(path), "code": current_code(transactions, email)}
        assert visitor.client.post(path, data=sent).status_code == 302
        return visitor

    return make
