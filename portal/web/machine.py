"""The application for programs: `/v1`, the lease protocol and the documents that routers fetch.

Invariants: there is no session and no cookie; a program is known by its signature. Every refusal
is a problem document. A request from another machine over plain HTTP is refused.
"""

from flask import Flask, Response

from portal.web import documents, errors, leases
from portal.web.access import check_access
from portal.web.application import in_clear, new_application
from portal.web.portal import WebPortal
from portal.web.problems import HTTPS_REQUIRED, PROBLEMS, problem


def create_machine_app(web: WebPortal) -> Flask:
    """Create the application; if the surface is switched off, every path answers 404."""
    # The lease row already records what went well between programs.
    app = new_application(
        web, quiet=lambda response: response.status_code < 400, static_folder=None
    )
    app.before_request(_refuse_in_clear)
    app.before_request(check_access)
    if "machine" in web.settings.surfaces:
        app.register_blueprint(leases.blueprint)
        app.register_blueprint(documents.blueprint)
    errors.install(app, PROBLEMS)
    return app


def _refuse_in_clear() -> Response | None:
    if in_clear():
        return problem(HTTPS_REQUIRED, "The lease protocol is not served over plain HTTP.")
    return None
