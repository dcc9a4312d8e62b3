"""Issuing licenses, and finding them.

Issuing: ask (a row and a job) - compute and lint the payload, pick the key and
store the intent - sign - verify - store and release. Each step is a unit of work of its own.
Ed25519 is deterministic, so whoever resumes after a crash stores the same bytes. A license is
visible as issued only once its signature is stored and was verified.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import func, select, update

from licensing.encoding import sha256_hex
from licensing.license import Binding, Budget, LeaseTerms, RevocationTerms
from licensing.license import License as LicensePayload
from licensing.names import PRODUCT
from licensing.verify import KeysetTrust, verify_license
from portal.db.accounts import Account
from portal.db.deployments import lock_deployment
from portal.db.entitlements import Entitlement
from portal.db.licenses import License, current_license, held_since
from portal.db.session import clock_difference
from portal.domain.entitlements import EntitlementState, Grant, compute_terms
from portal.domain.errors import Conflict, Invalid, NotFound, Unavailable
from portal.domain.identifiers import LICENSE, new_id
from portal.domain.standing import Standing, standing_of
from portal.domain.terms import Mode
from portal.services.audit import record
from portal.services.context import Actor, Context, Transactions
from portal.services.jobs import enqueue
from portal.services.keys import current_keyset, role_signer, sign_payload, signer_of, unix
from portal.services.notices import tell_released

ISSUE_LICENSE: Final = "issue-license"
MAX_CLOCK_DIFFERENCE_S: Final = 60


def request_issue(context: Context, entitlement_id: str, *, cause: str) -> License:
    """Ask for a license from an approved entitlement; the same cause again gives the same license.

    Raises:
        NotFound: no such entitlement.
        Conflict: it is not approved.
    """
    entitlement = context.session.get(Entitlement, entitlement_id)
    if entitlement is None:
        raise NotFound(f"There is no entitlement {entitlement_id}.")
    lock_deployment(context.session, entitlement.deployment_id)
    issue_key = f"{cause}:{entitlement.id}"
    present = context.session.scalar(select(License).where(License.issue_key == issue_key))
    if present is not None:
        return present
    context.session.refresh(entitlement)
    if entitlement.state not in (EntitlementState.APPROVED, EntitlementState.LIVE):
        raise Conflict(
            f"The entitlement is {entitlement.state}; only an approved one can be issued."
        )
    license_ = License(
        id=new_id(LICENSE, context.ports.randomness),
        account_id=entitlement.account_id,
        deployment_id=entitlement.deployment_id,
        entitlement_id=entitlement.id,
        issue_key=issue_key,
        sku=entitlement.terms.sku,
        mode=entitlement.terms.mode,
        created_at=context.at,
    )
    context.session.add(license_)
    enqueue(context, ISSUE_LICENSE, license_.id, {"license_id": license_.id})
    _record(
        context,
        "license.requested",
        license_,
        entitlement_id=entitlement.id,
        deployment_id=license_.deployment_id,
    )
    context.session.flush()
    return license_


def _record(context: Context, action: str, license_: License, **detail: Any) -> None:
    record(context, action, "license", license_.id, account_id=license_.account_id, **detail)


def store_intent(context: Context, license_id: str) -> License:
    """Fix the payload and the key a license will be signed with; fixed already, change nothing.

    Raises:
        NotFound: no such license.
        Conflict: its entitlement may no longer be issued.
        Unavailable: the clock cannot be trusted, or no key is active.
    """
    license_ = find_license(context, license_id)
    lock_deployment(context.session, license_.deployment_id)
    context.session.refresh(license_)
    if license_.payload is not None:
        return license_
    require_sane_clock(context)
    _make_live(context, context.session.get_one(Entitlement, license_.entitlement_id))
    signer = role_signer(context, "license")
    payload = _payload(context, license_, current_license(context.session, license_.deployment_id))
    raw = payload.to_bytes()
    license_.revision = payload.revision
    license_.sku = payload.sku
    license_.mode = Mode(payload.mode)
    license_.payload = raw
    license_.payload_sha256 = sha256_hex(raw)
    license_.key_id = signer.keyid
    license_.issued_at = context.at.replace(microsecond=0)
    license_.expires_at = datetime.fromtimestamp(payload.expires_at, context.at.tzinfo)
    _record(
        context,
        "license.intended",
        license_,
        payload_sha256=license_.payload_sha256,
        key_id=license_.key_id,
        revision=license_.revision,
    )
    context.session.flush()
    return license_


def require_sane_clock(context: Context) -> None:
    """Refuse to act by a clock that disagrees with the database's, or was ahead before.

    Raises:
        Unavailable: the clock cannot be trusted.
    """
    difference = clock_difference(context.session, context.at)
    if abs(difference) > MAX_CLOCK_DIFFERENCE_S:
        raise Unavailable(
            f"This machine's clock is {difference:.0f} s away from the database's; correct it."
        )
    newest = context.session.scalar(select(func.max(License.issued_at)))
    if newest is not None and context.at < newest:
        raise Unavailable("This machine's clock is before the last license issued; correct it.")


def _make_live(context: Context, entitlement: Entitlement) -> None:
    """Start an approved entitlement's term; it runs from the first license issued from it."""
    if entitlement.state is EntitlementState.LIVE:
        return
    start, term_s = context.at.replace(microsecond=0), entitlement.terms.term_s
    moved = context.session.execute(
        update(Entitlement)
        .where(Entitlement.id == entitlement.id, Entitlement.state == EntitlementState.APPROVED)
        .values(
            starts_at=start, ends_at=None if term_s is None else start + timedelta(seconds=term_s)
        )
        .returning(Entitlement.id)
    ).first()
    if moved is None:
        raise Conflict("The entitlement may no longer be issued.")
    context.session.refresh(entitlement)


def _live_grants(context: Context, deployment_id: str) -> list[Grant]:
    rows = context.session.scalars(
        select(Entitlement)
        .where(
            Entitlement.deployment_id == deployment_id,
            Entitlement.state == EntitlementState.LIVE,
            Entitlement.ends_at.is_(None) | (Entitlement.ends_at > context.at),
        )
        .order_by(Entitlement.created_at, Entitlement.id)
    )
    return [grant for row in rows if (grant := row.grant()) is not None]


def _payload(context: Context, license_: License, predecessor: License | None) -> LicensePayload:
    computed = compute_terms(_live_grants(context, license_.deployment_id))
    terms = computed.terms
    issued_at, expires_at = unix(context.at), unix(computed.expires_at)
    if expires_at <= issued_at:
        raise Invalid("The term of the entitlement is over.")
    before = None if predecessor is None else predecessor.document
    budget = None
    if terms.tokens_total is not None and computed.budget_id is not None:
        budget = Budget(
            budget_id=computed.budget_id,
            tokens_total=terms.tokens_total,
            carry_over_from=_carried(before, computed.budget_id),
        )
    lease = None
    if computed.leases is not None:
        lease = LeaseTerms(url=context.policy.origin, **asdict(computed.leases))
    return LicensePayload(
        typ=LicensePayload.TYP,
        iss=context.policy.issuer,
        product=PRODUCT,
        issued_at=issued_at,
        license_id=license_.id,
        deployment_id=license_.deployment_id,
        revision=1 if before is None else before.revision + 1,
        supersedes=None if before is None else before.license_id,
        customer_id=license_.account_id,
        customer_name=context.session.get_one(Account, license_.account_id).name,
        sku=terms.sku,
        mode=terms.mode.value,
        not_before_at=issued_at,
        expires_at=expires_at,
        features=terms.features,
        limits=terms.limits,
        budget=budget,
        binding=Binding(fingerprints=terms.fingerprints),
        support_tier=terms.support_tier,
        lease=lease,
        revocation=RevocationTerms(require_current_bundle=False, min_version=0),
        min_keyset_version=0,
    )


def _carried(before: LicensePayload | None, budget_id: str) -> str | None:
    """Return which budget the next one carries over from; one that stays keeps its link."""
    if before is None or before.budget is None:
        return None
    same = before.budget.budget_id == budget_id
    return before.budget.carry_over_from if same else before.budget.budget_id


def sign_intent(context: Context, license_: License) -> bytes:
    """Sign a stored intent and verify the outcome as a router would.

    Raises:
        SignerUnavailable: the chosen key cannot be used now.
        LicensingError: the signed document does not verify.
    """
    if license_.payload is None or license_.key_id is None or license_.issued_at is None:
        raise Conflict("The license has no intent to sign yet.")
    signer = signer_of(context, license_.key_id)
    envelope = sign_payload(license_.payload, LicensePayload.PAYLOAD_TYPE, signer).to_bytes()
    trust = KeysetTrust(current_keyset(context).document)
    verify_license(envelope, trust, unix(license_.issued_at))
    return envelope


def release(context: Context, license_id: str, envelope: bytes) -> License:
    """Store the verified signature and make the license visible; released already, change nothing.

    Raises:
        Conflict: other bytes were released for this license.
    """
    license_ = context.session.get_one(License, license_id)
    lock_deployment(context.session, license_.deployment_id)
    context.session.refresh(license_)
    if license_.envelope is not None:
        if license_.envelope != envelope:
            raise Conflict("The license was released with another signature.")
        return license_
    license_.envelope = envelope
    license_.file_sha256 = sha256_hex(envelope)
    license_.released_at = context.at
    document = license_.document
    if document is not None and document.supersedes is not None:
        predecessor = context.session.get_one(License, document.supersedes)
        predecessor.superseded_by = license_.id
        if predecessor.superseded_at is None:
            predecessor.superseded_at = context.at + context.policy.overlap
    _record(
        context,
        "license.issued",
        license_,
        entitlement_id=license_.entitlement_id,
        payload_sha256=license_.payload_sha256,
        file_sha256=license_.file_sha256,
        key_id=license_.key_id,
    )
    tell_released(context, license_)
    context.session.flush()
    return license_


def issue_license(transactions: Transactions, license_id: str, actor: Actor) -> None:
    """Take a license from where it stands to its release.

    Raises:
        PortalError, SignerUnavailable: it cannot be issued now; nothing is lost, try again.
    """
    with transactions.writing(actor) as context:
        store_intent(context, license_id)
    with transactions.reading(actor) as context:
        license_ = context.session.get_one(License, license_id)
        envelope = license_.envelope or sign_intent(context, license_)
    with transactions.writing(actor) as context:
        release(context, license_id, envelope)


def account_license(context: Context, account_id: str, license_id: str) -> License:
    """Return a license of this account.

    Raises:
        NotFound: there is none, or it is another account's (the two answer alike).
    """
    license_ = context.session.get(License, license_id)
    if license_ is None or license_.account_id != account_id:
        raise NotFound("There is no such license in this account.")
    return license_


def find_license(context: Context, license_id: str) -> License:
    """Return any license, for staff and the command.

    Raises:
        NotFound: there is none.
    """
    license_ = context.session.get(License, license_id)
    if license_ is None:
        raise NotFound(f"There is no license {license_id}.")
    return license_


def standings(context: Context, licenses: Sequence[License]) -> dict[str, Standing]:
    """Say what is true of each license at this unit's instant, by license id; one statement."""
    held = held_since(context.session, {each.entitlement_id for each in licenses})
    return {
        each.id: standing_of(each.facts(is_held=each.entitlement_id in held), context.at)
        for each in licenses
    }


def standing(context: Context, license_: License) -> Standing:
    """Say what is true of a license at this unit's instant."""
    return standings(context, [license_])[license_.id]


def license_of(context: Context, entitlement_id: str) -> License | None:
    """Return the newest license issued, or being issued, from an entitlement."""
    return context.session.scalar(
        select(License)
        .where(License.entitlement_id == entitlement_id)
        .order_by(License.created_at.desc())
        .limit(1)
    )


def mark_installed(context: Context, account_id: str, license_id: str) -> None:
    """Note that a license is in place.

    Raises:
        NotFound, Conflict: there is none in this account, or it is not issued yet.
    """
    license_ = account_license(context, account_id, license_id)
    if license_.released_at is None:
        raise Conflict("The license is still being issued.")
    if license_.installed_marked_at is None:
        license_.installed_marked_at = context.at
        _record(context, "license.marked-installed", license_)


@dataclass(frozen=True)
class LicenseRow:
    """A license in a list for staff."""

    license: License
    now: Standing
    account: Account


def search_licenses(context: Context, text: str, most: int = 200) -> list[LicenseRow]:
    """Find licenses by id, account, deployment, SKU, key id or file hash, newest first."""
    query = (
        select(License, Account)
        .join(Account, Account.id == License.account_id)
        .order_by(License.created_at.desc(), License.id)
        .limit(most)
    )
    words = text.strip()
    if words:
        query = query.where(
            (License.id == words)
            | (License.account_id == words)
            | (License.deployment_id == words)
            | (License.key_id == words)
            | (License.file_sha256 == words)
            | License.sku.icontains(words, autoescape=True)
        )
    found = context.session.execute(query).all()
    now = standings(context, [license_ for license_, _ in found])
    return [LicenseRow(license_, now[license_.id], account) for license_, account in found]
