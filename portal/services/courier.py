"""The courier: requests that routers without a network sent as files, and what goes back to them.

The request is the one a router would post, and it is answered by the same rules in the same way:
brought again, it gets the same answer. What goes back is one file with everything the router needs.

Source: "Courier" of the lease protocol.
"""

import json
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select

from licensing.courier import PartsError, from_parts, is_parts
from licensing.encoding import parse_json
from licensing.enrollment import EnrollmentRequest
from licensing.envelope import Envelope
from licensing.errors import LicensingError
from licensing.lease import Lease as LeasePayload
from licensing.verify import only_signature
from portal.db.bundles import latest_bundle
from portal.db.instances import Instance
from portal.db.keys import latest_keyset
from portal.db.leases import Lease
from portal.db.licenses import current_license
from portal.domain.errors import NotFound
from portal.domain.lease_errors import MalformedRequest, UnknownInstance
from portal.services.audit import record
from portal.services.context import Context
from portal.services.enrollments import enroll, verify_enrollment_request
from portal.services.instances import account_instance
from portal.services.leases import renew

MAX_UPLOAD_BYTES = 40 * 1024


@dataclass(frozen=True)
class Upload:
    """What a member brought."""

    envelope: Envelope
    previous: bytes | None = None
    """The lease at hand, where it came along."""

    @property
    def enrolls(self) -> bool:
        """Whether it asks to enroll."""
        return self.envelope.payload_type == EnrollmentRequest.PAYLOAD_TYPE


@dataclass(frozen=True)
class Answered:
    """Which lease answers an upload."""

    instance_id: str
    lease_id: str
    again: bool
    """Whether it was answered before."""


def read_upload(data: bytes) -> Upload:
    """Read what `router-license courier request` wrote, as a file or as the text of its QR codes.

    Raises:
        MalformedRequest: it is no request; the message says what it is or lacks.
    """
    if len(data) > MAX_UPLOAD_BYTES * 2:
        raise MalformedRequest("The file is too large to be a request.")
    try:
        text = data.decode("utf-8", "replace")
        if is_parts(text):
            data = from_parts(text.splitlines())
        value = parse_json(data, max_bytes=MAX_UPLOAD_BYTES)
        previous = None
        if isinstance(value, dict) and value.keys() == {"request", "prev_lease"}:
            previous = Envelope.from_object(value["prev_lease"]).to_bytes()
            value = value["request"]
        envelope = Envelope.from_object(value)
        only_signature(envelope)
    except PartsError as error:
        raise MalformedRequest(f"The codes are not whole: {error}.") from error
    except LicensingError as error:
        raise MalformedRequest(
            f"This is not a file that router-license courier request wrote ({error.detail})."
        ) from error
    return Upload(envelope, previous)


def answer_upload(context: Context, account_id: str, upload: Upload) -> Answered:
    """Answer a request of one of the account's routers, and note who brought it.

    Raises:
        ProtocolError: a refusal of the lease protocol; nothing changed.
        ChainMoved: another request of the router was answered at the same time.
        SignerUnavailable: this process does not hold the key now.
    """
    keyid = upload.envelope.signatures[0].keyid
    known = context.session.scalar(select(Instance).where(Instance.keyid == keyid))
    if upload.enrolls:
        instance, lease = enroll(context, verify_enrollment_request(upload.envelope))
        if instance.account_id != account_id:
            # The unit is rolled back, and the code keeps its use.
            raise UnknownInstance("The enrollment code is another account's.")
        again = known is not None
    else:
        if known is None or known.account_id != account_id:
            raise UnknownInstance("No router of this account has the key that signed the file.")
        outcome = renew(context, upload.envelope, upload.previous, whole=True)
        assert outcome is not None, "a whole unit answers every step"
        instance, lease, again = known, outcome.envelope, outcome.replayed
    record(
        context,
        "instance.courier-answered",
        "instance",
        instance.id,
        account_id=account_id,
        lease_id=(lease_id := _lease_id(lease)),
    )
    return Answered(instance.id, lease_id, again)


def _lease_id(lease: bytes) -> str:
    return LeasePayload.parse(Envelope.parse(lease).payload).lease_id


def _note(context: Context, instance: Instance, what: str) -> None:
    record(
        context,
        "instance.courier-answered",
        "instance",
        instance.id,
        account_id=instance.account_id,
        request=what,
    )


def courier_answer(context: Context, account_id: str, instance_id: str, lease_id: str) -> bytes:
    """Return the file that goes back to a router: its lease, and what it may lack.

    Raises:
        NotFound: no such router or lease in this account, or the answer is no longer kept.
    """
    instance = account_instance(context, account_id, instance_id)
    lease = context.session.scalar(
        select(Lease).where(Lease.instance_id == instance.id, Lease.id == lease_id)
    )
    if lease is None or lease.envelope is None:
        raise NotFound("There is no such answer for this router.")
    license_ = current_license(context.session, instance.deployment_id)
    bundle, keyset = latest_bundle(context.session), latest_keyset(context.session)
    parts: dict[str, bytes | None] = {
        "lease": lease.envelope,
        "license": None if license_ is None else license_.envelope,
        "revocation_bundle": None if bundle is None else bundle.envelope,
        "keyset": None if keyset is None else keyset.envelope,
    }
    answer: dict[str, Any] = {
        name: json.loads(data) for name, data in parts.items() if data is not None
    }
    return json.dumps({"instance_id": instance.id, **answer}, separators=(",", ":")).encode()
