"""Statements that the signer sealed, and what can be said from them.

The worker and the command alone can write and read them: they hold the `seal` key. They stand in
the audit trail, which the application's database role can neither change nor empty. A row there
counts for its signature and for nothing else.

Invariants: of an entitlement's statements the one of the highest number counts. What only restricts
(an end, a hold, a revocation) needs no statement; an end that stands in the audit trail is not
undone by a row.

Source: "Custody".
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Generic, TypeVar

import msgspec
from sqlalchemy import ColumnElement, select

from licensing.encoding import b64decode, b64encode, sha256_hex
from licensing.errors import LicensingError
from portal.db.audit import AuditRow
from portal.db.entitlements import Entitlement
from portal.db.licenses import Hold, License
from portal.domain.causes import (
    RULES,
    Cause,
    EntitlementSeal,
    LicenseSeal,
    LiftSeal,
    SealedGrant,
    Statement,
    signing_input,
)
from portal.domain.entitlements import Line
from portal.domain.errors import Conflict, Unproved
from portal.domain.ports import SealMaker, SealSignature
from portal.services.audit import record
from portal.services.context import Context
from portal.services.keys import unix

CAUSE_SEALED: Final = "cause.sealed"

LIFT_SEALED: Final = "hold.lift-sealed"

LICENSE_INTENDED: Final = "license.intended"

LICENSE_ISSUED: Final = "license.issued"

S = TypeVar("S", bound=Statement)


class _Signed(msgspec.Struct):
    """A statement as it stands in an audit row."""

    body: str
    keyid: str
    sig: str


@dataclass(frozen=True)
class Sealed(Generic[S]):
    """A statement whose signature holds."""

    statement: S
    sha256: str
    """Of the statement's bytes."""
    row_id: int


def write_statement(
    context: Context,
    action: str,
    subject: tuple[str, str],
    statement: Statement,
    *,
    account_id: str | None = None,
    reason: str | None = None,
    **detail: Any,
) -> str:
    """Seal a statement in the audit trail; return its SHA-256."""
    body = statement.to_bytes()
    signature = context.ports.custody.seal(signing_input(body))
    signed = _Signed(body.decode(), signature.keyid, b64encode(signature.sig))
    record(
        context,
        action,
        *subject,
        account_id=account_id,
        reason=reason,
        seal=msgspec.to_builtins(signed),
        **detail,
    )
    context.session.flush()
    return sha256_hex(body)


def open_seal(context: Context, row: AuditRow, kind: type[S]) -> Sealed[S] | None:
    """Return the statement of an audit row; None where no seal of ours holds.

    Raises:
        SignerUnavailable: this process does not hold the seal key.
    """
    detail: object = row.detail
    try:
        signed = msgspec.convert(detail.get("seal") if isinstance(detail, dict) else None, _Signed)
        body, sig = signed.body.encode(), b64decode(signed.sig)
        if not context.ports.custody.is_sealed(
            signing_input(body), SealSignature(signed.keyid, sig)
        ):
            return None
        return Sealed(kind.parse(body), sha256_hex(body), row.id)
    except (msgspec.ValidationError, UnicodeEncodeError, LicensingError):
        return None


def sealed_statements(
    context: Context, action: str, kind: type[S], *where: ColumnElement[bool]
) -> Iterator[Sealed[S]]:
    """Return every statement of an action that holds, oldest first."""
    rows = context.session.scalars(
        select(AuditRow).where(AuditRow.action == action, *where).order_by(AuditRow.id)
    )
    for row in rows:
        sealed = open_seal(context, row, kind)
        if sealed is not None:
            yield sealed


def init_seal(context: Context, maker: SealMaker, *, anew: bool = False) -> bool:
    """Make the seal key where there is none; say whether one was made.

    Raises:
        Conflict: something was sealed before, so the key is missing, not new; `anew` makes one
            all the same, and what the lost one sealed has to be adopted.
        SignerUnavailable: it cannot be written.
    """
    if maker.has_seal:
        return False
    sealed = context.session.scalar(
        select(AuditRow.id).where(AuditRow.action == CAUSE_SEALED).limit(1)
    )
    if sealed is not None and not anew:
        raise Conflict(
            "Causes were sealed here, and the seal key is missing: restore it from the backup. If "
            "it is lost for good, `portal keys init --new-seal-key` begins with another."
        )
    return maker.make_seal()


def deployment_causes(
    context: Context, account_id: str, deployment_id: str
) -> list[Sealed[EntitlementSeal]]:
    """Return all that was ever sealed about a deployment's entitlements, oldest first."""
    return [
        each
        for each in sealed_statements(
            context, CAUSE_SEALED, EntitlementSeal, AuditRow.account_id == account_id
        )
        if each.statement.deployment_id == deployment_id
    ]


def latest_cause(context: Context, entitlement: Entitlement) -> Sealed[EntitlementSeal] | None:
    """Return the statement about an entitlement that counts; None when there is none."""
    return _latest(
        each
        for each in sealed_statements(
            context, CAUSE_SEALED, EntitlementSeal, AuditRow.subject_id == entitlement.id
        )
        if each.statement.entitlement_id == entitlement.id
    )


def _latest(found: Iterable[Sealed[EntitlementSeal]]) -> Sealed[EntitlementSeal] | None:
    return max(found, key=lambda each: each.statement.number, default=None)


def seal_entitlement(
    context: Context,
    entitlement: Entitlement,
    cause: Cause,
    *,
    licenses: Sequence[str] | None = None,
) -> Sealed[EntitlementSeal]:
    """Seal an entitlement as its row says it is; the caller has proved the cause.

    Raises:
        Unproved: another entitlement was granted for the same thing.
        SignerUnavailable: this process does not hold the seal key.
    """
    before = latest_cause(context, entitlement)
    key = f"entitlement:{entitlement.id}"
    if entitlement.request_id is not None:
        key = f"request:{entitlement.request_id}"
    if before is not None:
        key = before.statement.grant_key
    _require_unused(context, key, entitlement.id)
    statement = EntitlementSeal(
        account_id=entitlement.account_id,
        deployment_id=entitlement.deployment_id,
        sealed_at=unix(context.at),
        entitlement_id=entitlement.id,
        number=1 if before is None else before.statement.number + 1,
        cause=cause,
        grant_key=key,
        terms=entitlement.terms,
        budget_id=entitlement.budget_id,
        renews=entitlement.renews,
        starts_at=_seconds(entitlement.starts_at),
        ends_at=_seconds(entitlement.ends_at),
        licenses=tuple(licenses) if licenses else None,
    )
    sha256 = write_statement(
        context,
        CAUSE_SEALED,
        ("entitlement", entitlement.id),
        statement,
        account_id=statement.account_id,
        audience="staff",
        cause=cause.kind.value,
        grant_key=key,
        domain_sha256=cause.domain_sha256,
    )
    return Sealed(statement, sha256, 0)


def _require_unused(context: Context, grant_key: str, entitlement_id: str) -> None:
    used = sealed_statements(
        context,
        CAUSE_SEALED,
        EntitlementSeal,
        AuditRow.detail["grant_key"].as_string() == grant_key,
        AuditRow.subject_id != entitlement_id,
    )
    for each in used:
        if each.statement.grant_key == grant_key:
            raise Unproved(f"{grant_key} was granted already, as {each.statement.entitlement_id}.")


def misfits(entitlement: Entitlement, statement: EntitlementSeal) -> tuple[str, ...]:
    """Return where a row says otherwise than the statement about it."""
    pairs = {
        "account": (entitlement.account_id, statement.account_id),
        "deployment": (entitlement.deployment_id, statement.deployment_id),
        "terms": (entitlement.terms, statement.terms),
        "budget": (entitlement.budget_id, statement.budget_id),
        "renews": (entitlement.renews, statement.renews),
        "start": (_seconds(entitlement.starts_at), statement.starts_at),
        "end": (_seconds(entitlement.ends_at), statement.ends_at),
    }
    return tuple(name for name, (row, sealed) in pairs.items() if row != sealed)


def require_fit(entitlement: Entitlement, statement: EntitlementSeal) -> None:
    """Require that a row says what was sealed.

    Raises:
        Unproved: it does not.
    """
    wrong = misfits(entitlement, statement)
    if wrong:
        raise Unproved(
            f"The row of {entitlement.id} differs from what was sealed: {', '.join(wrong)}."
        )


def _seconds(instant: datetime | None) -> int | None:
    return None if instant is None else unix(instant)


def seal_license(
    context: Context,
    license_: License,
    grants: Sequence[SealedGrant],
    computed_at: int,
    **detail: Any,
) -> None:
    """Seal that a license has this payload, from these grants; signed already, also its file."""
    issued = license_.file_sha256 is not None
    statement = LicenseSeal(
        account_id=license_.account_id,
        deployment_id=license_.deployment_id,
        sealed_at=unix(context.at),
        license_id=license_.id,
        entitlement_id=license_.entitlement_id,
        stage="issued" if issued else "intended",
        payload_sha256=license_.payload_sha256 or "",
        revision=license_.revision or 0,
        rules=RULES,
        computed_at=computed_at,
        grants=tuple(grants),
        key_ids=license_.key_ids,
        file_sha256=license_.file_sha256,
    )
    action = LICENSE_ISSUED if issued else LICENSE_INTENDED
    write_statement(
        context,
        action,
        ("license", license_.id),
        statement,
        account_id=license_.account_id,
        payload_sha256=license_.payload_sha256,
        key_ids=license_.key_ids,
        **detail,
    )


def license_seal(
    context: Context, license_id: str, stage: str, payload_sha256: str | None = None
) -> Sealed[LicenseSeal] | None:
    """Return the newest statement about a license at a stage, of this payload where one is given.

    A license that was not signed yet can be computed anew: then there is one for each payload.
    """
    action = LICENSE_ISSUED if stage == "issued" else LICENSE_INTENDED
    found = sealed_statements(context, action, LicenseSeal, AuditRow.subject_id == license_id)
    same = [
        each
        for each in found
        if each.statement.license_id == license_id
        and each.statement.stage == stage
        and payload_sha256 in (None, each.statement.payload_sha256)
    ]
    return same[-1] if same else None


def highest_revision(context: Context, license_: License, stage: str) -> int:
    """Return the highest revision that was sealed at a stage in a license's line; 0 for none."""
    action = LICENSE_ISSUED if stage == "issued" else LICENSE_INTENDED
    found = sealed_statements(
        context, action, LicenseSeal, AuditRow.account_id == license_.account_id
    )
    same = (
        each.statement.revision
        for each in found
        if each.statement.deployment_id == license_.deployment_id
    )
    return max(same, default=0)


def sealed_line(
    context: Context,
    account_id: str,
    deployment_id: str,
    sealed: Sequence[SealedGrant],
    computed_at: int,
) -> Line:
    """Return a line as it was proved, by its statements.

    Raises:
        Unproved: a statement is not there.
    """
    known = {
        each.sha256: each.statement
        for each in deployment_causes(context, account_id, deployment_id)
    }
    grants = []
    for each in sealed:
        statement = known.get(each.cause)
        if statement is None:
            raise Unproved(f"The cause {each.cause} is not in the audit trail.")
        grants.append(each.grant(statement))
    return Line(tuple(grants), datetime.fromtimestamp(computed_at, UTC))


def seal_lift(context: Context, hold: Hold, cause: Cause) -> None:
    """Seal that a hold was lifted; the caller has proved the cause. Sealed already, do nothing.

    Raises:
        SignerUnavailable: this process does not hold the seal key.
    """
    if hold.id in lifted_holds(context, AuditRow.subject_id == hold.id):
        return
    entitlement = context.session.get_one(Entitlement, hold.entitlement_id)
    statement = LiftSeal(
        account_id=entitlement.account_id,
        deployment_id=entitlement.deployment_id,
        sealed_at=unix(context.at),
        hold_id=hold.id,
        entitlement_id=hold.entitlement_id,
        cause=cause,
    )
    write_statement(
        context,
        LIFT_SEALED,
        ("hold", hold.id),
        statement,
        account_id=statement.account_id,
        audience="staff",
        cause=cause.kind.value,
    )


def lifted_holds(context: Context, *where: ColumnElement[bool]) -> dict[str, LiftSeal]:
    """Return the sealed lifts, by hold."""
    found = sealed_statements(context, LIFT_SEALED, LiftSeal, *where)
    return {each.statement.hold_id: each.statement for each in found}
