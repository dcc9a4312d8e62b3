"""`portal license renew` and the other acts: what each prints, and that it is signed at once."""

from typing import Any

import pytest
from sqlalchemy import func, select

from licensing.envelope import Envelope
from licensing.revocation import RevocationBundle
from portal.cli.wired import COMMAND
from portal.db.bundles import latest_bundle
from portal.db.licenses import License
from tests.cli.operators import Operator, one_object

ANN, BEN = "ann@vendor.test", "ben@vendor.test"
WHY = ("--reason", "ticket 7", "--by", ANN)


@pytest.fixture
def deployment(operator: Operator) -> str:
    for email in (ANN, BEN):
        operator.ask("staff", "create", "--email", email, "--role", "approver")
    account = operator.ask("account", "create", "--name", "NewCo", "--owner-email", "j@new.example")
    made = operator.ask(
        "deployment", "create", "--account", account["account_id"], "--name", "Production"
    )
    return str(made["deployment_id"])


def grant(operator: Operator, deployment: str, sku: str, *options: str) -> str:
    """Make an approved entitlement; return its id."""
    made = operator.ask(
        "entitlement",
        "create",
        *("--deployment", deployment, "--sku", sku, *options, "--reason", "r", "--by", ANN),
    )
    operator.ask("entitlement", "approve", made["entitlement_id"], "--by", BEN)
    return str(made["entitlement_id"])


def issue(operator: Operator, deployment: str, sku: str, *options: str) -> str:
    """Issue a license; return its id."""
    entitlement = grant(operator, deployment, sku, *options)
    return str(operator.ask("license", "issue", "--entitlement", entitlement)["license_id"])


BUDGETED = ("--limit", "tokens_total=1000", "--limit", "max_instances=1")


def entries(operator: Operator) -> dict[str, str]:
    """Return what the published bundle says of each license."""
    with operator.opened[-1].transactions.reading(COMMAND) as context:
        bundle = latest_bundle(context.session)
        assert bundle is not None
        document = RevocationBundle.parse(Envelope.parse(bundle.envelope).payload)
    return {each.license_id: each.status for each in document.entries}


def test_a_license_is_suspended_and_reinstated(operator: Operator, deployment: str) -> None:
    license_ = issue(operator, deployment, "pilot-30d")
    held = operator.ask("license", "suspend", license_, "--cause", "staff", *WHY)
    assert set(held) == {"hold_id", "status"}
    assert held["status"] == "suspended"
    assert entries(operator) == {license_: "suspended"}
    shown = operator.ask("license", "show", license_)
    assert shown["status"] == "suspended"
    assert shown["holds"] == [{"hold_id": held["hold_id"], "cause": "staff"}]
    lifted = operator.ask("license", "reinstate", license_, "--hold", held["hold_id"], *WHY)
    assert lifted == {"status": "reinstated"}
    assert entries(operator) == {}
    shown = operator.ask("license", "show", license_)
    assert (shown["status"], shown["holds"]) == ("issued", [])


def test_a_license_is_renewed_topped_up_amended_and_replaced(
    operator: Operator, deployment: str
) -> None:
    license_ = issue(operator, deployment, "pilot-30d", *BUDGETED)
    renewed = operator.ask("license", "renew", license_, "--term", "10d", *WHY)
    assert set(renewed) == {"entitlement_id", "status", "act_id", "license_id"}
    assert renewed["status"] == "issued"
    topped = operator.ask("license", "top-up", license_, "--sku", "credit-pack-5m", *WHY)
    assert set(topped) == {"license_id", "status", "budget_id", "carry_over_from"}
    amended = operator.ask("license", "amend", license_, "--limit", "max_concurrency=9", *WHY)
    assert set(amended) == {"status", "act_id", "license_id"}
    replaced = operator.ask(
        "license", "replace", license_, "--fingerprint", "fp_12345678", "--at-once", *WHY
    )
    assert set(replaced) == {"license_id", "status"}
    newest = operator.ask("license", "show", replaced["license_id"])
    assert newest["revision"] == 5
    assert newest["supersedes"] == amended["license_id"]
    assert newest["limits"]["max_concurrency"] == 9
    old = operator.ask("license", "show", amended["license_id"])
    assert (old["status"], old["replaced_by"]) == ("superseded", replaced["license_id"])
    assert entries(operator)[amended["license_id"]] == "superseded"


def test_a_contract_is_revoked_by_two(operator: Operator, deployment: str) -> None:
    license_ = issue(operator, deployment, "enterprise-annual", "--feature", "routing")
    asked = operator.ask("license", "revoke", license_, *WHY)
    assert set(asked) == {"status", "act_id"}
    assert asked["status"] == "pending"
    (waiting,) = operator.ask("act", "list")["acts"]
    assert (waiting["act_id"], waiting["kind"], waiting["status"]) == (
        asked["act_id"],
        "revoke",
        "pending",
    )
    approve = ("act", "approve", asked["act_id"], "--by")
    operator.refused(4, "forbidden", *approve, ANN)
    assert operator.ask(*approve, BEN) == {"act_id": asked["act_id"], "status": "approved"}
    operator.refused(4, "conflict", *approve, BEN)
    assert operator.ask("license", "show", license_)["status"] == "revoked"
    assert entries(operator) == {license_: "revoked"}
    assert operator.ask("act", "list")["acts"] == []
    (decided,) = operator.ask("act", "list", "--all")["acts"]
    assert decided["status"] == "approved"


def test_an_act_is_declined_and_one_that_went_stale_goes_back(
    operator: Operator, deployment: str
) -> None:
    license_ = issue(operator, deployment, "enterprise-annual", "--feature", "routing")
    first = operator.ask("license", "renew", license_, *WHY)
    assert first["status"] == "pending"
    declined = operator.ask("act", "decline", first["act_id"], "--reason", "not yet", "--by", BEN)
    assert declined == {"act_id": first["act_id"], "status": "declined"}
    second = operator.ask("license", "renew", license_, *WHY)
    operator.ask("license", "suspend", license_, "--cause", "abuse", *WHY)
    stale = operator.run("act", "approve", second["act_id"], "--by", BEN, "--json")
    assert (stale.exit_code, one_object(stale)["error"]["code"]) == (4, "stale-preview")
    (returned,) = operator.ask("act", "list")["acts"]
    assert (returned["act_id"], returned["status"]) == (second["act_id"], "returned")


@pytest.mark.parametrize(
    "arguments",
    [
        ("renew", "--term", "30d"),
        ("amend", "--feature", "routing", "--feature", "usage_reporting"),
        ("top-up", "--sku", "credit-pack-5m"),
        ("replace",),
        ("suspend", "--cause", "staff"),
        ("revoke",),
    ],
)
def test_a_preview_shows_and_does_nothing(
    operator: Operator, deployment: str, arguments: tuple[str, ...]
) -> None:
    license_ = issue(operator, deployment, "pilot-30d", *BUDGETED)
    name, *options = arguments
    shown = operator.ask("license", "preview", name, license_, *options, *WHY)
    assert set(shown) == {"preview"}
    assert shown["preview"]["act"] == name
    with operator.opened[-1].transactions.reading(COMMAND) as context:
        assert context.session.scalar(select(func.count()).select_from(License)) == 1
    done = operator.ask("license", name, license_, *options, *WHY)
    expected = {"issuing": "issued"}.get(shown["preview"]["status"], shown["preview"]["status"])
    assert done["status"] == expected


def test_who_may_not_act_is_refused(operator: Operator, deployment: str) -> None:
    license_ = issue(operator, deployment, "pilot-30d")
    operator.ask("staff", "create", "--email", "sue@vendor.test", "--role", "support")
    sue = ("--reason", "r", "--by", "sue@vendor.test")
    operator.refused(4, "forbidden", "license", "revoke", license_, *sue)
    operator.refused(4, "forbidden", "license", "preview", "revoke", license_, *sue)
    operator.refused(4, "not-found", "license", "revoke", "lic_0", *WHY)
    operator.refused(2, "usage", "license", "suspend", license_, "--cause", "dispute", *WHY)
    operator.refused(2, "invalid", "license", "amend", license_, *WHY)


def test_the_published_bundle_is_told(operator: Operator, deployment: str) -> None:
    license_ = issue(operator, deployment, "pilot-30d")
    operator.ask("license", "revoke", license_, *WHY)
    told = operator.ask("bundle", "publish")
    assert set(told) == {"version", "entries", "expires_at"}
    assert told["entries"] == 1


TERMS: dict[str, tuple[str, ...]] = {
    "eval-72h": (),
    "pilot-30d": (),
    "lease-monthly": ("--term", "30d"),
    "marketplace-seat": ("--term", "365d", "--feature", "routing"),
    "enterprise-annual": ("--feature", "routing"),
}
"""Each base, from the lowest rank to the highest."""


@pytest.mark.parametrize("mode", ["offline", "lease"])
@pytest.mark.parametrize("there", TERMS)
def test_what_each_base_does_to_each(
    operator: Operator, deployment: str, there: str, mode: str
) -> None:
    """A base that stands, and each base that somebody tries to start on top of it."""

    def start(sku: str) -> tuple[str, ...]:
        modes = () if sku == "lease-monthly" else ("--mode", mode)
        if sku == "lease-monthly":
            modes = ("--mode", "lease")
        return (
            "license",
            "issue",
            "--entitlement",
            grant(operator, deployment, sku, *modes, *TERMS[sku]),
        )

    standing: Any = operator.ask(*start(there))
    ranks = list(TERMS)
    for sku in ranks[: ranks.index(there) + 1]:
        assert there in operator.refused(4, "conflict", *start(sku))
        assert operator.ask("license", "show", standing["license_id"])["status"] == "issued"
    for sku in ranks[ranks.index(there) + 1 :]:
        taken = operator.ask(*start(sku))
        assert operator.ask("license", "show", taken["license_id"])["sku"] == sku
        there = sku
    # Revoked, nothing stands any more, and whatever is granted may start.
    last = operator.ask("license", "show", standing["license_id"])
    assert last["license_id"] == standing["license_id"]
