"""Staff: the keys, how far the keyset has spread, and the key changes that wait."""

from flask import Blueprint, flash, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from wtforms import TextAreaField
from wtforms.validators import Length

from portal.domain import roles
from portal.domain.requests import MAX_TEXT
from portal.services.acts import machinery
from portal.services.acts.keys import WaitingChange, waiting_change, waiting_changes
from portal.services.key_overview import keys_page
from portal.web.access import for_staff
from portal.web.forms import PortalForm
from portal.web.portal import portal, request_actor, signed_in
from portal.web.words import KEY_CHANGE_NAMES, KEY_ROLE_NAMES, NEXT_STEPS

blueprint = Blueprint("staff_keys", __name__, url_prefix="/staff/keys")


class DecideForm(PortalForm):
    """The second person's word on a key change."""

    note = TextAreaField("Why not? Needed to decline.", [Length(max=MAX_TEXT)])


@blueprint.get("")
@for_staff(roles.STAFF_READ)
def overview() -> ResponseReturnValue:
    """Show each key with its state and use, and how far the keyset has spread."""
    with portal().transactions.reading(request_actor()) as context:
        page, waiting = keys_page(context), waiting_changes(context)
    return render_template(
        "staff/keys.html",
        page=page,
        waiting=waiting,
        next_steps=NEXT_STEPS,
        role_names=KEY_ROLE_NAMES,
        change_names=KEY_CHANGE_NAMES,
    )


@blueprint.get("/changes/<act_id>")
@for_staff(roles.STAFF_READ)
def show(act_id: str) -> ResponseReturnValue:
    """Show what a key change does, to decide on it where one may."""
    with portal().transactions.reading(request_actor()) as context:
        change = waiting_change(context, act_id)
    return _page(change, DecideForm())


@blueprint.post("/changes/<act_id>/approve")
@for_staff(roles.KEYS_MANAGE, fresh=True)
def approve(act_id: str) -> ResponseReturnValue:
    """Approve a key change as its second person; the operator runs it then."""
    by, seen = signed_in().person_id, request.form.get("seen", "")
    with portal().transactions.writing(request_actor()) as context:
        waiting_change(context, act_id)
        act = machinery.approve(context, act_id, by=by, seen=seen)
    machinery.require_fresh(act)
    flash(f"Approved. Now the operator runs: portal keys run {act_id}", "good")
    return redirect(url_for("staff_keys.overview"))


@blueprint.post("/changes/<act_id>/decline")
@for_staff(roles.KEYS_MANAGE, fresh=True)
def decline(act_id: str) -> ResponseReturnValue:
    """Decline a key change, or take one's own back."""
    form = DecideForm()
    with portal().transactions.reading(request_actor()) as context:
        change = waiting_change(context, act_id)
    if not form.validate_on_submit() or not (form.note.data or "").strip():
        form.note.errors = [*form.note.errors, "Say why the change is declined."]
        return _page(change, form), 400
    with portal().transactions.writing(request_actor()) as context:
        machinery.decline(context, act_id, by=signed_in().person_id, reason=form.note.data)
    flash("Declined. Nothing was changed.", "good")
    return redirect(url_for("staff_keys.overview"))


def _page(change: WaitingChange, form: DecideForm) -> str:
    return render_template(
        "staff/key-change.html",
        change=change,
        form=form,
        may_decide=roles.KEYS_MANAGE in signed_in().permissions,
        is_mine=change.submitted_by == signed_in().person_id,
        change_names=KEY_CHANGE_NAMES,
    )
