"""A customer's requests: asking, checking the answers, following, starting what was granted."""

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

from portal.db.deployments import deployments_of
from portal.domain import roles
from portal.domain.catalog import CATALOG
from portal.domain.errors import PortalError
from portal.services import entitlements, licenses, requests
from portal.services.requests import EVALUATION, PILOT, Ask, PilotAsk
from portal.web.access import for_members
from portal.web.forms import Between, PortalForm
from portal.web.limits import HOUR_S, limit
from portal.web.portal import account_id, portal, request_actor, signed_in
from portal.web.words import FEATURE_NAMES

blueprint = Blueprint("requests", __name__, url_prefix="/account/requests")

NEW = "new"
FINGERPRINT = r"^[A-Za-z0-9._:-]{8,128}\Z"


class RequestForm(PortalForm):
    """What every request asks."""

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
        choices={"offline": "Offline", "lease": "Leased online"},
        default="offline",
    )
    bind = BooleanField("Bind the license to one instance")
    fingerprint = StringField(
        "Instance fingerprint",
        [
            Optional(),
            Regexp(FINGERPRINT, message="Use 8 to 128 letters, digits and . _ : - only."),
        ],
    )
    terms = BooleanField(
        "I accept the terms of use", [InputRequired("Accept the terms of use to go on.")]
    )

    def offer(self, sku: str, names: list[tuple[str, str]]) -> None:
        """Fill in what can be chosen: the SKU's features, the account's deployments."""
        self.features.choices = {name: FEATURE_NAMES[name] for name in CATALOG[sku].features}
        if not self.is_submitted() and not self.features.data:
            self.features.data = list(CATALOG[sku].features)
        self.deployment.choices = {**dict(names), NEW: "A new deployment"}

    def ask(self) -> dict[str, object]:
        """Return the values every request has."""
        chosen = self.deployment.data
        return {
            "deployment_id": None if chosen == NEW else chosen,
            "deployment_name": self.deployment_name.data or "",
            "purpose": self.purpose.data,
            "features": tuple(self.features.data or ()),
            "mode": self.mode.data,
            "bind": bool(self.bind.data),
            "fingerprint": self.fingerprint.data or None,
        }


class PilotForm(RequestForm):
    """What a pilot asks besides."""

    goals = TextAreaField(
        "What should the pilot show?", [InputRequired("Say what it should show."), Length(max=2000)]
    )
    starts_on = DateField("When do you want to start?", [Optional()])
    volume_tokens = IntegerField(
        "Tokens you expect in a week",
        [
            InputRequired("Enter a whole number, such as 2000000."),
            Between(1, 10**12, "Enter a whole number from 1 up."),
        ],
    )
    contacts = TextAreaField("Who should we talk to?", [Length(max=1000)])


@blueprint.get("")
@for_members(roles.ACCOUNT_READ)
def overview() -> ResponseReturnValue:
    """List the account's requests."""
    with portal().transactions.reading(request_actor()) as context:
        rows = requests.account_requests(context, account_id())
        waiting = entitlements.waiting_to_start(context, account_id())
        names = {each.id: each.name for each in deployments_of(context.session, account_id())}
    return render_template("account/requests.html", rows=rows, waiting=waiting, names=names)


@blueprint.route("/new/evaluation", methods=["GET", "POST"])
@for_members(roles.REQUESTS_MAKE)
def new_evaluation() -> ResponseReturnValue:
    """Ask for an evaluation."""
    return ask_for(RequestForm, EVALUATION, "evaluation")


@blueprint.route("/new/pilot", methods=["GET", "POST"])
@for_members(roles.REQUESTS_MAKE)
def new_pilot() -> ResponseReturnValue:
    """Ask for a pilot."""
    return ask_for(PilotForm, PILOT, "pilot")


def ask_for(form_class: type[RequestForm], sku: str, kind: str) -> ResponseReturnValue:
    """Show the form, then the answers to check, then send."""
    form = form_class.bound()
    with portal().transactions.reading(request_actor()) as context:
        names = [(each.id, each.name) for each in deployments_of(context.session, account_id())]
    form.offer(sku, names)
    template = CATALOG[sku]
    if form.validate_on_submit():
        if form.step.data == "send":
            try:
                return send(form, kind)
            except PortalError as error:
                form.show(error, {"name": "deployment_name"})
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
    return page, 400 if form.errors else 200


def send(form: RequestForm, kind: str) -> ResponseReturnValue:
    """Send a checked request.

    Raises:
        PortalError: it cannot be taken; everything typed stays.
    """
    limit("request", account_id(), 20, HOUR_S)
    with portal().transactions.writing(request_actor()) as context:
        if isinstance(form, PilotForm):
            pilot = PilotAsk(
                **form.ask(),  # type: ignore[arg-type]
                goals=form.goals.data,
                starts_on=form.starts_on.data,
                volume_tokens=form.volume_tokens.data,
                contacts=form.contacts.data or "",
            )
            made = requests.submit_pilot(
                context, account_id=account_id(), person_id=signed_in().person_id, ask=pilot
            )
        else:
            made = requests.submit_evaluation(
                context,
                account_id=account_id(),
                person_id=signed_in().person_id,
                ask=Ask(**form.ask()),  # type: ignore[arg-type]
            )
        granted = requests.entitlement_of(context, made)
        license_ = None if granted is None else licenses.license_of(context, granted.id)
    if license_ is not None:
        return redirect(url_for("licenses.show", license_id=license_.id))
    return redirect(url_for("requests.show", request_id=made.id, sent=1))


@blueprint.get("/<request_id>")
@for_members(roles.ACCOUNT_READ)
def show(request_id: str) -> ResponseReturnValue:
    """Show a request, what became of it, and what happens next."""
    with portal().transactions.reading(request_actor()) as context:
        row = requests.account_request(context, account_id(), request_id)
        granted = requests.entitlement_of(context, row)
        license_ = None if granted is None else licenses.license_of(context, granted.id)
        messages = requests.messages_of(context, row, "customer")
        names = {each.id: each.name for each in deployments_of(context.session, account_id())}
        staff = requests.authors(context, messages)
        startable = (
            granted is not None
            and granted.state == "approved"
            and granted.start_by_at is not None
            and granted.start_by_at > context.at
        )
    return render_template(
        "account/request.html",
        row=row,
        granted=granted,
        license=license_,
        messages=messages,
        authors=staff,
        deployment_name=names.get(row.deployment_id, ""),
        startable=startable,
        changes=requests.changes(row),
        form=MessageForm.bound(),
    )


class MessageForm(PortalForm):
    """A message to staff."""

    text = TextAreaField("Your message", [InputRequired("Write something."), Length(max=4000)])


@blueprint.post("/<request_id>/messages")
@for_members(roles.REQUESTS_MAKE)
def post_message(request_id: str) -> ResponseReturnValue:
    """Answer staff."""
    form = MessageForm()
    if form.validate_on_submit():
        limit("message", account_id(), 30, HOUR_S)
        with portal().transactions.writing(request_actor()) as context:
            row = requests.account_request(context, account_id(), request_id)
            requests.post_message(
                context,
                row,
                author_id=signed_in().person_id,
                audience="customer",
                text=form.text.data,
            )
        flash("Your message is sent.", "good")
    else:
        flash("Write something of at most 4,000 characters.", "bad")
    return redirect(url_for("requests.show", request_id=request_id))


@blueprint.post("/<request_id>/withdraw")
@for_members(roles.REQUESTS_MAKE)
def withdraw(request_id: str) -> ResponseReturnValue:
    """Take a request back."""
    with portal().transactions.writing(request_actor()) as context:
        requests.withdraw_request(
            context, requests.account_request(context, account_id(), request_id)
        )
    flash("The request is withdrawn.", "good")
    return redirect(url_for("requests.show", request_id=request_id))


@blueprint.post("/<request_id>/start")
@for_members(roles.REQUESTS_MAKE)
def start(request_id: str) -> ResponseReturnValue:
    """Start what was granted: the license is issued now."""
    with portal().transactions.writing(request_actor()) as context:
        row = requests.account_request(context, account_id(), request_id)
        granted = requests.require_entitlement(context, row)
        license_ = entitlements.start_entitlement(
            context, account_id=account_id(), entitlement_id=granted.id
        )
    return redirect(url_for("licenses.show", license_id=license_.id))
