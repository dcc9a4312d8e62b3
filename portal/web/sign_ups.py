"""Sign-up, confirmation of an address, and passwords by mail."""

from flask import Blueprint, flash, redirect, render_template, request, session, url_for
from flask.typing import ResponseReturnValue
from wtforms import BooleanField, EmailField, HiddenField, PasswordField, StringField
from wtforms.validators import InputRequired, Length

from portal.domain.email_addresses import parse_email
from portal.domain.errors import Invalid
from portal.services import sign_ups
from portal.services.passwords import check_new_password
from portal.web.access import public
from portal.web.forms import PortalForm
from portal.web.limits import HOUR_S, QUARTER_HOUR_S, limit, limit_address, limit_everybody
from portal.web.portal import portal, request_actor

blueprint = Blueprint("sign_ups", __name__)


class SignUpForm(PortalForm):
    """The form of the sign-up."""

    email = EmailField(
        "Work e-mail address", [InputRequired("Enter your e-mail address."), Length(max=254)]
    )
    name = StringField("Your name", [InputRequired("Enter your name."), Length(max=100)])
    company = StringField("Company", [InputRequired("Enter your company's name."), Length(max=100)])
    password = PasswordField("Password", [InputRequired("Choose a password."), Length(max=200)])
    terms = BooleanField(
        "I accept the terms of use", [InputRequired("Accept the terms of use to continue.")]
    )


class ConfirmCodeForm(PortalForm):
    """The form for the code from the mail."""

    code = StringField("Code", [InputRequired("Enter the code from the mail."), Length(max=20)])


class ConfirmLinkForm(PortalForm):
    """The form for the link's token, sent by a button: a scanner that opens it confirms nothing."""

    token = HiddenField(validators=[InputRequired("The link is incomplete."), Length(max=100)])


class AddressForm(PortalForm):
    """The form for the address to send a link to."""

    email = EmailField(
        "E-mail address", [InputRequired("Enter your e-mail address."), Length(max=254)]
    )


class NewPasswordForm(PortalForm):
    """The form for a new password."""

    password = PasswordField("New password", [InputRequired("Choose a password."), Length(max=200)])


@blueprint.route("/sign-up", methods=["GET", "POST"])
@public
def sign_up() -> ResponseReturnValue:
    """Sign a person up; the answer is the same for known and unknown addresses."""
    form = SignUpForm()
    if form.validate_on_submit():
        limit_everybody("sign-up", 300, QUARTER_HOUR_S)
        limit_address("sign-up", 20, HOUR_S)
        limit("sign-up", form.email.data, 5, HOUR_S)
        try:
            take_sign_up(form)
        except Invalid as error:
            form.show(error)
        else:
            session["confirming"] = form.email.data
            return redirect(url_for("sign_ups.confirm_email"))
    return render_template("public/sign-up.html", form=form), 400 if form.errors else 200


def take_sign_up(form: SignUpForm) -> None:
    """Check the password, hash it outside the transaction, and store the sign-up.

    Raises:
        Invalid: a value cannot be accepted.
    """
    address = parse_email(form.email.data)
    check_new_password(form.password.data, address.text, form.name.data, form.company.data)
    transactions = portal().transactions
    password_hash = transactions.ports.passwords.hash(form.password.data)
    with transactions.writing(request_actor()) as context:
        sign_ups.sign_up(
            context,
            email=address.text,
            name=form.name.data,
            company=form.company.data,
            password_hash=password_hash,
        )


@blueprint.get("/confirm-email")
@public
def confirm_email() -> ResponseReturnValue:
    """Show the button for a mailed link, or ask for the code."""
    token = request.args.get("token")
    if token:
        return render_template(
            "public/confirm-link.html", form=ConfirmLinkForm(data={"token": token})
        )
    return render_template(
        "public/confirm-email.html", form=ConfirmCodeForm(), email=session.get("confirming")
    )


@blueprint.post("/confirm-email/link")
@public
def confirm_link() -> ResponseReturnValue:
    """Confirm by the mailed link's token."""
    form = ConfirmLinkForm()
    if form.validate_on_submit():
        limit_address("confirm-link", 60, HOUR_S)
        with portal().transactions.writing(request_actor()) as context:
            confirmed = sign_ups.confirm_by_token(context, form.token.data)
        if confirmed:
            return confirmed_answer()
    flash("This link has been used or has expired. Sign in to get a new one.", "bad")
    return redirect(url_for("sign_ins.sign_in"))


@blueprint.post("/confirm-email")
@public
def confirm_code() -> ResponseReturnValue:
    """Confirm by the mailed code."""
    form = ConfirmCodeForm()
    email = session.get("confirming") or ""
    if form.validate_on_submit():
        limit("confirm-code", email, 10, HOUR_S)
        with portal().transactions.writing(request_actor()) as context:
            confirmed = sign_ups.confirm_by_code(context, email, form.code.data)
        if confirmed:
            return confirmed_answer()
        form.code.errors = [*form.code.errors, "The code is wrong or has expired."]
    return render_template("public/confirm-email.html", form=form, email=email), 400


def confirmed_answer() -> ResponseReturnValue:
    """Redirect a confirmed person to the sign-in page."""
    session.pop("confirming", None)
    flash("Your address is confirmed. Sign in to continue.", "good")
    return redirect(url_for("sign_ins.sign_in"))


@blueprint.post("/confirm-email/again")
@public
def confirm_again() -> ResponseReturnValue:
    """Send the confirmation once more."""
    email = session.get("confirming")
    if email:
        limit("confirm", email, 5, HOUR_S)
        with portal().transactions.writing(request_actor()) as context:
            sign_ups.send_confirmation_again(context, email)
        flash("If the address still has to be confirmed, a new mail is on its way.", "info")
    return redirect(url_for("sign_ups.confirm_email"))


@blueprint.route("/forgot-password", methods=["GET", "POST"])
@public
def forgot_password() -> ResponseReturnValue:
    """Mail a link to set a new password; the answer is the same for known and unknown addresses."""
    form = AddressForm()
    if form.validate_on_submit():
        limit_everybody("forgot", 300, QUARTER_HOUR_S)
        limit_address("forgot", 20, HOUR_S)
        limit("forgot", form.email.data, 5, HOUR_S)
        with portal().transactions.writing(request_actor()) as context:
            sign_ups.request_reset(context, form.email.data)
        return render_template("public/reset-sent.html", email=form.email.data)
    return render_template("public/forgot-password.html", form=form), 400 if form.errors else 200


@blueprint.route("/reset-password/<token>", methods=["GET", "POST"])
@public
def reset_password(token: str) -> ResponseReturnValue:
    """Set a password by a mailed link; signing in still needs the second factor."""
    limit_address("reset", 60, HOUR_S)
    transactions = portal().transactions
    with transactions.reading(request_actor()) as context:
        email = sign_ups.email_of_reset(context, token)
    if email is None:
        return render_template("public/reset-over.html"), 404
    form = NewPasswordForm()
    if form.validate_on_submit():
        try:
            check_new_password(form.password.data, email)
        except Invalid as error:
            form.show(error)
        else:
            new_hash = transactions.ports.passwords.hash(form.password.data)
            with transactions.writing(request_actor()) as context:
                sign_ups.set_password_by_token(context, token, new_hash)
            flash("Your new password is set. Sign in with it.", "good")
            return redirect(url_for("sign_ins.sign_in"))
    page = render_template("public/reset-password.html", form=form, email=email)
    return page, 400 if form.errors else 200
