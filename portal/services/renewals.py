"""Renewals that customers ask for: of a pilot or a contract, pre-filled from what runs now.

Staff grant one by the act `renew`, which decides the request in the transaction that renews. So a
request that was withdrawn meanwhile cannot be granted, and a contract needs its two people.
"""

from dataclasses import dataclass

from portal.db.acts import Act
from portal.db.deployments import Deployment
from portal.db.licenses import License, current_license
from portal.db.requests import Request
from portal.domain.acts import ActState
from portal.domain.catalog import CATALOG
from portal.domain.entitlements import Grant, Line
from portal.domain.errors import Conflict, Invalid, NotFound
from portal.domain.requests import RequestKind
from portal.domain.terms import Terms, differences
from portal.services.acts.kinds import Ask
from portal.services.acts.machinery import Preview, acts_of, preview, submit
from portal.services.acts.renew import RENEW, Renew, renewable
from portal.services.context import Context
from portal.services.licenses import account_license
from portal.services.lines import load_line, lock_line
from portal.services.request_decisions import require_open

BY_REQUEST = frozenset({"pilot", "contract"})
"""What is renewed by request; plans and seats go on where they are paid."""
NOT_CHOSEN = frozenset({"sku", "mode", "fingerprints", "support_tier"})
"""What a renewal leaves as it is; an amendment changes it."""


@dataclass(frozen=True)
class RenewalOffer:
    """What can be renewed, and the terms that go on unless something else is asked for."""

    license: License
    deployment: Deployment
    terms: Terms


def renewal_offer(context: Context, account_id: str, license_id: str) -> RenewalOffer:
    """Return what a renewal of this license is pre-filled from.

    Raises:
        NotFound: there is no such license in this account.
        Conflict: it cannot be renewed by request; the message says what to do.
    """
    license_ = account_license(context, account_id, license_id)
    base = _base(load_line(context, license_.deployment_id))
    deployment = context.session.get_one(Deployment, license_.deployment_id)
    return RenewalOffer(license_, deployment, base.terms)


def can_ask_to_renew(context: Context, license_: License) -> bool:
    """Say whether a request can renew the line of this license now."""
    if license_.revoked_at is not None:
        return False
    try:
        _base(load_line(context, license_.deployment_id))
    except Conflict:
        return False
    return True


def check_renewal(context: Context, deployment_id: str, terms: Terms) -> None:
    """Check the terms a customer asks to renew with, holding the line.

    Raises:
        Conflict: nothing can be renewed by request.
        Invalid: they differ where a renewal changes nothing.
    """
    base = _base(lock_line(context, deployment_id))
    if {each.term for each in differences(base.terms, terms)} & NOT_CHOSEN:
        raise Invalid("A renewal changes neither kind, mode, binding nor support.", field="terms")


def _base(line: Line) -> Grant:
    base = renewable(line)
    if CATALOG[base.terms.sku].source not in BY_REQUEST:
        raise Conflict(f"{base.terms.sku} is not renewed by request.")
    return base


def preview_renewal(
    context: Context, request: Request, *, staff_id: str, terms: Terms, note: str
) -> Preview:
    """Say what granting a renewal does. Needs a writing unit.

    Raises:
        PortalError: it would be refused.
    """
    return preview(context, RENEW, _ask(context, request, staff_id, terms, note))


def grant_renewal(
    context: Context, request: Request, *, staff_id: str, terms: Terms, note: str, seen: str
) -> Act:
    """Grant a renewal, or submit it for the second person that a contract needs.

    Raises:
        Conflict: it is decided, or waits for its second person already.
        Stale: something changed since the preview that was `seen`.
        PortalError: the act is refused.
    """
    require_open(request)
    # The line is held before it is asked who waits, so that two cannot submit at once.
    lock_line(context, request.deployment_id)
    if waiting_act(context, request) is not None:
        raise Conflict("This renewal waits for a second person already.")
    return submit(context, RENEW, _ask(context, request, staff_id, terms, note), seen=seen)


def waiting_act(context: Context, request: Request) -> Act | None:
    """Return the act by which somebody granted a renewal, while it waits for a second person."""
    if request.kind is not RequestKind.RENEWAL:
        return None
    waiting = (ActState.PENDING, ActState.RETURNED)
    acts = (each for each in acts_of(context, request.deployment_id) if each.state in waiting)
    return next((each for each in acts if each.params.get("request_id") == request.id), None)


def _ask(context: Context, request: Request, staff_id: str, terms: Terms, note: str) -> Ask:
    newest = current_license(context.session, request.deployment_id)
    if newest is None:
        raise NotFound("This deployment has no license to renew.")
    return Ask(
        subject_id=newest.id,
        params=Renew(terms=terms, request_id=request.id, note=note),
        reason=note or "renewal as asked",
        by=staff_id,
    )
