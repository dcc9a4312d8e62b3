"""Issuing: one cause, one license, the same bytes; visible only when signed and verified."""

from datetime import timedelta
from typing import Any

import pytest

from licensing.license import License as LicensePayload
from licensing.verify import KeysetTrust, verify_license
from portal.db.audit import AuditRow
from portal.db.licenses import Hold, License, licenses_of
from portal.domain.catalog import fill_terms
from portal.domain.errors import Conflict, Forbidden, Invalid, NotFound, Unavailable
from portal.domain.standing import HoldCause
from portal.services.context import Actor, Transactions
from portal.services.downloads import CONTENT_TYPES, license_page, license_summary
from portal.services.entitlements import (
    approve_entitlement,
    propose_entitlement,
    start_entitlement,
)
from portal.services.keys import current_keyset, unix
from portal.services.licenses import (
    find_license,
    issue_license,
    request_issue,
    search_licenses,
    standing,
    standings,
    store_intent,
)
from portal.services.overviews import license_history
from portal.services.requests import approve_request, staff_request
from tests.factories.accounts import (
    make_customer,
    make_deployment,
    make_staff,
    sign_staff_in,
)
from tests.factories.licenses import (
    issue,
    make_budgeted_pilot,
    make_entitlement,
    make_license,
)
from tests.factories.requests import ask_for_pilot
from tests.fakes import FakeClock, MemorySigners

COMMAND = Actor("command")


def test_an_evaluation_is_issued_as_its_template_says(transactions: Transactions) -> None:
    license_ = make_license(transactions)
    assert license_.released_at is not None
    assert license_.envelope is not None
    with transactions.reading(COMMAND) as context:
        trust = KeysetTrust(current_keyset(context).document)
        at = unix(context.at)
    payload = verify_license(license_.envelope, trust, at).document
    assert payload.sku == "eval-72h"
    assert payload.expires_at - payload.issued_at == 72 * 3600
    assert payload.budget is not None
    assert payload.budget.tokens_total == 1_000_000
    assert payload.limits.max_instances == 1
    assert payload.limits.max_concurrency == 4
    assert not {"external_policy_routing", "private_upstreams", "audit_export"} & set(
        payload.features
    )
    assert payload.revision == 1
    assert payload.supersedes is None


def test_one_cause_issues_one_license_however_often_it_is_asked(
    transactions: Transactions,
) -> None:
    account, _ = make_customer(transactions)
    entitlement = make_entitlement(transactions, make_deployment(transactions, account))
    first = issue(transactions, entitlement)
    again = issue(transactions, entitlement)
    assert (again.id, again.envelope) == (first.id, first.envelope)


def test_the_payload_is_fixed_before_it_is_signed(
    transactions: Transactions, clock: FakeClock, signers: MemorySigners
) -> None:
    account, _ = make_customer(transactions)
    entitlement = make_entitlement(transactions, make_deployment(transactions, account))
    with transactions.writing(COMMAND) as context:
        asked = request_issue(context, entitlement.id, cause="start")
    with transactions.writing(COMMAND) as context:
        payload = store_intent(context, asked.id).payload
    clock.advance(seconds=30)
    issue_license(transactions, asked.id, COMMAND)
    with transactions.reading(COMMAND) as context:
        issued = context.session.get_one(License, asked.id)
    assert issued.payload == payload
    assert issued.released_at is not None


def test_nothing_is_visible_while_the_key_is_away(
    transactions: Transactions, signers: MemorySigners
) -> None:
    account, _ = make_customer(transactions)
    entitlement = make_entitlement(transactions, make_deployment(transactions, account))
    with transactions.writing(COMMAND) as context:
        asked = request_issue(context, entitlement.id, cause="start")
    signers.absent = {"license"}
    with pytest.raises(Exception, match="does not hold license keys"):
        issue_license(transactions, asked.id, COMMAND)
    with transactions.reading(COMMAND) as context:
        waiting = context.session.get_one(License, asked.id)
        assert waiting.envelope is None
        assert standing(context, waiting).state == "issuing"
    signers.absent = set()
    issue_license(transactions, asked.id, COMMAND)
    with transactions.reading(COMMAND) as context:
        assert context.session.get_one(License, asked.id).released_at is not None


def test_a_successor_supersedes_after_the_overlap(
    transactions: Transactions, clock: FakeClock
) -> None:
    account, _ = make_customer(transactions)
    deployment = make_deployment(transactions, account)
    first = issue(transactions, make_budgeted_pilot(transactions, deployment))
    second = issue(transactions, make_entitlement(transactions, deployment, sku="credit-pack-5m"))
    payload = LicensePayload.parse(second.payload or b"")
    assert (payload.revision, payload.supersedes) == (2, first.id)
    with transactions.reading(COMMAND) as context:
        newest, older = licenses_of(context.session, deployment.id)
        assert (newest.id, older.id) == (second.id, first.id)
        assert standing(context, older).state == "issued"
        assert standing(context, older).replaced_by == second.id
        assert older.superseded_at == clock.at + timedelta(days=30)
    clock.advance(days=30)
    with transactions.reading(COMMAND) as context:
        assert standing(context, context.session.get_one(License, first.id)).state == "superseded"


def test_a_pack_changes_budget_and_sku_and_nothing_else(transactions: Transactions) -> None:
    account, _ = make_customer(transactions)
    deployment = make_deployment(transactions, account)
    pilot = issue(transactions, make_budgeted_pilot(transactions, deployment))
    pack = issue(transactions, make_entitlement(transactions, deployment, sku="credit-pack-5m"))
    before = LicensePayload.parse(pilot.payload or b"")
    after = LicensePayload.parse(pack.payload or b"")
    assert after.sku == "credit-pack-5m"
    assert after.budget is not None
    assert after.budget.tokens_total == 5_000_000
    assert after.features == before.features
    assert after.expires_at == before.expires_at


def test_a_second_pack_carries_the_first_over(transactions: Transactions, clock: FakeClock) -> None:
    account, _ = make_customer(transactions)
    deployment = make_deployment(transactions, account)
    first = issue(transactions, make_entitlement(transactions, deployment, sku="credit-pack-5m"))
    clock.advance(seconds=1)
    second = issue(transactions, make_entitlement(transactions, deployment, sku="credit-pack-25m"))
    budget = LicensePayload.parse(second.payload or b"").budget
    assert budget is not None
    assert first.document is not None
    assert first.document.budget is not None
    assert budget.carry_over_from == first.document.budget.budget_id
    assert budget.budget_id != first.document.budget.budget_id


@pytest.mark.asvs("2.3.5")
def test_an_annual_contract_needs_two_people(transactions: Transactions) -> None:
    ann, ben = make_staff(transactions), make_staff(transactions, "ben@vendor.test")
    account, _ = make_customer(transactions)
    deployment = make_deployment(transactions, account)
    with transactions.writing(COMMAND) as context:
        made = propose_entitlement(
            context,
            deployment_id=deployment.id,
            terms=fill_terms("enterprise-annual", features=["routing"]),
            reason="contract 7",
            created_by=ann.id,
        )
    with pytest.raises(Forbidden), transactions.writing(COMMAND) as context:
        approve_entitlement(context, made.id, approved_by=ann.id)
    with transactions.writing(COMMAND) as context:
        assert approve_entitlement(context, made.id, approved_by=ben.id).state == "approved"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"sku": "no-such-sku"}, "sku"),
        ({"features": ["routing", "teleport"]}, "features"),
        ({"limits": {"max_wishes": 3}}, "limits"),
        ({"limits": {"max_instances": 0}}, "limits"),
        ({"limits": {"tokens_per_window": 5}}, "limits"),
        ({"limits": {"max_instances": 2}}, "limits"),
        ({"term_s": 5}, "term"),
        ({"sku": "lease-monthly", "mode": "offline"}, "mode"),
        ({"sku": "pilot-30d", "features": ["routing"]}, "features"),
    ],
)
def test_terms_outside_the_catalog_are_refused_with_the_field(
    transactions: Transactions, changes: dict[str, Any], field: str
) -> None:
    account, _ = make_customer(transactions)
    deployment = make_deployment(transactions, account)
    with pytest.raises(Invalid) as refused:
        make_entitlement(transactions, deployment, **changes)
    assert refused.value.field == field


@pytest.mark.asvs("2.3.1")
def test_a_proposed_entitlement_cannot_be_issued(transactions: Transactions) -> None:
    account, _ = make_customer(transactions)
    deployment = make_deployment(transactions, account)
    with transactions.writing(COMMAND) as context:
        made = propose_entitlement(
            context,
            deployment_id=deployment.id,
            terms=fill_terms("eval-72h"),
            reason="x",
            created_by=None,
        )
    with pytest.raises(Conflict), transactions.writing(COMMAND) as context:
        request_issue(context, made.id, cause="start")


def test_a_grant_lapses_after_thirty_days(transactions: Transactions, clock: FakeClock) -> None:
    account, _ = make_customer(transactions)
    entitlement = make_entitlement(transactions, make_deployment(transactions, account))
    clock.advance(days=30)
    with pytest.raises(Conflict, match="time to start"), transactions.writing(COMMAND) as context:
        start_entitlement(context, account_id=account.id, entitlement_id=entitlement.id)


def test_no_license_is_dated_before_the_last(transactions: Transactions, clock: FakeClock) -> None:
    account, _ = make_customer(transactions)
    deployment = make_deployment(transactions, account)
    issue(transactions, make_entitlement(transactions, deployment))
    clock.advance(seconds=-50)
    with pytest.raises(Unavailable):
        issue(transactions, make_entitlement(transactions, deployment, sku="pilot-30d"))


def test_a_clock_a_day_ahead_of_the_database_signs_nothing(
    transactions: Transactions, clock: FakeClock
) -> None:
    if transactions.database.engine.dialect.name == "sqlite":
        pytest.skip("SQLite has no clock of its own")
    account, _ = make_customer(transactions)
    entitlement = make_entitlement(transactions, make_deployment(transactions, account))
    clock.advance(days=1)
    with pytest.raises(Unavailable, match="away from the database's"):
        issue(transactions, entitlement)


def test_issuing_is_told_in_the_audit_trail(transactions: Transactions) -> None:
    license_ = make_license(transactions)
    with transactions.reading(COMMAND) as context:
        acts = [
            row.action
            for row in context.session.query(AuditRow).order_by(AuditRow.id)
            if row.subject_id == license_.id
        ]
    assert acts == ["license.requested", "license.intended", "license.issued"]


def test_the_standing_of_many_takes_one_statement(transactions: Transactions) -> None:
    account, _ = make_customer(transactions)
    deployment, another = (make_deployment(transactions, account, name) for name in "ab")
    held = issue(transactions, make_entitlement(transactions, deployment, sku="pilot-30d"))
    other = issue(transactions, make_entitlement(transactions, another, sku="pilot-30d"))
    with transactions.writing(COMMAND) as context:
        context.session.add(
            Hold(
                id="hld_1",
                entitlement_id=held.entitlement_id,
                cause=HoldCause.DISPUTE,
                reason="x",
                opened_at=context.at,
            )
        )
    with transactions.reading(COMMAND) as context:
        known = standings(context, [held, other])
        assert {each: now.state for each, now in known.items()} == {
            held.id: "suspended",
            other.id: "issued",
        }


def test_what_is_issued_while_held_is_born_suspended(
    transactions: Transactions, signers: MemorySigners
) -> None:
    account, _ = make_customer(transactions)
    entitlement = make_entitlement(transactions, make_deployment(transactions, account))
    with transactions.writing(COMMAND) as context:
        asked = request_issue(context, entitlement.id, cause="start")
        context.session.add(
            Hold(
                id="hld_1",
                entitlement_id=entitlement.id,
                cause=HoldCause.STAFF,
                reason="x",
                opened_at=context.at,
            )
        )
    with transactions.reading(COMMAND) as context:
        assert standing(context, find_license(context, asked.id)).state == "suspended"
        page = license_page(context, account.id, asked.id)
        assert (page.files, page.now.state) == ((), "suspended")
    issue_license(transactions, asked.id, COMMAND)
    with transactions.reading(COMMAND) as context:
        page = license_page(context, account.id, asked.id)
        assert page.now.state == "suspended"
        assert [each.name for each in page.files] == list(CONTENT_TYPES)


def test_staff_find_a_license_by_what_names_it(transactions: Transactions) -> None:
    license_ = make_license(transactions)
    with transactions.reading(COMMAND) as context:
        for words in (
            license_.id,
            license_.account_id,
            license_.deployment_id,
            license_.key_id,
            license_.file_sha256,
            "EVAL",
            "",
        ):
            (row,) = search_licenses(context, words or "")
            assert (row.license.id, row.now.state, row.account.name) == (
                license_.id,
                "issued",
                "NewCo",
            )
        assert search_licenses(context, "pilot") == []
        assert search_licenses(context, "%") == []


def test_staff_see_a_license_from_its_request_to_its_routers(transactions: Transactions) -> None:
    ann = make_staff(transactions)
    sign_staff_in(transactions, ann)
    make_customer(transactions)
    request_id = ask_for_pilot(transactions)
    with transactions.writing(Actor("staff", ann.id)) as context:
        asked = staff_request(context, request_id).asked
        granted = approve_request(context, request_id, staff_id=ann.id, terms=asked, note=None)
    license_ = issue(transactions, granted)
    with transactions.reading(COMMAND) as context:
        history = license_history(context, license_.id)
    assert history.asked is not None
    assert (history.asked.id, history.entitlement.id) == (request_id, granted.id)
    assert (history.now.state, history.account.name) == ("issued", "NewCo")
    acts = [(each.action, history.actor_name(each)) for each in history.trail]
    assert acts[0] == ("request.made", "command")
    assert ("request.approved", ann.name) in acts
    assert acts[-1] == ("license.issued", "command")
    with transactions.reading(COMMAND) as context, pytest.raises(NotFound):
        license_history(context, "lic_0")


def test_what_the_payload_says_is_read_from_it(transactions: Transactions) -> None:
    license_ = make_license(transactions, fingerprints=["fp_12345678"])
    assert license_.document == LicensePayload.parse(license_.payload or b"")
    assert license_.not_before_at == license_.issued_at
    with transactions.reading(COMMAND) as context:
        summary = license_summary(license_, standing(context, license_))
    assert list(summary) == [
        "status",
        "license_id",
        "customer_id",
        "deployment_id",
        "revision",
        "sku",
        "mode",
        "key_id",
        "sha256",
        "issued_at",
        "not_before",
        "expires_at",
        "features",
        "limits",
        "budget_tokens",
    ]
    assert summary["limits"] == {"max_concurrency": 4, "max_instances": 1}
    assert summary["budget_tokens"] == 1_000_000
