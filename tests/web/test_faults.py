"""The database goes away and comes back: never a 500, and everything works again."""

from collections.abc import Iterator
from threading import Barrier, Thread

import pytest
from sqlalchemy import create_engine, make_url, text

from portal.services.context import Transactions
from tests.factories.accounts import make_customer
from tests.factories.instances import make_router
from tests.factories.licenses import make_lease_license
from tests.web.conftest import sign_in
from tests.web.visitor import Served, Visitor


class Outage:
    """Cuts connections to one database, and keeps new ones out."""

    def __init__(self, url: str) -> None:
        self._name = make_url(url).database
        self._admin = create_engine(
            make_url(url).set(database="postgres"), isolation_level="AUTOCOMMIT"
        )

    def cut(self) -> None:
        """Cut what is open, and wait until it is; new connections get in."""
        with self._admin.connect() as connection:
            connection.execute(
                text(
                    "SELECT pg_terminate_backend(pid, 10000)"
                    " FROM pg_stat_activity WHERE datname = :n"
                ),
                {"n": self._name},
            )

    def begin(self) -> None:
        """Let nobody in any more."""
        self._allow("false")
        self.cut()

    def end(self) -> None:
        """Let everybody in again."""
        self._allow("true")

    def _allow(self, value: str) -> None:
        with self._admin.connect() as connection:
            connection.execute(text(f'ALTER DATABASE "{self._name}" ALLOW_CONNECTIONS {value}'))

    def close(self) -> None:
        """Give the connection back."""
        self._admin.dispose()


@pytest.fixture
def outage(database_url: str) -> Iterator[Outage]:
    made = Outage(database_url)
    yield made
    made.end()
    made.close()


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_cut_connections_are_not_noticed(
    customer: Visitor, outage: Outage, transactions: Transactions
) -> None:
    for _ in range(3):
        customer.get("/account")
        outage.cut()
    assert customer.get("/account").path == "/account"
    assert customer.client.get("/readyz").status_code in (200, 503)


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_while_the_database_is_away_answers_say_when_to_come_again(
    app: Served, transactions: Transactions, outage: Outage
) -> None:
    license_ = make_lease_license(transactions)
    visitor = Visitor(app.test_client())
    sign_in(visitor, "jo@newco.example")
    request = make_router(license_).enrollment("A" * 22, at=0)
    outage.begin()
    page = visitor.client.get("/account")
    assert page.status_code == 503
    assert int(page.headers["Retry-After"]) > 0
    assert "<h1" in page.text
    answer = visitor.client.post(
        "/v1/enrollments", data=request.to_bytes(), content_type="application/json"
    )
    assert answer.status_code == 503
    assert answer.get_json()["code"] == "unavailable"
    assert int(answer.headers["Retry-After"]) > 0
    assert visitor.client.get("/v1/keyset.json").status_code == 503
    assert visitor.client.get("/readyz").status_code == 503
    assert visitor.client.get("/healthz").status_code == 200
    outage.end()
    assert visitor.get("/account").path == "/account"
    assert visitor.client.get("/v1/keyset.json").status_code == 200


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_writers_of_one_file_wait_for_each_other(app: Served, transactions: Transactions) -> None:
    make_customer(transactions)
    visitors = [Visitor(app.test_client()) for _ in range(6)]
    for visitor in visitors:
        sign_in(visitor, "jo@newco.example")
    token_of = {visitor: visitor.token("/account/deployments/new") for visitor in visitors}
    barrier = Barrier(len(visitors))
    statuses: list[int] = []

    def make(number: int, visitor: Visitor) -> None:
        barrier.wait(10)
        for turn in range(5):
            answer = visitor.client.post(
                "/account/deployments/new",
                data={"csrf_token": token_of[visitor], "name": f"Site {number} {turn}"},
            )
            statuses.append(answer.status_code)

    threads = [Thread(target=make, args=each) for each in enumerate(visitors)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [302] * 30
