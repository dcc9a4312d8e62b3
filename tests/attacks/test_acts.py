"""Acts change what is granted for a proved cause alone; what they took back stays away."""

from datetime import timedelta

import pytest
from msgspec import structs
from sqlalchemy import select, update

from portal.db.entitlements import Entitlement
from portal.db.licenses import Hold, License
from portal.domain.acts import ActState
from portal.domain.catalog import fill_terms
from portal.domain.entitlements import EndCause
from portal.domain.errors import Forbidden, Unproved
from portal.domain.standing import HoldCause
from portal.services.acts.amend import AMEND, Amend
from portal.services.acts.end import END, End
from portal.services.acts.kinds import Ask
from portal.services.acts.machinery import approve, submit
from portal.services.acts.replace import REPLACE, Replace
from portal.services.acts.suspend import SUSPEND, Suspend
from portal.services.context import SYSTEM, Actor
from tests.attacks.site import COMMAND, HUGE, NOBODY, Site, sealed_pilot, seals_of
from tests.factories.licenses import issue, make_budgeted_pilot, make_entitlement


def paid_line(site: Site) -> tuple[Entitlement, Entitlement]:
    """Issue a plan-like pilot with a budget, and a pack beside it."""
    pilot = make_budgeted_pilot(site.portal, site.deployment)
    issue(site.portal, pilot)
    pack = make_entitlement(site.portal, site.deployment, sku="credit-pack-5m")
    issue(site.portal, pack)
    return pilot, pack


def test_a_refund_stays_a_refund(site: Site) -> None:
    """Another reason for the end would give the refunded tokens back."""
    pilot, pack = paid_line(site)
    with site.portal.writing(SYSTEM) as context:
        submit(
            context,
            END,
            Ask(subject_id=pack.id, params=End(cause=EndCause.REFUND), reason="x", by=None),
        )
    site.work()
    assert site.acts("license.refused") == []
    with site.web.writing(NOBODY) as context:
        context.session.execute(
            update(Entitlement)
            .where(Entitlement.id == pack.id)
            .values(end_reason=EndCause.TERM_OVER.value)
        )
    license_id = site.forge_license(pilot)
    site.require_refused(license_id, "has ended, by the audit trail")


def test_tokens_that_were_taken_back_stay_away(site: Site) -> None:
    pilot, pack = paid_line(site)
    with site.portal.writing(SYSTEM) as context:
        params = End(cause=EndCause.REFUND, tokens=2_000_000)
        submit(context, END, Ask(subject_id=pack.id, params=params, reason="x", by=None))
    site.work()
    assert site.acts("license.refused") == []
    with site.web.writing(NOBODY) as context:
        context.session.execute(update(Entitlement).values(taken_tokens=0, taken_at=None))
    license_id = site.forge_license(pilot)
    site.require_refused(license_id, "Tokens of .* were taken back")


def test_a_commerce_hold_that_a_row_lifts_still_leaves_the_pack_out(site: Site) -> None:
    _, pack = paid_line(site)
    with site.portal.reading(COMMAND) as context:
        newest = context.session.scalars(
            select(License.id).order_by(License.revision.desc())
        ).first()
    assert newest is not None
    with site.portal.writing(SYSTEM) as context:
        params = Suspend(cause=HoldCause.DISPUTE, entitlement_id=pack.id)
        submit(context, SUSPEND, Ask(subject_id=newest, params=params, reason="x", by=None))
    site.work()
    with site.web.writing(NOBODY) as context:
        context.session.execute(update(Hold).values(lifted_at=context.at))
    license_id = site.forge_license(pack)
    site.work()
    signed = site.read(license_id).document
    assert signed is not None
    assert signed.budget is not None
    assert signed.budget.tokens_total == 1, "the disputed tokens are still left out"


def test_a_renewal_begins_where_the_base_ends_and_nowhere_else(site: Site) -> None:
    sealed = sealed_pilot(site)
    start = site.clock.now().replace(microsecond=0) + timedelta(days=365)
    forged = site.forge_entitlement(
        sealed.terms, starts_at=start, ends_at=start + timedelta(days=30), renews=sealed.id
    )
    license_id = site.forge_license(forged)
    site.require_refused(license_id, "begins at an instant of its own")


def test_a_term_is_as_long_as_its_terms_say(site: Site) -> None:
    at = site.clock.now().replace(microsecond=0)
    forged = site.forge_entitlement(
        fill_terms("eval-72h"), starts_at=at, ends_at=at + timedelta(days=365)
    )
    license_id = site.forge_license(forged)
    site.require_refused(license_id, "ends otherwise than its term says")


def test_the_command_does_not_seal_what_somebody_altered(site: Site) -> None:
    """An operator amends one thing; the row holds more than was sealed."""
    sealed = sealed_pilot(site)
    with site.portal.reading(COMMAND) as context:
        license_id = context.session.scalars(select(License.id)).one()
    with site.web.writing(NOBODY) as context:
        context.session.execute(update(Entitlement).values(terms=HUGE))
    params = Replace(fingerprints=("fp_12345678",))
    ask = Ask(subject_id=license_id, params=params, reason="x", by=None)
    with site.portal.writing(COMMAND) as context, pytest.raises(Unproved, match="differs"):
        submit(context, REPLACE, ask)
    assert len(seals_of(site, sealed.id)) == 2


def test_staff_acts_in_a_browser_wait_for_the_command(site: Site) -> None:
    sealed_pilot(site)
    with site.portal.reading(COMMAND) as context:
        license_id = context.session.scalars(select(License.id)).one()
    ask = Ask(
        subject_id=license_id,
        params=Amend(limits={"max_instances": 9}),
        reason="x",
        by=site.staff.id,
    )
    with site.web.writing(Actor("staff", site.staff.id)) as context:
        act = submit(context, AMEND, ask)
        assert act.state is ActState.PENDING
        with pytest.raises(Forbidden, match="portal act approve"):
            approve(context, act.id, by=site.staff.id)
    with site.portal.writing(COMMAND) as context:
        assert approve(context, act.id, by=site.staff.id).state is ActState.DONE
    site.work()
    with site.portal.reading(COMMAND) as context:
        newest = context.session.scalars(select(License).order_by(License.revision.desc())).first()
    assert newest is not None
    assert newest.document is not None
    assert newest.document.limits.max_instances == 9
    assert (site.acts("license.refused"), site.faults()) == ([], {})


def test_customers_bind_to_another_fingerprint_three_times_a_year(site: Site) -> None:
    entitlement = make_entitlement(site.portal, site.deployment, sku="pilot-30d")
    issue(site.portal, entitlement)
    for number in range(4):
        with site.web.writing(NOBODY) as context:
            terms = structs.replace(entitlement.terms, fingerprints=(f"fp_0000000{number}",))
            context.session.execute(update(Entitlement).values(terms=terms))
        license_id = site.forge_license(entitlement)
        if number == 3:
            site.require_refused(license_id, "differs from what was sealed: terms")
            break
        site.work()
        signed = site.read(license_id).document
        assert signed is not None
        assert signed.binding.fingerprints == (f"fp_0000000{number}",)
