"""Refusals of the machine surface as RFC 9457 problems."""

import json
from typing import Any

from flask import Response, g

from portal.domain.errors import PortalError, RateLimited
from portal.domain.lease_errors import ProtocolError

PROBLEM = "application/problem+json"
RETRY_AFTER_S = 5


def problem(
    status: int,
    code: str,
    title: str,
    detail: str,
    next_action: str,
    *,
    pointer: str | None = None,
    retry_after_s: int | None = None,
) -> Response:
    """Build a problem answer; `retry_after_s` seconds to wait stand in `Retry-After`."""
    body: dict[str, Any] = {
        "type": f"/help/problems#{code}",
        "title": title,
        "status": status,
        "detail": detail,
        "code": code,
        "request_id": g.request_id,
        "next_action": next_action,
    }
    if pointer is not None:
        body["errors"] = [{"pointer": pointer, "detail": detail}]
    response = Response(json.dumps(body, ensure_ascii=False), status, content_type=PROBLEM)
    response.headers["Cache-Control"] = "no-store"
    if retry_after_s is not None:
        response.headers["Retry-After"] = str(retry_after_s)
    return response


def problem_of(error: PortalError) -> Response:
    """Build the problem of a typed error."""
    if isinstance(error, ProtocolError):
        return problem(
            error.status,
            error.code,
            error.title,
            error.message,
            error.next_action,
            pointer=error.pointer,
        )
    if isinstance(error, RateLimited):
        return problem(
            429,
            "rate-limited",
            "Too many requests",
            error.message,
            "Wait as long as Retry-After says, then ask again.",
            retry_after_s=error.retry_after_s,
        )
    if error.status == 503:
        return unavailable(error.message)
    return problem(error.status, error.code, error.code, error.message, "Read the detail.")


def unavailable(detail: str = "The portal cannot answer at the moment.") -> Response:
    """Build the answer for a portal that cannot work now."""
    return problem(
        503,
        "unavailable",
        "Not available now",
        detail,
        "Keep serving on the lease at hand and ask again later.",
        retry_after_s=RETRY_AFTER_S,
    )
