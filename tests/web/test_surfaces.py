"""A process may serve some surfaces only; each stands by itself. Problems have their help."""

from pathlib import Path

import pytest
from flask import Flask

from portal.app import create_app
from portal.config import load_settings
from portal.services.context import Transactions
from portal.web.portal import WebPortal
from portal.web.problems import KINDS
from tests.factories.accounts import make_customer
from tests.web.conftest import sign_in
from tests.web.visitor import Visitor, elements

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def serving(surfaces: str, transactions: Transactions, tmp_path: Path) -> Flask:
    settings = load_settings({"PORTAL_DATA_DIR": str(tmp_path), "PORTAL_SURFACES": surfaces})
    return create_app(WebPortal(settings, transactions, b"k" * 32))


@pytest.mark.parametrize("surface", ["public", "account", "staff"])
def test_people_can_sign_in_on_each_of_their_surfaces(
    surface: str, transactions: Transactions, tmp_path: Path
) -> None:
    client = serving(surface, transactions, tmp_path).test_client()
    for path in ("/account", "/staff", "/account/security"):
        answer = client.get(path)
        assert answer.status_code in (302, 404)
        if answer.status_code == 302:
            assert answer.headers["Location"].startswith("/sign-in?next=")
    assert client.get("/sign-in").status_code == 200
    assert client.get("/v1/keyset.json").status_code == 404
    assert client.get("/healthz").status_code == 200


def test_a_process_for_accounts_alone_serves_them(
    transactions: Transactions, tmp_path: Path
) -> None:
    make_customer(transactions)
    client = serving("account", transactions, tmp_path).test_client()
    token = Visitor(client).token("/sign-in")
    form = {"email": "jo@newco.example", "password": "nobody expects this horse"}
    answer = client.post("/sign-in", data={**form, "csrf_token": token})
    assert answer.headers["Location"] == "/account"
    assert client.get("/account").status_code == 200


def test_a_process_for_machines_serves_no_page(transactions: Transactions, tmp_path: Path) -> None:
    client = serving("machine", transactions, tmp_path).test_client()
    for path in ("/", "/sign-in", "/sign-up", "/account", "/staff", "/account/security"):
        assert client.get(path).status_code == 404
    assert client.get("/v1/keyset.json").status_code == 200
    assert client.get("/readyz").status_code == 200


def test_each_problem_has_its_place_on_the_help_page(visitor: Visitor) -> None:
    page = visitor.get("/help/problems")
    anchors = [each.get("id") for each in elements(page.root, "h2") if each.get("id")]
    assert anchors == [kind.code for kind in KINDS]


@pytest.mark.parametrize(
    ("method", "path", "headers", "code", "words"),
    [
        ("GET", "/v1/nothing", {}, "not-found", "nothing at this path"),
        ("DELETE", "/v1/leases", {}, "method-not-allowed", "another method"),
        ("GET", "/v1/keyset.json", {"Host": "evil.example"}, "malformed-request", "Host header"),
        ("GET", "/v1/keysets/77.json", {}, "not-found", "nothing at this path"),
    ],
)
def test_a_problem_says_what_it_is_and_what_to_do(
    app: Flask, method: str, path: str, headers: dict[str, str], code: str, words: str
) -> None:
    answer = app.test_client().open(path, method=method, headers=headers)
    problem = answer.get_json()
    assert problem["code"] == code
    assert words in problem["title"]
    assert problem["status"] == answer.status_code
    assert problem["type"] == f"/help/problems#{code}"
    assert problem["next_action"]


def test_staff_and_customers_have_doors_of_their_own(app: Flask, customer: Visitor) -> None:
    assert customer.client.get("/staff").status_code == 404
    assert sign_in(Visitor(app.test_client()), "jo@newco.example").path == "/account"
