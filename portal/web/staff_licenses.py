"""Staff: licenses and instances, and the auditor's view of one license."""

from flask import Blueprint, render_template, request
from flask.typing import ResponseReturnValue

from portal.domain import roles
from portal.services import instances, licenses, overviews
from portal.services.license_desk import license_desk
from portal.web.access import for_staff
from portal.web.portal import portal, request_actor
from portal.web.words import HOLD_CAUSES, LICENSE_ACTS, act_name

blueprint = Blueprint("staff_licenses", __name__, url_prefix="/staff")


@blueprint.get("/licenses")
@for_staff(roles.STAFF_READ)
def overview() -> ResponseReturnValue:
    """Search licenses."""
    words = request.args.get("q", "")[:200]
    with portal().transactions.reading(request_actor()) as context:
        rows = licenses.search_licenses(context, words)
    return render_template("staff/licenses.html", rows=rows, words=words)


@blueprint.get("/licenses/<license_id>")
@for_staff(roles.STAFF_READ)
def show(license_id: str) -> ResponseReturnValue:
    """Show what a license is, the line it belongs to, and every act that is possible now."""
    with portal().transactions.reading(request_actor()) as context:
        desk = license_desk(context, license_id)
    return render_template("staff/license.html", desk=desk, acts=LICENSE_ACTS, causes=HOLD_CAUSES)


@blueprint.get("/licenses/<license_id>/audit")
@for_staff(roles.STAFF_READ)
def audit(license_id: str) -> ResponseReturnValue:
    """Show request, approver, entitlement, payload hash, key, downloads and instances."""
    with portal().transactions.reading(request_actor()) as context:
        page = overviews.license_history(context, license_id)
    entries = [
        {
            "title": act_name(each.action),
            "at": each.at,
            "by": page.actor_name(each),
            "text": each.reason,
        }
        for each in page.trail
    ]
    return render_template("staff/license-audit.html", page=page, entries=entries)


@blueprint.get("/instances")
@for_staff(roles.STAFF_READ)
def all_instances() -> ResponseReturnValue:
    """Search instances."""
    words = request.args.get("q", "")[:200]
    with portal().transactions.reading(request_actor()) as context:
        rows = instances.search_instances(context, words)
    return render_template("staff/instances.html", rows=rows, words=words)
