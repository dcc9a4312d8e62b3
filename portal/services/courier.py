"""The courier: requests of routers without a network, carried as files, and the answers to them.

The request is the one a router would post, and it is answered by the same rules: the same request
gets the same answer. The answer is one file with everything the router needs.

Source: "Courier" of the lease protocol.
"""

import json
from typing import Any

from sqlalchemy import select

from licensing.courier import PartsError, from_parts, is_parts
from licensing.encoding import parse_json
from licensing.enrollment import EnrollmentRequest
from licensing.errors import LicensingError
from licensing.request_body import RequestBody, read_lease_request
from portal.db.bundles import latest_bundle
from portal.db.keys import latest_keyset
from portal.db.leases import Lease
from portal.db.licenses import current_license
from portal.domain.errors import NotFound
from portal.domain.lease_errors import MalformedRequest, UnknownInstance
from portal.services.context import Actor, Context, Transactions
from portal.services.enrollments import enroll
from portal.services.instances import account_instance, find_instance
from portal.services.leases import Answered, note_carried, renew

MAX_UPLOAD_BYTES = 40 * 1024


def read_upload(data: bytes) -> RequestBody:
    """Read what `router-license courier request` wrote, as a file or as the text of its QR codes.

    Raises:
        MalformedRequest: it is no request; the message says what is wrong with it.
    """
    if len(data) > MAX_UPLOAD_BYTES * 2:
        raise MalformedRequest("The file is too large to be a request.")
    try:
        text = data.decode("utf-8", "replace")
        if is_parts(text):
            data = from_parts(text.splitlines())
        return read_lease_request(parse_json(data, max_bytes=MAX_UPLOAD_BYTES))
    except PartsError as error:
        raise MalformedRequest(f"The QR codes are incomplete: {error}.") from error
    except LicensingError as error:
        raise MalformedRequest(
            f"This file was not written by router-license courier request ({error.detail})."
        ) from error


def answer_upload(
    transactions: Transactions, actor: Actor, account_id: str, upload: RequestBody
) -> Answered:
    """Answer a request of one of the account's routers, and record who brought it.

    Raises:
        ProtocolError: a refusal of the lease protocol; nothing changed.
        Unavailable: no lease can be signed now, or the router's chain kept moving.
    """
    if upload.request.payload_type != EnrollmentRequest.PAYLOAD_TYPE:
        return renew(transactions, actor, upload, carried_by=account_id)
    with transactions.writing(actor) as context:
        answered = enroll(context, upload.request)
        if find_instance(context, answered.instance_id).account_id != account_id:
            # The unit is rolled back, so the code is not used up.
            raise UnknownInstance("The enrollment code belongs to another account.")
        note_carried(context, answered, account_id)
        return answered


def courier_answer(context: Context, account_id: str, instance_id: str, lease_id: str) -> bytes:
    """Return the answer file for a router: its lease, and whatever else it may need.

    Raises:
        NotFound: the account has no such router or lease, or the answer is no longer kept.
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
