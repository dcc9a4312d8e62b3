"""Refusals of the machine surface as RFC 9457 problems.

`KINDS` lists every code an answer under `/v1` can carry; the help page names each.
"""

import json
from dataclasses import dataclass
from typing import Any, Protocol

from flask import Response, g
from werkzeug.exceptions import HTTPException, SecurityError

from portal.domain.errors import PortalError, RateLimited
from portal.domain.lease_errors import REFUSALS, MalformedRequest, ProtocolError
from portal.web.errors import RETRY_AFTER_S, Answers

PROBLEM = "application/problem+json"


class ProblemKind(Protocol):
    """What all problems with one code share: a refusal of the lease protocol, or a `Kind`."""

    @property
    def code(self) -> str:
        """The stable code."""
        ...

    @property
    def status(self) -> int:
        """The HTTP status."""
        ...

    @property
    def title(self) -> str:
        """What happened, in a few words."""
        ...

    @property
    def next_action(self) -> str:
        """What the router's operator should do."""
        ...


@dataclass(frozen=True)
class Kind:
    """A problem that is no refusal of the lease protocol."""

    code: str
    status: int
    title: str
    next_action: str


HTTPS_REQUIRED = Kind(
    "https-required", 403, "HTTPS is required", "Use the https address of the portal."
)
NOT_FOUND = Kind(
    "not-found", 404, "There is nothing at this path", "Check the path against /v1/openapi.json."
)
METHOD_NOT_ALLOWED = Kind(
    "method-not-allowed",
    405,
    "The path does not accept this method",
    "Use a method listed in the Allow header and in /v1/openapi.json.",
)
RATE_LIMITED = Kind(
    "rate-limited", 429, "Too many requests", "Wait as long as Retry-After says, then try again."
)
INTERNAL = Kind(
    "internal",
    500,
    "The portal has a fault",
    "Keep serving under the current lease, try again later, and report the request id.",
)
UNAVAILABLE = Kind(
    "unavailable",
    503,
    "The portal is not available now",
    "Keep serving under the current lease and try again after Retry-After.",
)
WRONG_HOST = Kind(
    MalformedRequest.code,
    MalformedRequest.status,
    "The Host header names another site",
    "Send the request to the portal's own origin; a proxy must keep the Host header.",
)
KINDS: tuple[ProblemKind, ...] = (
    *REFUSALS,
    HTTPS_REQUIRED,
    NOT_FOUND,
    METHOD_NOT_ALLOWED,
    RATE_LIMITED,
    INTERNAL,
    UNAVAILABLE,
)
_GENERAL: tuple[ProblemKind, ...] = (
    *REFUSALS[:3],
    NOT_FOUND,
    METHOD_NOT_ALLOWED,
    RATE_LIMITED,
    INTERNAL,
    UNAVAILABLE,
)
_OF_STATUS = {kind.status: kind for kind in _GENERAL}


def problem(
    kind: ProblemKind,
    detail: str,
    *,
    pointer: str | None = None,
    retry_after_s: int | None = None,
) -> Response:
    """Build a problem answer; `retry_after_s` becomes its `Retry-After`."""
    body: dict[str, Any] = {
        "type": f"/help/problems#{kind.code}",
        "title": kind.title,
        "status": kind.status,
        "detail": detail,
        "code": kind.code,
        "request_id": g.request_id,
        "next_action": kind.next_action,
    }
    if pointer is not None:
        body["errors"] = [{"pointer": pointer, "detail": detail}]
    response = Response(json.dumps(body, ensure_ascii=False), kind.status, content_type=PROBLEM)
    if retry_after_s is not None:
        response.headers["Retry-After"] = str(retry_after_s)
    return response


def problem_of(error: PortalError) -> Response:
    """Build the problem of a typed error."""
    if isinstance(error, ProtocolError):
        return problem(error, error.message, pointer=error.pointer)
    if isinstance(error, RateLimited):
        return problem(RATE_LIMITED, error.message, retry_after_s=error.retry_after_s)
    if error.status == UNAVAILABLE.status:
        return unavailable(error.message)
    return problem_of_status(error.status, error.message)


def problem_of_status(status: int, detail: str) -> Response:
    """Build the problem of an HTTP status; a status without a kind is a malformed request."""
    return problem(_OF_STATUS.get(status, MalformedRequest if status < 500 else INTERNAL), detail)


def unavailable(detail: str = "The portal cannot answer right now.") -> Response:
    """Build the answer of a portal that cannot work right now."""
    return problem(UNAVAILABLE, detail, retry_after_s=RETRY_AFTER_S)


def _problem_of_http(error: HTTPException) -> Response:
    detail = error.description or error.name
    if isinstance(error, SecurityError):
        return problem(WRONG_HOST, detail)
    return problem_of_status(error.code or 500, detail)


PROBLEMS = Answers(
    refusal=problem_of,
    http=_problem_of_http,
    unavailable=lambda: unavailable("The database does not respond right now."),
    mistake=lambda: problem(
        INTERNAL, "There was a fault in the portal; it is logged under the request id."
    ),
)
