"""Enrollment: codes that members create, and routers that enroll with them.

Invariants: a refusal uses nothing up. The same key with the same code gets the first answer again,
even after the code has expired. So does the same request with another code of the deployment, until
the instance has renewed: a router that lost the answer may use a new code. Neither uses a code up.
A code is stored hashed and shown once.

Source: "Enrollment" of the lease protocol.
"""

import base64
import hashlib
from datetime import timedelta
from typing import Final

from sqlalchemy import select

from licensing.enrollment import EnrollmentRequest
from licensing.envelope import Envelope
from licensing.verify import Verified
from portal.db.bundles import latest_bundle
from portal.db.deployments import Deployment, lock_deployment
from portal.db.instances import EnrollmentCode, Instance
from portal.db.keys import latest_keyset, stopped_keyids
from portal.db.leases import Lease, lease_row, other_heads
from portal.db.licenses import License, current_license
from portal.domain.errors import Conflict, Invalid, NotFound
from portal.domain.identifiers import CODE, INSTANCE, new_id
from portal.domain.lease_errors import EnrollmentRefused, KeyEnrolled
from portal.domain.lease_requests import verify_enrolling
from portal.domain.leases import Facts, Known, NextLease, first_lease, parse_license
from portal.domain.standing import LicenseState
from portal.domain.terms import Mode
from portal.services.audit import record
from portal.services.context import Context
from portal.services.leases import Answered, lease_facts, sign_lease
from portal.services.licenses import standing

CODE_LIFETIME: Final = timedelta(hours=24)
MOST_USES: Final = 100


def code_hash(code: str) -> str:
    """Return the SHA-256 by which a code is found."""
    return hashlib.sha256(code.encode()).hexdigest()


def create_enrollment_code(
    context: Context, *, deployment_id: str, uses: int = 1, created_by: str | None
) -> tuple[str, EnrollmentCode]:
    """Create a code with 192 random bits; the text is returned this once and never stored.

    Raises:
        NotFound: there is no such deployment.
        Invalid: `uses` is out of range.
        Conflict: the deployment has no license in lease mode that routers could enroll under.
    """
    deployment = context.session.get(Deployment, deployment_id)
    if deployment is None:
        raise NotFound(f"There is no deployment {deployment_id}.")
    if not 1 <= uses <= MOST_USES:
        raise Invalid(f"A code can enroll 1 to {MOST_USES} routers.", field="uses")
    license_ = current_license(context.session, deployment_id)
    if license_ is None or license_.mode is not Mode.LEASE:
        raise Conflict(
            "Routers enroll only under a license in lease mode; "
            "an offline license needs no enrollment."
        )
    code = base64.urlsafe_b64encode(context.ports.randomness.token(24)).decode()
    row = EnrollmentCode(
        id=new_id(CODE, context.ports.randomness),
        deployment_id=deployment_id,
        code_sha256=code_hash(code),
        uses_allowed=uses,
        uses=0,
        created_at=context.at,
        created_by=created_by,
        expires_at=(context.at + CODE_LIFETIME).replace(microsecond=0),
    )
    context.session.add(row)
    record(
        context,
        "enrollment-code.created",
        "enrollment-code",
        row.id,
        account_id=deployment.account_id,
        deployment_id=deployment_id,
        uses=uses,
    )
    context.session.flush()
    return code, row


def enrollment_codes_of(context: Context, deployment_id: str) -> list[EnrollmentCode]:
    """Return a deployment's codes that can still be used, newest first."""
    return list(
        context.session.scalars(
            select(EnrollmentCode)
            .where(
                EnrollmentCode.deployment_id == deployment_id,
                EnrollmentCode.revoked_at.is_(None),
                EnrollmentCode.expires_at > context.at,
                EnrollmentCode.uses < EnrollmentCode.uses_allowed,
            )
            .order_by(EnrollmentCode.created_at.desc())
        )
    )


def revoke_enrollment_code(context: Context, *, account_id: str, code_id: str) -> EnrollmentCode:
    """Revoke a code of this account; repeating it changes nothing.

    Raises:
        NotFound: there is none in this account.
    """
    row = context.session.get(EnrollmentCode, code_id)
    deployment = None if row is None else context.session.get(Deployment, row.deployment_id)
    if row is None or deployment is None or deployment.account_id != account_id:
        raise NotFound("There is no such enrollment code in this account.")
    if row.revoked_at is None:
        row.revoked_at = context.at
        record(context, "enrollment-code.revoked", "enrollment-code", row.id, account_id=account_id)
    return row


def enroll(context: Context, request: Envelope) -> Answered:
    """Enroll the instance that signed; its first lease is the answer.

    Raises:
        ProtocolError: a refusal of the lease protocol; nothing changed.
        Unavailable: no lease can be signed now.
    """
    verified = verify_enrolling(request, context.policy)
    code = context.session.scalar(
        select(EnrollmentCode).where(
            EnrollmentCode.code_sha256 == code_hash(verified.document.code)
        )
    )
    if code is None:
        raise EnrollmentRefused("The enrollment code is unknown.")
    deployment = lock_deployment(context.session, code.deployment_id)
    context.session.refresh(code)
    known = context.session.scalar(select(Instance).where(Instance.keyid == verified.keyid))
    if known is not None:
        return _answer_again(context, known, code, verified.document)
    license_ = _require_enrollable(context, code, verified.document)
    if deployment is None:
        raise EnrollmentRefused("The deployment is closed.")
    facts = _facts(context, deployment, verified, license_)
    decided = first_lease(verified, facts, parse_license(license_.payload or b""), context.at)
    envelope = sign_lease(context, decided, facts.known)
    code.uses += 1
    _store(context, code, verified.document, facts.known, decided, envelope)
    instance_id = facts.known.instance_id
    record(
        context,
        "instance.enrolled",
        "instance",
        instance_id,
        account_id=deployment.account_id,
        deployment_id=deployment.id,
        code_id=code.id,
        keyid=verified.keyid,
    )
    context.session.flush()
    return Answered(instance_id, decided.lease.lease_id, envelope)


def _answer_again(
    context: Context, known: Instance, code: EnrollmentCode, request: EnrollmentRequest
) -> Answered:
    """Return the first lease of a key that is enrolled already."""
    first = context.session.scalar(
        select(Lease).where(Lease.instance_id == known.id).order_by(Lease.epoch, Lease.seq).limit(1)
    )
    if known.code_id != code.id:
        _require_unfinished(known, code, request, first)
    if first is None or first.envelope is None:
        raise KeyEnrolled(f"This key enrolled as {known.id} long ago.")
    return Answered(known.id, first.id, first.envelope, again=True)


def _require_unfinished(
    known: Instance, code: EnrollmentCode, request: EnrollmentRequest, first: Lease | None
) -> None:
    """Require that a known key with another code is repeating the enrollment it began."""
    if known.deployment_id != code.deployment_id:
        raise KeyEnrolled("This key is enrolled in a different deployment from the code's.")
    if known.retired_at is not None or known.released_at is not None:
        raise KeyEnrolled(f"This key was enrolled as {known.id}, which was released or retired.")
    if first is None or known.lease_id != first.id:
        raise KeyEnrolled(f"This key is enrolled as {known.id}, which has renewed its lease since.")
    if request.request_id != first.request_id:
        raise KeyEnrolled(f"This key was enrolled as {known.id} by a different request.")


def _require_enrollable(
    context: Context, code: EnrollmentCode, request: EnrollmentRequest
) -> License:
    """Require that the code can be used and that routers can enroll under the named license."""
    if code.revoked_at is not None:
        raise EnrollmentRefused("The enrollment code was revoked.")
    if context.at >= code.expires_at:
        raise EnrollmentRefused("The enrollment code has expired.")
    if code.uses >= code.uses_allowed:
        raise EnrollmentRefused("The enrollment code is used up.")
    license_ = context.session.get(License, request.license_id)
    if (
        license_ is None
        or license_.deployment_id != code.deployment_id
        or license_.payload_sha256 != request.license_sha256
        or license_.released_at is None
    ):
        raise EnrollmentRefused("The named license does not belong to the code's deployment.")
    if license_.mode is not Mode.LEASE:
        raise EnrollmentRefused("The license is offline; it needs no enrollment.")
    now = standing(context, license_)
    if now.state is not LicenseState.ISSUED:
        raise EnrollmentRefused(f"The license is {now.state}.")
    fingerprints = () if license_.document is None else license_.document.binding.fingerprints
    if fingerprints and request.fingerprint not in fingerprints:
        raise EnrollmentRefused("The license is bound to another fingerprint.")
    return license_


def _facts(
    context: Context,
    deployment: Deployment,
    verified: Verified[EnrollmentRequest],
    license_: License,
) -> Facts:
    """Return the facts that a new instance's first lease depends on."""
    keyset, bundle = latest_keyset(context.session), latest_bundle(context.session)
    others = other_heads(context.session, deployment.id)
    known = Known(
        instance_id=new_id(INSTANCE, context.ports.randomness),
        account_id=deployment.account_id,
        deployment_id=deployment.id,
        keyid=verified.keyid,
        public_key=base64.b64decode(verified.document.public_key),
        has_others=bool(others),
        license_id=license_.id,
        license_deployment_id=license_.deployment_id,
        license_payload=license_.payload,
        license_sha256=license_.payload_sha256,
        license_released_at=license_.released_at,
        superseded_at=license_.superseded_at,
        superseded_by=license_.superseded_by,
        revoked_at=license_.revoked_at,
        latest_bundle=None if bundle is None else bundle.version,
        has_stopped_keys=bool(stopped_keyids(context.session)),
        keyset_sha256=None if keyset is None else keyset.payload_sha256,
    )
    return lease_facts(context, known, others)


def _store(
    context: Context,
    code: EnrollmentCode,
    request: EnrollmentRequest,
    known: Known,
    decided: NextLease,
    envelope: bytes,
) -> None:
    context.session.add(
        Instance(
            id=known.instance_id,
            account_id=known.account_id,
            deployment_id=known.deployment_id,
            code_id=code.id,
            keyid=known.keyid,
            public_key=known.public_key,
            fingerprint=request.fingerprint,
            label=request.label,
            enrolled_at=context.at,
            **vars(decided.head),
        )
    )
    context.session.flush()
    context.session.add(Lease(**lease_row(decided, envelope)))
    context.session.flush()
