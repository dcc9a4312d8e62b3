"""Staff: acts on a license, each with its reason and its preview, and those of two people.

Whoever confirms sends the fingerprint of the preview that they saw. When it no longer holds, the
answer is 409 with the new preview, and nothing was done.
"""

from datetime import datetime

from flask import Blueprint, flash, make_response, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from wtforms import TextAreaField
from wtforms.validators import InputRequired, Length

from portal.domain import roles
from portal.domain.acts import ActState
from portal.domain.errors import Forbidden, NotFound, PortalError
from portal.domain.requests import MAX_TEXT
from portal.services.act_pages import act_page, acts_list
from portal.services.acts import machinery
from portal.services.license_desk import license_desk
from portal.web.access import for_staff
from portal.web.act_forms import FIELDS, FORMS, ActForm
from portal.web.forms import PortalForm
from portal.web.portal import portal, request_actor, signed_in
from portal.web.words import LICENSE_ACTS

blueprint = Blueprint("staff_acts", __name__, url_prefix="/staff")


class DeclineForm(PortalForm):
    """Why an act is not done."""

    reason = TextAreaField(
        "Why not?", [InputRequired("Say why; its first person reads it."), Length(max=MAX_TEXT)]
    )


@blueprint.route("/licenses/<license_id>/acts/<act>", methods=["GET", "POST"])
@for_staff(roles.ENTITLEMENTS_APPROVE, fresh=True)
def on_license(license_id: str, act: str) -> ResponseReturnValue:
    """Ask for what an act needs, show what it would do, and do it when that is confirmed."""
    kind = _kind(act)
    with portal().transactions.reading(request_actor()) as context:
        desk = license_desk(context, license_id)
    form = FORMS[act].at(desk)
    step = request.form.get("step", "preview")
    if not form.validate_on_submit() or step == "edit":
        return _form_page(form, kind, 400 if form.errors else 200)
    try:
        if step == "confirm":
            return _confirm(form, kind)
        with portal().transactions.writing(request_actor()) as context:
            found = machinery.preview(context, kind, _ask(form))
    except machinery.Stale as error:
        return _preview_page(form, kind, error.preview, 409)
    except (NotFound, Forbidden):
        raise
    except PortalError as error:
        form.show(error, FIELDS)
        return _form_page(form, kind, 400)
    return _preview_page(form, kind, found.to_json(), 200)


def _kind(name: str) -> machinery.Kind:
    """Return a kind of act that this person may do.

    Raises:
        NotFound: there is no such act on a license.
        Forbidden: their roles do not carry its permission.
    """
    if name not in FORMS:
        raise NotFound("There is no such act on a license.")
    kind = machinery.kind_of(name)
    _require(kind)
    return kind


def _require(kind: machinery.Kind) -> None:
    if kind.permission not in signed_in().permissions:
        raise Forbidden("Your role does not permit this act.")


def _ask(form: ActForm) -> machinery.Ask:
    return machinery.Ask(
        subject_id=form.subject(),
        params=form.params(),
        reason=form.reason.data,
        by=signed_in().person_id,
    )


def _confirm(form: ActForm, kind: machinery.Kind) -> ResponseReturnValue:
    seen = request.form.get("seen", "")
    with portal().transactions.writing(request_actor()) as context:
        act = machinery.submit(context, kind, _ask(form), seen=seen)
        act_id, state = act.id, act.state
    name = LICENSE_ACTS[kind.name][0]
    if state is ActState.PENDING:
        flash(f"{name} waits for a second person.", "info")
        return redirect(url_for("staff_acts.show", line_act_id=act_id))
    flash(f"{name}: done. The worker signs and publishes what follows from it.", "good")
    return redirect(url_for("staff_licenses.show", license_id=form.desk.license.id))


def _form_page(form: ActForm, kind: machinery.Kind, status: int) -> ResponseReturnValue:
    html = render_template(
        "staff/act-form.html", form=form, desk=form.desk, act=kind.name, acts=LICENSE_ACTS
    )
    return make_response(html, status)


def _preview_page(
    form: ActForm,
    kind: machinery.Kind,
    shown: dict[str, object],
    status: int,
) -> ResponseReturnValue:
    html = render_template(
        "staff/act-preview.html",
        form=form,
        desk=form.desk,
        act=kind.name,
        acts=LICENSE_ACTS,
        shown=shown,
        is_stale=status == 409,
        moment=datetime.fromisoformat,
    )
    return make_response(html, status)


@blueprint.get("/acts")
@for_staff(roles.STAFF_READ)
def overview() -> ResponseReturnValue:
    """List the acts that wait for somebody, and those that are decided."""
    with portal().transactions.reading(request_actor()) as context:
        waiting = acts_list(context, waiting=True)
        decided = acts_list(context, waiting=False)
    return render_template("staff/acts.html", waiting=waiting, decided=decided, acts=LICENSE_ACTS)


@blueprint.get("/acts/<line_act_id>")
@for_staff(roles.STAFF_READ)
def show(line_act_id: str) -> ResponseReturnValue:
    """Show an act, what its first person saw, and what it would do now."""
    return _act_page(line_act_id, DeclineForm(formdata=None), 200)


def _act_page(line_act_id: str, form: DeclineForm, status: int) -> ResponseReturnValue:
    with portal().transactions.writing(request_actor()) as context:
        page = act_page(context, line_act_id)
    html = render_template(
        "staff/act.html",
        page=page,
        form=form,
        acts=LICENSE_ACTS,
        is_first=page.row.act.submitted_by == signed_in().person_id,
        is_stale=status == 409,
        moment=datetime.fromisoformat,
    )
    return make_response(html, status)


@blueprint.post("/acts/<line_act_id>/approve")
@for_staff(roles.ENTITLEMENTS_APPROVE, fresh=True)
def approve(line_act_id: str) -> ResponseReturnValue:
    """Approve an act as its second person, and do it."""
    seen, person_id = request.form.get("seen", ""), signed_in().person_id
    try:
        with portal().transactions.writing(request_actor()) as context:
            _require(machinery.kind_of(machinery.find_act(context, line_act_id).kind))
            act = machinery.approve(context, line_act_id, by=person_id, seen=seen)
        machinery.require_fresh(act)
    except machinery.Stale:
        return _act_page(line_act_id, DeclineForm(formdata=None), 409)
    flash("Approved and done. The worker signs and publishes what follows from it.", "good")
    return redirect(url_for("staff_acts.show", line_act_id=line_act_id))


@blueprint.post("/acts/<line_act_id>/confirm")
@for_staff(roles.ENTITLEMENTS_APPROVE, fresh=True)
def confirm(line_act_id: str) -> ResponseReturnValue:
    """Submit an act anew that was returned, by its first person, who saw the new preview."""
    seen, person_id = request.form.get("seen", ""), signed_in().person_id
    try:
        with portal().transactions.writing(request_actor()) as context:
            _require(machinery.kind_of(machinery.find_act(context, line_act_id).kind))
            machinery.confirm(context, line_act_id, by=person_id, seen=seen)
    except machinery.Stale:
        return _act_page(line_act_id, DeclineForm(formdata=None), 409)
    flash("Submitted anew. It waits for a second person.", "info")
    return redirect(url_for("staff_acts.show", line_act_id=line_act_id))


@blueprint.post("/acts/<line_act_id>/decline")
@for_staff(roles.ENTITLEMENTS_APPROVE, fresh=True)
def decline(line_act_id: str) -> ResponseReturnValue:
    """Decline an act, or take one's own back."""
    form = DeclineForm()
    if not form.validate_on_submit():
        return _act_page(line_act_id, form, 400)
    with portal().transactions.writing(request_actor()) as context:
        _require(machinery.kind_of(machinery.find_act(context, line_act_id).kind))
        machinery.decline(context, line_act_id, by=signed_in().person_id, reason=form.reason.data)
    flash("Declined. Nothing was changed.", "good")
    return redirect(url_for("staff_acts.show", line_act_id=line_act_id))
