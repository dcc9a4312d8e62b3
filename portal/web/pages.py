"""The application for people: pages, forms and sessions.

Invariants: every form that changes something carries a CSRF token. No page is answered before its
access rule is checked. No path under `/v1` leads here.
"""

from datetime import timedelta

from flask import Flask, Response, g, make_response, render_template, request
from flask.typing import ResponseReturnValue
from flask_wtf.csrf import CSRFError, CSRFProtect
from werkzeug.exceptions import BadRequest

from portal.domain.words import LIMIT_NAMES, MODE_NAMES
from portal.resources import STATIC, TEMPLATES
from portal.web import (
    accounts,
    courier,
    deployments,
    dev_mail,
    distributions,
    errors,
    health,
    instances,
    licenses,
    opt_outs,
    public,
    renewals,
    requests,
    security,
    sign_ins,
    sign_ups,
    staff_accounts,
    staff_acts,
    staff_bundles,
    staff_emails,
    staff_health,
    staff_keys,
    staff_licenses,
    staff_requests,
)
from portal.web.access import check_access
from portal.web.access import public as let_everybody
from portal.web.application import new_application
from portal.web.drafts import typed_fields
from portal.web.portal import WebPortal
from portal.web.sessions import init_sign_ins
from portal.web.templating import init_templating

MAX_FORM_BYTES = 256 * 1024
MAX_FORM_PARTS = 200
QUIET = ("static", "health.alive", "health.ready")
"""Probes and static files are logged at level debug only."""

SIGNING_IN = (sign_ins.blueprint, sign_ups.blueprint, security.blueprint)
"""Served with each of the people's surfaces, so that any of them can be served alone."""
BY_SURFACE = {
    "public": (public.blueprint, distributions.blueprint, opt_outs.blueprint),
    "account": (
        accounts.blueprint,
        requests.blueprint,
        renewals.blueprint,
        deployments.blueprint,
        licenses.blueprint,
        courier.blueprint,
        instances.blueprint,
    ),
    "staff": (
        staff_requests.blueprint,
        staff_accounts.blueprint,
        staff_licenses.blueprint,
        staff_acts.blueprint,
        staff_bundles.blueprint,
        staff_emails.blueprint,
        staff_health.blueprint,
        staff_keys.blueprint,
    ),
}


def create_pages_app(web: WebPortal) -> Flask:
    """Create the application with the pages of its surfaces; probes are always answered."""
    app = new_application(
        web,
        quiet=lambda _: request.endpoint in QUIET,
        static_folder=str(STATIC),
        template_folder=str(TEMPLATES),
    )
    _configure(app, web)
    assets = init_templating(
        app, now=web.transactions.ports.clock.now, templates=TEMPLATES, static=STATIC
    )
    app.jinja_env.globals.update(limit_names=LIMIT_NAMES, mode_names=MODE_NAMES)
    app.context_processor(_viewer)

    app.before_request(_refuse_unstorable)
    init_sign_ins(app)
    app.before_request(check_access)
    CSRFProtect(app)
    let_everybody(app.view_functions["static"])
    _register_blueprints(app, web)
    errors.install(app, errors.PAGES)
    app.register_error_handler(CSRFError, _give_form_back)

    @app.after_request
    def let_files_be_kept(response: Response) -> Response:
        if request.endpoint == "static":
            path = (request.view_args or {}).get("filename", "")
            response.headers["Cache-Control"] = assets.cache_control(path, request.args.get("v"))
        return response

    return app


def _configure(app: Flask, web: WebPortal) -> None:
    secure = web.settings.secure
    app.config.update(
        SECRET_KEY=web.session_key,
        SESSION_COOKIE_NAME="__Host-session" if secure else "session",
        SESSION_COOKIE_SECURE=secure,
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SAMESITE="Lax",
        SESSION_COOKIE_PATH="/",
        PERMANENT_SESSION_LIFETIME=timedelta(days=14),
        SESSION_REFRESH_EACH_REQUEST=False,
        MAX_CONTENT_LENGTH=MAX_FORM_BYTES,
        MAX_FORM_MEMORY_SIZE=MAX_FORM_BYTES,
        MAX_FORM_PARTS=MAX_FORM_PARTS,
        # The token lives as long as the session cookie that holds its seed.
        WTF_CSRF_TIME_LIMIT=None,
        WTF_CSRF_SSL_STRICT=secure,
    )


def _register_blueprints(app: Flask, web: WebPortal) -> None:
    surfaces = web.settings.surfaces
    app.register_blueprint(health.blueprint)
    if surfaces & BY_SURFACE.keys():
        for blueprint in SIGNING_IN:
            app.register_blueprint(blueprint)
    for surface, blueprints in BY_SURFACE.items():
        if surface in surfaces:
            for blueprint in blueprints:
                app.register_blueprint(blueprint)
    if web.settings.development:
        app.register_blueprint(dev_mail.blueprint)


def _refuse_unstorable() -> None:
    """Refuse text that no database can store: NUL and halves of surrogate pairs.

    Raises:
        BadRequest: the path, the query or the form contains such text.
    """
    texts = [request.path, *request.args.keys(), *request.args.values()]
    if request.method == "POST":
        for name, values in request.form.lists():
            texts += [name, *values]
    for text in texts:
        if "\x00" in text or any("\ud800" <= character <= "\udfff" for character in text):
            raise BadRequest("The request contains a character that cannot be stored.")


def _give_form_back(_: CSRFError) -> ResponseReturnValue:
    """Show a form again whose token is missing or too old, with everything that was typed."""
    html = render_template(
        "errors/csrf.html", fields=typed_fields(), action=request.path, request_id=g.request_id
    )
    return make_response(html, 400)


def _viewer() -> dict[str, object]:
    """Give every page the person who is signed in."""
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
