"""The application for programs: `/v1`, the lease protocol and the documents that routers fetch.

Invariants: there is no session and no cookie; what counts is what a program signed. Every refusal
is a problem document, whatever refused. Nothing is answered in clear from another machine.
"""

from flask import Flask, Response

from portal.web import documents, errors, leases
from portal.web.access import check_access
from portal.web.application import in_clear, new_application
from portal.web.portal import WebPortal
from portal.web.problems import HTTPS_REQUIRED, PROBLEMS, problem


def create_machine_app(web: WebPortal) -> Flask:
    """Make the application; where the surface is switched off, nothing is at any path."""
    # Of what went well between programs, the lease row is the record.
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
        return problem(HTTPS_REQUIRED, "The lease protocol is not served over plain http.")
    return None
