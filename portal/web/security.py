"""A person's own security: password, second factor, open sessions."""

from flask import Blueprint, flash, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from wtforms import PasswordField
from wtforms.validators import InputRequired, Length

from portal.domain.errors import Invalid
from portal.services import overviews, second_factors, sign_ins, sign_ups
from portal.services.passwords import check_new_password
from portal.web.access import for_signed_in
from portal.web.forms import PortalForm
from portal.web.limits import QUARTER_HOUR_S, limit
from portal.web.portal import portal, request_actor, signed_in
from portal.web.sessions import start_session
from portal.web.sign_ins import check_password

blueprint = Blueprint("security", __name__, url_prefix="/account/security")


class ChangePasswordForm(PortalForm):
    """The form for the current password and a new one."""

    password = PasswordField(
        "Current password", [InputRequired("Enter your password."), Length(max=200)]
    )
    new_password = PasswordField(
        "New password", [InputRequired("Choose a password."), Length(max=200)]
    )


@blueprint.get("")
@for_signed_in()
def overview() -> ResponseReturnValue:
    """Show when the password changed, the second factor and the open sessions."""
    who = signed_in()
    with portal().transactions.reading(request_actor()) as context:
        facts = overviews.security_page(context, who.person_id)
    return render_template("account/security.html", page=facts, who=who)


@blueprint.route("/password", methods=["GET", "POST"])
@for_signed_in()
def password() -> ResponseReturnValue:
    """Change the password; every other sign-in ends."""
    who = signed_in()
    form = ChangePasswordForm()
    if form.validate_on_submit():
        limit("sign-in", who.email, 10, QUARTER_HOUR_S)
        known = check_password(who.email, form.password.data)
        if known is None:
            form.password.errors = [*form.password.errors, "The current password is wrong."]
        else:
            try:
                return set_password(known, form.new_password.data)
            except Invalid as error:
                form.show(error, {"password": "new_password"})
    return render_template("account/password.html", form=form), 400 if form.errors else 200


def set_password(known: sign_ins.Credentials, new_password: str) -> ResponseReturnValue:
    """Store a new password and begin a new session in this browser alone.

    Raises:
        Invalid: the password is too weak.
    """
    who = signed_in()
    check_new_password(new_password, who.email, who.name)
    transactions = portal().transactions
    new_hash = transactions.ports.passwords.hash(new_password)
    with transactions.writing(request_actor()) as context:
        sign_ups.change_password(context, who.person_id, known.password_hash, new_hash)
        token = sign_ins.begin(
            context,
            who.person_id,
            user_agent=request.user_agent.string,
            factor_passed=who.factor_is_set_up,
        )
    start_session(token)
    flash("Your password was changed. You are signed out everywhere else.", "good")
    return redirect(url_for("security.overview"))


@blueprint.post("/sign-ins/<public_id>/end")
@for_signed_in()
def end_sign_in(public_id: str) -> ResponseReturnValue:
    """End one of the person's own sign-ins."""
    with portal().transactions.writing(request_actor()) as context:
        sign_ins.end_one(context, signed_in().person_id, public_id)
    flash("That sign-in has ended.", "good")
    return redirect(url_for("security.overview"))


@blueprint.post("/recovery-codes")
@for_signed_in(fresh=True)
def recovery_codes() -> ResponseReturnValue:
    """Replace the recovery codes by new ones."""
    with portal().transactions.writing(request_actor()) as context:
        codes = second_factors.new_recovery_codes(context, signed_in().person_id)
    return render_template("public/recovery-codes.html", codes=codes, target="/account/security")


@blueprint.post("/second-factor/remove")
@for_signed_in(fresh=True)
def remove_factor() -> ResponseReturnValue:
    """Remove the second factor; staff must keep theirs."""
    with portal().transactions.writing(request_actor()) as context:
        second_factors.remove_factor(context, signed_in().person_id)
    flash("The second factor was removed.", "warn")
    return redirect(url_for("security.overview"))
