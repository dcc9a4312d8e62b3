"""One log record for each answered request: who, what, how long. Never what was sent."""

import logging
import time

from flask import Response, g, request

log = logging.getLogger("portal.requests")
_QUIET = ("static", "health.alive", "health.ready")


def begin() -> None:
    """Note when the request began."""
    g.began = time.perf_counter()


def end(response: Response) -> None:
    """Write the record.

    Probes, static files and what went well between programs are told at level debug: of a renewal
    the lease row is the record.
    """
    machine = request.blueprint in ("leases", "documents") and response.status_code < 400
    level = logging.DEBUG if machine or request.endpoint in _QUIET else logging.INFO
    if not log.isEnabledFor(level):
        return
    who = g.get("signed_in")
    # The rule, not the path: paths can hold tokens.
    rule = request.url_rule.rule if request.url_rule is not None else None
    log.log(
        level,
        "answered",
        extra={
            "request_id": g.get("request_id"),
            "method": request.method,
            "route": rule,
            "status": response.status_code,
            "duration_ms": round((time.perf_counter() - g.began) * 1000, 1),
            "address": g.get("address"),
            "person_id": None if who is None else who.person_id,
        },
    )
