"""An enrolled router's page."""

from flask import Blueprint, flash, redirect, render_template, url_for
from flask.typing import ResponseReturnValue
from wtforms import StringField
from wtforms.validators import InputRequired, Length

from portal.domain import roles
from portal.services import instances
from portal.web.access import for_members
from portal.web.forms import PortalForm
from portal.web.portal import account_id, portal, request_actor

blueprint = Blueprint("instances", __name__, url_prefix="/account/instances")


class RetireForm(PortalForm):
    """The form that asks why an instance is retired."""

    reason = StringField("Why?", [InputRequired("Say why, for your own records."), Length(max=200)])


def page(instance_id: str, form: RetireForm, status: int = 200) -> ResponseReturnValue:
    """Render an instance's page."""
    with portal().transactions.reading(request_actor()) as context:
        facts = instances.instance_page(context, account_id(), instance_id)
    return render_template("account/instance.html", page=facts, form=form), status


@blueprint.get("/<instance_id>")
@for_members(roles.ACCOUNT_READ)
def show(instance_id: str) -> ResponseReturnValue:
    """Show an instance's state: last seen, next renewal, what is wrong."""
    return page(instance_id, RetireForm.bound())


@blueprint.post("/<instance_id>/retire")
@for_members(roles.INSTANCES_MANAGE)
def retire(instance_id: str) -> ResponseReturnValue:
    """Retire an instance whose router is gone."""
    form = RetireForm()
    if not form.validate_on_submit():
        return page(instance_id, form, 400)
    with portal().transactions.writing(request_actor()) as context:
        row = instances.account_instance(context, account_id(), instance_id)
        instances.retire_instance(context, row.id, reason=form.reason.data)
    flash("The router is retired and gets no more leases.", "good")
    return redirect(url_for("instances.show", instance_id=instance_id))
