"""The independent checker: everything issued is verified and computed anew, long after the fact.

It trusts no row. Each license and bundle is verified with `licensing.verify` under the published
keyset; a license is computed again from the causes that were sealed for it, as of its time. What
the signer vouched for must be in the audit trail: intent, issue, and the causes behind them.

A license that an operator adopted is as old as custody allows: it is verified, not computed anew.
So is one that other rules made (`portal.domain.causes.RULES`). A key that was compromised vouches
for nothing any more, so what only it signed is left out.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from sqlalchemy import select

from licensing.encoding import sha256_hex
from licensing.envelope import MAX_BUNDLE_BYTES, Envelope
from licensing.errors import LicensingError
from licensing.license import License as LicensePayload
from licensing.revocation import RevocationBundle
from licensing.verify import KeysetTrust, verify_bundle, verify_license
from portal.db.audit import AuditRow
from portal.db.bundles import Bundle
from portal.db.entitlements import Entitlement
from portal.db.licenses import License
from portal.domain.causes import (
    RULES,
    EntitlementSeal,
    LicenseSeal,
    LiftSeal,
    ReviewSeal,
    Statement,
)
from portal.domain.entitlements import EntitlementState
from portal.domain.errors import Conflict, Invalid, Unproved
from portal.services.audit import record
from portal.services.bundles import next_entries
from portal.services.context import Actor, Context, Transactions
from portal.services.custody import keep_restrictions, known_keyset, remembered_bundle
from portal.services.keys import current_keyset, unix
from portal.services.licenses import recomputed
from portal.services.refusals import REVIEWED
from portal.services.seals import (
    CAUSE_SEALED,
    LICENSE_INTENDED,
    LICENSE_ISSUED,
    LIFT_SEALED,
    latest_cause,
    license_seal,
    misfits,
    open_seal,
    sealed_statements,
)

CHECKED: Final = "licenses.checked"
CHECK_AGAIN: Final = timedelta(hours=20)
"""The nightly check is not repeated sooner when a worker starts anew."""
MOST_TOLD: Final = 20
_KINDS: Final[dict[str, type[Statement]]] = {
    CAUSE_SEALED: EntitlementSeal,
    LIFT_SEALED: LiftSeal,
    LICENSE_INTENDED: LicenseSeal,
    LICENSE_ISSUED: LicenseSeal,
    REVIEWED: ReviewSeal,
}


@dataclass(frozen=True)
class Fault:
    """Something that falls short."""

    subject: str
    why: str

    def __str__(self) -> str:
        """Return both in one line."""
        return f"{self.subject}: {self.why}"


@dataclass(frozen=True)
class Checked:
    """What the checker looked at."""

    licenses: int
    bundles: int
    faults: tuple[Fault, ...]


def check_licenses(context: Context) -> Checked:
    """Check every license, entitlement, statement and bundle.

    Raises:
        SignerUnavailable: this process does not hold the seal key.
        Unavailable, LicensingError: there is no keyset to verify with.
    """
    faults = list(_keyset_faults(context))
    trust = KeysetTrust(current_keyset(context).document)
    adopted = _adopted(context)
    licenses = context.session.scalars(select(License).order_by(License.id)).all()
    for license_ in licenses:
        faults += (
            Fault(license_.id, why) for why in _license_faults(context, license_, trust, adopted)
        )
    faults += _entitlement_faults(context)
    faults += _statement_faults(context)
    bundles = context.session.scalars(select(Bundle).order_by(Bundle.version)).all()
    faults += _bundle_faults(context, bundles, trust)
    return Checked(len(licenses), len(bundles), tuple(faults))


def _keyset_faults(context: Context) -> Iterator[Fault]:
    try:
        known_keyset(context)
    except Unproved as error:
        yield Fault("keyset", error.message)


def _adopted(context: Context) -> frozenset[str]:
    """Return the payload hashes of the licenses that operators adopted."""
    return frozenset(
        sha256
        for each in sealed_statements(context, CAUSE_SEALED, EntitlementSeal)
        for sha256 in each.statement.licenses or ()
    )


def _is_compromised(envelope: Envelope, trust: KeysetTrust) -> bool:
    """Whether every key that signed is marked as compromised."""
    keys = [trust.keyset.by_keyid.get(each.keyid) for each in envelope.signatures]
    return all(key is not None and key.status == "compromised" for key in keys)


def _license_faults(
    context: Context, license_: License, trust: KeysetTrust, adopted: frozenset[str]
) -> Iterator[str]:
    if license_.envelope is None:
        if license_.released_at is not None:
            yield "counts as issued, and has no signature"
        elif license_.payload is not None and not _was_intended(
            context, license_, license_.payload
        ):
            yield "its payload was never sealed"
        return
    try:
        envelope = Envelope.parse(license_.envelope)
        document = LicensePayload.parse(envelope.payload)
        if not _is_compromised(envelope, trust):
            verify_license(license_.envelope, trust, document.issued_at)
    except LicensingError as error:
        yield f"its file does not verify: {error.code}"
        return
    payload_sha256 = sha256_hex(envelope.payload)
    row = (license_.id, license_.deployment_id, license_.account_id, license_.revision)
    if row != (
        document.license_id,
        document.deployment_id,
        document.customer_id,
        document.revision,
    ):
        yield "its row differs from its file"
    if envelope.payload != license_.payload or payload_sha256 != license_.payload_sha256:
        yield "its stored payload differs from its file"
    if sha256_hex(license_.envelope) != license_.file_sha256:
        yield "its file differs from the hash beside it"
    sealed = license_seal(context, license_.id, "intended", payload_sha256)
    if sealed is None:
        if payload_sha256 not in adopted:
            yield "no statement vouches for it; if it is older than custody, adopt it"
        return
    yield from _cause_faults(context, license_, document, sealed.statement)


def _was_intended(context: Context, license_: License, payload: bytes) -> bool:
    return license_seal(context, license_.id, "intended", sha256_hex(payload)) is not None


def _cause_faults(
    context: Context, license_: License, document: LicensePayload, intent: LicenseSeal
) -> Iterator[str]:
    payload = document.to_bytes()
    issued = license_seal(context, license_.id, "issued")
    if issued is None or issued.statement.payload_sha256 != intent.payload_sha256:
        yield "no statement vouches for its issue"
    requested = context.session.scalar(
        select(AuditRow.id)
        .where(AuditRow.action == "license.requested", AuditRow.subject_id == license_.id)
        .limit(1)
    )
    if requested is None:
        yield "nobody asked for it, by the audit trail"
    if intent.rules != RULES:
        return
    try:
        if recomputed(context, document, intent) != payload:
            yield "it does not follow from its causes"
    except (Unproved, Conflict, Invalid) as error:
        yield error.message


def _entitlement_faults(context: Context) -> Iterator[Fault]:
    """Compare live entitlements with what was sealed; those never sealed are counted elsewhere."""
    live = context.session.scalars(
        select(Entitlement)
        .where(Entitlement.state == EntitlementState.LIVE)
        .order_by(Entitlement.id)
    )
    for row in live:
        latest = latest_cause(context, row)
        if latest is None:
            yield Fault(row.id, "it is live, and nobody ever proved it")
            continue
        wrong = misfits(row, latest.statement)
        if wrong:
            yield Fault(row.id, f"its row differs from what was sealed: {', '.join(wrong)}")


def _statement_faults(context: Context) -> Iterator[Fault]:
    """Find rows that claim a seal and have none, or one that belongs elsewhere."""
    rows = context.session.scalars(
        select(AuditRow).where(AuditRow.action.in_(_KINDS)).order_by(AuditRow.id)
    )
    seen: set[str] = set()
    for row in rows:
        always = row.action in (CAUSE_SEALED, LIFT_SEALED, REVIEWED)
        if not always and not (isinstance(row.detail, dict) and "seal" in row.detail):
            # Older than custody.
            continue
        sealed = open_seal(context, row, _KINDS[row.action])
        name = f"audit row {row.id}"
        if sealed is None:
            yield Fault(name, f"its seal does not hold ({row.action} of {row.subject_id})")
        elif sealed.statement.subject_id != row.subject_id:
            yield Fault(name, f"its seal belongs to {sealed.statement.subject_id}")
        elif sealed.sha256 in seen:
            yield Fault(name, f"it repeats a seal of {row.subject_id}")
        else:
            seen.add(sealed.sha256)


def _bundle_faults(
    context: Context, bundles: Sequence[Bundle], trust: KeysetTrust
) -> Iterator[Fault]:
    before: RevocationBundle | None = None
    versions: dict[int, str] = {}
    for row in bundles:
        name = f"bundle {row.version}"
        try:
            envelope = Envelope.parse(row.envelope, max_bytes=MAX_BUNDLE_BYTES)
            if not _is_compromised(envelope, trust):
                verify_bundle(row.envelope, trust, unix(context.at), require_current=False)
            document = RevocationBundle.parse(envelope.payload)
        except LicensingError as error:
            yield Fault(name, f"it does not verify: {error.code}")
            continue
        versions[document.version] = sha256_hex(envelope.payload)
        if document.version != row.version:
            yield Fault(name, f"its file says version {document.version}")
        _, kept = keep_restrictions(context, document.entries, before)
        for each in kept:
            yield Fault(name, f"the entry of {each.license_id} is gone: {each.why}")
        before = document
    known = remembered_bundle(context)
    if known is not None and versions.get(known.version) != sha256_hex(known.to_bytes()):
        yield Fault(f"bundle {known.version}", "the signer made it, and it is not in the database")
    for each in next_entries(context)[1]:
        yield Fault(each.license_id, f"its entry stays in the bundle: {each.why}")


def check_nightly(transactions: Transactions, actor: Actor) -> Checked | None:
    """Check everything and record the outcome; None when that was done a short while ago."""
    with transactions.reading(actor) as context:
        last = last_check(context)
        if last is not None and context.at - last.at < CHECK_AGAIN:
            return None
        checked = check_licenses(context)
    with transactions.writing(actor) as context:
        record(
            context,
            CHECKED,
            "licenses",
            "all",
            audience="staff",
            licenses=checked.licenses,
            bundles=checked.bundles,
            faults=len(checked.faults),
            first=[str(each) for each in checked.faults[:MOST_TOLD]],
        )
    return checked


def last_check(context: Context) -> AuditRow | None:
    """Return the record of the newest check."""
    return context.session.scalar(
        select(AuditRow).where(AuditRow.action == CHECKED).order_by(AuditRow.at.desc()).limit(1)
    )
