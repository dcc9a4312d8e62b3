"""Sign-in, sign-out, the second factor and re-authentication."""

import segno
from flask import Blueprint, flash, g, redirect, render_template, request, session, url_for
from flask.typing import ResponseReturnValue
from markupsafe import Markup
from wtforms import EmailField, HiddenField, PasswordField, StringField
from wtforms.validators import InputRequired, Length

from portal.domain.errors import PortalError
from portal.services import second_factors, sign_ins, sign_ups
from portal.web.access import for_signed_in, pending, public, safe_next
from portal.web.forms import PortalForm
from portal.web.limits import HOUR_S, QUARTER_HOUR_S, limit, limit_address, limit_everybody
from portal.web.portal import portal, request_actor, signed_in
from portal.web.sessions import end_session, start_session

blueprint = Blueprint("sign_ins", __name__)

WRONG = "The e-mail address or the password is wrong."


class SignInForm(PortalForm):
    """The form for address and password."""

    email = EmailField(
        "E-mail address", [InputRequired("Enter your e-mail address."), Length(max=254)]
    )
    password = PasswordField("Password", [InputRequired("Enter your password."), Length(max=200)])


class CodeForm(PortalForm):
    """The form for one code: from an authenticator app, or a recovery code."""

    code = StringField("Code", [InputRequired("Enter the code."), Length(max=40)])
    next = HiddenField()


class PasswordForm(PortalForm):
    """The form for the password once more."""

    password = PasswordField("Password", [InputRequired("Enter your password."), Length(max=200)])


def home() -> str:
    """Return the first page of the person signed in."""
    return "/staff" if signed_in().kind == "staff" else "/account"


@blueprint.route("/sign-in", methods=["GET", "POST"])
@public
def sign_in() -> ResponseReturnValue:
    """Check address and password."""
    form = SignInForm()
    if form.validate_on_submit():
        email, password = form.email.data, form.password.data
        limit_everybody("sign-in", 600, 60)
        limit_address("sign-in", 50, QUARTER_HOUR_S)
        limit("sign-in", email, 10, QUARTER_HOUR_S)
        known = check_password(email, password)
        if known is None:
            form.email.errors = [*form.email.errors, WRONG]
        elif not known.confirmed:
            return to_confirmation(email)
        else:
            return enter(known, password)
    return render_template("public/sign-in.html", form=form), 400 if form.errors else 200


def check_password(email: str, password: str) -> sign_ins.Credentials | None:
    """Check a password outside any transaction; an unknown address takes as long as a known one."""
    transactions = portal().transactions
    with transactions.reading(request_actor()) as context:
        known = sign_ins.credentials(context, email)
    if known is None:
        transactions.ports.passwords.verify_nothing(password)
        return None
    return known if transactions.ports.passwords.verify(known.password_hash, password) else None


def to_confirmation(email: str) -> ResponseReturnValue:
    """Mail a new confirmation to a person whose address is not confirmed."""
    limit("confirm", email, 5, HOUR_S)
    with portal().transactions.writing(request_actor()) as context:
        sign_ups.send_confirmation_again(context, email)
    session["confirming"] = email
    return redirect(url_for("sign_ups.confirm_email"))


def enter(known: sign_ins.Credentials, password: str) -> ResponseReturnValue:
    """Begin the session of a person whose password was right."""
    transactions = portal().transactions
    passwords = transactions.ports.passwords
    stronger = passwords.hash(password) if passwords.needs_rehash(known.password_hash) else None
    with transactions.writing(request_actor()) as context:
        token = sign_ins.begin(
            context,
            known.person_id,
            user_agent=request.user_agent.string,
            rehashed=stronger,
        )
    start_session(token)
    target = safe_next(request.args.get("next"), home())
    if signed_in().factor_wanted:
        return redirect(url_for("sign_ins.second_factor", next=target))
    return redirect(target)


@blueprint.route("/sign-in/second-factor", methods=["GET", "POST"])
@pending
def second_factor() -> ResponseReturnValue:
    """Ask for the second factor, or set it up if there is none yet."""
    who = signed_in()
    target = safe_next(request.args.get("next"), home())
    if not who.factor_wanted:
        return redirect(target)
    if not who.factor_is_set_up:
        return redirect(url_for("sign_ins.set_up_factor", next=target))
    form = CodeForm()
    if form.validate_on_submit():
        limit("factor", who.person_id, 8, QUARTER_HOUR_S)
        with portal().transactions.writing(request_actor()) as context:
            token = sign_ins.pass_factor(context, who, form.code.data)
        if token is not None:
            start_session(token)
            return redirect(target)
        form.code.errors = [*form.code.errors, "The code is wrong or was used before."]
    return render_template("public/second-factor.html", form=form), 400 if form.errors else 200


@blueprint.route("/sign-in/set-up-second-factor", methods=["GET", "POST"])
@pending
def set_up_factor() -> ResponseReturnValue:
    """Show the secret of a new second factor, and confirm it by its first code."""
    who = signed_in()
    target = safe_next(request.args.get("next"), home())
    if who.factor_is_set_up:
        return redirect(target)
    form = CodeForm()
    transactions = portal().transactions
    if form.validate_on_submit():
        limit("factor", who.person_id, 8, QUARTER_HOUR_S)
        with transactions.writing(request_actor()) as context:
            done = sign_ins.set_up_factor(context, who, form.code.data)
        if done is not None:
            token, codes = done
            start_session(token)
            return render_template("public/recovery-codes.html", codes=codes, target=target)
        form.code.errors = [*form.code.errors, "The code is wrong. Wait for the next one."]
    with transactions.writing(request_actor()) as context:
        secret = second_factors.start_setup(context, who.person_id)
    page = render_template(
        "public/set-up-factor.html", form=form, secret=secret, qr=qr_code(secret, who.email)
    )
    return page, 400 if form.errors else 200


def qr_code(secret: str, email: str) -> Markup:
    """Draw the QR code that an authenticator app scans, as an inline SVG."""
    code = segno.make(second_factors.provisioning_uri(secret, email), error="m")
    return Markup(code.svg_inline(scale=5, border=4, dark="#000", light="#fff", omitsize=False))  # noqa: S704


@blueprint.route("/sign-in/again", methods=["GET", "POST"])
@for_signed_in()
def reauthenticate() -> ResponseReturnValue:
    """Ask for the password once more before a sensitive act."""
    who = signed_in()
    form = PasswordForm()
    target = safe_next(request.args.get("next"), home())
    if form.validate_on_submit():
        limit("sign-in", who.email, 10, QUARTER_HOUR_S)
        if check_password(who.email, form.password.data) is not None:
            with portal().transactions.writing(request_actor()) as context:
                token = sign_ins.rotate(context, who.token, reauthenticated=True)
            start_session(token)
            return redirect(target)
        form.password.errors = [*form.password.errors, "The password is wrong."]
    return render_template("public/again.html", form=form), 400 if form.errors else 200


@blueprint.post("/sign-out")
@public
def sign_out() -> ResponseReturnValue:
    """End the session on the server; a copy of the cookie is useless from then on."""
    who = g.signed_in
    if who is not None:
        with portal().transactions.writing(request_actor()) as context:
            sign_ins.end(context, who.token)
    end_session()
    flash("You have signed out.", "good")
    return redirect("/")


@blueprint.post("/switch-account")
@for_signed_in()
def switch_account() -> ResponseReturnValue:
    """Switch to another of the person's accounts."""
    who = signed_in()
    try:
        with portal().transactions.writing(request_actor()) as context:
            sign_ins.switch_account(
                context, who.token, who.person_id, request.form.get("account_id", "")
            )
    except PortalError as error:
        flash(error.message, "bad")
    return redirect("/account")
