"""Every page reads what it shows in as many statements for fifty rows as for one."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from flask.testing import FlaskClient
from sqlalchemy import event, func, select

from portal.db.accounts import Account
from portal.db.emails import Email
from portal.db.licenses import License
from portal.db.people import person_by_email
from portal.db.session import Database
from portal.domain.requests import Audience
from portal.domain.standing import HoldCause
from portal.services.acts.keys import ROTATE_KEY
from portal.services.acts.machinery import submit
from portal.services.acts.reinstate import REINSTATE
from portal.services.acts.replace import REPLACE
from portal.services.acts.revoke import REVOKE
from portal.services.acts.suspend import SUSPEND
from portal.services.context import Transactions
from portal.services.enrollments import enroll
from portal.services.keys import unix
from portal.services.requests import decline_request, post_message, staff_request
from portal.services.sign_ins import begin
from tests.factories.accounts import (
    COMMAND,
    add_member,
    make_customer,
    make_deployment,
    make_staff,
)
from tests.factories.acts import ask, do, make_annual, newest
from tests.factories.instances import make_code, make_router
from tests.factories.licenses import issue, make_entitlement
from tests.factories.requests import ask_for_pilot
from tests.fakes import FakeClock
from tests.web.conftest import StaffMaker
from tests.web.test_access import rules_of
from tests.web.visitor import Served, Visitor

FEW, MANY = 1, 50
OWNER, STAFF = "jo@newco.example", "ann@vendor.test"


class House:
    """An account, and staff's desk, with as many rows of everything as one likes."""

    def __init__(self, transactions: Transactions, clock: FakeClock) -> None:
        self._transactions, self._clock = transactions, clock
        self._staff = make_staff(transactions, "kit@vendor.test", "approver")
        with transactions.reading(COMMAND) as context:
            self._account = context.session.query(Account).one()
        self._owner = add_member(transactions, self._account.id, "owner", "sam@newco.example")
        deployment = make_deployment(transactions, self._account, "Site")
        self._entitlement = make_entitlement(
            transactions,
            deployment,
            sku="pilot-30d",
            mode="lease",
            limits={"max_instances": MANY + 1},
        )
        self._license = issue(transactions, self._entitlement)
        self._request_id = ask_for_pilot(transactions, deployment_id=deployment.id)
        instance_id, lease_id = self._enroll(self._license, "first")
        self._contract = make_annual(
            transactions,
            make_deployment(transactions, self._account, "Contracted"),
            self._staff.id,
        )
        act = do(transactions, REVOKE, self._contract.id, self._staff.id)
        self._rows = 0
        self.values = {
            "deployment_id": deployment.id,
            "license_id": self._license.id,
            "instance_id": instance_id,
            "lease_id": lease_id,
            "request_id": self._request_id,
            "account_id": self._account.id,
            "act": "suspend",
            "line_act_id": act.id,
            "email_id": self._mail(),
            "act_id": self._key_change(),
            "name": "kit.zip",
        }

    def _key_change(self) -> str:
        """Ask for a key change, which waits for a second person."""
        with self._transactions.writing(COMMAND) as context:
            return submit(context, ROTATE_KEY, ask(ROTATE_KEY, "license", self._staff.id)).id

    def grow(self, rows: int) -> None:
        """Add rows of everything until there are this many."""
        for number in range(self._rows, rows):
            self._keep_time()
            self._add_elsewhere(number)
            self._add_deployment(number)
            self._add_to_deployment(number)
            self._add_people(number)
        self._rows = rows

    def _keep_time(self) -> None:
        """Go with the server's clock: all this takes a while, and signing compares the two."""
        if self._transactions.database.is_postgresql:
            with self._transactions.reading(COMMAND) as context:
                at = context.session.scalar(select(func.clock_timestamp()))
            assert at is not None
            self._clock.at = at

    def _add_elsewhere(self, number: int) -> None:
        """Add another account, with a request that waits in the queue."""
        make_customer(self._transactions, f"kim@site{number}.example", f"Company {number}")
        ask_for_pilot(self._transactions, f"kim@site{number}.example")

    def _add_deployment(self, number: int) -> None:
        """Add a deployment: a licensed router, a request of its own, and a grant that waits."""
        if number >= MANY - 2:
            return  # An account has fifty deployments at most, and two are there already.
        deployment = make_deployment(self._transactions, self._account, f"Site {number}")
        entitlement = make_entitlement(self._transactions, deployment, mode="lease")
        self._enroll(issue(self._transactions, entitlement), f"router of site {number}")
        request_id = ask_for_pilot(self._transactions, deployment_id=deployment.id)
        if number:
            with self._transactions.writing(COMMAND) as context:
                decline_request(context, request_id, staff_id=self._staff.id, note="Not now.")
        make_entitlement(self._transactions, deployment)

    def _add_to_deployment(self, number: int) -> None:
        """Add a license, a router and a code to the first deployment, a message to its request."""
        do(self._transactions, REPLACE, self._license.id, None)
        self._license = newest(self._transactions, self._license.deployment_id)
        self._enroll(self._license, f"router {number}")
        do(self._transactions, REVOKE, self._contract.id, self._staff.id)
        hold = do(
            self._transactions, SUSPEND, self._license.id, self._staff.id, cause=HoldCause.STAFF
        ).outcome
        assert hold is not None
        do(
            self._transactions,
            REINSTATE,
            self._license.id,
            self._staff.id,
            hold_id=hold["hold_id"],
        )
        with self._transactions.writing(COMMAND) as context:
            for author, audience in (
                (self._owner, Audience.CUSTOMER),
                (self._staff, Audience.STAFF),
            ):
                post_message(
                    context,
                    staff_request(context, self._request_id),
                    author_id=author.id,
                    audience=audience,
                    text="How is it going?",
                )

    def _add_people(self, number: int) -> None:
        """Add a member, and a sign-in of each of the two who look at the pages."""
        add_member(self._transactions, self._account.id, "viewer", f"v{number}@newco.example")
        with self._transactions.writing(COMMAND) as context:
            for email in (OWNER, STAFF):
                person = person_by_email(context.session, email)
                assert person is not None
                begin(context, person.id, user_agent=f"browser {number}")

    def _mail(self) -> str:
        """Return the mail that told of the first license."""
        with self._transactions.reading(COMMAND) as context:
            told = select(Email.id).where(Email.template == "license-issued").limit(1)
            return context.session.scalars(told).one()

    def _enroll(self, license_: License, name: str) -> tuple[str, str]:
        code = make_code(self._transactions, license_, uses=2)
        with self._transactions.writing(COMMAND) as context:
            asked = make_router(license_, name).enrollment(code, at=unix(context.at))
            answered = enroll(context, asked)
        return answered.instance_id, answered.lease_id


@contextmanager
def statements(database: Database) -> Iterator[list[str]]:
    """Collect every statement given to the database meanwhile."""
    seen: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        seen.append(statement)

    event.listen(database.engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(database.engine, "before_cursor_execute", note)


def counts(
    app: Served, database: Database, house: House, clients: dict[str, FlaskClient]
) -> dict[str, int]:
    """Open every page people sign in for, twice; return how many statements the second one took."""
    counted = {}
    urls = app.pages.url_map.bind("localhost")
    pages = [
        (
            rule.rule,
            clients[access.kind],
            urls.build(
                rule.endpoint,
                {name: house.values[name] for name in rule.arguments}
                | ({"license": house.values["license_id"]} if "renewal" in rule.rule else {}),
            ),
        )
        for rule, access in rules_of(app)
        if access.kind in clients and "GET" in (rule.methods or ())
    ]
    for rule, client, path in pages:
        assert client.get(path).status_code == 200, path
        with statements(database) as seen:
            client.get(path)
        counted[rule] = len(seen)
    return counted


def test_no_page_asks_once_a_row(
    app: Served,
    database: Database,
    transactions: Transactions,
    clock: FakeClock,
    customer: Visitor,
    staff: StaffMaker,
) -> None:
    ann = staff("approver")
    clients = {"account": customer.client, "signed-in": customer.client, "staff": ann.client}
    house = House(transactions, clock)
    house.grow(FEW)
    few = counts(app, database, house, clients)
    house.grow(MANY)
    many = counts(app, database, house, clients)
    assert len(few) > 30
    assert all(few.values()), "a page was answered without asking"
    grown = {rule: (few[rule], many[rule]) for rule in few if few[rule] != many[rule]}
    assert grown == {}, "statements for one row and for fifty"
