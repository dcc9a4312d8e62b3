"""Logs: one JSON object a line, in UTC, with the request id, and no secret ever."""

import io
import json
import logging
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from portal.gateways.logs import JsonLines, PlainLines, logging_config, strike_secrets
from portal.services.context import SYSTEM, Transactions
from portal.services.keys import unix
from portal.web.access import public
from tests.factories.accounts import make_customer, make_staff
from tests.factories.instances import make_code, make_router
from tests.factories.licenses import make_lease_license
from tests.web.conftest import Office, current_code, set_up_factor, sign_in
from tests.web.visitor import Served, Visitor

CANARY = "canary password nobody should read"


class Log(io.StringIO):
    """What was logged."""

    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.getvalue().splitlines()]


@pytest.fixture
def log() -> Iterator[Log]:
    """All that any logger says at level debug, as a process would write it."""
    stream = Log()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield stream
    root.removeHandler(handler)
    root.setLevel(level)


@pytest.mark.asvs("16.2.1", "16.2.2", "16.2.4")
def test_each_request_is_one_record(log: Log, app: Served, transactions: Transactions) -> None:
    _, owner = make_customer(transactions)
    visitor = Visitor(app.test_client())
    sign_in(visitor, owner.email)
    answer = visitor.client.get("/account/licenses/lic_nothing?token=abc")
    (record,) = [
        each for each in log.records() if each.get("request_id") == answer.headers["Request-Id"]
    ]
    assert record["route"] == "/account/licenses/<license_id>"
    assert (record["method"], record["status"]) == ("GET", 404)
    assert record["person_id"] == owner.id
    assert record["address"] == "127.0.0.1"
    assert record["duration_ms"] >= 0
    assert record["level"] == "info"
    assert record["at"].endswith("Z")
    assert datetime.fromisoformat(record["at"]).utcoffset() is not None


def test_probes_and_files_are_told_at_level_debug(log: Log, app: Served) -> None:
    client = app.test_client()
    client.get("/healthz")
    client.get("/static/img/mark.svg").close()
    assert {each["level"] for each in log.records() if "route" in each} == {"debug"}


@pytest.mark.asvs("16.2.5", "13.3.1", "14.2.1")
def test_no_secret_reaches_a_log(
    log: Log, app: Served, transactions: Transactions, office: Office
) -> None:
    secrets = [CANARY]

    @public
    def explode() -> str:
        raise RuntimeError(f"https://x.example/reset-password/{secrets[2]}?a and {PEM}")

    app.pages.add_url_rule("/explode", "explode", explode)
    visitor = Visitor(app.test_client())
    sign_up = {
        "email": "kim@widgets.example",
        "name": "Kim",
        "company": "Widgets",
        "password": CANARY,
        "terms": "y",
    }
    visitor.send(visitor.get("/sign-up"), sign_up)
    link = office.link("kim@widgets.example", "/confirm-email")
    secrets.append(link.partition("token=")[2])
    visitor.send(visitor.get(link))
    visitor.send(visitor.get("/forgot-password"), {"email": "kim@widgets.example"})
    link = office.link("kim@widgets.example", "/reset-password/")
    secrets.append(link.rpartition("/")[2])
    visitor.get(link)
    sign_in(visitor, "kim@widgets.example", CANARY)
    ann = make_staff(transactions)
    secrets.append(set_up_factor(transactions, ann.id))
    browser = Visitor(app.test_client())
    code = current_code(transactions, ann.email)
    browser.send(sign_in(browser, ann.email), {"code": code})
    secrets.append(code)
    license_ = make_lease_license(transactions)
    enrollment = make_code(transactions, license_)
    secrets.append(enrollment)
    request = make_router(license_).enrollment(enrollment, at=unix(transactions.ports.clock.now()))
    assert (
        app.test_client()
        .post("/v1/enrollments", data=request.to_bytes(), content_type="application/json")
        .status_code
        == 201
    )

    assert app.test_client().get("/explode").status_code == 500
    written = log.getvalue()
    assert "RuntimeError" in written
    assert "MC4CAQAwBQYDK2VwBCIEIA" not in written
    for secret in secrets:
        assert secret not in written, secret[:4]
    assert len(log.records()) >= 15


PEM = (
    "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n"
    "-----END PRIVATE KEY-----"
)


@pytest.mark.asvs("16.4.1")
def test_line_breaks_stay_inside_a_record(log: Log) -> None:
    logging.getLogger("tests").warning("%s", 'a\nb\r\n{"level":"info"}\u2028')
    (record,) = [each for each in log.records() if each["logger"] == "tests"]
    assert record["message"] == 'a\nb\r\n{"level":"info"}\u2028'
    assert len(log.getvalue().splitlines()) == 1


@pytest.mark.parametrize(
    ("said", "left"),
    [
        ("GET /reset-password/abc HTTP/1.1", "GET /reset-password/[struck out] HTTP/1.1"),
        ("/confirm-email?token=abc&x=1", "/confirm-email?token=[struck out]&x=1"),
        ("Authorization: Bearer abc", "Authorization: [struck out]"),
        ("postgresql://portal:pw@db/x", "postgresql://[struck out]@db/x"),
        (f"before {PEM} after", "before [struck out] after"),
        ("nothing secret here", "nothing secret here"),
    ],
)
def test_what_slips_into_a_message_is_struck_out(said: str, left: str) -> None:
    assert strike_secrets(said) == left


def test_a_mistaken_call_is_a_record_without_its_arguments() -> None:
    facts = {"name": "a", "levelname": "INFO", "msg": "%d tries", "args": (CANARY,)}
    line = JsonLines().format(logging.makeLogRecord(facts))
    assert json.loads(line)["message"] == "%d tries"
    assert CANARY not in line


def test_a_terminal_gets_text_and_a_process_json() -> None:
    assert logging_config("info")["formatters"]["lines"]["()"] is JsonLines
    assert logging_config("debug", plain=True)["formatters"]["lines"]["()"] is PlainLines
    record = logging.makeLogRecord(
        {"name": "a", "levelname": "INFO", "msg": "b", "request_id": "c"}
    )
    assert PlainLines().format(record).endswith("info a b request_id=c")


def test_a_databases_error_names_no_values(transactions: Transactions) -> None:
    with pytest.raises(DBAPIError) as raised:
        with transactions.writing(SYSTEM) as context:
            context.session.execute(text("SELECT nothing FROM nowhere WHERE x = :x"), {"x": CANARY})
    assert CANARY not in str(raised.value)
