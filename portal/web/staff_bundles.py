"""Staff: revocation bundles, what the next one changes, and publishing it now."""

from flask import Blueprint, flash, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue

from portal.domain import roles
from portal.services.bundle_page import ask_for_bundle, bundles_page
from portal.web.access import for_staff
from portal.web.portal import portal, request_actor

blueprint = Blueprint("staff_bundles", __name__, url_prefix="/staff/bundles")


@blueprint.get("")
@for_staff(roles.STAFF_READ)
def overview() -> ResponseReturnValue:
    """Show the current bundle, or a kept one by its number, and what the next one changes."""
    version = request.args.get("version", type=int)
    with portal().transactions.reading(request_actor()) as context:
        page = bundles_page(context, version)
    return render_template("staff/bundles.html", page=page)


@blueprint.post("/publish")
@for_staff(roles.KEYS_MANAGE, fresh=True)
def publish() -> ResponseReturnValue:
    """Have the worker publish a bundle now."""
    with portal().transactions.writing(request_actor()) as context:
        ask_for_bundle(context)
    flash("The worker publishes the next bundle within seconds.", "good")
    return redirect(url_for("staff_bundles.overview"))
