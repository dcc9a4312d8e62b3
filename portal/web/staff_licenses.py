"""Staff: licenses and instances, and the auditor's view of one license."""

from flask import Blueprint, render_template, request
from flask.typing import ResponseReturnValue

from portal.db.accounts import Account
from portal.db.deployments import Deployment
from portal.db.entitlements import Entitlement
from portal.db.requests import Request
from portal.domain import roles
from portal.services import accounts, audit, instances, licenses
from portal.web.access import for_staff
from portal.web.portal import portal, request_actor
from portal.web.words import act_name

blueprint = Blueprint("staff_licenses", __name__, url_prefix="/staff")


@blueprint.get("/licenses")
@for_staff(roles.STAFF_READ)
def overview() -> ResponseReturnValue:
    """Search licenses."""
    words = request.args.get("q", "")[:200]
    with portal().transactions.reading(request_actor()) as context:
        rows = [
            (row, licenses.standing(context, row), context.session.get_one(Account, row.account_id))
            for row in licenses.search_licenses(context, words)
        ]
    return render_template("staff/licenses.html", rows=rows, words=words)


@blueprint.get("/licenses/<license_id>")
@for_staff(roles.STAFF_READ)
def show(license_id: str) -> ResponseReturnValue:
    """Show request, approver, entitlement, payload hash, key, downloads and instances."""
    with portal().transactions.reading(request_actor()) as context:
        row = licenses.find_license(context, license_id)
        entitlement = context.session.get_one(Entitlement, row.entitlement_id)
        asked = (
            None
            if entitlement.request_id is None
            else context.session.get_one(Request, entitlement.request_id)
        )
        trail = audit.trail_of(context, row.id, entitlement.id, *([asked.id] if asked else []))
        names = accounts.staff_names_of(context, {each.actor_id for each in trail if each.actor_id})
        known = {
            "row": row,
            "now": licenses.standing(context, row),
            "account": context.session.get_one(Account, row.account_id),
            "deployment": context.session.get_one(Deployment, row.deployment_id),
            "entitlement": entitlement,
            "asked": asked,
            "instances": instances.instances_of(context, row.deployment_id),
        }
    entries = [
        {
            "title": act_name(each.action),
            "at": each.at,
            "by": names.get(each.actor_id or "", each.actor_kind),
            "text": each.reason,
        }
        for each in trail
    ]
    return render_template("staff/license.html", entries=entries, **known)


@blueprint.get("/instances")
@for_staff(roles.STAFF_READ)
def all_instances() -> ResponseReturnValue:
    """Search instances."""
    words = request.args.get("q", "")[:200]
    with portal().transactions.reading(request_actor()) as context:
        rows = [
            (
                row,
                instances.instance_health(context, row),
                context.session.get_one(Deployment, row.deployment_id),
            )
            for row in instances.search_instances(context, words)
        ]
    return render_template("staff/instances.html", rows=rows, words=words)
