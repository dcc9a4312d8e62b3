"""What the signer remembers by itself: the last keyset and the last bundle it knows.

A database can be restored from a backup, or changed by somebody; a signer's memory lies beside its
keys. Both documents are signed, so the memory needs no seal of its own.

Invariants: a keyset counts only if it continues the one remembered. A bundle's version rises. An
entry leaves a bundle, or says less, only when its hold was lifted by a sealed lift or when it is
pruned; adding an entry needs no proof.

Source: "Bundles and keysets" of custody.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from sqlalchemy import select

from licensing.encoding import sha256_hex
from licensing.envelope import MAX_BUNDLE_BYTES, Envelope
from licensing.errors import LicensingError
from licensing.keys import Keyset
from licensing.license import License as LicensePayload
from licensing.revocation import RevocationBundle, RevocationEntry
from licensing.verify import (
    KeysetTrust,
    Verified,
    verify_bundle,
    verify_keyset,
    verify_keyset_update,
    verify_license,
)
from portal.db.audit import AuditRow
from portal.db.bundles import Bundle
from portal.db.keys import KeysetVersion
from portal.db.licenses import Hold, License
from portal.domain.errors import Unproved
from portal.services.context import Context
from portal.services.keys import current_keyset, published_keyset, unix
from portal.services.refusals import refuse
from portal.services.seals import license_seal, lifted_holds

KEYSET: Final = "keyset"
BUNDLE: Final = "bundle"
KEEP_EXPIRED: Final = timedelta(days=30)
"""An entry leaves this long after its license expired."""
_RANK: Final = {"superseded": 0, "suspended": 1, "revoked": 2}
_TOLD_AGAIN: Final = timedelta(days=1)


def known_keyset(context: Context) -> Verified[Keyset]:
    """Return the published keyset, which continues what this signer knows; remember it.

    Raises:
        Unproved: it does not.
        Unavailable: none was published yet.
        SignerUnavailable: this process has no memory.
    """
    at = unix(context.at)
    stored, current = published_keyset(context), current_keyset(context)
    remembered = context.ports.custody.recall(KEYSET)
    if remembered is not None:
        held = verify_keyset(remembered, at)
        if held.payload_sha256 == current.payload_sha256:
            return current
        between = context.session.scalars(
            select(KeysetVersion.envelope)
            .where(
                KeysetVersion.version > held.document.version,
                KeysetVersion.version < stored.version,
            )
            .order_by(KeysetVersion.version)
        ).all()
        try:
            verify_keyset_update(stored.envelope, held, at, steps=between, require_current=False)
        except LicensingError as error:
            raise Unproved(
                f"Keyset {stored.version} in the database does not continue keyset "
                f"{held.document.version}, the last this signer knows: {error.detail}. Restore the "
                "database; see the operators' page on custody."
            ) from error
    context.ports.custody.keep(KEYSET, stored.envelope)
    return current


def signed_license(context: Context, license_: License) -> LicensePayload | None:
    """Return what a license's file says; None when this portal never signed it as it stands.

    What the signer sealed as issued counts; so does a file that verifies under the keyset.
    """
    if license_.envelope is None:
        return None
    try:
        payload = Envelope.parse(license_.envelope).payload
        document = LicensePayload.parse(payload)
    except LicensingError:
        return None
    if document.license_id != license_.id:
        return None
    sealed = license_seal(context, license_.id, "issued")
    if sealed is not None and sealed.statement.payload_sha256 == sha256_hex(payload):
        return document
    try:
        trust = KeysetTrust(current_keyset(context).document)
        verify_license(license_.envelope, trust, document.issued_at)
    except LicensingError:
        return None
    return document


def remembered_bundle(context: Context) -> RevocationBundle | None:
    """Return the last bundle this signer made or took up; None when there is none yet.

    It was verified then; its key may have been compromised since.

    Raises:
        Unproved: it cannot be read.
    """
    remembered = context.ports.custody.recall(BUNDLE)
    if remembered is None:
        return None
    try:
        return RevocationBundle.parse(
            Envelope.parse(remembered, max_bytes=MAX_BUNDLE_BYTES).payload
        )
    except LicensingError as error:
        raise Unproved(f"The bundle this signer remembers is damaged: {error.detail}.") from error


def last_bundle(context: Context) -> RevocationBundle | None:
    """Return the newest bundle that the signer remembers or the database has.

    Raises:
        Unproved: the remembered one cannot be read.
    """
    trust = KeysetTrust(current_keyset(context).document)
    remembered = remembered_bundle(context)
    found = [] if remembered is None else [remembered]
    rows = context.session.scalars(select(Bundle.envelope).order_by(Bundle.version.desc()))
    for envelope in rows:
        try:
            verified = verify_bundle(envelope, trust, unix(context.at), require_current=False)
        except LicensingError:
            # Somebody's row, or a compromised key's: not a bundle to go on from.
            continue
        found.append(verified.document)
        break
    return max(found, key=lambda each: each.version, default=None)


def remember_bundle(context: Context, envelope: bytes) -> None:
    """Remember a bundle before it is published.

    Raises:
        SignerUnavailable: this process has no memory.
    """
    context.ports.custody.keep(BUNDLE, envelope)


@dataclass(frozen=True)
class Kept:
    """Something of the last bundle that stays, whatever the rows say."""

    license_id: str
    why: str


def keep_restrictions(
    context: Context, wanted: Sequence[RevocationEntry], last: RevocationBundle | None
) -> tuple[tuple[RevocationEntry, ...], tuple[Kept, ...]]:
    """Return the entries of the next bundle, and those that may not leave the last one."""
    entries = {each.license_id: each for each in wanted}
    kept = []
    for before in () if last is None else last.entries:
        now = entries.get(before.license_id)
        if now is not None and _says_no_less(now, before):
            continue
        if _may_leave(context, before, now):
            continue
        entries[before.license_id] = before
        kept.append(Kept(before.license_id, f"no sealed lift takes {before.status} back"))
    return tuple(entries[license_id] for license_id in sorted(entries)), tuple(kept)


def _says_no_less(now: RevocationEntry, before: RevocationEntry) -> bool:
    if _RANK[now.status] != _RANK[before.status]:
        return _RANK[now.status] > _RANK[before.status]
    return now.effective_at <= before.effective_at


def _may_leave(context: Context, before: RevocationEntry, now: RevocationEntry | None) -> bool:
    license_ = context.session.get(License, before.license_id)
    document = None if license_ is None else signed_license(context, license_)
    if document is None:
        return False
    if now is None and document.expires_at + KEEP_EXPIRED.total_seconds() <= unix(context.at):
        return True
    if before.status != "suspended":
        return False
    return was_lifted(context, document, before.effective_at)


def was_lifted(context: Context, document: LicensePayload, since: int) -> bool:
    """Say whether a deployment's holds were lifted since an instant, and none without a seal.

    The audit trail tells which holds were opened: a row that is gone or says that it was lifted
    does not count.
    """
    opened = context.session.scalars(
        select(AuditRow).where(
            AuditRow.action == "hold.opened", AuditRow.account_id == document.customer_id
        )
    )
    lifts = lifted_holds(context, AuditRow.account_id == document.customer_id)
    for row in opened:
        if row.detail.get("deployment_id") != document.deployment_id or row.subject_id in lifts:
            continue
        hold = context.session.get(Hold, row.subject_id)
        if hold is None or hold.lifted_at is not None:
            return False
    return any(
        each.deployment_id == document.deployment_id and each.sealed_at >= since
        for each in lifts.values()
    )


def note_kept(context: Context, kept: Sequence[Kept]) -> None:
    """Record what was kept, at most once a day for each license."""
    told = set(
        context.session.scalars(
            select(AuditRow.subject_id).where(
                AuditRow.action == "bundle.entry-kept",
                AuditRow.subject_id.in_([each.license_id for each in kept]),
                AuditRow.at > context.at - _TOLD_AGAIN,
            )
        )
    )
    for each in kept:
        if each.license_id not in told:
            refuse(context, "bundle.entry-kept", ("license", each.license_id), None, each.why)
