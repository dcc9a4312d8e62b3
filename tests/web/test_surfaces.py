"""A process may serve some surfaces only; each stands by itself. Problems have their help."""

from pathlib import Path
from urllib.parse import urljoin, urlsplit

import pytest
from flask.testing import FlaskClient

from portal.config import load_settings
from portal.services.context import Transactions
from portal.web.problems import KINDS
from tests.applications import make_app
from tests.factories.accounts import PASSWORD, make_customer, make_staff
from tests.factories.licenses import make_lease_license
from tests.web.conftest import current_code, set_up_factor, sign_in
from tests.web.visitor import Served, Visitor, elements, parse

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def serving(surfaces: str, transactions: Transactions, tmp_path: Path) -> Served:
    settings = load_settings({"PORTAL_DATA_DIR": str(tmp_path), "PORTAL_SURFACES": surfaces})
    return make_app(settings, transactions)


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


def walk(client: FlaskClient, *starts: str) -> dict[str, int]:
    """Follow every link of every page; return the status of each address."""
    seen: dict[str, int] = {}
    waiting = list(starts)
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        answer = client.get(path)
        seen[path] = answer.status_code
        targets = [answer.headers.get("Location", "")]
        if answer.mimetype == "text/html":
            targets += [str(link.get("href")) for link in elements(parse(answer.text), "a")]
        answer.close()
        for target in targets:
            found = urlsplit(urljoin(path, target))
            if not found.netloc and found.path.startswith("/"):
                waiting.append(found._replace(fragment="").geturl())
    return seen


@pytest.mark.parametrize("surface", ["public", "account", "staff"])
@pytest.mark.parametrize("who", ["nobody", "customer", "staff"])
def test_no_link_of_one_surface_alone_breaks(
    surface: str, who: str, transactions: Transactions, tmp_path: Path
) -> None:
    license_ = make_lease_license(transactions)
    ann = make_staff(transactions)
    set_up_factor(transactions, ann.id)
    client = serving(surface, transactions, tmp_path).test_client()
    if who != "nobody":
        email = "jo@newco.example" if who == "customer" else ann.email
        token = Visitor(client).token()
        form = {"email": email, "password": PASSWORD, "csrf_token": token}
        answer = client.post("/sign-in", data=form)
        assert answer.status_code == 302
    if who == "staff":
        token = Visitor(client).token(answer.headers["Location"])
        form = {"code": current_code(transactions, ann.email), "csrf_token": token}
        assert client.post(answer.headers["Location"], data=form).status_code == 302
    seen = walk(client, "/", "/sign-in", "/sign-up", "/account", "/staff", "/account/security")
    assert max(seen.values()) < 500, {path: seen[path] for path in seen if seen[path] >= 500}
    if (surface, who) in (("account", "customer"), ("staff", "staff")):
        assert len([path for path in seen if seen[path] == 200]) > 8
        assert any(license_.id in path for path in seen if seen[path] == 200)


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


@pytest.mark.parametrize(
    ("path", "machine"),
    [
        ("/v1", True),
        ("/v1/", True),
        ("/v1/nothing", True),
        ("//v1/nothing", True),
        ("/v1x", False),
        ("/help/v1/", False),
        ("/V1/leases", False),
    ],
)
@pytest.mark.parametrize("surfaces", ["machine", "public", "public,account,staff,machine"])
def test_a_path_belongs_to_one_application_whatever_a_process_serves(
    surfaces: str, path: str, machine: bool, transactions: Transactions, tmp_path: Path
) -> None:
    client = serving(surfaces, transactions, tmp_path).test_client()
    # In `get(path)` two slashes would begin a host's name.
    answer = client.get(environ_overrides={"PATH_INFO": path})
    assert answer.status_code == 404
    assert answer.mimetype == ("application/problem+json" if machine else "text/html")


def test_an_application_sees_path_and_mount_point_as_they_came(app: Served) -> None:
    answer = app.test_client().get("/v1/keyset.json", environ_overrides={"SCRIPT_NAME": "/mounted"})
    assert answer.status_code == 200
    assert answer.request.environ["SCRIPT_NAME"] == "/mounted"
    redirected = app.test_client().post("/v1//leases", environ_overrides={"SCRIPT_NAME": "/m"})
    assert redirected.headers["Location"].endswith("/m/v1/leases")


def test_programs_have_no_session(app: Served) -> None:
    client = app.test_client()
    client.set_cookie("session", "anything")
    client.set_cookie("remember_token", "somebody|" + "0" * 128)
    for path in ("/v1/keyset.json", "/v1/nothing", "/healthz", "/static/img/mark.svg"):
        answer = client.get(path)
        assert "Set-Cookie" not in answer.headers
        assert "Cookie" not in answer.headers.get("Vary", "")
        answer.close()


@pytest.mark.parametrize("name", ["remember_token", ";", ""])
@pytest.mark.parametrize("value", ["somebody|00", "somebody|é", "|", ""])
def test_a_cookie_to_be_remembered_by_is_not_read(app: Served, name: str, value: str) -> None:
    client = app.test_client()
    answer = client.get("/account", headers={"Cookie": f"{name}={value}"})
    assert answer.headers["Location"].startswith("/sign-in?next")


def test_each_problem_has_its_place_on_the_help_page(visitor: Visitor) -> None:
    page = visitor.get("/help/problems")
    anchors = [each.get("id") for each in elements(page.root, "h2") if each.get("id")]
    assert anchors == [kind.code for kind in KINDS]


@pytest.mark.parametrize(
    ("method", "path", "headers", "code", "words"),
    [
        ("GET", "/v1/nothing", {}, "not-found", "nothing at this path"),
        ("DELETE", "/v1/leases", {}, "method-not-allowed", "not accept this method"),
        ("GET", "/v1/keyset.json", {"Host": "evil.example"}, "malformed-request", "Host header"),
        ("GET", "/v1/keysets/77.json", {}, "not-found", "nothing at this path"),
    ],
)
def test_a_problem_says_what_it_is_and_what_to_do(
    app: Served, method: str, path: str, headers: dict[str, str], code: str, words: str
) -> None:
    answer = app.test_client().open(path, method=method, headers=headers)
    problem = answer.get_json()
    assert problem["code"] == code
    assert words in problem["title"]
    assert problem["status"] == answer.status_code
    assert problem["type"] == f"/help/problems#{code}"
    assert problem["next_action"]


def test_staff_and_customers_have_doors_of_their_own(app: Served, customer: Visitor) -> None:
    assert customer.client.get("/staff").status_code == 404
    assert sign_in(Visitor(app.test_client()), "jo@newco.example").path == "/account"
