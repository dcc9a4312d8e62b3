"""Licenses from before custody verify as before; nothing new is signed until they are adopted."""

from datetime import timedelta

import pytest
from sqlalchemy import delete

from licensing.encoding import sha256_hex
from licensing.license import License as LicensePayload
from portal.db.entitlements import Entitlement
from portal.db.jobs import Job
from portal.db.licenses import License
from portal.domain.catalog import fill_terms
from portal.domain.errors import PortalError
from portal.services.adoption import adopt, unadopted
from portal.services.entitlements import end_lapsed
from portal.services.keys import role_signers, sign_payload, unix
from tests.attacks.site import COMMAND, Site, fix_payload, forged_payload
from tests.factories.licenses import make_entitlement
from tests.fakes import FakeClock


def older_license(site: Site) -> tuple[str, str]:
    """Write an entitlement and its license as a version without custody left them."""
    at = site.clock.now().replace(microsecond=0)
    terms = fill_terms("pilot-30d")
    row = site.forge_entitlement(
        terms, starts_at=at, ends_at=at + timedelta(days=30), approved_by=site.staff.id
    )
    license_id = site.forge_license(row)
    payload = forged_payload(
        site,
        license_id,
        sku="pilot-30d",
        expires_at=unix(at) + 30 * 86400,
        limits=terms.limits,
        features=terms.features,
    )
    fix_payload(site, license_id, payload)
    with site.portal.writing(COMMAND) as context:
        context.session.execute(delete(Job).where(Job.unique_key == license_id))
        signers = role_signers(context, "license")
        envelope = sign_payload(payload, LicensePayload.PAYLOAD_TYPE, signers).to_bytes()
        license_ = context.session.get_one(License, license_id)
        license_.envelope = envelope
        license_.file_sha256 = sha256_hex(envelope)
        license_.released_at = context.at
    return row.id, license_id


def test_what_is_older_than_custody_waits_for_a_review(site: Site) -> None:
    entitlement_id, license_id = older_license(site)
    assert set(site.faults()) == {entitlement_id, license_id}
    assert "portal custody adopt" in site.unwell()["causes"].detail
    with site.portal.reading(COMMAND) as context:
        (waiting,) = unadopted(context)
        entitlement = context.session.get_one(Entitlement, entitlement_id)
    assert (waiting.entitlement.id, [each.id for each in waiting.licenses]) == (
        entitlement_id,
        [license_id],
    )
    site.require_refused(site.forge_license(entitlement), "portal custody adopt")
    with site.portal.writing(COMMAND) as context:
        adopt(context, [entitlement_id], reason="looked at the contract", by=site.staff.id)
        assert unadopted(context) == []
    assert site.faults() == {}
    assert "causes" not in site.unwell()
    again = site.forge_license(entitlement)
    site.work()
    issued = site.read(again)
    assert issued.document is not None
    assert (issued.document.revision, issued.document.supersedes) == (2, license_id)
    with site.portal.writing(COMMAND) as context, pytest.raises(PortalError, match="already"):
        adopt(context, [entitlement_id], reason="again", by=site.staff.id)


def test_the_checker_finds_a_license_that_was_signed_elsewhere(site: Site) -> None:
    """The license key leaked: the file verifies, and nothing vouches for it."""
    _, license_id = older_license(site)
    assert "no statement vouches for it" in site.faults()[license_id]


def test_a_lapse_needs_no_proof(site: Site, clock: FakeClock) -> None:
    make_entitlement(site.portal, site.deployment, sku="pilot-30d")
    clock.advance(days=31)
    with site.portal.writing(COMMAND) as context:
        assert end_lapsed(context) == 1
