"""Issuing licenses, and finding them.

Issuing: ask (a row in state `issuing` and a job) - compute and lint the payload, pick the key and
store the intent - sign - verify - store and release. Each step is a unit of work of its own.
Ed25519 is deterministic, so whoever resumes after a crash stores the same bytes. A license is
visible as issued only once its signature is stored and was verified.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import func, select

from licensing.encoding import sha256_hex
from licensing.envelope import Envelope
from licensing.license import Binding, LeaseTerms, RevocationTerms
from licensing.license import License as LicensePayload
from licensing.names import PRODUCT
from licensing.verify import KeysetTrust, verify_license
from portal.db.accounts import Account
from portal.db.deployments import lock_deployment
from portal.db.entitlements import Entitlement
from portal.db.licenses import Hold, License, current_license, open_holds, suspended_since
from portal.db.session import clock_difference
from portal.domain.advice import INSTALLABLE
from portal.domain.catalog import CATALOG
from portal.domain.causes import LicenseSeal
from portal.domain.entitlements import EntitlementState, Line, compute_terms
from portal.domain.errors import Conflict, NotFound, Unavailable, Unproved
from portal.domain.standing import Standing, standing_of
from portal.domain.succession import Hurry, overlap
from portal.domain.terms import Mode
from portal.services.audit import record
from portal.services.causes import date_anew, prove_line
from portal.services.context import Actor, Context, Transactions
from portal.services.custody import known_keyset, signed_license
from portal.services.keys import role_signers, sign_payload, signer_of, unix
from portal.services.lines import ask_license, begin, follow, load_line
from portal.services.notices import tell_released
from portal.services.refusals import refuse
from portal.services.seals import highest_revision, license_seal, seal_license, sealed_line

MAX_CLOCK_DIFFERENCE_S: Final = 60


def request_issue(context: Context, entitlement_id: str, *, cause: str) -> License:
    """Start an approved entitlement and ask for its license.

    The same cause again gives the same license.

    Raises:
        NotFound: no such entitlement.
        Conflict: it is not approved, or cannot start beside what is live.
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
    if entitlement.state is not EntitlementState.APPROVED:
        raise Conflict(
            f"The entitlement is {entitlement.state}; only an approved one can be issued."
        )
    begin(context, entitlement)
    asked = ask_license(context, entitlement.id, issue_key, Hurry.NONE)
    follow(context, entitlement.deployment_id)
    return asked


def _record(context: Context, action: str, license_: License, **detail: Any) -> None:
    record(context, action, "license", license_.id, account_id=license_.account_id, **detail)


def store_intent(context: Context, license_id: str) -> License:
    """Fix the payload and the keys a license will be signed with; fixed already, change nothing.

    Raises:
        NotFound: no such license.
        Conflict: it was revoked, or nothing live grants a license any more.
        Unproved: something it would be computed from was never proved.
        Unavailable: the clock cannot be trusted, no key is active, or the license before it is
            not released yet.
    """
    license_ = find_license(context, license_id)
    lock_deployment(context.session, license_.deployment_id)
    context.session.refresh(license_)
    if license_.payload is not None:
        return license_
    _require_intendable(context, license_)
    require_sane_clock(context)
    known_keyset(context)
    if license_seal(context, license_.id, "issued") is not None:
        raise Unproved(f"{license_.id} was issued before, and its file is gone.")
    _date_evaluation(context, license_)
    if not license_.key_ids:
        signed_by(license_, [signer.keyid for signer in role_signers(context, "license")])
    grants = prove_line(context, license_.account_id, license_.deployment_id)
    at = unix(context.at)
    line = sealed_line(context, license_.account_id, license_.deployment_id, grants, at)
    place = _proved_place(context, license_)
    raw = fix_payload(context, license_, line, place).to_bytes()
    license_.payload = raw
    license_.payload_sha256 = sha256_hex(raw)
    context.session.flush()
    seal_license(context, license_, grants, at, revision=license_.revision)
    return license_


def signed_by(license_: License, keyids: Sequence[str]) -> None:
    """Fix the keys that a license will be signed with, the newest first."""
    license_.key_id, *others = keyids
    license_.also_signed_by = others


def take_back_intent(context: Context, license_: License) -> None:
    """Have a license that was not signed yet computed anew, and signed with other keys."""
    _record(
        context,
        "license.intent-taken-back",
        license_,
        payload_sha256=license_.payload_sha256,
        key_ids=license_.key_ids,
    )
    license_.revision = license_.payload = license_.payload_sha256 = None
    license_.key_id, license_.also_signed_by = None, []
    license_.issued_at = license_.expires_at = None
    context.session.flush()


def _require_intendable(context: Context, license_: License) -> None:
    """Require that a license may still be issued, and that the one before it is out."""
    if license_.revoked_at is not None:
        raise Conflict("The license was revoked before it was issued.")
    before = context.session.scalar(
        select(License.id)
        .where(
            License.deployment_id == license_.deployment_id,
            License.payload.is_not(None),
            License.released_at.is_(None),
            License.revoked_at.is_(None),
        )
        .limit(1)
    )
    if before is not None:
        raise Unavailable(f"{before} is being issued; this license follows it.")


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


def _date_evaluation(context: Context, license_: License) -> None:
    """Let an evaluation's hours run from its license, however long the signer was away."""
    entitlement = context.session.get_one(Entitlement, license_.entitlement_id)
    is_first = license_.issue_key == f"start:{entitlement.id}"
    is_evaluation = CATALOG[entitlement.terms.sku].source == "evaluation"
    if is_first and is_evaluation and entitlement.ended_at is None:
        date_anew(context, entitlement)


@dataclass(frozen=True)
class _Place:
    """Where a license stands in its deployment's line."""

    revision: int
    supersedes: str | None


def _place(context: Context, license_: License) -> _Place:
    """Return where a license stands by the rows."""
    predecessor = current_license(context.session, license_.deployment_id)
    highest = context.session.scalar(
        select(func.max(License.revision)).where(License.deployment_id == license_.deployment_id)
    )
    return _Place(1 + (highest or 0), None if predecessor is None else predecessor.id)


def _proved_place(context: Context, license_: License) -> _Place:
    """Return where a license stands by what was signed and sealed: rows could use up revisions.

    Raises:
        Unproved: the license it replaces is not as it was signed, or a later one is gone.
    """
    row = current_license(context.session, license_.deployment_id)
    document = None if row is None else signed_license(context, row)
    if row is not None and (document is None or document.deployment_id != license_.deployment_id):
        raise Unproved(f"{row.id}, which would be replaced, is not as it was signed.")
    revision = 0 if document is None else document.revision
    issued = highest_revision(context, license_, "issued")
    if issued > revision:
        raise Unproved(f"Revision {issued} of {license_.deployment_id} was issued and is gone.")
    intended = highest_revision(context, license_, "intended")
    return _Place(1 + max(revision, intended), None if document is None else document.license_id)


def fix_payload(
    context: Context, license_: License, line: Line | None = None, place: _Place | None = None
) -> LicensePayload:
    """Compute what a license says and note it in its columns.

    A preview computes it from the rows; the signer gives the line that was proved, and its place.

    Raises:
        Conflict: nothing live grants a license.
    """
    facts = _Facts(
        license_.id,
        license_.account_id,
        license_.deployment_id,
        unix(context.at),
        context.session.get_one(Account, license_.account_id).name,
        context.policy.origin,
        context.policy.issuer,
    )
    payload = _payload(
        facts,
        line or load_line(context, license_.deployment_id),
        place or _place(context, license_),
    )
    license_.revision = payload.revision
    license_.sku = payload.sku
    license_.mode = Mode(payload.mode)
    license_.issued_at = context.at.replace(microsecond=0)
    license_.expires_at = datetime.fromtimestamp(payload.expires_at, context.at.tzinfo)
    return payload


@dataclass(frozen=True)
class _Facts:
    """What a payload says besides what is granted and where it stands."""

    license_id: str
    account_id: str
    deployment_id: str
    issued_at: int
    customer_name: str | None
    origin: str
    issuer: str


def _payload(facts: _Facts, line: Line, place: _Place) -> LicensePayload:
    """Compute a payload; the same facts give the same one.

    Raises:
        Conflict: nothing live grants a license.
    """
    computed = compute_terms(line)
    if computed is None:
        raise Conflict("Nothing live grants a license any more.")
    terms = computed.terms
    lease = None
    if computed.leases is not None:
        lease = LeaseTerms(url=facts.origin, **asdict(computed.leases))
    return LicensePayload(
        typ=LicensePayload.TYP,
        iss=facts.issuer,
        product=PRODUCT,
        issued_at=facts.issued_at,
        license_id=facts.license_id,
        deployment_id=facts.deployment_id,
        revision=place.revision,
        supersedes=place.supersedes,
        customer_id=facts.account_id,
        customer_name=facts.customer_name,
        sku=terms.sku,
        mode=terms.mode.value,
        not_before_at=unix(computed.not_before_at),
        expires_at=unix(computed.expires_at),
        features=terms.features,
        limits=terms.limits,
        budget=computed.budget,
        binding=Binding(fingerprints=terms.fingerprints),
        support_tier=terms.support_tier,
        lease=lease,
        revocation=RevocationTerms(require_current_bundle=False, min_version=0),
        min_keyset_version=0,
    )


def require_proved(context: Context, license_: License) -> LicenseSeal:
    """Require that a license's payload follows from sealed causes; return the seal of its intent.

    The seal of the intent must vouch for exactly these bytes, and the bytes must come out again
    when they are computed from the statements it names. What no statement says has a rule of its
    own: revision, predecessor, `issued_at` and the restrictions on a grant are the sealed intent's;
    `customer_name` is the customer's own choice and grants nothing; a lease's address is this
    portal's, now or formerly.

    Raises:
        Unproved: it does not follow.
        SignerUnavailable: this process does not hold the seal key.
    """
    payload = license_.payload or b""
    sealed = license_seal(context, license_.id, "intended", sha256_hex(payload))
    if sealed is None:
        raise Unproved(f"No statement vouches for the payload of {license_.id}.")
    intent = sealed.statement
    row = (license_.account_id, license_.deployment_id, license_.entitlement_id, license_.key_ids)
    if row != (intent.account_id, intent.deployment_id, intent.entitlement_id, intent.key_ids):
        raise Unproved(f"The row of {license_.id} differs from what was sealed.")
    if recomputed(context, LicensePayload.parse(payload), intent) != payload:
        raise Unproved(f"The payload of {license_.id} does not follow from its causes.")
    return intent


def recomputed(context: Context, stored: LicensePayload, intent: LicenseSeal) -> bytes:
    """Compute a license's payload anew from the statements its intent names.

    Raises:
        Unproved: a statement is not there.
        Conflict, Invalid: nothing is granted by them.
    """
    url = None if stored.lease is None else stored.lease.url
    known = url in context.policy.former_origins
    facts = _Facts(
        intent.license_id,
        intent.account_id,
        intent.deployment_id,
        intent.computed_at,
        stored.customer_name,
        url if known and url is not None else context.policy.origin,
        context.policy.issuer,
    )
    line = sealed_line(
        context, intent.account_id, intent.deployment_id, intent.grants, intent.computed_at
    )
    return _payload(facts, line, _Place(intent.revision, stored.supersedes)).to_bytes()


def sign_intent(context: Context, license_: License) -> bytes:
    """Sign a stored intent and verify the outcome as a router would.

    Raises:
        Unproved: it does not follow from sealed causes.
        SignerUnavailable: a chosen key cannot be used now.
        LicensingError: the signed document does not verify.
    """
    if license_.payload is None or not license_.key_ids or license_.issued_at is None:
        raise Conflict("The license has no intent to sign yet.")
    intent = require_proved(context, license_)
    if intent.revision <= highest_revision(context, license_, "issued"):
        raise Unproved(f"Revision {intent.revision} of this line was issued already.")
    trust = KeysetTrust(known_keyset(context).document)
    signers = [
        signer_of(context, each, beside=place > 0) for place, each in enumerate(license_.key_ids)
    ]
    envelope = sign_payload(license_.payload, LicensePayload.PAYLOAD_TYPE, signers).to_bytes()
    verify_license(envelope, trust, unix(license_.issued_at))
    return envelope


def release(context: Context, license_id: str, envelope: bytes) -> License:
    """Store the verified signature and make the license visible; released already, change nothing.

    Raises:
        Conflict: other bytes were released for this license, or it was revoked, or computed anew,
            meanwhile.
    """
    license_ = context.session.get_one(License, license_id)
    lock_deployment(context.session, license_.deployment_id)
    context.session.refresh(license_)
    if license_.envelope is not None:
        if license_.envelope != envelope:
            raise Conflict("The license was released with another signature.")
        return license_
    if license_.revoked_at is not None:
        raise Conflict("The license was revoked before it was issued.")
    if Envelope.parse(envelope).payload != license_.payload:
        raise Conflict("The license was computed anew while it was being signed.")
    license_.envelope = envelope
    license_.file_sha256 = sha256_hex(envelope)
    license_.released_at = context.at
    if license_.document is not None:
        supersede(context, license_, license_.document)
    context.session.flush()
    intent = require_proved(context, license_)
    seal_license(
        context,
        license_,
        intent.grants,
        intent.computed_at,
        entitlement_id=license_.entitlement_id,
        file_sha256=license_.file_sha256,
    )
    tell_released(context, license_)
    context.session.flush()
    return license_


def supersede(context: Context, license_: License, document: LicensePayload) -> None:
    """Say until when the licenses before this one stay good."""
    before = context.session.scalars(
        select(License).where(
            License.deployment_id == license_.deployment_id,
            License.id != license_.id,
            License.released_at.is_not(None),
            License.revoked_at.is_(None),
            License.superseded_at.is_(None) | (License.superseded_at > context.at),
        )
    )
    for each in before:
        if each.document is None:
            continue
        if each.id == document.supersedes:
            each.superseded_by = license_.id
        ends = context.at + overlap(each.document, document, license_.hurry, context.policy.overlap)
        each.superseded_at = ends if each.superseded_at is None else min(ends, each.superseded_at)


def issue_license(transactions: Transactions, license_id: str, actor: Actor) -> None:
    """Take a license from where it stands to its release. What is not proved is recorded.

    Raises:
        Unproved: it does not follow from a cause that the signer proved; it is never signed.
        PortalError, SignerUnavailable: it cannot be issued now; nothing is lost, try again.
    """
    try:
        with transactions.writing(actor) as context:
            store_intent(context, license_id)
        with transactions.reading(actor) as context:
            license_ = context.session.get_one(License, license_id)
            envelope = license_.envelope or sign_intent(context, license_)
        with transactions.writing(actor) as context:
            release(context, license_id, envelope)
    except Unproved as error:
        with transactions.writing(actor) as context:
            account_id = context.session.get_one(License, license_id).account_id
            subject = ("license", license_id)
            refuse(context, "license.refused", subject, account_id, error.message)
        raise


def issue_pending(transactions: Transactions, deployment_id: str, actor: Actor) -> None:
    """Issue every license of a deployment that was asked for, in the order of asking.

    Raises:
        PortalError, SignerUnavailable: one cannot be issued now; nothing is lost.
    """
    with transactions.reading(actor) as context:
        waiting = context.session.scalars(
            select(License.id)
            .where(
                License.deployment_id == deployment_id,
                License.released_at.is_(None),
                License.revoked_at.is_(None),
            )
            .order_by(License.revision.asc().nulls_last(), License.created_at, License.id)
        ).all()
    for license_id in waiting:
        issue_license(transactions, license_id, actor)


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
    held = suspended_since(context.session, {each.deployment_id for each in licenses})
    return {
        each.id: standing_of(each.facts(is_held=each.deployment_id in held), context.at)
        for each in licenses
    }


def standing(context: Context, license_: License) -> Standing:
    """Say what is true of a license at this unit's instant."""
    return standings(context, [license_])[license_.id]


def license_holds(context: Context, license_: License) -> list[Hold]:
    """Return the open holds on a license's line, oldest first."""
    return open_holds(context.session, license_.deployment_id)


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
        NotFound, Conflict: there is none in this account, or nothing that may be installed.
    """
    license_ = account_license(context, account_id, license_id)
    if license_.released_at is None:
        raise Conflict("The license is still being issued.")
    now = standing(context, license_)
    if now.state not in INSTALLABLE:
        raise Conflict(f"The license is {now.state}; do not install it.")
    if license_.installed_marked_at is None:
        license_.installed_marked_at = context.at
        record(context, "license.marked-installed", "license", license_.id, account_id=account_id)


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
