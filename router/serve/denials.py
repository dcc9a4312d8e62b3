"""Refusing a request: a code, a message and the request id, but nothing about the license."""

from typing import Final, NoReturn

from aiohttp import web

from licensing.names import ROUTER_CODES
from router.serve.usage import Outcome

REQUEST_ID: Final = web.RequestKey("request_id", str)
"""The request's id, in every answer and every row."""
_DENIALS: Final = {"license-feature-forbidden": 403, "license-limit-exceeded": 429}


class Denied(Exception):
    """A request is refused, with what the caller is told."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        outcome: Outcome,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.outcome: Outcome = outcome
        self.headers = headers or {}


def deny(status: int, code: str, message: str, outcome: Outcome) -> NoReturn:
    """Refuse the request.

    Raises:
        Denied: always.
    """
    raise Denied(status, code, message, outcome)


def unauthorized(message: str, challenge: str) -> Denied:
    """Return the refusal of missing or wrong credentials; `challenge` says which are needed."""
    headers = {"WWW-Authenticate": challenge}
    return Denied(401, "unauthorized", message, "auth-denied", headers)


def license_denial(code: str, status: int | None = None) -> Denied:
    """Return the refusal for a license code: its meaning, and nothing about this license."""
    message = ROUTER_CODES[code].meaning
    return Denied(status or _DENIALS.get(code, 503), code, message, "license-denied")


def error_answer(request: web.Request, denied: Denied) -> web.Response:
    """Return the answer to a refused request."""
    body = {
        "error": {
            "code": denied.code,
            "message": denied.message,
            "request_id": request[REQUEST_ID],
        }
    }
    return web.json_response(body, status=denied.status, headers=denied.headers)
