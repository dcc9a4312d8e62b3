"""Staff: is the portal well, which keys are published, and the audit trail."""

from flask import Blueprint, render_template, request
from flask.typing import ResponseReturnValue

from portal.domain import roles
from portal.services import audit, health
from portal.services.key_overview import keys_page
from portal.web.access import for_staff
from portal.web.portal import portal, request_actor
from portal.web.words import KEY_ROLE_NAMES, NEXT_STEPS, act_name

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
    """Show each key with its state and use, and how far the keyset has spread."""
    with portal().transactions.reading(request_actor()) as context:
        page = keys_page(context)
    return render_template(
        "staff/keys.html", page=page, next_steps=NEXT_STEPS, role_names=KEY_ROLE_NAMES
    )


@blueprint.get("/audit")
@for_staff(roles.STAFF_READ)
def trail() -> ResponseReturnValue:
    """Show who did what, when, why and from where."""
    words = request.args.get("q", "")[:200].strip()
    before = request.args.get("before", type=int)
    with portal().transactions.reading(request_actor()) as context:
        page = audit.search_trail(context, words, before=before)
    return render_template("staff/audit.html", page=page, words=words, act_name=act_name)
