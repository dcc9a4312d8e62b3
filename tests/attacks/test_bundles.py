"""What a bundle restricts stays restricted, and a keyset continues the last, in spite of rows."""

from datetime import timedelta

import msgspec
import pytest
from sqlalchemy import delete, select, update

from licensing.encoding import b64encode, sha256_hex
from licensing.envelope import MAX_BUNDLE_BYTES, Envelope
from licensing.keys import Root
from licensing.revocation import RevocationBundle
from portal.db.bundles import Bundle
from portal.db.keys import KeysetVersion
from portal.db.licenses import Hold, License
from portal.domain.causes import Cause, CauseKind
from portal.domain.errors import Unproved
from portal.domain.standing import HoldCause
from portal.services.audit import record
from portal.services.bundles import publish_bundle
from portal.services.jobs import enqueue
from portal.services.keys import current_keyset, sign_document
from portal.services.seals import seal_lift
from tests.attacks.site import COMMAND, NOBODY, Site, sealed_pilot
from tests.factories.accounts import sign_staff_in
from tests.factories.licenses import issue, make_entitlement
from tests.fakes import MemorySigner


def entries(site: Site) -> dict[str, str]:
    """Publish what is due and return what the newest bundle of the signer says."""
    publish_bundle(site.portal, COMMAND)
    with site.portal.reading(COMMAND) as context:
        raw = context.session.scalars(
            select(Bundle.envelope).order_by(Bundle.version.desc())
        ).first()
    assert raw is not None
    document = RevocationBundle.parse(Envelope.parse(raw, max_bytes=MAX_BUNDLE_BYTES).payload)
    return {each.license_id: each.status for each in document.entries}


def revoked(site: Site) -> str:
    """Issue and revoke a license and publish that; return its id."""
    license_id = issue(
        site.portal, make_entitlement(site.portal, site.deployment, sku="pilot-30d")
    ).id
    with site.portal.writing(COMMAND) as context:
        context.session.get_one(License, license_id).revoked_at = context.at
    assert entries(site) == {license_id: "revoked"}
    return license_id


@pytest.mark.parametrize("how", ["undone", "expired", "unreleased", "deleted", "hidden"])
def test_a_revocation_stays_whatever_the_rows_say(site: Site, how: str) -> None:
    license_id = revoked(site)
    here = License.id == license_id
    statements = {
        "undone": update(License).where(here).values(revoked_at=None),
        "expired": update(License)
        .where(here)
        .values(expires_at=site.clock.now() - timedelta(days=99)),
        "unreleased": update(License).where(here).values(released_at=None),
        "deleted": delete(License).where(here),
        "hidden": delete(Bundle),
    }
    with site.web.writing(NOBODY) as context:
        context.session.execute(statements[how])
        if how == "hidden":
            context.session.execute(update(License).where(here).values(revoked_at=None))
    site.clock.advance(seconds=1)
    for _ in range(2):
        assert entries(site) == {license_id: "revoked"}
    assert len(site.acts("bundle.entry-kept")) == 1
    assert "refusals" in site.unwell()
    assert "its entry stays" in site.faults()[license_id]


def hold(site: Site, entitlement_id: str, hold_id: str) -> None:
    """Open a hold as an act does."""
    with site.portal.writing(COMMAND) as context:
        row = Hold(
            id=hold_id,
            entitlement_id=entitlement_id,
            cause=HoldCause.STAFF,
            reason="x",
            opened_at=context.at,
        )
        context.session.add(row)
        record(
            context,
            "hold.opened",
            "hold",
            hold_id,
            account_id=site.account.id,
            deployment_id=site.deployment.id,
            entitlement_id=entitlement_id,
        )


@pytest.mark.parametrize("how", ["lifted", "deleted"])
def test_a_hold_is_lifted_by_a_seal_alone(site: Site, how: str) -> None:
    entitlement = make_entitlement(site.portal, site.deployment, sku="pilot-30d")
    license_id = issue(site.portal, entitlement).id
    for each in ("hld_1", "hld_2"):
        hold(site, entitlement.id, each)
    assert entries(site) == {license_id: "suspended"}
    with site.portal.writing(COMMAND) as context:
        row = context.session.get_one(Hold, "hld_1")
        row.lifted_at = context.at
        seal_lift(context, row, Cause(kind=CauseKind.COMMAND, by=(site.staff.id,)))
    assert entries(site) == {license_id: "suspended"}
    assert site.acts("bundle.entry-kept") == []
    with site.web.writing(NOBODY) as context:
        other = Hold.id == "hld_2"
        lift = update(Hold).where(other).values(lifted_at=context.at)
        context.session.execute(lift if how == "lifted" else delete(Hold).where(other))
    assert entries(site) == {license_id: "suspended"}
    assert len(site.acts("bundle.entry-kept")) == 1
    if how == "lifted":
        with site.portal.writing(COMMAND) as context:
            row = context.session.get_one(Hold, "hld_2")
            seal_lift(context, row, Cause(kind=CauseKind.COMMAND, by=(site.staff.id,)))
        assert entries(site) == {}
        assert site.faults() == {}


def test_a_lift_in_a_browser_counts_not_where_the_command_approves(site: Site) -> None:
    entitlement = sealed_pilot(site)
    hold(site, entitlement.id, "hld_1")
    sign_staff_in(site.web, site.staff)
    with site.web.writing(NOBODY) as context:
        context.session.execute(update(Hold).values(lifted_at=context.at))
        claims = [[site.staff.id, context.at.isoformat()]]
        enqueue(context, "prove-lift", "hld_1", {"hold_id": "hld_1", "approvals": claims})
    site.work()
    (why,) = site.acts("hold.lift-refused")
    assert "staff approve by the `portal` command" in (why or "")


def test_versions_go_on_above_what_the_signer_remembers(site: Site) -> None:
    entries(site)
    with site.portal.reading(COMMAND) as context:
        version = context.session.scalars(select(Bundle.version).order_by(Bundle.version)).all()[-1]
    with site.web.writing(NOBODY) as context:
        context.session.execute(delete(Bundle))
    assert f"bundle {version}" in site.faults()
    stored = publish_bundle(site.portal, COMMAND)
    assert stored is not None
    assert stored.version > version


def test_a_row_does_not_use_up_the_versions(site: Site) -> None:
    with site.web.writing(NOBODY) as context:
        context.session.add(
            Bundle(
                version=2**53 - 2,
                payload_sha256="0" * 64,
                entries_sha256="0" * 64,
                envelope=b"{}",
                key_id="0" * 64,
                issued_at=context.at,
                expires_at=context.at,
            )
        )
    stored = publish_bundle(site.portal, COMMAND)
    assert stored is not None
    assert stored.version < 2**40
    assert "does not verify" in site.faults()[f"bundle {2**53 - 2}"]


def forge_keyset(site: Site) -> None:
    """Publish a keyset under a root of the attacker's own."""
    root = MemorySigner(b"the attacker's root")
    with site.web.writing(NOBODY) as context:
        current = current_keyset(context)
        keyset = msgspec.structs.replace(
            current.document,
            version=current.document.version + 1,
            prev_sha256=current.payload_sha256,
            roots=(Root(keyid=root.keyid, alg="ed25519", public_key=b64encode(root.public_key)),),
        )
        envelope = sign_document(keyset, [root])
        context.session.add(
            KeysetVersion(
                version=keyset.version,
                payload_sha256=sha256_hex(envelope.payload),
                envelope=envelope.to_bytes(),
                published_at=context.at,
            )
        )


def test_a_keyset_under_another_root_is_not_taken_up(site: Site) -> None:
    entries(site)
    sealed = make_entitlement(site.portal, site.deployment, sku="pilot-30d")
    forge_keyset(site)
    license_id = site.forge_license(sealed)
    site.require_refused(license_id, "does not continue keyset 1")
    with pytest.raises(Unproved, match="does not continue keyset 1"):
        publish_bundle(site.portal, COMMAND)
    assert "keyset" in site.faults()
    assert "seal key" in site.unwell()
