"""A customer's requests: make one, check it, send it, follow it, start what was granted."""

from flask import Blueprint, flash, redirect, render_template, url_for
from flask.typing import ResponseReturnValue
from wtforms import (
    BooleanField,
    DateField,
    HiddenField,
    IntegerField,
    RadioField,
    SelectField,
    SelectMultipleField,
    StringField,
    TextAreaField,
)
from wtforms.validators import InputRequired, Length, Optional, Regexp

from portal.domain import roles
from portal.domain.catalog import CATALOG, fill_terms
from portal.domain.errors import Conflict, PortalError
from portal.domain.requests import MAX_TEXT, MAX_TOKENS, Audience, Background, RequestKind
from portal.domain.terms import FINGERPRINT, Mode
from portal.domain.words import FEATURE_NAMES, MODE_NAMES
from portal.services import deployments, licenses, requests
from portal.services.requests import Ask
from portal.web.access import for_members
from portal.web.forms import Between, PortalForm
from portal.web.limits import HOUR_S, limit
from portal.web.portal import account_id, portal, request_actor, signed_in

blueprint = Blueprint("requests", __name__, url_prefix="/account/requests")

EVALUATION = "eval-72h"
PILOT = "pilot-30d"
NEW = "new"


class RequestForm(PortalForm):
    """The fields of every request."""

    step = HiddenField(default="check")
    deployment = SelectField("Deployment", validate_choice=True)
    deployment_name = StringField(
        "Name of the new deployment", [Length(max=100)], default="Production"
    )
    purpose = TextAreaField(
        "What is it for?", [InputRequired("Say what it is for."), Length(max=2000)]
    )
    features = SelectMultipleField("Features")
    mode = RadioField(
        "How will it run?",
        [InputRequired("Choose how it will run.")],
        choices=MODE_NAMES,
        default=Mode.OFFLINE.value,
    )
    bind = BooleanField("Bind the license to one instance")
    fingerprint = StringField(
        "Instance fingerprint",
        [
            Optional(),
            Regexp(rf"{FINGERPRINT}\Z", message="Use 8 to 128 letters, digits and . _ : - only."),
        ],
    )
    terms = BooleanField(
        "I accept the terms of use", [InputRequired("Accept the terms of use to continue.")]
    )

    def offer(self, sku: str, names: list[tuple[str, str]]) -> None:
        """Fill in the choices: the SKU's features and the account's deployments."""
        self.features.choices = {name: FEATURE_NAMES[name] for name in CATALOG[sku].features}
        if not self.is_submitted() and not self.features.data:
            self.features.data = list(CATALOG[sku].features)
        self.deployment.choices = {**dict(names), NEW: "A new deployment"}

    def ask(self, kind: RequestKind, sku: str) -> Ask:
        """Return the request as filled in."""
        chosen = self.deployment.data
        own = self.fingerprint.data if self.bind.data else None
        return Ask(
            kind=kind,
            deployment_id=None if chosen == NEW else chosen,
            deployment_name=self.deployment_name.data or "",
            terms=fill_terms(
                sku,
                mode=Mode(self.mode.data),
                features=self.features.data or (),
                fingerprints=(own,) if own else (),
            ),
            background=self.background(),
            bind=bool(self.bind.data),
        )

    def background(self) -> Background:
        """Return the background given beside the terms."""
        return Background(purpose=self.purpose.data)


class PilotForm(RequestForm):
    """The fields that only a pilot has."""

    goals = TextAreaField(
        "What should the pilot show?", [InputRequired("Say what it should show."), Length(max=2000)]
    )
    starts_on = DateField("When do you want to start?", [Optional()])
    volume_tokens = IntegerField(
        "Tokens you expect in a week",
        [
            InputRequired("Enter a whole number, such as 2000000."),
            Between(1, MAX_TOKENS, "Enter a whole number, 1 or more."),
        ],
    )
    contacts = TextAreaField("Who should we talk to?", [Length(max=1000)])

    def background(self) -> Background:
        """Return the background given beside the terms."""
        return Background(
            purpose=self.purpose.data,
            goals=self.goals.data,
            contacts=self.contacts.data or "",
            starts_on=self.starts_on.data,
            expected_tokens=self.volume_tokens.data,
        )


@blueprint.get("")
@for_members(roles.ACCOUNT_READ)
def overview() -> ResponseReturnValue:
    """List the account's requests."""
    with portal().transactions.reading(request_actor()) as context:
        rows = requests.request_list(context, account_id())
    return render_template("account/requests.html", rows=rows)


@blueprint.route("/new/evaluation", methods=["GET", "POST"])
@for_members(roles.REQUESTS_MAKE)
def new_evaluation() -> ResponseReturnValue:
    """Ask for an evaluation."""
    return ask_for(RequestForm, EVALUATION, RequestKind.EVALUATION)


@blueprint.route("/new/pilot", methods=["GET", "POST"])
@for_members(roles.REQUESTS_MAKE)
def new_pilot() -> ResponseReturnValue:
    """Ask for a pilot."""
    return ask_for(PilotForm, PILOT, RequestKind.PILOT)


def ask_for(form_class: type[RequestForm], sku: str, kind: RequestKind) -> ResponseReturnValue:
    """Show the form, then a page to check the answers, then send the request."""
    form = form_class.bound()
    with portal().transactions.reading(request_actor()) as context:
        # What is sent names any deployment: the service says what speaks against it.
        offers = kind is RequestKind.EVALUATION and not form.is_submitted()
        find = deployments.names_with_nothing if offers else deployments.deployment_names
        names = find(context, account_id())
    form.offer(sku, names)
    template, status = CATALOG[sku], 400
    if form.validate_on_submit():
        if form.step.data == "send":
            try:
                return send(form, kind, sku)
            except PortalError as error:
                form.show(error, {"name": "deployment_name", "expected_tokens": "volume_tokens"})
                status = 409 if isinstance(error, Conflict) else 400
        elif form.step.data == "check":
            return render_template(
                "account/request-check.html",
                form=form,
                kind=kind,
                sku=template,
                names=dict(names),
                new=NEW,
            )
    page = render_template("account/request-new.html", form=form, kind=kind, sku=template, new=NEW)
    return page, status if form.errors else 200


def send(form: RequestForm, kind: RequestKind, sku: str) -> ResponseReturnValue:
    """Send a checked request.

    Raises:
        PortalError: it is refused; the form keeps everything typed.
    """
    limit("request", account_id(), 20, HOUR_S)
    with portal().transactions.writing(request_actor()) as context:
        made = requests.submit_request(
            context,
            account_id=account_id(),
            person_id=signed_in().person_id,
            ask=form.ask(kind, sku),
        )
        granted = requests.entitlement_of(context, made)
        license_ = None if granted is None else licenses.license_of(context, granted.id)
    if license_ is not None:
        return redirect(url_for("licenses.show", license_id=license_.id))
    return redirect(url_for("requests.show", request_id=made.id, sent=1))


@blueprint.get("/<request_id>")
@for_members(roles.ACCOUNT_READ)
def show(request_id: str) -> ResponseReturnValue:
    """Show a request, its outcome, and what happens next."""
    with portal().transactions.reading(request_actor()) as context:
        page = requests.member_request_page(
            context, account_id(), request_id, signed_in().permissions
        )
    return render_template("account/request.html", page=page, form=MessageForm.bound())


class MessageForm(PortalForm):
    """The form for a message to staff."""

    text = TextAreaField("Your message", [InputRequired("Write a message."), Length(max=MAX_TEXT)])


@blueprint.post("/<request_id>/messages")
@for_members(roles.REQUESTS_MAKE)
def post_message(request_id: str) -> ResponseReturnValue:
    """Send staff a message."""
    form = MessageForm()
    if form.validate_on_submit():
        limit("message", account_id(), 30, HOUR_S)
        with portal().transactions.writing(request_actor()) as context:
            row = requests.account_request(context, account_id(), request_id)
            requests.post_message(
                context,
                row,
                author_id=signed_in().person_id,
                audience=Audience.CUSTOMER,
                text=form.text.data,
            )
        flash("Your message was sent.", "good")
    else:
        flash("Write a message of at most 4,000 characters.", "bad")
    return redirect(url_for("requests.show", request_id=request_id))


@blueprint.post("/<request_id>/withdraw")
@for_members(roles.REQUESTS_MAKE)
def withdraw(request_id: str) -> ResponseReturnValue:
    """Withdraw a request."""
    with portal().transactions.writing(request_actor()) as context:
        requests.withdraw_request(
            context, requests.account_request(context, account_id(), request_id)
        )
    flash("The request was withdrawn.", "good")
    return redirect(url_for("requests.show", request_id=request_id))


@blueprint.post("/<request_id>/start")
@for_members(roles.REQUESTS_MAKE)
def start(request_id: str) -> ResponseReturnValue:
    """Start what was granted: the license is issued now."""
    with portal().transactions.writing(request_actor()) as context:
        license_ = requests.start_granted(context, account_id(), request_id)
    return redirect(url_for("licenses.show", license_id=license_.id))
