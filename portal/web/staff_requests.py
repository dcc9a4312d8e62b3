"""Staff: the queue of requests and the decision."""

from flask import Blueprint, flash, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from wtforms import (
    HiddenField,
    IntegerField,
    RadioField,
    SelectMultipleField,
    StringField,
    TextAreaField,
)
from wtforms.validators import InputRequired, Length, Optional, Regexp

from portal.db.accounts import Account
from portal.db.deployments import Deployment
from portal.db.people import Person
from portal.db.requests import Request
from portal.domain import roles
from portal.domain.catalog import CATALOG
from portal.domain.errors import Invalid
from portal.services import health, licenses, requests
from portal.services.context import Context
from portal.services.requests import SKU_OF, GrantedTerms
from portal.web.access import for_staff
from portal.web.forms import Between, PortalForm
from portal.web.portal import portal, request_actor, signed_in
from portal.web.requests import FINGERPRINT
from portal.web.words import FEATURE_NAMES

blueprint = Blueprint("staff_requests", __name__, url_prefix="/staff")

KINDS = ("evaluation", "pilot", "renewal", "replacement")
STATES = ("open", "approved", "declined", "withdrawn")


class ApproveForm(PortalForm):
    """The terms to grant: what was asked, unless staff change it."""

    act = HiddenField(default="check")
    mode = RadioField("How it runs", choices={"offline": "Offline", "lease": "Leased online"})
    days = IntegerField(
        "Length in days",
        [InputRequired("Enter the days."), Between(1, 366, "Enter 1 to 366 days.")],
    )
    volume_tokens = IntegerField(
        "Tokens in any 7 days", [Optional(), Between(1, 10**12, "Enter a number from 1 up.")]
    )
    max_instances = IntegerField(
        "Instances",
        [InputRequired("Enter the instances."), Between(1, 1000, "Enter 1 to 1,000.")],
    )
    features = SelectMultipleField("Features")
    fingerprint = StringField(
        "Bound to the fingerprint",
        [Optional(), Regexp(FINGERPRINT, message="8 to 128 letters, digits and . _ : - only.")],
    )
    note = TextAreaField("Words to the customer", [Length(max=4000)])

    def offer(self, row: Request) -> None:
        """Fill in the choices, and what was asked."""
        names = CATALOG[SKU_OF[row.kind]].features
        self.features.choices = {name: FEATURE_NAMES[name] for name in names}
        if not self.is_submitted():
            asked = row.asked
            self.mode.data = asked["mode"]
            template = CATALOG[SKU_OF[row.kind]]
            self.days.data = asked.get("days") or (template.term_s or 0) // 86400
            self.volume_tokens.data = asked.get("volume_tokens")
            self.max_instances.data = asked.get("max_instances") or template.limits.get(
                "max_instances", 1
            )
            self.features.data = asked["features"]
            self.fingerprint.data = asked.get("fingerprint")

    def terms(self) -> GrantedTerms:
        """Return the terms as filled in."""
        return GrantedTerms(
            mode=self.mode.data,
            days=self.days.data,
            volume_tokens=self.volume_tokens.data,
            max_instances=self.max_instances.data,
            features=tuple(self.features.data or ()),
            fingerprint=self.fingerprint.data or None,
        )


class DeclineForm(PortalForm):
    """Why not."""

    note = TextAreaField(
        "Words to the customer",
        [InputRequired("Tell the customer why, and what they can do."), Length(max=4000)],
    )


class NoteForm(PortalForm):
    """A message to the customer, or a note for staff alone."""

    audience = RadioField(
        "Who reads this?",
        [InputRequired("Choose who reads this.")],
        choices={
            "staff": "Staff only: an internal note",
            "customer": "The customer, by e-mail",
        },
    )
    text = TextAreaField("Text", [InputRequired("Write something."), Length(max=4000)])


@blueprint.get("")
@for_staff(roles.STAFF_READ)
def overview() -> ResponseReturnValue:
    """Show what waits and whether the portal is well."""
    with portal().transactions.reading(request_actor()) as context:
        rows = requests.request_queue(context)
        found = health.findings(context, ())
        recent = licenses.search_licenses(context, "", most=10)
    unwell = [finding for finding in found if not finding.well]
    return render_template("staff/overview.html", rows=rows, unwell=unwell, recent=recent)


@blueprint.get("/requests")
@for_staff(roles.STAFF_READ)
def queue() -> ResponseReturnValue:
    """List requests, oldest first, by kind and state."""
    kind = request.args.get("kind") if request.args.get("kind") in KINDS else None
    state = request.args.get("state", "open")
    state = state if state in STATES else "open"
    with portal().transactions.reading(request_actor()) as context:
        rows = requests.request_queue(context, kind=kind, state=state)
    return render_template(
        "staff/requests.html", rows=rows, kind=kind, state=state, kinds=KINDS, states=STATES
    )


def facts(context: Context, row: Request) -> dict[str, object]:
    """Return all that staff see of a request."""
    messages = requests.messages_of(context, row, "customer", "staff")
    people = {row.person_id, row.taken_by, row.decided_by} - {None}
    return {
        "row": row,
        "account": context.session.get_one(Account, row.account_id),
        "deployment": context.session.get_one(Deployment, row.deployment_id),
        "people": {each: context.session.get_one(Person, each) for each in people},
        "facts": requests.decision_facts(context, row),
        "messages": messages,
        "authors": requests.authors(context, messages),
        "granted": requests.entitlement_of(context, row),
        "changes": requests.changes(row),
        "sku": CATALOG[SKU_OF[row.kind]],
        "now": context.at,
    }


@blueprint.get("/requests/<request_id>")
@for_staff(roles.STAFF_READ)
def show(request_id: str) -> ResponseReturnValue:
    """Show a request with all that helps to decide."""
    with portal().transactions.reading(request_actor()) as context:
        known = facts(context, requests.staff_request(context, request_id))
    return render_template("staff/request.html", note_form=NoteForm.bound(), **known)


@blueprint.post("/requests/<request_id>/take")
@for_staff(roles.REQUESTS_DECIDE)
def take(request_id: str) -> ResponseReturnValue:
    """Say that one looks at it."""
    with portal().transactions.writing(request_actor()) as context:
        requests.take_request(context, request_id, signed_in().person_id)
    return redirect(url_for("staff_requests.show", request_id=request_id))


@blueprint.route("/requests/<request_id>/approve", methods=["GET", "POST"])
@for_staff(roles.REQUESTS_DECIDE)
def approve(request_id: str) -> ResponseReturnValue:
    """Approve as asked or with changes; the consequences are shown first."""
    form = ApproveForm.bound()
    with portal().transactions.reading(request_actor()) as context:
        known = facts(context, requests.staff_request(context, request_id))
    row = known["row"]
    assert isinstance(row, Request)
    form.offer(row)
    if form.validate_on_submit() and form.act.data == "approve":
        try:
            with portal().transactions.writing(request_actor()) as context:
                requests.approve_request(
                    context,
                    request_id,
                    staff_id=signed_in().person_id,
                    terms=form.terms(),
                    note=form.note.data or None,
                )
        except Invalid as error:
            form.show(error, {"term": "days", "limits": "max_instances"})
        else:
            flash("Approved. The customer was mailed and can start it.", "good")
            return redirect(url_for("staff_requests.show", request_id=request_id))
    elif form.is_submitted() and not form.errors:
        return render_template("staff/request-approve-check.html", form=form, **known)
    page = render_template("staff/request-approve.html", form=form, **known)
    return page, 400 if form.errors else 200


@blueprint.route("/requests/<request_id>/decline", methods=["GET", "POST"])
@for_staff(roles.REQUESTS_DECIDE)
def decline(request_id: str) -> ResponseReturnValue:
    """Decline with words to the customer."""
    form = DeclineForm.bound()
    if form.validate_on_submit():
        with portal().transactions.writing(request_actor()) as context:
            requests.decline_request(
                context, request_id, staff_id=signed_in().person_id, note=form.note.data
            )
        flash("Declined. The customer was mailed your words.", "good")
        return redirect(url_for("staff_requests.show", request_id=request_id))
    with portal().transactions.reading(request_actor()) as context:
        known = facts(context, requests.staff_request(context, request_id))
    page = render_template("staff/request-decline.html", form=form, **known)
    return page, 400 if form.errors else 200


@blueprint.post("/requests/<request_id>/messages")
@for_staff(roles.NOTES_WRITE)
def post_message(request_id: str) -> ResponseReturnValue:
    """Ask the customer, or note something for staff alone."""
    form = NoteForm()
    if not form.validate_on_submit():
        with portal().transactions.reading(request_actor()) as context:
            known = facts(context, requests.staff_request(context, request_id))
        return render_template("staff/request.html", note_form=form, form=form, **known), 400
    with portal().transactions.writing(request_actor()) as context:
        row = requests.staff_request(context, request_id)
        requests.post_message(
            context,
            row,
            author_id=signed_in().person_id,
            audience=form.audience.data,
            text=form.text.data,
        )
    told = "The customer was mailed." if form.audience.data == "customer" else "Only staff see it."
    flash(f"Noted. {told}", "good")
    return redirect(url_for("staff_requests.show", request_id=request_id))
