"""The errors of the rules: one tree, mapped to HTTP and to exit codes once.

Each has a stable `code`, a message for the person that says what is wrong and how to mend it, and
the HTTP status the web answers with.
"""

from typing import ClassVar


class PortalError(Exception):
    """A use case was refused; nothing changed."""

    code: ClassVar[str] = "refused"
    status: ClassVar[int] = 400

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        """The form field or option the message is about, when it is about one."""


class NotFound(PortalError):
    """No such thing, or none that this person may know of (the two answer alike)."""

    code = "not-found"
    status = 404


class Forbidden(PortalError):
    """The person is known and may not do this."""

    code = "forbidden"
    status = 403


class Conflict(PortalError):
    """The thing changed meanwhile, or is not in a state that permits this."""

    code = "conflict"
    status = 409


class Invalid(PortalError):
    """A value has the right shape and the wrong meaning."""

    code = "invalid"
    status = 422


class LimitReached(PortalError):
    """A cap per account, deployment or domain is used up."""

    code = "limit-reached"
    status = 409


class RateLimited(PortalError):
    """Too many attempts; `retry_after_s` seconds to wait."""

    code = "rate-limited"
    status = 429

    def __init__(self, message: str, *, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Unavailable(PortalError):
    """Something the act needs does not answer now; try again later."""

    code = "unavailable"
    status = 503
