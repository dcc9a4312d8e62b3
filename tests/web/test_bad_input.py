"""What nobody should send: a clear refusal below 500 on `/v1`, on forms and on addresses."""

import io
import json
from pathlib import Path

import pytest
from flask.testing import FlaskClient
from hypothesis import given
from hypothesis import strategies as st

from portal.db.accounts import Account
from portal.db.deployments import Deployment
from portal.services.context import Actor, Transactions
from tests.factories.accounts import make_customer, make_deployment
from tests.licensing.corpus import CORPUS
from tests.web.conftest import StaffMaker
from tests.web.visitor import Served, Visitor

COMMAND = Actor("command")
ENDPOINTS = ("/v1/enrollments", "/v1/leases", "/v1/licenses", "/v1/releases")
TEN_MIB = 10 * 1024 * 1024

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.mark.asvs("1.5.3", "2.2.1", "5.2.1")
@pytest.mark.parametrize("path", ENDPOINTS)
def test_machine_endpoints_refuse_the_corpus(client: FlaskClient, path: str) -> None:
    for name, body in CORPUS.items():
        answer = client.post(path, data=body, content_type="application/json")
        expected = ("too-large", 413) if len(body) > 40 * 1024 else ("malformed-request", 400)
        problem = answer.get_json()
        assert (problem["code"], answer.status_code) == expected, name
        assert answer.content_type == "application/problem+json"
        assert problem["next_action"]
        assert problem["request_id"] == answer.headers["Request-Id"]


@pytest.mark.parametrize("path", ENDPOINTS)
@pytest.mark.parametrize(
    "content_type",
    ["text/plain", "application/x-www-form-urlencoded", "", "application/json; charset=utf-16"],
)
def test_other_media_types_are_refused(client: FlaskClient, path: str, content_type: str) -> None:
    answer = client.post(path, data=b"{}", content_type=content_type)
    assert answer.status_code in (400, 415)
    assert answer.get_json()["code"] in ("unsupported-media-type", "malformed-request")


@pytest.mark.asvs("5.2.1")
def test_ten_mebibytes_are_refused_unread(client: FlaskClient) -> None:
    for path in (*ENDPOINTS, "/sign-in"):
        body = io.BytesIO(b" " * TEN_MIB)
        answer = client.post(
            path,
            input_stream=body,
            content_type="application/json" if path.startswith("/v1") else "text/plain",
            headers={"Content-Length": str(TEN_MIB)},
        )
        assert answer.status_code in (400, 413), path
        assert body.tell() <= 300 * 1024, path


@given(
    body=st.binary(max_size=400)
    | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass"))
)
def test_any_bytes_get_a_problem(client: FlaskClient, body: bytes) -> None:
    for path in ENDPOINTS:
        answer = client.post(path, data=body, content_type="application/json")
        assert answer.status_code == 400
        assert answer.get_json()["code"] == "malformed-request"


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["payload", "payloadType", "signatures", "keyid", "sig", "request", "x"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(value=JSON_VALUES)
def test_any_json_gets_a_problem(client: FlaskClient, value: object) -> None:
    for path in ENDPOINTS:
        answer = client.post(path, data=json.dumps(value), content_type="application/json")
        assert answer.status_code == 400


FORMS = (
    "/sign-up",
    "/sign-in",
    "/forgot-password",
    "/confirm-email",
    "/confirm-email/link",
    "/reset-password/abc",
    "/account/deployments/new",
    "/account/requests/new/evaluation",
    "/account/requests/new/pilot",
    "/account/security/password",
    "/switch-account",
)


@pytest.mark.asvs("1.5.3", "2.2.1")
@pytest.mark.parametrize("path", FORMS)
def test_forms_refuse_the_corpus(customer: Visitor, path: str) -> None:
    for name, body in CORPUS.items():
        for content_type in ("application/x-www-form-urlencoded", "application/json"):
            answer = customer.client.post(path, data=body, content_type=content_type)
            assert 400 <= answer.status_code < 500, (name, content_type, answer.status_code)
            assert "<h1" in answer.text, name


NAMES = {
    "email", "name", "company", "password", "new_password", "terms", "code", "token", "next",
    "purpose", "goals", "volume_tokens", "starts_on", "contacts", "deployment", "mode", "bind",
    "deployment_name", "features", "fingerprint", "step", "account_id",
}  # fmt: skip
TEXTS = [
    "\x00",
    "a\x00b",
    "\ud800",
    "\U0010ffff",
    "\u202e\u200b",
    "x" * 100_000,
    "' OR 1=1 --",
    "{{7*7}}",
    "<script>alert(1)</script>",
    "=1+1",
    "../../etc/passwd",
    "%00",
    "\uff19\uff19",
    "-1",
    "1e309",
    str(10**400),
    "NaN",
]


@pytest.mark.asvs("1.5.3")
@pytest.mark.parametrize("path", FORMS)
def test_any_text_in_any_field_is_refused_or_stays_text(customer: Visitor, path: str) -> None:
    token = customer.token("/account/deployments/new")
    for text in TEXTS:
        data = dict.fromkeys(NAMES, text.encode("utf-8", "replace").decode("utf-8"))
        answer = customer.client.post(path, data={**data, "csrf_token": token})
        assert answer.status_code < 500, text
        assert "<script>alert" not in answer.text
        raw = b"&".join(
            name.encode() + b"=" + text.encode("utf-8", "surrogatepass").replace(b"&", b"")
            for name in sorted(NAMES)
        )
        answer = customer.client.post(
            path,
            data=raw + b"&csrf_token=" + token.encode(),
            content_type="application/x-www-form-urlencoded",
        )
        assert answer.status_code < 500, text


@pytest.mark.asvs("1.2.4")
@pytest.mark.parametrize("text", ["'", '"', "%", "_", "\\", "'; DROP TABLE people; --", "a" * 9000])
def test_searches_and_filters_reach_no_sql_as_text(
    staff: StaffMaker, app: Served, transactions: Transactions, text: str
) -> None:
    make_customer(transactions)
    ann = staff("support")
    for path in ("/staff/accounts", "/staff/licenses", "/staff/instances", "/staff/audit"):
        for name in ("q", "kind", "state", "sort", "page", "subject", "actor", "action"):
            answer = ann.client.get(path, query_string={name: text})
            assert answer.status_code in (200, 400, 404), (path, name)
    found = ann.client.get("/staff/accounts", query_string={"q": "NewCo"}).text
    assert "NewCo" in found
    nothing = ann.client.get("/staff/accounts", query_string={"q": "%"}).text
    assert "jo@newco.example" not in nothing


@pytest.mark.parametrize(
    "path",
    [
        "/%00",
        "/account/licenses/%00",
        "/account/licenses/lic_%F0%9F%98%80",
        "/static/../wsgi.py",
        "/static/%2e%2e/wsgi.py",
        "/static/..%5cwsgi.py",
        "/v1/keysets/999999999999999999999999.json",
        "/v1/keysets/-1.json",
        "/v1/keysets/0.json",
        "/v1/nothing",
        "/help/../../etc/passwd",
        "/help/%2e%2e",
        "/sign-in?next=%00",
        "/sign-in?next=" + "a" * 8000,
        "/confirm-email?token=%ff%fe",
        "/account/deployments/new?draft=%00",
        "/account/requests/new/pilot?draft=" + "x" * 5000,
    ],
)
def test_addresses_that_are_none(customer: Visitor, path: str) -> None:
    answer = customer.client.get(path)
    answer.close()
    assert answer.status_code < 500
    assert "import" not in answer.text if "wsgi" in path else True


@pytest.mark.asvs("5.2.1")
def test_a_form_of_thousands_of_fields_is_refused(customer: Visitor) -> None:
    body = "&".join(f"f{number}=x" for number in range(5000))
    answer = customer.client.post(
        "/sign-in", data=body, content_type="application/x-www-form-urlencoded"
    )
    assert answer.status_code in (400, 413)


@pytest.mark.asvs("1.2.1")
def test_markup_in_stored_fields_is_inert_everywhere(
    customer: Visitor, staff: StaffMaker, transactions: Transactions, tmp_path: Path
) -> None:
    evil = "<img src=x onerror=alert(1)>\"'{{7*7}}"
    with transactions.reading(COMMAND) as context:
        account_id = context.session.query(Account).one().id
    with transactions.writing(COMMAND) as context:
        account = context.session.get_one(Account, account_id)
        account.name = evil
    make_deployment(transactions, account, evil[:90])
    ann = staff("support")
    for page in (
        customer.get("/account"),
        customer.get("/account/deployments"),
        ann.get("/staff/accounts"),
        ann.get(f"/staff/accounts/{account_id}"),
    ):
        assert "<img src=x" not in page.html
        assert "49" not in page.html or "{{7*7}}" in page.html
    with transactions.reading(COMMAND) as context:
        assert context.session.query(Deployment).one().name == evil[:90]
