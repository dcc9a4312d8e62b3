"""Errors to answers, once: pages for people, problems for programs.

Every page says what happened, what to do next, and the request id.
"""

import logging

from flask import Flask, Response, g, make_response, render_template, request
from flask.typing import ResponseReturnValue
from flask_wtf.csrf import CSRFError
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from werkzeug.exceptions import HTTPException, SecurityError

from portal.domain.errors import PortalError, RateLimited
from portal.web.drafts import typed_fields
from portal.web.problems import (
    INTERNAL,
    RETRY_AFTER_S,
    WRONG_HOST,
    problem,
    problem_of,
    problem_of_status,
    unavailable,
)

log = logging.getLogger(__name__)

PAGES = {400, 403, 404, 409, 413, 429, 500, 503}


def is_machine() -> bool:
    """Say whether a program asks, which reads problems and not pages."""
    return request.path.startswith("/v1/") or request.path == "/v1"


def page(status: int, message: str | None = None) -> Response:
    """Render the error page of a status."""
    shown = status if status in PAGES else (400 if status < 500 else 500)
    html = render_template(f"errors/{shown}.html", message=message, request_id=g.request_id)
    return make_response(html, status)


def install(app: Flask) -> None:
    """Register the handlers."""
    app.register_error_handler(PortalError, on_portal_error)
    app.register_error_handler(CSRFError, on_csrf)
    app.register_error_handler(HTTPException, on_http)
    app.register_error_handler(OperationalError, on_database)
    app.register_error_handler(PoolTimeout, on_database)
    app.register_error_handler(DBAPIError, on_database_refusal)
    app.register_error_handler(Exception, on_bug)


def on_portal_error(error: PortalError) -> ResponseReturnValue:
    """Answer a refusal of the rules."""
    if is_machine():
        return problem_of(error)
    response = page(error.status, error.message)
    if isinstance(error, RateLimited):
        response.headers["Retry-After"] = str(error.retry_after_s)
    return response


def on_csrf(error: CSRFError) -> ResponseReturnValue:
    """Give a form back whose token is missing or too old, with all that was typed."""
    html = render_template(
        "errors/csrf.html", fields=typed_fields(), action=request.path, request_id=g.request_id
    )
    return make_response(html, 400)


def on_http(error: HTTPException) -> ResponseReturnValue:
    """Answer what Flask and Werkzeug refuse."""
    status = error.code or 500
    if 300 <= status < 400:
        return error.get_response()
    if is_machine():
        detail = error.description or error.name
        untrusted = isinstance(error, SecurityError)
        answer = problem(WRONG_HOST, detail) if untrusted else problem_of_status(status, detail)
    else:
        answer = page(status)
    for name, value in error.get_headers():
        if name in ("Allow", "Retry-After"):
            answer.headers[name] = value
    return answer


def on_database(error: Exception) -> ResponseReturnValue:
    """Answer while the database cannot be reached: come again shortly."""
    log.warning("database: %s", type(error).__name__, extra={"request_id": g.request_id})
    if is_machine():
        return unavailable("The database does not answer at the moment.")
    response = page(503)
    response.headers["Retry-After"] = str(RETRY_AFTER_S)
    return response


def on_database_refusal(error: DBAPIError) -> ResponseReturnValue:
    """Tell a broken connection from a bug."""
    return on_database(error) if error.connection_invalidated else on_bug(error)


def on_bug(error: Exception) -> ResponseReturnValue:
    """Answer a mistake of ours; the log has the whole story under the request id."""
    log.error("unhandled", exc_info=error, extra={"request_id": g.get("request_id")})
    if is_machine():
        return problem(INTERNAL, "The portal made a mistake; it is logged under the request id.")
    return page(500)
