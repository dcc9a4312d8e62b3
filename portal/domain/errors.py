"""The errors of the portal's rules: one tree, mapped once to HTTP and once to exit codes.

Each has a stable `code`, a message that tells the person what is wrong and how to fix it, and the
HTTP status of the answer.
"""

from typing import ClassVar


class PortalError(Exception):
    """A use case was refused, and nothing changed."""

    code: ClassVar[str] = "refused"
    status: ClassVar[int] = 400

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        """The form field or option the message is about, if it is about one."""


class NotFound(PortalError):
    """There is no such thing, or this person may not know of it. Both answers look the same."""

    code = "not-found"
    status = 404


class Forbidden(PortalError):
    """The person is known, but may not do this."""

    code = "forbidden"
    status = 403


class Conflict(PortalError):
    """Something has changed in the meantime, or its state does not allow this."""

    code = "conflict"
    status = 409


class Invalid(PortalError):
    """A value has the right shape but cannot be accepted."""

    code = "invalid"
    status = 422


class LimitReached(PortalError):
    """A limit of an account, deployment or domain is used up."""

    code = "limit-reached"
    status = 409


class RateLimited(PortalError):
    """There were too many attempts; wait `retry_after_s` seconds."""

    code = "rate-limited"
    status = 429

    def __init__(self, message: str, *, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Unproved(PortalError):
    """What shall be signed does not follow from a cause that the signer proved."""

    code = "unproved"
    status = 409


class Unavailable(PortalError):
    """Something that is needed does not respond now; try again later."""

    code = "unavailable"
    status = 503
