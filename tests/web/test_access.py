"""Who may use which route: every route against every role, another account's things, CSRF."""

import re
from typing import cast

import pytest
from sqlalchemy import select
from werkzeug.routing import Rule as UrlRule

from devtools.access import MATRIX, access_matrix
from devtools.access import rules_of as routes_of
from portal.db.base import Base
from portal.db.emails import Email
from portal.domain.roles import ACCOUNT_ROLES, STAFF_ROLES, account_permissions, staff_permissions
from portal.services.acts import machinery
from portal.services.acts.keys import ROTATE_KEY, RotateKey
from portal.services.acts.kinds import Ask
from portal.services.context import Actor, Transactions
from portal.services.enrollments import enroll
from portal.web.access import Rule
from tests.factories.accounts import add_member, make_customer, make_deployment, make_staff
from tests.factories.instances import make_code, make_router
from tests.factories.licenses import issue, make_entitlement
from tests.factories.requests import ask_for_pilot
from tests.web.conftest import current_code, set_up_factor, sign_in
from tests.web.visitor import Served, Visitor

COMMAND = Actor("command")
SINGLE_ROLES = [f"account:{role}" for role in ACCOUNT_ROLES] + [
    f"staff:{role}" for role in STAFF_ROLES
]
PEOPLE = ["nobody", "pending-staff", *SINGLE_ROLES]


def rules_of(app: Served) -> list[tuple[UrlRule, Rule]]:
    """Return every URL rule of both applications with its access rule."""
    return cast(list[tuple[UrlRule, Rule]], routes_of(app))


@pytest.mark.asvs("8.2.1")
def test_every_route_states_who_may_use_it(app: Served) -> None:
    missing = [rule.rule for rule, access in rules_of(app) if access is None]
    assert missing == []


def test_each_application_has_routes_of_its_own_kind_alone(app: Served) -> None:
    kinds = {rule.rule: access.kind for rule, access in rules_of(app)}
    machine = {rule.rule for rule in app.machine.url_map.iter_rules()}
    assert {path for path, kind in kinds.items() if kind == "machine"} == machine
    assert {path for path in kinds if path.startswith("/v1")} == machine


def test_the_published_matrix_is_the_real_one(app: Served) -> None:
    assert MATRIX.read_text() == access_matrix(app), "run: python -m devtools.access"


def test_a_view_that_states_no_rule_answers_nobody(app: Served) -> None:
    app.pages.add_url_rule("/forgotten", "forgotten", lambda: "secret")
    answer = app.test_client().get("/forgotten")
    assert answer.status_code == 403
    assert "secret" not in answer.text


class House:
    """An account with one of everything, and one person for each role."""

    def __init__(self, app: Served, transactions: Transactions) -> None:
        self.app = app
        self.transactions = transactions
        self.account, _ = make_customer(transactions)
        self.deployment = make_deployment(transactions, self.account)
        self.license = issue(
            transactions, make_entitlement(transactions, self.deployment, mode="lease")
        )
        router = make_router(self.license)
        code = make_code(transactions, self.license, uses=5)
        with transactions.writing(COMMAND) as context:
            asked = router.enrollment(code, at=int(context.at.timestamp()))
            enrolled = enroll(context, asked)
            self.instance_id = enrolled.instance_id
            self.lease_id = enrolled.lease_id
        self.request_id = ask_for_pilot(transactions, deployment_id=self.deployment.id)
        with transactions.reading(COMMAND) as context:
            told = select(Email.id).where(Email.template == "license-issued")
            self.email_id = context.session.scalars(told).one()
        for role in set(ACCOUNT_ROLES) - {"owner"}:
            add_member(transactions, self.account.id, role, f"{role}@newco.example")
        for role in STAFF_ROLES:
            person = make_staff(transactions, f"{role}@vendor.test", role)
            set_up_factor(transactions, person.id)
        make_staff(transactions, "pending@vendor.test", "admin", "approver")
        kim = make_staff(transactions, "kim@vendor.test", "keys")
        with transactions.writing(COMMAND) as context:
            ask = Ask(subject_id="license", params=RotateKey(), reason="a drill", by=kim.id)
            self.act_id = machinery.submit(context, ROTATE_KEY, ask).id

    def visitor(self, who: str) -> Visitor:
        """Return a browser of somebody."""
        visitor = Visitor(self.app.test_client())
        kind, _, role = who.partition(":")
        if kind == "account":
            email = "jo@newco.example" if role == "owner" else f"{role}@newco.example"
            sign_in(visitor, email)
        elif kind == "staff":
            page = sign_in(visitor, f"{role}@vendor.test")
            code = current_code(self.transactions, f"{role}@vendor.test")
            visitor.send(page, {"code": code})
        elif kind == "pending-staff":
            sign_in(visitor, "pending@vendor.test")
        return visitor

    def path(self, rule: UrlRule) -> str:
        """Return the rule's path with this account's ids."""
        values = {
            "deployment_id": self.deployment.id,
            "license_id": self.license.id,
            "instance_id": self.instance_id,
            "request_id": self.request_id,
            "lease_id": self.lease_id,
            "account_id": self.account.id,
            "email_id": self.email_id,
            "code_id": "enc_00000000000000000000000000",
            "public_id": "sgn_00000000000000000000000000",
            "token": "0" * 43,
            "act_id": self.act_id,
            "topic": "verify",
            "filename": "img/mark.svg",
            "version": 1,
            "name": "license.json",
            "distribution": "smart-router-license-0.1.0-py311-linux_x86_64.tar.gz",
        }
        return re.sub(
            r"<(?:[^:<>]+:)?([a-z_]+)>", lambda found: str(values[found.group(1)]), rule.rule
        )


@pytest.fixture
def house(app: Served, transactions: Transactions) -> House:
    return House(app, transactions)


def expected(who: str, access: Rule) -> str:
    """Return what the matrix says: in, sign-in, factor, 403 or 404."""
    kind, _, role = who.partition(":")
    if access.kind in ("public", "machine"):
        return "in"
    if kind == "nobody":
        return "sign-in"
    if access.kind == "pending":
        return "in"
    if kind == "pending-staff":
        return "factor"
    if access.kind == "signed-in":
        return "in"
    if access.kind != kind:
        return "404"
    permissions = (
        account_permissions(role) if kind == "account" else staff_permissions(frozenset({role}))
    )
    return "in" if access.permission in permissions else "403"


def outcome(visitor: Visitor, method: str, path: str) -> str:
    """Try a route; return how the guard answered."""
    if method == "GET":
        answer = visitor.client.get(path)
    else:
        answer = visitor.client.open(path, method=method, data={"csrf_token": visitor.token()})
    answer.close()
    location = answer.headers.get("Location", "")
    if answer.status_code == 302 and location.startswith("/sign-in?next"):
        return "sign-in"
    if answer.status_code == 302 and location.startswith(
        ("/sign-in/second-factor", "/sign-in/set-up-second-factor")
    ):
        return "factor"
    if answer.status_code == 403:
        return "403"
    if answer.status_code == 404 and "There is no such page." in answer.text:
        return "404"
    assert answer.status_code < 500, (path, answer.status_code)
    return "in"


@pytest.mark.asvs("8.2.1", "8.3.1", "6.3.3")
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("who", PEOPLE)
def test_each_role_gets_exactly_where_its_permissions_lead(
    house: House, app: Served, who: str
) -> None:
    wrong = []
    visitor = house.visitor(who)
    for rule, access in rules_of(app):
        if rule.endpoint == "sign_ins.sign_out":
            continue
        for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
            if method == "POST" and access.kind != "machine" and who == "nobody":
                visitor = house.visitor(who)
            found = outcome(visitor, method, house.path(rule))
            if access.kind == "machine" or rule.endpoint.startswith("sign_"):
                continue
            wanted = expected(who, access)
            if rule.endpoint == "security.remove_factor" and who.startswith("staff:"):
                wanted = "403"  # staff cannot be without a second factor
            if found != wanted:
                wrong.append((method, rule.rule, found, wanted))
    assert wrong == []


@pytest.mark.asvs("8.2.2")
def test_another_accounts_things_are_as_absent_as_those_that_never_were(
    house: House, app: Served, transactions: Transactions
) -> None:
    make_customer(transactions, "eve@other.example", "Other")
    eve = Visitor(app.test_client())
    sign_in(eve, "eve@other.example")
    ids = (
        house.deployment.id,
        house.license.id,
        house.instance_id,
        house.request_id,
    )
    tried = 0
    for rule, access in rules_of(app):
        path = house.path(rule)
        if access.kind != "account" or not any(each in path for each in ids):
            continue
        absent = path
        for each in ids:
            absent = absent.replace(each, each[:4] + "0" * 26)
        for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
            answers = [
                eve.client.open(
                    where,
                    method=method,
                    data={
                        "csrf_token": eve.token("/account/deployments/new"),
                        "reason": "x",
                        "text": "x",
                        "uses": "1",
                    }
                    if method == "POST"
                    else None,
                )
                for where in (path, absent)
            ]
            assert [each.status_code for each in answers] == [404, 404], (method, rule.rule)
            bodies = [re.sub(r"[0-9a-f]{24}|value=\"[^\"]+\"", "", each.text) for each in answers]
            assert bodies[0].replace(path, absent) == bodies[1], rule.rule
            tried += 1
    assert tried == 15


@pytest.mark.asvs("3.5.1")
def test_every_post_needs_its_token(house: House, app: Served) -> None:
    visitor = house.visitor("account:owner")
    for rule, access in rules_of(app):
        if "POST" not in (rule.methods or ()) or access.kind == "machine":
            continue
        for data in ({}, {"csrf_token": "x"}):
            answer = visitor.client.post(house.path(rule), data=data)
            assert answer.status_code in (400, 403, 404), (rule.rule, answer.status_code)
            if access.kind != "staff":
                assert answer.status_code == 400, rule.rule
                assert "send this again" in answer.text


@pytest.mark.asvs("3.5.3")
@pytest.mark.parametrize("who", ["account:owner", "staff:approver", "nobody"])
def test_no_get_changes_business_state(
    house: House, app: Served, transactions: Transactions, who: str
) -> None:
    visitor = house.visitor(who)
    visitor.get("/")

    def state() -> dict[str, list[tuple[object, ...]]]:
        excepted = {"audit_rows", "rate_counts", "sign_ins", "second_factors"}
        with transactions.reading(COMMAND) as context:
            return {
                table.name: sorted(
                    (tuple(map(str, row)) for row in context.session.execute(table.select())),
                )
                for table in Base.metadata.sorted_tables
                if table.name not in excepted
            }

    before = state()
    for rule, _ in rules_of(app):
        if "GET" in (rule.methods or ()):
            visitor.client.get(house.path(rule)).close()
            visitor.client.head(house.path(rule)).close()
    assert state() == before


def test_every_page_of_every_role_is_well_formed(house: House, app: Served) -> None:
    for who in ("nobody", "account:owner", "account:viewer", "staff:approver", "staff:support"):
        visitor = house.visitor(who)
        for rule, access in rules_of(app):
            if "GET" not in (rule.methods or ()) or access.kind == "machine":
                continue
            if rule.endpoint in ("static", "health.alive", "health.ready"):
                continue
            if rule.endpoint in (
                "licenses.download",
                "courier.download",
                "distributions.download",
                "distributions.sums",
            ):
                continue
            if expected(who, access) == "in":
                path = house.path(rule)
                unknown = ("sign_ups.reset_password", "opt_outs.ask")
                status = 404 if rule.endpoint in unknown else 200
                if rule.endpoint.startswith("dev_mail"):
                    continue
                visitor.get(path, status)


def test_the_signed_in_have_a_way_to_every_page_they_may_see(house: House) -> None:
    """Walk from the first page by links alone; every listed page must be reached."""
    for who, wanted in (
        (
            "account:owner",
            {
                "/account",
                "/account/requests",
                "/account/deployments",
                "/account/members",
                "/account/activity",
                "/account/security",
                f"/account/licenses/{house.license.id}",
                f"/account/instances/{house.instance_id}",
                f"/account/requests/{house.request_id}",
                "/account/requests/new/evaluation",
                "/account/requests/new/pilot",
            },
        ),
        (
            "staff:approver",
            {
                "/staff",
                "/staff/requests",
                "/staff/accounts",
                "/staff/licenses",
                "/staff/instances",
                "/staff/keys",
                "/staff/audit",
                "/staff/health",
                f"/staff/requests/{house.request_id}/approve",
                f"/staff/licenses/{house.license.id}",
                f"/staff/accounts/{house.account.id}",
            },
        ),
    ):
        visitor = house.visitor(who)
        start = "/account" if who.startswith("account") else "/staff"
        reached: set[str] = set()
        ahead = [start]
        while ahead:
            path = ahead.pop()
            if path in reached:
                continue
            reached.add(path)
            answer = visitor.client.get(path)
            if "text/html" not in answer.content_type or answer.status_code != 200:
                assert answer.status_code < 400, path
                continue
            page = visitor.get(path)
            for link in page.links:
                clean = link.partition("#")[0].partition("?")[0]
                if clean.startswith(start) and clean not in reached:
                    ahead.append(clean)
        assert wanted <= reached, wanted - reached
