"""Turns errors into answers: pages for people, problems for programs.

Each application says what its answers look like; which error gets which answer is the same for
both. Every answer says what happened, what to do next, and the request id.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass

from flask import Flask, Response, g, make_response, render_template
from flask.typing import ResponseReturnValue
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from werkzeug.exceptions import HTTPException

from portal.domain.errors import PortalError, RateLimited

log = logging.getLogger(__name__)

RETRY_AFTER_S = 5
"""Seconds to wait before asking a portal again that cannot answer now."""


@dataclass(frozen=True)
class Answers:
    """What an application answers when something goes wrong."""

    refusal: Callable[[PortalError], Response]
    """If a rule of the portal refuses."""
    http: Callable[[HTTPException], Response]
    """If Flask or Werkzeug refuses."""
    unavailable: Callable[[], Response]
    """If the database cannot be reached."""
    mistake: Callable[[], Response]
    """If the portal has a fault."""


def install(app: Flask, answers: Answers) -> None:
    """Register the handlers."""

    def on_http(error: HTTPException) -> ResponseReturnValue:
        if 300 <= (error.code or 500) < 400:
            return error.get_response()
        answer = answers.http(error)
        for name, value in error.get_headers():
            if name in ("Allow", "Retry-After"):
                answer.headers[name] = value
        return answer

    def on_database(error: Exception) -> ResponseReturnValue:
        log.warning("database: %s", type(error).__name__, extra={"request_id": g.request_id})
        return answers.unavailable()

    def on_database_refusal(error: DBAPIError) -> ResponseReturnValue:
        # A broken connection is no fault of the portal.
        return on_database(error) if error.connection_invalidated else on_mistake(error)

    def on_mistake(error: Exception) -> ResponseReturnValue:
        # The log has the details under the request id.
        log.error("unhandled", exc_info=error, extra={"request_id": g.get("request_id")})
        return answers.mistake()

    app.register_error_handler(PortalError, answers.refusal)
    app.register_error_handler(HTTPException, on_http)
    app.register_error_handler(OperationalError, on_database)
    app.register_error_handler(PoolTimeout, on_database)
    app.register_error_handler(DBAPIError, on_database_refusal)
    app.register_error_handler(Exception, on_mistake)


_WITH_PAGES = {400, 403, 404, 409, 413, 429, 500, 503}


def page(status: int, message: str | None = None) -> Response:
    """Render the error page of a status."""
    shown = status if status in _WITH_PAGES else (400 if status < 500 else 500)
    html = render_template(f"errors/{shown}.html", message=message, request_id=g.request_id)
    return make_response(html, status)


def _refusal_page(error: PortalError) -> Response:
    response = page(error.status, error.message)
    if isinstance(error, RateLimited):
        response.headers["Retry-After"] = str(error.retry_after_s)
    return response


def _unavailable_page() -> Response:
    response = page(503)
    response.headers["Retry-After"] = str(RETRY_AFTER_S)
    return response


PAGES = Answers(
    refusal=_refusal_page,
    http=lambda error: page(error.code or 500),
    unavailable=_unavailable_page,
    mistake=lambda: page(500),
)
