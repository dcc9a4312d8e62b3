"""Rotating, retiring and marking keys as compromised, on both databases."""

from dataclasses import dataclass
from typing import Any

import pytest
from sqlalchemy import select

from licensing.envelope import Envelope
from licensing.keys import Keyset
from licensing.request_body import RequestBody
from licensing.verify import (
    KeysetTrust,
    Verified,
    examine_license,
    verify_keyset,
    verify_keyset_update,
)
from portal.db.audit import AuditRow
from portal.db.bundles import latest_bundle
from portal.db.keys import KeysetVersion, SigningKey
from portal.db.licenses import License
from portal.domain.errors import Conflict, Invalid, NotFound, Unavailable
from portal.domain.keys import ACTIVATE_IN_S
from portal.domain.ports import SignerUnavailable
from portal.services.bundles import publish_bundle
from portal.services.context import Actor, Transactions
from portal.services.downloads import record_download
from portal.services.enrollments import enroll
from portal.services.key_changes import (
    KeyOrder,
    KeyOutcome,
    check_order,
    resume_signing,
    run_order,
    stop_signing,
)
from portal.services.key_readiness import readiness
from portal.services.keys import current_keyset, role_signers, unix
from portal.services.leases import renew
from portal.services.licenses import (
    issue_license,
    mark_installed,
    request_issue,
    store_intent,
)
from tests.factories.accounts import make_customer, make_deployment
from tests.factories.instances import Router, make_code, make_router
from tests.factories.licenses import issue, make_entitlement
from tests.fakes import FakeClock, MemorySigners

COMMAND = Actor("command")


@dataclass
class Desk:
    """The operator's side: runs key changes and looks at what came of them."""

    opened: Transactions
    signers: MemorySigners
    clock: FakeClock
    acts: int = 0

    def run(self, kind: Any, subject: str, **options: Any) -> KeyOutcome:
        self.acts += 1
        order = KeyOrder(f"act_{self.acts}", kind, subject, **options)
        return run_order(self.opened, self.signers, order, COMMAND)

    @property
    def keyset(self) -> Keyset:
        with self.opened.reading(COMMAND) as context:
            return current_keyset(context).document

    def key(self, role: str) -> str:
        """The role's key that signs now; the newest."""
        return self.signing(role)[0]

    def signing(self, role: str) -> list[str]:
        with self.opened.reading(COMMAND) as context:
            return [signer.keyid for signer in role_signers(context, role)]

    def keysets(self) -> list[Verified[Keyset]]:
        with self.opened.reading(COMMAND) as context:
            rows = context.session.scalars(select(KeysetVersion).order_by(KeysetVersion.version))
            return [verify_keyset(row.envelope, unix(context.at)) for row in rows]

    def license(self, license_id: str) -> License:
        with self.opened.reading(COMMAND) as context:
            return context.session.get_one(License, license_id)

    def current(self, deployment_id: str) -> License:
        with self.opened.reading(COMMAND) as context:
            return context.session.scalars(
                select(License).where(
                    License.deployment_id == deployment_id, License.superseded_by.is_(None)
                )
            ).one()

    def make(self, name: str = "acme", **terms: Any) -> License:
        account, _ = make_customer(self.opened, f"jo@{name}.example")
        deployment = make_deployment(self.opened, account, name)
        terms = {"sku": "pilot-30d", **terms}
        return issue(self.opened, make_entitlement(self.opened, deployment, **terms))

    def now(self) -> int:
        return unix(self.clock.now())

    def join(self, license_: License) -> Router:
        router, code = make_router(license_), make_code(self.opened, license_)
        with self.opened.writing(COMMAND) as context:
            answered = enroll(context, router.enrollment(code, at=self.now()))
        return router.holding(answered.envelope)

    def renew(self, router: Router, name: str, **said: Any) -> Router:
        body = RequestBody(router.renewal(name, at=self.now(), **said), None)
        return router.holding(renew(self.opened, COMMAND, body).envelope)


@pytest.fixture
def desk(transactions: Transactions, signers: MemorySigners, clock: FakeClock) -> Desk:
    return Desk(transactions, signers, clock)


def signers_of(envelope: bytes | None) -> list[str]:
    assert envelope is not None
    return [each.keyid for each in Envelope.parse(envelope, max_bytes=1 << 20).signatures]


def code_of(envelope: bytes | None, keyset: Keyset, at: int) -> str | None:
    """The verifier's code for a license under a keyset; None: it counts."""
    assert envelope is not None
    error = examine_license(envelope, KeysetTrust(keyset), at).error
    return None if error is None else error.code


@pytest.mark.parametrize("role", ["license", "lease", "revocation"])
def test_a_rotation_announces_then_both_sign_then_the_new_key_alone(desk: Desk, role: str) -> None:
    old = desk.key(role)
    new = desk.run("rotate-key", role).keyid
    assert desk.keyset.version == 2
    assert desk.signing(role) == [old]
    desk.clock.advance(seconds=ACTIVATE_IN_S)
    assert desk.signing(role) == [new, old]
    desk.run("retire-key", old)
    assert desk.signing(role) == [new]
    for held, after in zip(desk.keysets(), desk.keysets()[1:], strict=False):
        verify_keyset_update(after.envelope.to_bytes(), held, desk.now())


def test_every_document_of_a_role_is_signed_by_both_keys(desk: Desk) -> None:
    for role in ("license", "lease", "revocation"):
        desk.run("rotate-key", role, activate_in_s=0)
    license_ = desk.make(mode="lease")
    router = desk.renew(desk.join(license_), "one")
    publish_bundle(desk.opened, COMMAND)
    with desk.opened.reading(COMMAND) as context:
        bundle = latest_bundle(context.session)
    assert bundle is not None
    assert router.lease is not None
    for role, envelope in (
        ("license", license_.envelope),
        ("lease", router.lease.to_bytes()),
        ("revocation", bundle.envelope),
    ):
        assert signers_of(envelope) == desk.signing(role)
        assert len(signers_of(envelope)) == 2
    assert list(license_.key_ids) == desk.signing("license")


def test_a_lease_goes_out_although_the_second_key_is_not_here_yet(desk: Desk) -> None:
    router = desk.join(desk.make(mode="lease"))
    old = desk.key("lease")
    new = desk.run("rotate-key", "lease", activate_in_s=0).keyid
    desk.signers.made.pop(f"memory:{new}")
    router = desk.renew(router, "one")
    assert router.lease is not None
    assert signers_of(router.lease.to_bytes()) == [old]


def test_what_was_signed_before_a_retirement_goes_on_counting(desk: Desk) -> None:
    license_ = desk.make()
    old = desk.key("license")
    desk.run("rotate-key", "license", activate_in_s=0)
    desk.run("retire-key", old, anyway=True, reason="a drill")
    assert code_of(license_.envelope, desk.keyset, desk.now()) is None


def test_a_key_is_retired_when_every_known_router_has_its_successor(desk: Desk) -> None:
    leased = desk.join(desk.make("leased", mode="lease"))
    offline = desk.make("offline")
    old = desk.key("license")
    desk.run("rotate-key", "license", activate_in_s=0)

    def lagging() -> tuple[int, int, list[str]]:
        with desk.opened.reading(COMMAND) as context:
            found = readiness(context)
        return found.known, found.ready, [each.name for each in found.lagging]

    assert lagging() == (2, 0, ["leased", "offline"])
    with pytest.raises(Conflict, match="2 of 2 known routers lack keyset 2"):
        desk.run("retire-key", old)
    desk.clock.advance(hours=9)
    leased = desk.renew(leased, "one", keyset_version=2)
    assert lagging() == (2, 1, ["offline"])
    with desk.opened.writing(COMMAND) as context:
        record_download(context, context.session.get_one(License, offline.id), "summary.json")
    assert lagging() == (2, 1, ["offline"])
    with desk.opened.writing(COMMAND) as context:
        record_download(context, context.session.get_one(License, offline.id), "kit.zip")
    assert lagging() == (2, 2, [])
    desk.run("retire-key", old)
    assert desk.keyset.by_keyid[old].status == "retired"


def test_marking_as_installed_says_that_an_offline_router_is_ready(desk: Desk) -> None:
    offline = desk.make()
    desk.run("rotate-key", "license", activate_in_s=0)
    desk.clock.advance(hours=1)
    with desk.opened.writing(COMMAND) as context:
        mark_installed(context, offline.account_id, offline.id)
    with desk.opened.reading(COMMAND) as context:
        assert readiness(context).is_complete


def test_retiring_anyway_asks_why(desk: Desk) -> None:
    desk.make()
    old = desk.key("license")
    desk.run("rotate-key", "license", activate_in_s=0)
    with pytest.raises(Invalid, match="Say why"):
        desk.run("retire-key", old, anyway=True)
    desk.run("retire-key", old, anyway=True, reason="the offline site is gone")
    with desk.opened.reading(COMMAND) as context:
        row = context.session.scalars(
            select(AuditRow).where(AuditRow.action == "keyset.published").order_by(AuditRow.id)
        ).all()[-1]
        assert (row.reason, row.detail["subject"]) == ("the offline site is gone", old)


def test_the_next_key_of_a_role_is_the_one_that_was_added(desk: Desk) -> None:
    from portal.services.keys import add_key

    mine = desk.signers.make("lease")
    with desk.opened.writing(COMMAND) as context:
        added = add_key(context, "lease", mine).keyid
    assert desk.run("rotate-key", "lease").keyid == added


def test_a_root_is_rotated_by_two_keysets_that_both_roots_sign(desk: Desk) -> None:
    (old,) = desk.keyset.roots_by_keyid
    new = desk.run("rotate-key", "root").keyid
    desk.run("retire-key", old)
    assert list(desk.keyset.roots_by_keyid) == [new]
    first, _, last = desk.keysets()
    verify_keyset_update(last.envelope.to_bytes(), first, desk.now())
    desk.signers.made.pop(f"memory:{old}")
    assert desk.run("rotate-key", "lease").keyset_version == 4


def test_nothing_is_published_without_the_root(desk: Desk) -> None:
    (root,) = desk.keyset.roots_by_keyid
    kept = desk.signers.made.pop(f"memory:{root}")
    order = KeyOrder("act_x", "rotate-key", "license")
    with pytest.raises(SignerUnavailable, match="no root can be used here"):
        run_order(desk.opened, desk.signers, order, COMMAND)
    assert desk.keyset.version == 1
    desk.signers.made[f"memory:{root}"] = kept
    made = len(desk.signers.made)
    assert run_order(desk.opened, desk.signers, order, COMMAND).keyset_version == 2
    assert len(desk.signers.made) == made, "it goes on with the key it had made"


def test_the_same_act_runs_once(desk: Desk) -> None:
    order = KeyOrder("act_x", "rotate-key", "license")
    first = run_order(desk.opened, desk.signers, order, COMMAND)
    assert run_order(desk.opened, desk.signers, order, COMMAND) == first
    assert desk.keyset.version == 2


@pytest.mark.parametrize(
    ("kind", "subject", "error"),
    [
        ("rotate-key", "seal", Invalid),
        ("retire-key", "0" * 64, NotFound),
        ("compromise-key", "0" * 64, NotFound),
    ],
)
def test_what_is_not_there_is_not_changed(
    desk: Desk, kind: Any, subject: str, error: type[Exception]
) -> None:
    with desk.opened.reading(COMMAND) as context, pytest.raises(error):
        check_order(context, KeyOrder("act_x", kind, subject))


# Compromise


def test_a_stopped_key_signs_nothing_until_somebody_says_otherwise(desk: Desk) -> None:
    license_ = desk.make("leased", mode="lease")
    router = desk.join(license_)
    keys = {role: desk.key(role) for role in ("license", "lease", "revocation")}
    with desk.opened.writing(COMMAND) as context:
        for keyid in keys.values():
            stop_signing(context, keyid, reason="a laptop was lost")
    for role in keys:
        with pytest.raises(SignerUnavailable, match=f"no active {role} key"):
            desk.signing(role)
    with pytest.raises(SignerUnavailable):
        desk.make("other")
    with pytest.raises(SignerUnavailable):
        publish_bundle(desk.opened, COMMAND)
    with pytest.raises(Unavailable, match="No lease key is active"):
        desk.renew(router, "one")
    with desk.opened.writing(COMMAND) as context:
        for keyid in keys.values():
            resume_signing(context, keyid, reason="it was found")
    assert {role: desk.key(role) for role in keys} == keys
    desk.renew(router, "one")


@pytest.mark.parametrize("mode", ["offline", "lease"])
def test_a_compromise_issues_every_license_anew_under_the_same_budget(
    desk: Desk, mode: str
) -> None:
    before = desk.make("acme", sku="eval-72h", mode=mode)
    keyset, old = desk.keyset, desk.key("license")
    with desk.opened.writing(COMMAND) as context:
        stop_signing(context, old)
    outcome = desk.run("compromise-key", old, reason="a laptop was lost")
    after = desk.current(before.deployment_id)
    assert [(each.license_id, each.replaces) for each in outcome.licenses] == [
        (after.id, before.id)
    ]
    assert list(after.key_ids) == [outcome.keyid, old] == signers_of(after.envelope)
    payloads = [each.document for each in (before, after)]
    first, second = payloads
    assert first is not None
    assert second is not None
    assert (second.budget, second.revision) == (first.budget, first.revision + 1)
    # License and keyset may arrive in either order.
    at = desk.now()
    assert code_of(after.envelope, keyset, at) is None
    assert code_of(after.envelope, desk.keyset, at) is None
    assert code_of(before.envelope, keyset, at) is None
    assert code_of(before.envelope, desk.keyset, at) == "key-not-valid"
    superseded = desk.license(before.id)
    assert superseded.superseded_at is not None
    assert (superseded.superseded_at - desk.clock.now()).days == 14
    assert desk.signing("license") == [outcome.keyid]


def test_one_compromise_after_another_piles_up_no_signatures(desk: Desk) -> None:
    line = desk.make().deployment_id
    for _ in range(9):
        old = desk.key("license")
        new = desk.run("compromise-key", old).keyid
        assert list(desk.current(line).key_ids) == [new, old]


def test_a_license_that_another_key_signed_too_stays(desk: Desk) -> None:
    old = desk.key("license")
    desk.run("rotate-key", "license", activate_in_s=0)
    both = desk.make()
    outcome = desk.run("compromise-key", old)
    assert outcome.licenses == ()
    assert outcome.keyid == old
    assert code_of(both.envelope, desk.keyset, desk.now()) is None
    assert len(desk.signing("license")) == 1


def test_an_intent_of_a_compromised_key_is_taken_back_and_issued_with_its_successor(
    desk: Desk,
) -> None:
    account, _ = make_customer(desk.opened)
    deployment = make_deployment(desk.opened, account)
    entitlement = make_entitlement(desk.opened, deployment)
    with desk.opened.writing(COMMAND) as context:
        asked = request_issue(context, entitlement.id, cause="start").id
        store_intent(context, asked)
    old = desk.key("license")
    desk.run("compromise-key", old)
    issue_license(desk.opened, asked, COMMAND)
    issued = desk.license(asked)
    assert signers_of(issued.envelope) == [desk.key("license")] != [old]


def test_a_bundle_of_the_new_key_follows_a_compromise(desk: Desk) -> None:
    old = desk.key("revocation")
    outcome = desk.run("compromise-key", old)
    with desk.opened.reading(COMMAND) as context:
        bundle = latest_bundle(context.session)
        assert bundle is not None
        assert signers_of(bundle.envelope) == [outcome.keyid]
        stopped = context.session.scalars(
            select(SigningKey).where(SigningKey.stopped_at.is_not(None))
        ).all()
    assert stopped == []


def test_leases_go_on_with_the_successor(desk: Desk) -> None:
    router = desk.join(desk.make(mode="lease"))
    outcome = desk.run("compromise-key", desk.key("lease"))
    assert outcome.licenses == ()
    router = desk.renew(router, "one")
    assert router.lease is not None
    assert signers_of(router.lease.to_bytes()) == [outcome.keyid]


def test_a_compromise_that_another_keyset_overtook_goes_on(desk: Desk) -> None:
    before, old = desk.make(), desk.key("license")
    (root,) = desk.keyset.roots_by_keyid
    kept = desk.signers.made.pop(f"memory:{root}")
    order = KeyOrder("act_x", "compromise-key", old)
    with pytest.raises(SignerUnavailable):
        run_order(desk.opened, desk.signers, order, COMMAND)
    desk.signers.made[f"memory:{root}"] = kept
    issued = desk.current(before.deployment_id)
    assert issued.id != before.id
    desk.clock.advance(hours=5)
    desk.run("rotate-key", "lease")
    outcome = run_order(desk.opened, desk.signers, order, COMMAND)
    assert (outcome.keyset_version, len(outcome.licenses)) == (3, 1)
    assert desk.current(before.deployment_id).envelope == issued.envelope
    assert code_of(issued.envelope, desk.keyset, desk.now()) is None
