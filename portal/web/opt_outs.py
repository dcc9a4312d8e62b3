"""Declining reminders by the link in each: a page that asks, and a form that acts.

Opening the link changes nothing: mail programs open links by themselves.
"""

from flask import Blueprint, render_template
from flask.typing import ResponseReturnValue

from portal.services import opt_outs
from portal.web.access import public
from portal.web.limits import HOUR_S, limit_address
from portal.web.portal import portal, request_actor

blueprint = Blueprint("opt_outs", __name__, url_prefix="/unsubscribe")


@blueprint.get("/<token>")
@public
def ask(token: str) -> ResponseReturnValue:
    """Say whose reminders the link is about, and offer to switch them."""
    limit_address("unsubscribe", 60, HOUR_S)
    with portal().transactions.reading(request_actor()) as context:
        found = opt_outs.opt_out_of(context, token)
    return render_template("public/unsubscribe.html", found=found, token=token, done=False)


@blueprint.post("/<token>")
@public
def stop(token: str) -> ResponseReturnValue:
    """Stop an account's reminders to the person the link was made for."""
    return _switch(token, off=True)


@blueprint.post("/<token>/resume")
@public
def resume(token: str) -> ResponseReturnValue:
    """Send them again from now on."""
    return _switch(token, off=False)


def _switch(token: str, *, off: bool) -> ResponseReturnValue:
    limit_address("unsubscribe", 60, HOUR_S)
    with portal().transactions.writing(request_actor()) as context:
        found = opt_outs.switch_reminders(context, token, off=off)
    return render_template("public/unsubscribe.html", found=found, token=token, done=True)
