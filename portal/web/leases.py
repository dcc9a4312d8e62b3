"""The lease protocol over HTTP. A router signs its request; there are no cookies and no tokens.

Refusals are checked in this order: 413, 415, 400 (not an envelope), 401, 422, 403, 409.
"""

from collections.abc import Callable

from flask import Blueprint, Response, g, request

from licensing.encoding import parse_json
from licensing.errors import LicensingError
from licensing.request_body import RequestBody, read_lease_request, read_request
from portal.domain.lease_errors import MalformedRequest, TooLarge, UnsupportedMediaType
from portal.services.context import Actor
from portal.services.enrollments import enroll
from portal.services.leases import fetch_license, release_lease, renew
from portal.web.access import machine
from portal.web.limits import limit_address
from portal.web.portal import portal

blueprint = Blueprint("leases", __name__, url_prefix="/v1")

MAX_BODY_BYTES = 40 * 1024
ENROLLMENTS_PER_ADDRESS = 100
ENROLLMENT_WINDOW_S = 600


def body(read: Callable[[object], RequestBody] = read_request) -> RequestBody:
    """Read the body of a machine request.

    Raises:
        TooLarge, UnsupportedMediaType, MalformedRequest: in this order.
    """
    length = request.content_length
    if length is not None and length > MAX_BODY_BYTES:
        raise TooLarge(f"The body has {length} bytes.")
    # Read one byte more than is allowed, never everything that was sent.
    data = request.stream.read(MAX_BODY_BYTES + 1)
    if len(data) > MAX_BODY_BYTES:
        raise TooLarge("The body is larger than 40 KiB.")
    if request.mimetype != "application/json":
        raise UnsupportedMediaType("Content-Type must be application/json.")
    try:
        return read(parse_json(data, max_bytes=MAX_BODY_BYTES))
    except LicensingError as error:
        raise MalformedRequest(error.detail) from error


def instance_actor(sent: RequestBody) -> Actor:
    """Return the instance that asks as the actor."""
    return Actor("instance", sent.keyid, g.address, g.request_id)


def answer(content: bytes, status: int = 200) -> Response:
    """Answer with a JSON document."""
    return Response(content, status, content_type="application/json")


@blueprint.post("/enrollments")
@machine
def enrollments() -> Response:
    """Enroll a router: 201 with its instance id and first lease."""
    sent = body()
    limit_address("enroll", ENROLLMENTS_PER_ADDRESS, ENROLLMENT_WINDOW_S)
    with portal().transactions.writing(instance_actor(sent)) as context:
        made = enroll(context, sent.request)
    instance_id = made.instance_id.encode()
    return answer(b'{"instance_id":"%b","lease":%b}' % (instance_id, made.envelope), 201)


@blueprint.post("/leases")
@machine
def leases() -> Response:
    """Renew a lease."""
    sent = body(read_lease_request)
    return answer(renew(portal().transactions, instance_actor(sent), sent).envelope)


@blueprint.post("/licenses")
@machine
def licenses() -> Response:
    """Answer with the current license of the instance's deployment."""
    sent = body(read_lease_request)
    with portal().transactions.reading(instance_actor(sent)) as context:
        return answer(fetch_license(context, sent.request))


@blueprint.post("/releases")
@machine
def releases() -> Response:
    """Give a lease up."""
    sent = body()
    with portal().transactions.writing(instance_actor(sent)) as context:
        release_lease(context, sent.request)
    return Response(status=204)
