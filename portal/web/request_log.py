"""One log record for each request: who, what, how long. Never what was sent."""

import logging
import time

from flask import Response, g, request

log = logging.getLogger("portal.requests")


def begin() -> None:
    """Record when the request began."""
    g.began = time.perf_counter()


def end(response: Response, *, quiet: bool) -> None:
    """Write the record, at level debug if it is `quiet`."""
    level = logging.DEBUG if quiet else logging.INFO
    if not log.isEnabledFor(level):
        return
    who = g.get("signed_in")
    # The URL rule, not the path: paths can contain tokens.
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
