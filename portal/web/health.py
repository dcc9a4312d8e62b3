"""Probes: `/healthz` touches nothing, `/readyz` checks what serving needs."""

from flask import Blueprint, Response, jsonify

from portal.services.health import check_clock, check_schema, check_signer
from portal.web.access import public
from portal.web.portal import portal, request_actor

blueprint = Blueprint("health", __name__)


@blueprint.get("/healthz")
@public
def alive() -> Response:
    """Answer, to show that the process runs."""
    return Response("ok\n", content_type="text/plain; charset=utf-8")


@blueprint.get("/readyz")
@public
def ready() -> tuple[Response, int]:
    """Say whether database, schema, lease key and clock are fit for serving."""
    app = portal()
    schema = check_schema(app.transactions.database).well
    checks = {"schema": schema}
    if schema:
        with app.transactions.reading(request_actor()) as context:
            checks["clock"] = check_clock(context).well
            if "machine" in app.settings.surfaces:
                checks["lease_key"] = check_signer(context, "lease").well
    well = all(checks.values())
    return jsonify(status="ready" if well else "not ready", checks=checks), 200 if well else 503
