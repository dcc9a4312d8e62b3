"""Whoever has the application's database role gets no more signed than self-service gives anybody.

Everything is forged with the very role that the portal uses (on PostgreSQL that of the operators'
page on the database), and with a web process's own ports. What was tried is seen in the audit
trail, in health and by the checker.
"""

from copy import deepcopy
from datetime import datetime, timedelta
from typing import Any

import msgspec
import pytest
from sqlalchemy import delete, select, text, update
from sqlalchemy.exc import DBAPIError

from licensing.encoding import b64encode
from licensing.license import License as LicensePayload
from licensing.license import Limits
from portal.db.audit import AuditRow
from portal.db.entitlements import Entitlement
from portal.db.jobs import Job
from portal.db.licenses import License
from portal.db.sign_ins import SignIn
from portal.domain.catalog import fill_terms
from portal.domain.causes import Approvals, Cause, CauseKind
from portal.domain.ports import SignerUnavailable
from portal.domain.terms import Terms
from portal.services.audit import record
from portal.services.bundles import publish_bundle
from portal.services.causes import PROVE_CAUSE
from portal.services.jobs import enqueue
from portal.services.keys import role_signers, sign_payload
from portal.services.licenses import issue_license, request_issue, store_intent
from portal.services.lines import ISSUE_LICENSE
from portal.services.refusals import review_alarms
from portal.services.seals import seal_entitlement
from tests.attacks.site import (
    COMMAND,
    HUGE,
    NOBODY,
    Site,
    another_customer,
    fix_payload,
    forged_payload,
    sealed_pilot,
    seals_of,
)
from tests.factories.accounts import make_staff, sign_staff_in
from tests.factories.licenses import make_entitlement
from tests.fakes import MemorySigner


def test_the_application_can_neither_change_nor_remove_audit_rows(site: Site) -> None:
    for statement in ("UPDATE audit_rows SET reason = 'x'", "DELETE FROM audit_rows"):
        with pytest.raises(DBAPIError), site.web.writing(NOBODY) as context:
            context.session.execute(text(statement))


def test_a_payload_of_ones_own_is_not_signed(site: Site) -> None:
    license_id = site.forge_license(site.forge_entitlement())
    fix_payload(site, license_id, forged_payload(site, license_id))
    site.require_refused(license_id, "No statement vouches for the payload")
    assert site.faults()[license_id] == "its payload was never sealed"


def test_an_entitlement_of_ones_own_is_not_signed_from(site: Site) -> None:
    forged = site.forge_entitlement()
    license_id = site.forge_license(forged)
    site.require_refused(license_id, "Nobody approved .* never proved")
    assert "causes" in site.unwell()
    assert "nobody ever proved it" in site.faults()[forged.id]


def claim_approval(site: Site, entitlement: Entitlement, *people: str) -> None:
    """Ask the worker to prove approvals that the attacker makes up."""
    with site.web.writing(NOBODY) as context:
        claims = [[person, context.at.isoformat()] for person in people]
        payload = {"entitlement_id": entitlement.id, "approvals": claims}
        enqueue(context, PROVE_CAUSE, f"forged:{entitlement.id}", payload)


def test_approvals_in_a_browser_count_not_where_the_command_approves(site: Site) -> None:
    """Staff, their sign-ins and their approvals are all rows."""
    other = make_staff(site.web, "ben@vendor.test", "approver")
    for person in (site.staff, other):
        sign_staff_in(site.web, person)
    at = site.clock.now()
    forged = site.forge_entitlement(
        approved_by=site.staff.id, created_by=other.id, approved_at=at, created_at=at
    )
    claim_approval(site, forged, site.staff.id, other.id)
    license_id = site.forge_license(forged)
    site.require_refused(license_id, "staff approve by the `portal` command")
    assert len(site.acts("cause.refused")) == 1


@pytest.mark.parametrize(
    "spoil", ["no-sign-in", "no-factor", "stale", "ended", "later", "role", "customer"]
)
def test_an_approval_without_a_fresh_second_factor_counts_not(site: Site, spoil: str) -> None:
    site = site.with_policy(approvals=Approvals.SESSION)
    person = site.staff
    if spoil == "role":
        person = make_staff(site.web, "sue@vendor.test", "support")
    if spoil == "customer":
        person = site.owner
    if spoil != "no-sign-in":
        sign_staff_in(site.web, person)
    at = site.clock.now()
    changes: dict[str, dict[str, Any]] = {
        "no-factor": {"factor_passed_at": None},
        "stale": {"reauthenticated_at": at - timedelta(minutes=16)},
        "ended": {"ended_at": at - timedelta(seconds=1)},
        "later": {"created_at": at + timedelta(seconds=1)},
    }
    if spoil in changes:
        with site.web.writing(NOBODY) as context:
            context.session.execute(update(SignIn).values(**changes[spoil]))
    terms = fill_terms("pilot-30d")
    license_id = site.forge_license(site.forge_entitlement(terms, approved_by=person.id))
    site.require_refused(license_id, person.id)


def test_a_contract_needs_two_people_whoever_signed_in(site: Site) -> None:
    site = site.with_policy(approvals=Approvals.SESSION)
    sign_staff_in(site.web, site.staff)
    forged = site.forge_entitlement(approved_by=site.staff.id, created_by=site.staff.id)
    license_id = site.forge_license(forged)
    site.require_refused(license_id, "needs the approval of two people")


@pytest.mark.parametrize(
    ("beyond", "named"),
    [
        (fill_terms("pilot-30d"), "pilot-30d"),
        (fill_terms("eval-72h", term_s=73 * 3600), "term_s"),
        (fill_terms("eval-72h", limits={"tokens_total": 1_000_001}), "tokens_total"),
        (msgspec.structs.replace(fill_terms("eval-72h"), tokens_total=None), "tokens_total"),
        (fill_terms("eval-72h", limits={"max_instances": 2}), "max_instances"),
        (msgspec.structs.replace(fill_terms("eval-72h"), limits=Limits()), "max_concurrency"),
        (fill_terms("eval-72h", features=["audit_export"]), "features"),
        (msgspec.structs.replace(fill_terms("eval-72h"), support_tier="gold"), "support_tier"),
    ],
)
def test_an_evaluation_beyond_its_template_is_not_signed(
    site: Site, beyond: Terms, named: str
) -> None:
    request = site.forge_request(beyond)
    forged = site.forge_entitlement(beyond, request_id=request.id)
    license_id = site.forge_license(forged)
    site.require_refused(license_id, f"The policy grants no .*{named}")


def test_a_forged_evaluation_gets_what_self_service_gives_and_no_second_one(site: Site) -> None:
    terms = fill_terms("eval-72h")
    for number in range(3):
        request = site.forge_request(terms)
        license_id = site.forge_license(site.forge_entitlement(terms, request_id=request.id))
        if number:
            site.require_refused(license_id, "This account had an evaluation")
            continue
        site.work()
        signed = site.read(license_id)
        assert signed.document is not None
        assert signed.document.expires_at - signed.document.issued_at == 72 * 3600
        assert signed.envelope is not None
        assert site.acts("license.refused") == []
        assert site.faults() == {license_id: "nobody asked for it, by the audit trail"}


def evaluate(site: Site) -> str:
    """Forge an evaluation for an account; return the license's id."""
    terms = fill_terms("eval-72h")
    request = site.forge_request(terms)
    license_id = site.forge_license(site.forge_entitlement(terms, request_id=request.id))
    site.work()
    return license_id


def test_a_domain_gets_one_evaluation_in_however_many_accounts(site: Site) -> None:
    assert site.read(evaluate(site)).released_at is not None
    second = another_customer(site, "al@newco.example", "NewCo again")
    site.require_refused(evaluate(second), "Somebody at newco.example")


def test_a_day_has_a_cap_whatever_domains_are_made_up(site: Site) -> None:
    site = site.with_policy(evaluations_a_day=2)
    for number in range(3):
        here = another_customer(site, f"jo@co{number}.example", f"Co {number}")
        license_id = evaluate(here)
        assert (site.read(license_id).released_at is not None) is (number < 2)
    site.require_refused(license_id, "2 evaluations were granted in 24 hours")
    site.clock.advance(hours=24, seconds=1)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("terms", HUGE),
        ("ends_at", datetime.fromisoformat("2046-01-01T00:00:00+00:00")),
        ("starts_at", datetime.fromisoformat("2026-11-01T00:00:00+00:00")),
        ("budget_id", "bud_00000000000000000000000000"),
    ],
)
def test_a_row_that_was_changed_after_sealing_is_not_signed_from(
    site: Site, column: str, value: Any
) -> None:
    sealed = sealed_pilot(site)
    assert site.faults() == {}
    with site.web.writing(NOBODY) as context:
        context.session.execute(
            update(Entitlement).where(Entitlement.id == sealed.id).values({column: value})
        )
    license_id = site.forge_license(sealed)
    site.require_refused(license_id, f"The row of {sealed.id} differs")
    assert "differs from what was sealed" in site.faults()[sealed.id]


def test_an_entitlement_cannot_be_started_twice(site: Site) -> None:
    sealed = sealed_pilot(site)
    with site.web.writing(NOBODY) as context:
        row = context.session.get_one(Entitlement, sealed.id)
        assert row.starts_at is not None
        assert row.ends_at is not None
        row.starts_at += timedelta(minutes=1)
        row.ends_at += timedelta(minutes=1)
    license_id = site.forge_license(sealed)
    site.require_refused(license_id, "differs from what was sealed")


def test_an_end_that_was_recorded_is_not_undone(site: Site) -> None:
    sealed = sealed_pilot(site)
    with site.portal.writing(COMMAND) as context:
        record(context, "entitlement.ended", "entitlement", sealed.id, reason="refund")
    license_id = site.forge_license(sealed)
    site.require_refused(license_id, "has ended, by the audit trail")


def copy_row(site: Site, of: AuditRow, **columns: Any) -> None:
    """Insert a copy of an audit row with some columns changed."""
    with site.web.writing(NOBODY) as context:
        values = {
            each.key: deepcopy(getattr(of, each.key))
            for each in AuditRow.__mapper__.column_attrs
            if each.key != "id"
        }
        context.session.add(AuditRow(**{**values, **columns}))


def test_a_seal_counts_for_its_own_entitlement_alone(site: Site) -> None:
    rich = another_customer(site, "vic@rich.example", "Rich")
    sealed = sealed_pilot(rich, max_instances=1000)
    row = seals_of(site, sealed.id)[-1]
    with site.portal.reading(COMMAND) as context:
        real = context.session.get_one(Entitlement, sealed.id)
    forged = site.forge_entitlement(
        real.terms, budget_id=real.budget_id, starts_at=real.starts_at, ends_at=real.ends_at
    )
    copy_row(site, row, subject_id=forged.id, account_id=site.account.id)
    license_id = site.forge_license(forged)
    site.require_refused(license_id, "was never proved")
    assert f"its seal belongs to {sealed.id}" in site.faults().values()


def test_an_older_seal_does_not_come_back(site: Site) -> None:
    sealed = sealed_pilot(site, max_instances=1000)
    first = seals_of(site, sealed.id)[-1]
    less = fill_terms("pilot-30d", limits={"max_instances": 1})
    with site.portal.writing(COMMAND) as context:
        row = context.session.get_one(Entitlement, sealed.id)
        before = row.terms
        row.terms = less
        seal_entitlement(context, row, Cause(kind=CauseKind.COMMAND))
    copy_row(site, first)
    with site.web.writing(NOBODY) as context:
        context.session.execute(
            update(Entitlement).where(Entitlement.id == sealed.id).values(terms=before)
        )
    license_id = site.forge_license(sealed)
    site.require_refused(license_id, "differs from what was sealed")
    assert f"it repeats a seal of {sealed.id}" in site.faults().values()


@pytest.mark.parametrize("shape", ["own-key", "altered", "not-text", "nothing", "surrogate"])
def test_an_audit_row_without_a_good_seal_counts_for_nothing(site: Site, shape: str) -> None:
    sealed = sealed_pilot(site)
    row = seals_of(site, sealed.id)[-1]
    seal: dict[str, Any] = dict(row.detail["seal"])
    body = seal["body"].replace('"number":2', '"number":9')
    own = MemorySigner(b"the attacker's")
    forged: object = {
        "own-key": {"body": body, "keyid": own.keyid, "sig": b64encode(own.sign(body.encode()))},
        "altered": {**seal, "body": body},
        "not-text": {**seal, "body": 5},
        "nothing": None,
        "surrogate": {**seal, "body": "\ud800" if not site.portal.database.is_postgresql else ""},
    }[shape]
    copy_row(site, row, detail={**row.detail, "seal": forged})
    found = site.faults()
    assert any("its seal does not hold" in why for why in found.values())
    again = site.forge_license(sealed)
    site.work()
    assert site.read(again).released_at is not None, "what was sealed still counts"


@pytest.mark.parametrize("column", ["payload", "key_id", "entitlement_id", "account_id"])
def test_what_changes_between_intent_and_signature_is_not_signed(site: Site, column: str) -> None:
    sealed = make_entitlement(site.portal, site.deployment, sku="pilot-30d")
    other = another_customer(site, "vic@rich.example", "Rich")
    with site.portal.writing(COMMAND) as context:
        license_id = request_issue(context, sealed.id, cause="start").id
        store_intent(context, license_id)
    with site.web.reading(NOBODY) as context:
        lease_key = role_signers(context, "lease")[0].keyid
    values: dict[str, Any] = {
        "payload": forged_payload(site, license_id),
        "key_id": lease_key,
        "entitlement_id": site.forge_entitlement().id,
        "account_id": other.account.id,
    }
    with site.web.writing(NOBODY) as context:
        context.session.execute(
            update(License).where(License.id == license_id).values({column: values[column]})
        )
    site.require_refused(license_id, "No statement vouches|differs from what was sealed")


def test_a_license_that_was_issued_is_not_computed_twice(site: Site) -> None:
    sealed = sealed_pilot(site)
    gone = {"payload": None, "revision": None, "envelope": None, "released_at": None}
    with site.web.writing(NOBODY) as context:
        license_id = context.session.scalars(
            select(License.id).where(License.entitlement_id == sealed.id)
        ).one()
        context.session.execute(update(License).where(License.id == license_id).values(gone))
        context.session.execute(delete(Job).where(Job.unique_key == license_id))
        enqueue(context, ISSUE_LICENSE, license_id, {"license_id": license_id})
    site.require_refused(license_id, "was issued before, and its file is gone")


def test_a_revision_is_not_used_twice(site: Site) -> None:
    sealed = sealed_pilot(site)
    with site.web.writing(NOBODY) as context:
        context.session.execute(delete(License).where(License.entitlement_id == sealed.id))
    license_id = site.forge_license(sealed)
    site.require_refused(license_id, "Revision 1 .* was issued and is gone")


def test_a_predecessor_of_ones_own_lends_no_budget(site: Site) -> None:
    """`carry_over_from` would bring what is left of any budget that the payload names."""
    sealed = sealed_pilot(site)
    pack = make_entitlement(site.portal, site.deployment, sku="credit-pack-5m")
    other_id = site.forge_license(sealed)
    payload = forged_payload(
        site,
        other_id,
        revision=2,
        budget={"budget_id": "bud_00000000000000000000000000", "tokens_total": 10**12},
    )
    fix_payload(site, other_id, payload)
    own = sign_payload(payload, LicensePayload.PAYLOAD_TYPE, [MemorySigner(b"the attacker's")])
    with site.web.writing(NOBODY) as context:
        context.session.execute(delete(Job).where(Job.unique_key == other_id))
        context.session.execute(
            update(License)
            .where(License.id == other_id)
            .values(envelope=own.to_bytes(), released_at=context.at)
        )
    license_id = site.forge_license(pack)
    site.require_refused(
        license_id, f"{other_id}, which would be replaced, is not as it was signed"
    )
    assert "does not verify" in site.faults()[other_id]


# What a web process can do by itself


def test_a_web_process_can_seal_nothing_whoever_it_says_it_is(site: Site) -> None:
    with pytest.raises(SignerUnavailable, match="does not hold the seal key"):
        make_entitlement(site.web, site.deployment, sku="pilot-30d")
    sealed = make_entitlement(site.portal, site.deployment, sku="pilot-30d")
    with site.web.writing(COMMAND) as context:
        license_id = request_issue(context, sealed.id, cause="start").id
    with pytest.raises(SignerUnavailable):
        issue_license(site.web, license_id, COMMAND)
    with pytest.raises(SignerUnavailable):
        publish_bundle(site.web, COMMAND)


def test_a_review_of_ones_own_hides_nothing(site: Site) -> None:
    license_id = site.forge_license(site.forge_entitlement())
    site.require_refused(license_id, "Nobody approved")
    site.clock.advance(seconds=2)
    with site.web.writing(COMMAND) as context:
        record(context, "custody.reviewed", "custody", "alarms")
    assert "refusals" in site.unwell()
    with site.portal.writing(COMMAND) as context:
        assert review_alarms(context, reason="a bad actor, gone", by=site.staff.id) == 1
    assert "refusals" not in site.unwell()
