"""Staff: is the portal well, which keys are published, and the audit trail."""

from flask import Blueprint, render_template, request
from flask.typing import ResponseReturnValue

from portal.domain import roles
from portal.services import accounts, audit, health, keys
from portal.web.access import for_staff
from portal.web.portal import portal, request_actor
from portal.web.words import act_name

blueprint = Blueprint("staff_health", __name__, url_prefix="/staff")


@blueprint.get("/health")
@for_staff(roles.STAFF_READ)
def overview() -> ResponseReturnValue:
    """Show what is well and what is not, with how to mend it."""
    with portal().transactions.reading(request_actor()) as context:
        found = health.findings(context, ("lease",))
    return render_template("staff/health.html", found=found)


@blueprint.get("/keys")
@for_staff(roles.STAFF_READ)
def published_keys() -> ResponseReturnValue:
    """Show the keys as the current keyset publishes them."""
    with portal().transactions.reading(request_actor()) as context:
        rows = keys.list_keys(context)
        version = keys.published_keyset(context).version
        now = keys.unix(context.at)
    return render_template("staff/keys.html", rows=rows, version=version, now=now)


@blueprint.get("/audit")
@for_staff(roles.STAFF_READ)
def trail() -> ResponseReturnValue:
    """Show who did what, when, why and from where."""
    words = request.args.get("q", "")[:200].strip()
    before = request.args.get("before", type=int)
    with portal().transactions.reading(request_actor()) as context:
        rows = audit.search_trail(context, words, before=before)
        names = accounts.staff_names_of(context, {row.actor_id for row in rows if row.actor_id})
    return render_template(
        "staff/audit.html", rows=rows, names=names, words=words, act_name=act_name
    )
