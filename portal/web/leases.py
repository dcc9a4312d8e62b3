"""The lease protocol over HTTP. A router signs its request; there are no cookies and no tokens.

Refusals are checked in this order: 413, 415, 400 (not an envelope), 401, 422, 403, 409.
"""

from flask import Blueprint, Response, request

from licensing.encoding import parse_json
from licensing.envelope import Envelope
from licensing.errors import LicensingError
from licensing.verify import only_signature
from portal.domain.errors import RateLimited, Unavailable
from portal.domain.lease_errors import (
    MalformedRequest,
    TooLarge,
    UnsupportedMediaType,
)
from portal.domain.ports import SignerUnavailable
from portal.services.context import Actor
from portal.services.enrollments import enroll, verify_enrollment_request
from portal.services.leases import ChainMoved, fetch_license, release_lease, renew
from portal.web.access import machine
from portal.web.portal import portal, request_actor

blueprint = Blueprint("leases", __name__, url_prefix="/v1")

MAX_BODY_BYTES = 40 * 1024
ENROLLMENTS_PER_ADDRESS = 100
ENROLLMENT_WINDOW_S = 600
ATTEMPTS = 5


def read_body() -> object:
    """Read the JSON body of a machine request.

    Raises:
        TooLarge, UnsupportedMediaType, MalformedRequest: in this order.
    """
    length = request.content_length
    if length is not None and length > MAX_BODY_BYTES:
        raise TooLarge(f"The body has {length} bytes.")
    # Read one byte more than is allowed, never all that is sent.
    data = request.stream.read(MAX_BODY_BYTES + 1)
    if len(data) > MAX_BODY_BYTES:
        raise TooLarge("The body has more than 40 KiB.")
    if request.mimetype != "application/json":
        raise UnsupportedMediaType("Content-Type must be application/json.")
    try:
        return parse_json(data, max_bytes=MAX_BODY_BYTES)
    except LicensingError as error:
        raise MalformedRequest(error.detail) from error


def to_envelope(value: object) -> Envelope:
    """Take the one envelope of a request.

    Raises:
        MalformedRequest: it is none, or has several signatures.
    """
    try:
        envelope = Envelope.from_object(value)
        only_signature(envelope)
    except LicensingError as error:
        raise MalformedRequest(error.detail) from error
    return envelope


def lease_request() -> tuple[Envelope, bytes | None]:
    """Read a lease request: an envelope, or `{"request": …, "prev_lease": …}`.

    Raises:
        ProtocolError: see `read_body` and `to_envelope`.
    """
    body = read_body()
    if isinstance(body, dict) and body.keys() == {"request", "prev_lease"}:
        try:
            previous = Envelope.from_object(body["prev_lease"]).to_bytes()
        except LicensingError as error:
            raise MalformedRequest(f"prev_lease: {error.detail}") from error
        return to_envelope(body["request"]), previous
    return to_envelope(body), None


def instance_actor(keyid: str) -> Actor:
    """Name the instance that asks as the actor."""
    actor = request_actor()
    return Actor("instance", keyid, actor.address, actor.http_request_id)


def answer(content: bytes, status: int = 200) -> Response:
    """Answer with a document that nobody may keep."""
    response = Response(content, status, content_type="application/json")
    response.headers["Cache-Control"] = "no-store"
    return response


@blueprint.post("/enrollments")
@machine
def enrollments() -> Response:
    """Enroll a router: 201 with its instance id and first lease."""
    envelope = to_envelope(read_body())
    app = portal()
    actor = instance_actor(envelope.signatures[0].keyid)
    wait = app.transactions.ports.limiter.hit(
        f"enroll:{actor.address}",
        limit=ENROLLMENTS_PER_ADDRESS,
        window_s=ENROLLMENT_WINDOW_S,
        at=app.transactions.ports.clock.now(),
    )
    if wait is not None:
        raise RateLimited("Too many enrollments from this address.", retry_after_s=wait)
    verified = verify_enrollment_request(envelope)
    try:
        with app.transactions.writing(actor) as context:
            instance, lease = enroll(context, verified)
    except SignerUnavailable as error:
        raise Unavailable("Leases cannot be signed at the moment.") from error
    return answer(b'{"instance_id":"%b","lease":%b}' % (instance.id.encode(), lease), 201)


@blueprint.post("/leases")
@machine
def leases() -> Response:
    """Renew a lease."""
    envelope, previous = lease_request()
    transactions = portal().transactions
    actor = instance_actor(envelope.signatures[0].keyid)
    for _ in range(ATTEMPTS):
        try:
            with transactions.statements(actor) as context:
                outcome = renew(context, envelope, previous, whole=False)
            if outcome is None:
                with transactions.writing(actor) as context:
                    outcome = renew(context, envelope, previous, whole=True)
        except ChainMoved:
            continue
        except SignerUnavailable as error:
            raise Unavailable("Leases cannot be signed at the moment.") from error
        if outcome is not None:
            return answer(outcome.envelope)
    raise Unavailable("Too many requests of this instance at once.")


@blueprint.post("/licenses")
@machine
def licenses() -> Response:
    """Answer with the current license of the instance's deployment."""
    envelope, _ = lease_request()
    with portal().transactions.reading(instance_actor(envelope.signatures[0].keyid)) as context:
        return answer(fetch_license(context, envelope))


@blueprint.post("/releases")
@machine
def releases() -> Response:
    """Give a lease up."""
    envelope = to_envelope(read_body())
    with portal().transactions.writing(instance_actor(envelope.signatures[0].keyid)) as context:
        release_lease(context, envelope)
    response = Response(status=204)
    response.headers["Cache-Control"] = "no-store"
    return response
