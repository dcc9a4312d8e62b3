"""What a router posts or has carried: a signed request, alone or with the lease it holds.

    <envelope>
    {"request": <envelope>, "prev_lease": <envelope>}

Nothing here is verified: a request is read so that its signer can be looked up.

Source: "Endpoints" of the lease protocol.
"""

from typing import NamedTuple

from licensing.envelope import Envelope
from licensing.errors import LicensingError, MalformedEnvelope
from licensing.verify import only_signature


class RequestBody(NamedTuple):
    """A request with exactly one signature, not verified."""

    request: Envelope
    prev_lease: bytes | None = None
    """The envelope of the current lease, if it was sent along."""

    @property
    def keyid(self) -> str:
        """The key id of the signer, as the request names it."""
        return self.request.signatures[0].keyid


def read_request(value: object) -> RequestBody:
    """Read a request that is sent alone.

    Args:
        value: the parsed JSON.

    Raises:
        MalformedEnvelope: it is not an envelope, or has several signatures.
    """
    envelope = Envelope.from_object(value)
    only_signature(envelope)
    return RequestBody(envelope)


def read_lease_request(value: object) -> RequestBody:
    """Read a request that may be sent together with the current lease.

    Args:
        value: the parsed JSON.

    Raises:
        MalformedEnvelope: request or lease is not an envelope, or the request has several
            signatures.
    """
    if not isinstance(value, dict) or value.keys() != {"request", "prev_lease"}:
        return read_request(value)
    try:
        prev_lease = Envelope.from_object(value["prev_lease"]).to_bytes()
    except LicensingError as error:
        raise MalformedEnvelope(f"prev_lease: {error.detail}") from error
    return RequestBody(read_request(value["request"]).request, prev_lease)
