"""What every answer carries, whatever its status, over TLS and on loopback."""

from pathlib import Path

import pytest
from flask import request
from flask.testing import FlaskClient

from portal.config import load_settings
from portal.services.context import Transactions
from tests.applications import make_app
from tests.factories.accounts import PASSWORD, make_customer
from tests.web.visitor import Served, Visitor, check_headers

SECURE = "https://licenses.example.com"
pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture
def secure_app(transactions: Transactions, tmp_path: Path) -> Served:
    settings = load_settings(
        {"PORTAL_DATA_DIR": str(tmp_path), "PORTAL_ORIGIN": "https://licenses.example.com"}
    )
    return make_app(settings, transactions)


PATHS = (
    "/",
    "/plans",
    "/sign-in",
    "/account",
    "/nothing-here",
    "/healthz",
    "/readyz",
    "/v1/keyset.json",
    "/v1/nothing",
    "/static/css/shell.css",
)


@pytest.mark.asvs("3.4.1", "3.4.2", "3.4.3", "3.4.4", "3.4.5", "3.4.6")
@pytest.mark.parametrize("path", PATHS)
def test_every_answer_carries_them(secure_app: Served, path: str) -> None:
    for method in ("GET", "POST", "PUT", "OPTIONS"):
        with secure_app.test_client() as client:
            answer = client.open(
                path, method=method, headers={"Origin": "https://evil.example"}, base_url=SECURE
            )
            answer.close()
            check_headers(answer)
            hsts = answer.headers["Strict-Transport-Security"]
            assert int(hsts.partition("max-age=")[2].partition(";")[0]) >= 31_536_000
            assert answer.status_code < 500


@pytest.mark.asvs("3.3.1", "3.3.3", "3.3.4")
def test_the_session_cookie_is_bound_to_host_and_tls(
    secure_app: Served, transactions: Transactions
) -> None:
    make_customer(transactions)
    client = secure_app.test_client()
    page = client.get("/sign-in", base_url=SECURE)
    cookie = page.headers["Set-Cookie"]
    assert cookie.startswith("__Host-session=")
    for part in ("Secure", "HttpOnly", "SameSite=Lax", "Path=/"):
        assert part in cookie
    assert "Domain" not in cookie


@pytest.mark.asvs("14.3.2")
def test_pages_of_the_signed_in_are_not_stored(customer: Visitor) -> None:
    for path in ("/account", "/account/security", "/account/requests"):
        assert customer.client.get(path).headers["Cache-Control"] == "no-store"


def test_hashed_assets_are_immutable_and_others_are_asked_for_again(client: FlaskClient) -> None:
    page = client.get("/").text
    href = page.partition('<link rel="stylesheet" href="')[2].partition('"')[0]
    hashed, plain, wrong = (
        client.get(path) for path in (href, href.partition("?")[0], href.partition("?")[0] + "?v=0")
    )
    assert "immutable" in hashed.headers["Cache-Control"]
    assert "immutable" not in plain.headers["Cache-Control"]
    assert "immutable" not in wrong.headers["Cache-Control"]
    for answer in (hashed, plain, wrong):
        answer.close()


@pytest.mark.asvs("4.1.3")
@pytest.mark.parametrize("host", ["evil.example", "licenses.example.com.evil.example", ""])
def test_only_its_own_hosts_are_answered(secure_app: Served, host: str) -> None:
    answer = secure_app.test_client().get("/", headers={"Host": host}, base_url=SECURE)
    assert answer.status_code == 400


@pytest.mark.asvs("4.1.3")
def test_forwarding_headers_count_from_declared_proxies_alone(
    transactions: Transactions, tmp_path: Path
) -> None:
    origin = "https://licenses.example.com"
    forwarded = {
        "X-Forwarded-For": "203.0.113.9",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Host": "evil.example",
        "Host": "licenses.example.com",
    }
    seen = {}
    for proxies in ("0", "1"):
        settings = load_settings(
            {
                "PORTAL_DATA_DIR": str(tmp_path),
                "PORTAL_ORIGIN": origin,
                "PORTAL_TRUSTED_PROXIES": proxies,
            }
        )
        app = make_app(settings, transactions)
        with app.test_client() as client:
            client.get("/healthz", headers=forwarded)
            seen[proxies] = (request.remote_addr, request.scheme, request.host)
    assert seen["0"] == ("127.0.0.1", "http", "licenses.example.com")
    assert seen["1"] == ("203.0.113.9", "https", "licenses.example.com")


@pytest.mark.asvs("14.2.1")
def test_no_secret_stands_in_an_address(
    client: FlaskClient, transactions: Transactions, app: Served
) -> None:
    make_customer(transactions)
    visitor = Visitor(client)
    page = visitor.get("/sign-in")
    assert page.form().method == "post"
    answer = client.get(
        "/sign-in", query_string={"email": "jo@newco.example", "password": PASSWORD}
    )
    assert answer.status_code == 200
    assert PASSWORD not in answer.text
    assert visitor.get("/account").path.startswith("/sign-in")
