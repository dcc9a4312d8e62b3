"""A license's page and files: right bytes, right names, noted, limited, and nobody else's."""

import hashlib
import io
import json
import re
import zipfile
from datetime import timedelta
from pathlib import Path

import pytest

from licensing.envelope import Envelope
from licensing.verify import KeysetTrust, RevocationPolicy, examine_license
from portal.db.accounts import Account
from portal.db.acts import Act
from portal.db.audit import AuditRow
from portal.db.entitlements import Entitlement
from portal.db.licenses import Hold, License
from portal.services.context import Actor, Transactions
from portal.services.keys import current_keyset, unix
from portal.services.licenses import request_issue
from tests.factories.accounts import make_deployment
from tests.factories.licenses import issue, make_entitlement
from tests.fakes import FakeClock, MemorySigners
from tests.web.conftest import Office, StaffMaker
from tests.web.visitor import Page, Visitor

COMMAND = Actor("command")
NAMES = ("license.json", "summary.json", "checklist.txt", "kit.zip")


@pytest.fixture
def license_(customer: Visitor, transactions: Transactions) -> License:
    with transactions.reading(COMMAND) as context:
        account = context.session.query(Account).one()
    deployment = make_deployment(transactions, account)
    return issue(transactions, make_entitlement(transactions, deployment))


def test_the_page_names_each_file_with_size_hash_and_command(
    customer: Visitor, license_: License
) -> None:
    page = customer.get(f"/account/licenses/{license_.id}")
    assert "router-license verify license.json --keyset keyset.json" in page.text
    assert license_.key_id is not None
    assert license_.key_id in page.html
    assert "Concurrent requests 4" in page.text, "the limits are part of the facts"
    for name in NAMES:
        answer = customer.client.get(f"/account/licenses/{license_.id}/{name}")
        assert answer.status_code == 200
        assert answer.headers["Content-Disposition"] == f'attachment; filename="{name}"'
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Cache-Control"] == "no-store"
        assert hashlib.sha256(answer.data).hexdigest() in page.html, name
        assert f"{len(answer.data):,} bytes" in page.text or str(len(answer.data)) in page.text


@pytest.mark.asvs("3.2.1")
def test_the_kit_holds_everything_and_its_sums_are_right(
    customer: Visitor, license_: License, transactions: Transactions
) -> None:
    answer = customer.client.get(f"/account/licenses/{license_.id}/kit.zip")
    with zipfile.ZipFile(io.BytesIO(answer.data)) as kit:
        files = {Path(name).name: kit.read(name) for name in kit.namelist()}
    assert set(files) == {
        "license.json",
        "summary.json",
        "checklist.txt",
        "keyset.json",
        "revocation-bundle.json",
        "SHA256SUMS",
    }
    lines = [line.split("  ") for line in files.pop("SHA256SUMS").decode().splitlines()]
    sums = {name: digest for digest, name in lines}
    assert sums == {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    with transactions.reading(COMMAND) as context:
        trust = KeysetTrust(current_keyset(context).document)
        found = examine_license(
            files["license.json"],
            trust,
            unix(context.at),
            bundles=[files["revocation-bundle.json"]],
            policy=RevocationPolicy(require_current=True),
        ).require()
    assert found.document.license_id == license_.id


def test_summary_and_checklist_hold_safe_facts_alone(customer: Visitor, license_: License) -> None:
    assert license_.envelope is not None
    envelope = Envelope.parse(license_.envelope)
    secrets = [
        json.loads(license_.envelope)["payload"],
        json.loads(license_.envelope)["signatures"][0]["sig"],
    ]
    for name in ("summary.json", "checklist.txt"):
        text = customer.client.get(f"/account/licenses/{license_.id}/{name}").text
        assert not any(secret in text for secret in secrets)
        assert license_.id in text
        assert "license.json" in text
    assert envelope.signatures


def test_each_download_is_noted(
    customer: Visitor, license_: License, transactions: Transactions
) -> None:
    for name in NAMES:
        customer.client.get(f"/account/licenses/{license_.id}/{name}")
    with transactions.reading(COMMAND) as context:
        rows = context.session.query(AuditRow).filter_by(action="license.downloaded").all()
        assert sorted(row.detail["file"] for row in rows) == sorted(NAMES)
        assert all(row.actor_id and row.address for row in rows)
    assert "License file downloaded" in customer.get("/account/activity").text


@pytest.mark.asvs("2.4.1")
def test_downloads_are_limited(
    customer: Visitor, license_: License, transactions: Transactions, clock: FakeClock
) -> None:
    path = f"/account/licenses/{license_.id}/summary.json"
    statuses = set()
    for _ in range(300):
        statuses.add(customer.client.get(path).status_code)
    assert statuses == {200}
    answer = customer.client.get(path)
    assert answer.status_code == 429
    clock.advance(hours=1, seconds=1)
    assert customer.client.get(path).status_code == 200


@pytest.mark.asvs("5.3.2")
@pytest.mark.parametrize(
    "name", ["../license.json", "%2e%2e/keys", "license.json/..", "LICENSE.JSON", "key.pem", "kit"]
)
def test_no_other_file_is_handed_out(customer: Visitor, license_: License, name: str) -> None:
    assert customer.client.get(f"/account/licenses/{license_.id}/{name}").status_code == 404


def test_nothing_is_handed_out_before_the_signature_is_stored(
    customer: Visitor, transactions: Transactions, signers: MemorySigners, office: Office
) -> None:
    with transactions.reading(COMMAND) as context:
        account = context.session.query(Account).one()
    entitlement = make_entitlement(transactions, make_deployment(transactions, account))
    with transactions.writing(COMMAND) as context:
        asked = request_issue(context, entitlement.id, cause="start")
    signers.absent.add("license")
    office.work()
    page = customer.get(f"/account/licenses/{asked.id}")
    assert "being signed" in page.text
    for name in NAMES:
        assert customer.client.get(f"/account/licenses/{asked.id}/{name}").status_code == 409


def test_a_silent_worker_is_told_and_staff_health_is_red(
    customer: Visitor,
    staff: StaffMaker,
    transactions: Transactions,
    clock: FakeClock,
    office: Office,
) -> None:
    ann = staff("support")
    office.work()
    with transactions.reading(COMMAND) as context:
        account = context.session.query(Account).one()
    entitlement = make_entitlement(transactions, make_deployment(transactions, account))
    with transactions.writing(COMMAND) as context:
        asked = request_issue(context, entitlement.id, cause="start")
    clock.advance(seconds=61)
    assert "delayed" in customer.get(f"/account/licenses/{asked.id}").text
    unwell = ann.get("/staff/health").text
    assert "worker" in unwell.lower()
    office.work()
    assert "delayed" not in customer.get(f"/account/licenses/{asked.id}").text


def test_an_expired_and_a_held_license_say_so(
    customer: Visitor, license_: License, transactions: Transactions, clock: FakeClock
) -> None:
    path = f"/account/licenses/{license_.id}"
    with transactions.writing(COMMAND) as context:
        entitlement = context.session.query(Entitlement).one()
        hold = Hold(
            id="hld_00000000000000000000000000",
            entitlement_id=entitlement.id,
            cause="staff",
            reason="a question",
            opened_at=context.at,
        )
        context.session.add(hold)
    assert "on hold" in customer.get(path).text
    with transactions.writing(COMMAND) as context:
        context.session.get_one(Hold, hold.id).lifted_at = context.at
    assert "on hold" not in customer.get(path).text
    clock.advance(hours=72)
    assert "has expired" in customer.get(path).text


def bring_to(state: str, transactions: Transactions, clock: FakeClock, license_: License) -> None:
    """Bring a license to a standing."""
    if state == "expired":
        clock.advance(hours=72)
        return
    with transactions.writing(COMMAND) as context:
        row = context.session.get_one(License, license_.id)
        if state == "revoked":
            row.revoked_at = context.at
        elif state == "superseded":
            row.superseded_at = context.at
            row.superseded_by = license_.id
        else:
            hold = Hold(
                id="hld_00000000000000000000000000",
                entitlement_id=row.entitlement_id,
                cause="staff",
                reason="a question",
                opened_at=context.at,
            )
            context.session.add(hold)


@pytest.mark.parametrize(
    ("state", "title", "code", "status"),
    [
        ("revoked", "This license was revoked", "revoked", 6),
        ("suspended", "This license is on hold", "suspended", 6),
        ("superseded", "A newer license has taken the place of this one", "superseded", 6),
        ("expired", "This license has expired", "expired", 5),
    ],
)
def test_what_must_not_be_installed_says_so_first_and_claims_nothing_else(
    customer: Visitor,
    license_: License,
    transactions: Transactions,
    clock: FakeClock,
    state: str,
    title: str,
    code: str,
    status: int,
) -> None:
    bring_to(state, transactions, clock, license_)
    path = f"/account/licenses/{license_.id}"
    page = customer.get(path)
    assert page.text.index(title) < page.text.index("Verify it")
    assert f"It prints {code} and exits {status}." in page.text
    for untrue in ("valid and exits 0", "Install it", "Mark as installed", "what the router needs"):
        assert untrue not in page.text, untrue
    assert ("--bundle revocation-bundle.json" in page.text) == (status == 6)
    with zipfile.ZipFile(io.BytesIO(customer.client.get(f"{path}/kit.zip").data)) as kit:
        files = {Path(name).name: kit.read(name).decode() for name in kit.namelist()}
    for name in ("checklist.txt", "summary.json"):
        assert customer.client.get(f"{path}/{name}").text == files[name]
    checklist, summary = files["checklist.txt"], json.loads(files["summary.json"])
    assert checklist.index(title.upper()) < checklist.index("Deployment ")
    assert f"It prints '{code}' and exits {status}." in checklist
    assert "server.license.path" not in checklist
    assert summary["status"] == state
    assert summary["notice"].startswith(title)
    assert "Install the signed" not in summary["notice"]
    assert customer.post(f"{path}/installed").status_code == 409


def test_the_command_of_a_revoked_license_that_expired_as_well_says_what_comes_first(
    customer: Visitor, license_: License, transactions: Transactions, clock: FakeClock
) -> None:
    bring_to("revoked", transactions, clock, license_)
    clock.advance(hours=72)
    page = customer.get(f"/account/licenses/{license_.id}")
    assert "This license was revoked" in page.text
    assert "It prints expired and exits 5." in page.text


def test_a_license_with_a_successor_counts_until_the_overlap_or_its_own_end(
    customer: Visitor, license_: License, transactions: Transactions, clock: FakeClock
) -> None:
    with transactions.writing(COMMAND) as context:
        row = context.session.get_one(License, license_.id)
        row.superseded_by = license_.id
        row.superseded_at = context.at + timedelta(days=30)
    page = customer.get(f"/account/licenses/{license_.id}")
    end = f"{clock.at + timedelta(hours=72):%b %Y, %H:%M} UTC"
    assert re.search(rf"this one is good until \d+ {re.escape(end)}", page.text)
    assert "It prints valid and exits 0." in page.text


def replacing(customer: Visitor, license_: License, **answers: str) -> Page:
    """Open the license, go to *Replace*, and answer."""
    path = f"/account/licenses/{license_.id}/replace"
    assert path in customer.get(f"/account/licenses/{license_.id}").links
    return customer.send(customer.get(path), answers)


def test_a_customer_replaces_a_license_for_a_new_fingerprint(
    customer: Visitor, license_: License, office: Office, transactions: Transactions
) -> None:
    check = replacing(customer, license_, why="fingerprint", fingerprint="fp_rack_12")
    assert "any instance" in check.text
    assert "fp_rack_12" in check.text
    assert "good until" in check.text
    with transactions.reading(COMMAND) as context:
        assert context.session.query(Act).count() == 0, "nothing before it is confirmed"
    again = customer.send(check, button="Change something")
    assert again.form().fields["fingerprint"] == ["fp_rack_12"]
    page = customer.send(customer.send(again), button="Replace it")
    assert page.path != f"/account/licenses/{license_.id}"
    office.work()
    page = customer.get(page.path)
    assert "--fingerprint fp_rack_12" in page.text
    history = customer.get(f"/account/deployments/{license_.deployment_id}").text
    assert "Revision 2" in history
    assert re.search(r"Before: ?any instance ?After: ?fp_rack_12", history), history
    assert "The first license" in history
    assert "takes the place" in customer.get(f"/account/licenses/{license_.id}").text


def test_a_replacement_is_asked_why_and_for_its_fingerprint(
    customer: Visitor, license_: License
) -> None:
    form = customer.get(f"/account/licenses/{license_.id}/replace")
    assert customer.send(form, {}, status=400).errors == ["Choose why you replace it."]
    missing = customer.send(form, {"why": "fingerprint"}, status=400)
    assert missing.errors == ["Enter the new fingerprint."]
    unfit = customer.send(form, {"why": "fingerprint", "fingerprint": "a b"}, status=400)
    assert "8 to 128" in unfit.errors[0]


def test_what_changed_meanwhile_is_shown_anew(
    customer: Visitor, license_: License, transactions: Transactions
) -> None:
    check = replacing(customer, license_, why="lost")
    with transactions.writing(COMMAND) as context:
        context.session.query(Entitlement).one().taken_tokens = 5
    answer = customer.client.post(check.path, data=check.form().filled({}) | {"step": "do"})
    assert answer.status_code == 409
    assert "Something changed meanwhile" in answer.text
    with transactions.reading(COMMAND) as context:
        assert context.session.query(Act).count() == 0
        assert context.session.query(License).count() == 1


def test_the_fourth_replacement_leads_to_staff(
    customer: Visitor, license_: License, office: Office, clock: FakeClock
) -> None:
    path = f"/account/licenses/{license_.id}"
    for _ in range(3):
        clock.advance(seconds=5)
        check = customer.send(customer.get(f"{path}/replace"), {"why": "lost"})
        path = customer.send(check, button="Replace it").path
        office.work()
    page = customer.get(f"{path}/replace")
    assert "Replaced three times in 365 days" in page.text
    assert "/help/contact" in page.links
    sent = {"why": "lost", "step": "do"}
    assert customer.post(f"{path}/replace", **sent).status_code == 409


def test_who_signed_in_long_ago_gives_the_password_again(
    customer: Visitor, license_: License, clock: FakeClock
) -> None:
    clock.advance(minutes=16)
    answer = customer.client.get(f"/account/licenses/{license_.id}/replace")
    assert answer.status_code == 302
    assert answer.location.startswith("/sign-in/again")


def test_marking_as_installed_is_remembered(customer: Visitor, license_: License) -> None:
    path = f"/account/licenses/{license_.id}"
    page = customer.send(customer.get(path), action=f"{path}/installed")
    assert "Marked as installed" in page.text
