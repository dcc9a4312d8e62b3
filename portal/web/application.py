"""What the two Flask applications of a process share.

Invariants: only requests for the portal's own hosts are answered. Headers that a proxy adds count
only if a proxy is configured. Each request has an id, which its answer carries, and one log record.
"""

import ipaddress
from collections.abc import Callable
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from flask import Flask, Response, g, request
from werkzeug.middleware.proxy_fix import ProxyFix

from portal.web import headers, request_log
from portal.web.portal import WebPortal, portal


def new_application(web: WebPortal, *, quiet: Callable[[Response], bool], **options: Any) -> Flask:
    """Create a Flask application without routes.

    Args:
        web: its collaborators.
        quiet: says whether an answer is logged at level debug only.
        options: options of Flask.
    """
    app = Flask("portal", **options)
    app.extensions["portal"] = web
    app.config["TRUSTED_HOSTS"] = _trusted_hosts(web.settings.origin)
    if hops := web.settings.trusted_proxies:
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=hops, x_proto=hops)  # type: ignore[method-assign]
    app.before_request(_begin)

    @app.after_request
    def finish(response: Response) -> Response:
        request_log.end(response, quiet=quiet(response))
        return headers.add_headers(response)

    return app


def in_clear() -> bool:
    """Say whether a request came from another machine over plain HTTP."""
    return not request.is_secure and not _is_loopback(request.environ.get("SERVER_NAME", ""))


def _begin() -> None:
    request_log.begin()
    g.request_id = portal().transactions.ports.randomness.token(12).hex()
    g.address = request.remote_addr or ""
    g.signed_in = None


def _trusted_hosts(origin: str) -> list[str]:
    host = urlsplit(origin).hostname or ""
    return [host, "localhost", "127.0.0.1", "[::1]"] if _is_loopback(host) else [host]


@lru_cache(maxsize=64)
def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
