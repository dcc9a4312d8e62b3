"""The Flask application: blueprints by surface, guards before each view, headers after it."""

import ipaddress
from datetime import timedelta
from functools import lru_cache
from urllib.parse import urlsplit

from flask import Flask, Response, g, request, session
from flask.typing import ResponseReturnValue
from flask_login import LoginManager, current_user
from flask_wtf.csrf import CSRFProtect
from werkzeug.exceptions import BadRequest
from werkzeug.middleware.proxy_fix import ProxyFix

from portal.domain.words import LIMIT_NAMES, MODE_NAMES
from portal.services.sign_ins import TOUCH_EVERY, load, person_of_token, touch
from portal.web import (
    accounts,
    courier,
    deployments,
    dev_mail,
    documents,
    errors,
    headers,
    health,
    instances,
    leases,
    licenses,
    public,
    releases,
    request_log,
    requests,
    security,
    sign_ins,
    sign_ups,
    staff_accounts,
    staff_health,
    staff_licenses,
    staff_requests,
)
from portal.web.access import check_access, rule_of
from portal.web.access import public as let_everybody
from portal.web.portal import STATIC, TEMPLATES, WebPortal, portal, request_actor
from portal.web.problems import HTTPS_REQUIRED, problem
from portal.web.sessions import CookieSessions, User
from portal.web.templating import init_templating

MAX_FORM_BYTES = 256 * 1024
MAX_FORM_PARTS = 200

SIGNING_IN = (sign_ins.blueprint, sign_ups.blueprint, security.blueprint)
"""Served wherever people are: each of their surfaces stands by itself."""
BY_SURFACE = {
    "public": (public.blueprint, releases.blueprint),
    "account": (
        accounts.blueprint,
        requests.blueprint,
        deployments.blueprint,
        licenses.blueprint,
        courier.blueprint,
        instances.blueprint,
    ),
    "staff": (
        staff_requests.blueprint,
        staff_accounts.blueprint,
        staff_licenses.blueprint,
        staff_health.blueprint,
    ),
    "machine": (leases.blueprint, documents.blueprint),
}


def create_app(web: WebPortal) -> Flask:
    """Make the application for the surfaces of its settings."""
    settings = web.settings
    app = Flask("portal", static_folder=str(STATIC), template_folder=str(TEMPLATES))
    app.extensions["portal"] = web
    app.session_interface = CookieSessions()
    app.config.update(
        SECRET_KEY=web.session_key,
        SESSION_COOKIE_NAME="__Host-session" if settings.secure else "session",
        SESSION_COOKIE_SECURE=settings.secure,
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SAMESITE="Lax",
        SESSION_COOKIE_PATH="/",
        PERMANENT_SESSION_LIFETIME=timedelta(days=14),
        SESSION_REFRESH_EACH_REQUEST=False,
        MAX_CONTENT_LENGTH=MAX_FORM_BYTES,
        MAX_FORM_MEMORY_SIZE=MAX_FORM_BYTES,
        MAX_FORM_PARTS=MAX_FORM_PARTS,
        TRUSTED_HOSTS=_trusted_hosts(settings.origin),
        # The token lives as long as the session cookie that holds its seed.
        WTF_CSRF_TIME_LIMIT=None,
        WTF_CSRF_SSL_STRICT=settings.secure,
    )
    if settings.trusted_proxies:
        hops = settings.trusted_proxies
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=hops, x_proto=hops)  # type: ignore[method-assign]
    clock = web.transactions.ports.clock
    assets = init_templating(app, now=clock.now, templates=TEMPLATES, static=STATIC)

    app.jinja_env.globals.update(limit_names=LIMIT_NAMES, mode_names=MODE_NAMES)

    # Pages get the person from `_viewer`, which asks nothing of a database that may be away.
    login = LoginManager(app, add_context_processor=False)
    login.session_protection = None
    login.user_loader(_load_user)
    # There is no remember cookie; looking for one would open the session of every request.
    app.after_request_funcs[None].remove(login._update_remember_cookie)

    app.before_request(_begin)
    app.before_request(_refuse_unstorable)
    app.before_request(_know_who)
    app.before_request(check_access)
    csrf = CSRFProtect(app)
    app.context_processor(_viewer)
    let_everybody(app.view_functions["static"])

    app.register_blueprint(health.blueprint)
    if settings.surfaces & {"public", "account", "staff"}:
        for blueprint in SIGNING_IN:
            app.register_blueprint(blueprint)
    for surface, blueprints in BY_SURFACE.items():
        if surface in settings.surfaces:
            for blueprint in blueprints:
                app.register_blueprint(blueprint)
    if settings.development:
        app.register_blueprint(dev_mail.blueprint)
    for blueprint in BY_SURFACE["machine"]:
        csrf.exempt(blueprint)
    errors.install(app)

    @app.after_request
    def finish(response: Response) -> Response:
        if request.endpoint == "static":
            path = (request.view_args or {}).get("filename", "")
            response.headers["Cache-Control"] = assets.cache_control(path, request.args.get("v"))
        request_log.end(response)
        return headers.add_headers(response)

    return app


def _trusted_hosts(origin: str) -> list[str]:
    host = urlsplit(origin).hostname or ""
    hosts = [host]
    if host == "localhost" or _is_loopback(host):
        hosts += ["localhost", "127.0.0.1", "[::1]"]
    return hosts


@lru_cache(maxsize=64)
def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def _begin() -> ResponseReturnValue | None:
    """Name the request, and refuse machine traffic that came in clear."""
    request_log.begin()
    g.request_id = portal().transactions.ports.randomness.token(12).hex()
    g.address = request.remote_addr or ""
    g.signed_in = None
    in_clear = not request.is_secure and not _is_loopback(request.environ.get("SERVER_NAME", ""))
    if in_clear and request.path.startswith("/v1/"):
        return problem(HTTPS_REQUIRED, "The lease protocol is not served over plain http.")
    return None


def _refuse_unstorable() -> None:
    """Refuse text no database can hold: NUL, and halves of surrogate pairs.

    Raises:
        BadRequest: such text stands in the path, the query or the form.
    """
    if request.endpoint is not None and request.blueprint in ("leases", "documents"):
        return
    texts = [request.path, *request.args.keys(), *request.args.values()]
    if request.method == "POST":
        for name, values in request.form.lists():
            texts += [name, *values]
    for text in texts:
        if "\x00" in text or any("\ud800" <= character <= "\udfff" for character in text):
            raise BadRequest("The request holds a character that cannot be stored.")


def _know_who() -> None:
    """Find out who is signed in, and note from time to time that they still are."""
    rule = None if request.endpoint is None else rule_of(request.endpoint)
    if rule is None or rule.kind == "machine" or request.endpoint == "static":
        return
    if request.blueprint == "health":
        # A probe is answered alike whatever cookie comes with it, and while the database is away.
        return
    token = session.get("_user_id")
    if token is None:
        return
    g.had_token = True
    if not current_user.is_authenticated:
        with portal().transactions.reading(request_actor()) as context:
            g.person_of_token = person_of_token(context, token)
        return
    g.signed_in = current_user.who
    transactions = portal().transactions
    if transactions.ports.clock.now() - g.signed_in.last_seen_at > TOUCH_EVERY:
        with transactions.writing(request_actor()) as context:
            touch(context, token)


def _load_user(token: str) -> User | None:
    with portal().transactions.reading(request_actor()) as context:
        who = load(context, token)
    return None if who is None else User(who)


def _viewer() -> dict[str, object]:
    """Give every page the person who looks at it."""
    who = g.get("signed_in")
    if who is None:
        return {"viewer": None}
    return {
        "viewer": {
            "name": who.name,
            "email": who.email,
            "account_name": who.place.name if who.place else None,
            "is_staff": who.kind == "staff",
            "permissions": who.permissions,
            "places": who.places,
        }
    }
