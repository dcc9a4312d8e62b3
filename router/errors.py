"""The router's errors, each with its exit code for `router-license`."""

from typing import ClassVar, Final

OK: Final = 0
FAILED: Final = 1
USAGE: Final = 2
REFUSED: Final = 4


class RouterError(Exception):
    """A command cannot do what it was asked to; the message says how to fix that."""

    exit: ClassVar[int] = FAILED
    code: str = "failed"

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        if code is not None:
            self.code = code


class UsageError(RouterError):
    """The command was called incorrectly."""

    exit = USAGE
    code = "usage"


class StateError(RouterError):
    """The lease directory is missing, damaged, in use, or belongs to another router."""

    code = "state"


class Unreachable(RouterError):
    """No usable answer from the portal: no connection, a redirect, a web page, a 5xx."""

    code = "unreachable"
    retry_after_s: int | None = None
    """How many seconds the answer asks to wait."""


class Refused(RouterError):
    """The portal refused, by a problem document."""

    exit = REFUSED
    code = "refused"
    retry_after_s: int | None = None
    """How many seconds the portal asks to wait."""

    def __init__(self, message: str, *, code: str, status: int, next_action: str) -> None:
        super().__init__(message, code=code)
        self.status = status
        self.next_action = next_action
