"""The refusals of the lease protocol, each with its code, status and what the router does next.

Source: "Refusals" of the lease protocol.
"""

from typing import ClassVar, Final

from portal.domain.errors import PortalError


class ProtocolError(PortalError):
    """A router's request was refused; `next_action` says what its operator should do."""

    next_action: ClassVar[str]
    title: ClassVar[str]

    def __init__(self, message: str, *, pointer: str | None = None) -> None:
        super().__init__(message)
        self.pointer = pointer
        """JSON pointer into the request, when the refusal is about one value."""


class MalformedRequest(ProtocolError):
    """The body is not an envelope."""

    code = "malformed-request"
    status = 400
    title = "The body is not a signed request"
    next_action = "Send one signed envelope as JSON, as the lease protocol describes."


class TooLarge(ProtocolError):
    """The body is longer than 40 KiB."""

    code = "too-large"
    status = 413
    title = "The body is too large"
    next_action = "Send at most 40 KiB."


class UnsupportedMediaType(ProtocolError):
    """The body is not declared as JSON."""

    code = "unsupported-media-type"
    status = 415
    title = "The body must be JSON"
    next_action = "Send Content-Type: application/json."


class UnknownInstance(ProtocolError):
    """No instance has the key that signed."""

    code = "unknown-instance"
    status = 401
    title = "No instance has this key"
    next_action = (
        "Enroll again with a code from the deployment's page; the current lease stays valid."
    )


class BadSignature(ProtocolError):
    """The signature does not match the content."""

    code = "bad-signature"
    status = 401
    title = "The signature does not match the content"
    next_action = "Sign the exact payload bytes with the instance's key, or enroll again."


class InvalidRequest(ProtocolError):
    """The signed content does not conform to its schema."""

    code = "invalid-request"
    status = 422
    title = "The signed content is not valid"
    next_action = "Correct the named value and sign again."


class WrongAudience(ProtocolError):
    """The request was made for another portal."""

    code = "wrong-audience"
    status = 422
    title = "The request is for another portal"
    next_action = "Set aud to the origin in the license's lease.url."


class LicenseMismatch(ProtocolError):
    """The named license does not belong to the instance's deployment."""

    code = "license-mismatch"
    status = 403
    title = "The license belongs to another deployment"
    next_action = "Install the license of the deployment this router was enrolled into."


class InstancesExhausted(ProtocolError):
    """Every slot of the license is in use."""

    code = "instances-exhausted"
    status = 403
    title = "All instances of the license are in use"
    next_action = "Retire an instance on the deployment's page, or ask for more instances."


class EnrollmentRefused(ProtocolError):
    """The code, the key or the license does not permit enrollment."""

    code = "enrollment-refused"
    status = 403
    title = "Enrollment was refused"
    next_action = "Create a new enrollment code on the deployment's page and enroll with a new key."


class KeyEnrolled(EnrollmentRefused):
    """The key belongs to an instance that has finished its enrollment; no code can help it."""

    next_action = (
        "Enroll with a new key: name a new, empty directory with --state-dir, and use a code that "
        "is not used up. Retire the old instance on its page if no router holds its lease."
    )


class PreviousLeaseRequired(ProtocolError):
    """The instance's lease is newer than any in this database."""

    code = "previous-lease-required"
    status = 409
    title = "The previous lease is needed"
    next_action = "Send the same request again, with the current lease as prev_lease."


class RequestReplayed(ProtocolError):
    """The request was answered so long ago that the answer is no longer kept."""

    code = "request-replayed"
    status = 409
    title = "This request was answered before"
    next_action = "Send a request with a new request id."


REFUSALS: Final[tuple[type[ProtocolError], ...]] = (
    MalformedRequest,
    TooLarge,
    UnsupportedMediaType,
    UnknownInstance,
    BadSignature,
    InvalidRequest,
    WrongAudience,
    LicenseMismatch,
    InstancesExhausted,
    EnrollmentRefused,
    PreviousLeaseRequired,
    RequestReplayed,
)
"""Every refusal, in the order in which they are checked."""
