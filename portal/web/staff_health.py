"""Staff: the portal's health, and the audit trail."""

from flask import Blueprint, render_template, request
from flask.typing import ResponseReturnValue

from portal.domain import roles
from portal.services import audit, health
from portal.web.access import for_staff
from portal.web.portal import portal, request_actor
from portal.web.words import act_name

blueprint = Blueprint("staff_health", __name__, url_prefix="/staff")


@blueprint.get("/health")
@for_staff(roles.STAFF_READ)
def overview() -> ResponseReturnValue:
    """Show what works and what does not, and how to mend it."""
    with portal().transactions.reading(request_actor()) as context:
        found = health.findings(context, ("lease",))
    return render_template("staff/health.html", found=found)


@blueprint.get("/audit")
@for_staff(roles.STAFF_READ)
def trail() -> ResponseReturnValue:
    """Show who did what, when, why and from where."""
    words = request.args.get("q", "")[:200].strip()
    before = request.args.get("before", type=int)
    with portal().transactions.reading(request_actor()) as context:
        page = audit.search_trail(context, words, before=before)
    return render_template("staff/audit.html", page=page, words=words, act_name=act_name)
