"""A customer's deployments: their licenses, instances and enrollment codes."""

from flask import Blueprint, flash, redirect, render_template, url_for
from flask.typing import ResponseReturnValue
from wtforms import IntegerField, StringField
from wtforms.validators import InputRequired, Length

from portal.domain import roles
from portal.domain.errors import PortalError
from portal.services import deployments, enrollments
from portal.web.access import for_members
from portal.web.forms import Between, PortalForm
from portal.web.limits import HOUR_S, limit
from portal.web.portal import account_id, portal, request_actor, signed_in

blueprint = Blueprint("deployments", __name__, url_prefix="/account")


class DeploymentForm(PortalForm):
    """The form for a new deployment."""

    name = StringField("Name", [InputRequired("Enter a name."), Length(max=100)])


class CodeForm(PortalForm):
    """The form for a new enrollment code."""

    uses = IntegerField(
        "For how many routers?",
        [
            InputRequired("Enter a number from 1 to 100."),
            Between(1, 100, "Enter a number from 1 to 100."),
        ],
        default=1,
    )


@blueprint.get("/deployments")
@for_members(roles.ACCOUNT_READ)
def overview() -> ResponseReturnValue:
    """List the deployments, each with its newest license."""
    with portal().transactions.reading(request_actor()) as context:
        rows = deployments.deployment_list(context, account_id())
    return render_template("account/deployments.html", rows=rows)


@blueprint.route("/deployments/new", methods=["GET", "POST"])
@for_members(roles.DEPLOYMENTS_MANAGE)
def new() -> ResponseReturnValue:
    """Create a deployment."""
    form = DeploymentForm.bound()
    if form.validate_on_submit():
        limit("deployment", account_id(), 60, HOUR_S)
        try:
            with portal().transactions.writing(request_actor()) as context:
                made = deployments.create_deployment(
                    context, account_id=account_id(), name=form.name.data
                )
            return redirect(url_for("deployments.show", deployment_id=made.id))
        except PortalError as error:
            form.show(error)
    return render_template("account/deployment-new.html", form=form), 400 if form.errors else 200


@blueprint.get("/deployments/<deployment_id>")
@for_members(roles.ACCOUNT_READ)
def show(deployment_id: str) -> ResponseReturnValue:
    """Show a deployment with its licenses, instances and codes."""
    return page(deployment_id, CodeForm.bound())


def page(deployment_id: str, form: CodeForm, status: int = 200) -> ResponseReturnValue:
    """Render a deployment's page."""
    with portal().transactions.reading(request_actor()) as context:
        facts = deployments.deployment_page(context, account_id(), deployment_id)
    return render_template("account/deployment.html", page=facts, form=form), status


@blueprint.post("/deployments/<deployment_id>/enrollment-codes")
@for_members(roles.INSTANCES_MANAGE)
def new_code(deployment_id: str) -> ResponseReturnValue:
    """Create an enrollment code and show it, this once."""
    form = CodeForm()
    if not form.validate_on_submit():
        return page(deployment_id, form, 400)
    limit("enrollment-code", account_id(), 60, HOUR_S)
    with portal().transactions.writing(request_actor()) as context:
        row = deployments.account_deployment(context, account_id(), deployment_id)
        code, made = enrollments.create_enrollment_code(
            context,
            deployment_id=row.id,
            uses=form.uses.data,
            created_by=signed_in().person_id,
        )
    return render_template("account/enrollment-code.html", row=row, code=code, made=made)


@blueprint.post("/enrollment-codes/<code_id>/revoke")
@for_members(roles.INSTANCES_MANAGE)
def revoke_code(code_id: str) -> ResponseReturnValue:
    """Revoke an enrollment code."""
    with portal().transactions.writing(request_actor()) as context:
        row = enrollments.revoke_enrollment_code(context, account_id=account_id(), code_id=code_id)
    flash("The enrollment code is revoked.", "good")
    return redirect(url_for("deployments.show", deployment_id=row.deployment_id))
