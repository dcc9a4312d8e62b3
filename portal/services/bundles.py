"""Revocation bundles: what the worker publishes for routers, online and offline.

A bundle tells of every license that no longer counts: revoked, held, or superseded. A version is
never used twice, also after a restore: it is the larger of the last one plus 1 and `issued_at`.

Source: `revocation-bundle.v1` of the signed documents.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec
from sqlalchemy import select

from licensing.encoding import sha256_hex
from licensing.envelope import Envelope
from licensing.names import PRODUCT
from licensing.revocation import RevocationBundle, RevocationEntry
from licensing.verify import KeysetTrust, verify_bundle
from portal.db.audit import newest_seal
from portal.db.bundles import Bundle, hold_publishing, latest_bundle
from portal.db.licenses import License, suspended_since
from portal.domain.errors import Unavailable
from portal.domain.standing import LicenseState, RevokedReason, standing_of
from portal.services.audit import record
from portal.services.context import Actor, Context, Transactions
from portal.services.custody import (
    KEEP_EXPIRED,
    Kept,
    keep_restrictions,
    known_keyset,
    last_bundle,
    note_kept,
    remember_bundle,
)
from portal.services.keys import current_keyset, role_signers, sign_document, unix

BUNDLE_LIFETIME: Final = timedelta(days=35)
REPUBLISH_AFTER: Final = timedelta(days=1)
ATTEMPTS: Final = 5


def wanted_entries(context: Context) -> tuple[RevocationEntry, ...]:
    """Compute what the next bundle must say."""
    held = suspended_since(context.session)
    rows = context.session.scalars(
        select(License)
        .where(
            License.released_at.is_not(None),
            License.expires_at > context.at - KEEP_EXPIRED,
            License.revoked_at.is_not(None)
            | License.superseded_at.is_not(None)
            | License.deployment_id.in_(held),
        )
        .order_by(License.id)
    )
    entries = (_entry(row, held.get(row.deployment_id), context.at) for row in rows)
    return tuple(entry for entry in entries if entry is not None)


def _entry(
    license_: License, held_since_at: datetime | None, at: datetime
) -> RevocationEntry | None:
    """Return what a bundle says of a license by its standing; a coming end is told ahead."""
    now = standing_of(license_.facts(is_held=held_since_at is not None), at)
    if now.state is LicenseState.REVOKED and license_.revoked_at is not None:
        return RevocationEntry(
            license_id=license_.id,
            status="revoked",
            effective_at=unix(license_.revoked_at),
            reason=(license_.revoked_reason or RevokedReason.WITHDRAWN).value,
        )
    if now.state is LicenseState.SUSPENDED and held_since_at is not None:
        return RevocationEntry(
            license_id=license_.id,
            status="suspended",
            effective_at=unix(held_since_at),
            reason="on-hold",
        )
    if license_.superseded_at is not None:
        return RevocationEntry(
            license_id=license_.id,
            status="superseded",
            effective_at=unix(license_.superseded_at),
            reason="replaced",
            superseded_by=now.replaced_by,
        )
    return None


@dataclass(frozen=True)
class _Draft:
    """A bundle to be signed, and what it rests on."""

    document: RevocationBundle
    entries_sha256: str
    last_version: int | None
    at: datetime


def publish_bundle(
    transactions: Transactions, actor: Actor, *, only_if_due: bool = False
) -> Bundle | None:
    """Sign and publish a bundle.

    With `only_if_due`, only when it would say something new or the last one is a day old. The
    signature is made outside of any unit of work: whoever wants to write need not wait for it. What
    was signed is published only while it is still what must be said; otherwise it is made anew.

    Raises:
        SignerUnavailable: this process does not hold the revocation key.
        Unproved: the keyset in the database is not one that this signer knows.
        Unavailable: each time, something had changed while the bundle was being signed.
    """
    for _ in range(ATTEMPTS):
        with transactions.reading(actor) as context:
            known_keyset(context)
            entries, kept = next_entries(context)
            draft = _draft(context, entries, only_if_due=only_if_due)
        _note(transactions, actor, kept)
        if draft is None:
            return None
        with transactions.reading(actor) as context:
            signers = role_signers(context, "revocation")
            trust = KeysetTrust(current_keyset(context).document)
        envelope = sign_document(draft.document, signers)
        raw = envelope.to_bytes()
        verify_bundle(raw, trust, draft.document.issued_at)
        stored = Bundle(
            version=draft.document.version,
            payload_sha256=sha256_hex(envelope.payload),
            entries_sha256=draft.entries_sha256,
            envelope=raw,
            key_id=signers[0].keyid,
            issued_at=draft.at,
            expires_at=draft.at + BUNDLE_LIFETIME,
        )
        with transactions.writing(actor) as context:
            if _holds_still(context, draft):
                remember_bundle(context, raw)
                context.session.add(stored)
                count = len(draft.document.entries)
                record(context, "bundle.published", "bundle", str(stored.version), entries=count)
                return stored
    raise Unavailable("Licenses changed while the bundle was being signed; try again.")


def next_entries(context: Context) -> tuple[tuple[RevocationEntry, ...], tuple[Kept, ...]]:
    """Return what the next bundle says, and what of it stays against the rows.

    Raises:
        SignerUnavailable: this process does not hold the seal key.
    """
    return keep_restrictions(context, wanted_entries(context), last_bundle(context))


def _note(transactions: Transactions, actor: Actor, kept: tuple[Kept, ...]) -> None:
    if kept:
        with transactions.writing(actor) as context:
            note_kept(context, kept)


def _draft(
    context: Context, entries: tuple[RevocationEntry, ...], *, only_if_due: bool
) -> _Draft | None:
    """Write the next bundle; None when only a due one is wanted and none is due."""
    entries_sha256 = _digest(entries)
    last = latest_bundle(context.session)
    if (
        only_if_due
        and last is not None
        and last.entries_sha256 == entries_sha256
        and context.at < last.issued_at + REPUBLISH_AFTER
    ):
        return None
    issued_at = unix(context.at)
    # A version is taken from what the signer knows alone: a row could exhaust them.
    known = last_bundle(context)
    version = max(issued_at, 1 if known is None else known.version + 1)
    while context.session.get(Bundle, version) is not None:
        version += 1
    document = RevocationBundle(
        typ=RevocationBundle.TYP,
        iss=context.policy.issuer,
        product=PRODUCT,
        issued_at=issued_at,
        version=version,
        expires_at=issued_at + int(BUNDLE_LIFETIME.total_seconds()),
        entries=entries,
        ext=_anchor(context),
    )
    return _Draft(document, entries_sha256, None if last is None else last.version, context.at)


def _holds_still(context: Context, draft: _Draft) -> bool:
    """Say whether nothing was published, and nothing else must be said, since the draft."""
    if hold_publishing(context.session) != draft.last_version:
        return False
    return _digest(next_entries(context)[0]) == draft.entries_sha256


def _digest(entries: tuple[RevocationEntry, ...]) -> str:
    return sha256_hex(msgspec.json.encode(entries))


def published_bundle(context: Context) -> Bundle:
    """Return the newest published bundle.

    Raises:
        Unavailable: none was published yet.
    """
    bundle = latest_bundle(context.session)
    if bundle is None:
        raise Unavailable("There is no bundle yet; run `portal bundle publish`.")
    return bundle


def bundle_facts(stored: Bundle) -> dict[str, Any]:
    """Return version, number of entries and end of a published bundle, as JSON values."""
    document = RevocationBundle.parse(Envelope.parse(stored.envelope).payload)
    return {
        "version": stored.version,
        "entries": len(document.entries),
        "expires_at": stored.expires_at.isoformat().replace("+00:00", "Z"),
    }


def _anchor(context: Context) -> dict[str, Any] | None:
    """Name the newest audit seal, so that a published bundle pins the audit trail before it."""
    seal = newest_seal(context.session)
    if seal is None:
        return None
    return {"audit_seal": {"number": seal.number, "sha256": seal.seal_sha256}}
