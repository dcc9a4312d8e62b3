"""What a router signed, verified with the refusals of the lease protocol.

Invariants: the refusals come in the protocol's order: 401 for the signature, 422 for schema and
audience, 401 for an instance id that is not the key's.

Source: "Verifying" of the signed documents; "Refusals" of the lease protocol.
"""

from collections.abc import Callable, Collection
from typing import Protocol, TypeVar

from licensing.encoding import parse_json
from licensing.enrollment import (
    EnrollmentRequest,
    InstanceDocument,
    LeaseRequest,
    ReleaseRequest,
)
from licensing.envelope import Envelope
from licensing.errors import LicensingError, MalformedPayload, WrongType
from licensing.keys import loaded_key
from licensing.verify import Verified, verify_enrollment, verify_request
from portal.domain.lease_errors import (
    BadSignature,
    InvalidRequest,
    UnknownInstance,
    WrongAudience,
)

FromInstance = TypeVar("FromInstance", LeaseRequest, ReleaseRequest)
D = TypeVar("D", bound=InstanceDocument)


class Audience(Protocol):
    """The origins a portal answers requests for."""

    @property
    def origin(self) -> str:
        """The public origin."""
        ...

    @property
    def former_origins(self) -> Collection[str]:
        """The origins it had before it moved."""
        ...


def require_type(envelope: Envelope, model: type[InstanceDocument]) -> None:
    """Require that an envelope says it carries this kind of request.

    Raises:
        InvalidRequest: it says something else.
    """
    if envelope.payload_type != model.PAYLOAD_TYPE:
        raise InvalidRequest(f"The payload type must be {model.PAYLOAD_TYPE}.")


def named_ids(envelope: Envelope) -> tuple[str, str]:
    """Return the request id and license id to look a lease request up by; nothing is verified yet.

    Raises:
        InvalidRequest: it is another kind of document.
    """
    require_type(envelope, LeaseRequest)
    try:
        value = parse_json(envelope.payload, max_bytes=len(envelope.payload))
    except LicensingError:
        return "", ""
    found = (value.get("request_id"), value.get("license_id")) if isinstance(value, dict) else ()
    # NUL or half a surrogate cannot be sent to a database; such a payload is refused later.
    texts = [each for each in found if isinstance(each, str) and each.isascii()]
    return (texts[0], texts[1]) if len(texts) == 2 and "\0" not in "".join(texts) else ("", "")


def verify_from_instance(
    envelope: Envelope,
    model: type[FromInstance],
    audience: Audience,
    *,
    public_key: bytes,
    instance_id: str,
) -> Verified[FromInstance]:
    """Verify a request of an enrolled instance, whose key was found by the request's key id.

    Raises:
        BadSignature: the signature does not match, or there are several.
        InvalidRequest: it is another kind of document, or does not conform to its schema.
        WrongAudience: it was made for another portal.
        UnknownInstance: it names an instance other than its signer.
    """
    verified = _verified(lambda: verify_request(envelope, model, loaded_key(public_key)), audience)
    if verified.document.instance_id != instance_id:
        raise UnknownInstance("instance_id does not belong to the signing key.")
    return verified


def verify_enrolling(envelope: Envelope, audience: Audience) -> Verified[EnrollmentRequest]:
    """Verify an enrollment request under the key it brings.

    Raises:
        BadSignature, InvalidRequest, WrongAudience: as `verify_from_instance`.
    """
    return _verified(lambda: verify_enrollment(envelope), audience)


def _verified(verify: Callable[[], Verified[D]], audience: Audience) -> Verified[D]:
    try:
        verified = verify()
    except (MalformedPayload, WrongType) as error:
        raise InvalidRequest(error.detail) from error
    except LicensingError as error:
        raise BadSignature(error.detail) from error
    aud = verified.document.aud
    if aud != audience.origin and aud not in audience.former_origins:
        raise WrongAudience(f"aud is {aud}; this portal is {audience.origin}.", pointer="/aud")
    return verified
