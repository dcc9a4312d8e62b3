"""Staff: the queue of requests and the decision."""

from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from flask import Blueprint, flash, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from msgspec.structs import replace
from wtforms import (
    HiddenField,
    IntegerField,
    RadioField,
    SelectMultipleField,
    StringField,
    TextAreaField,
)
from wtforms.validators import InputRequired, Length, Optional, Regexp

from portal.domain import roles
from portal.domain.acts import ActState
from portal.domain.catalog import CATALOG, DAY_S, fill_terms, template_of
from portal.domain.entitlements import EntitlementState
from portal.domain.errors import Invalid
from portal.domain.requests import (
    MAX_TEXT,
    MAX_TOKENS,
    Audience,
    RequestKind,
    RequestState,
    wished_terms,
)
from portal.domain.terms import FINGERPRINT, Mode, Terms, compare, tabulate
from portal.domain.words import FEATURE_NAMES, MODE_NAMES
from portal.services import health, licenses, renewals, requests
from portal.services.act_pages import acts_list
from portal.services.acts.machinery import Stale
from portal.web.access import for_staff
from portal.web.forms import Between, PortalForm
from portal.web.portal import portal, request_actor, signed_in
from portal.web.words import LICENSE_ACTS

W = TypeVar("W", bound=StrEnum)
blueprint = Blueprint("staff_requests", __name__, url_prefix="/staff")


class ApproveForm(PortalForm):
    """The form for the terms to grant: those asked for, unless staff change them."""

    act = HiddenField(default="check")
    seen = HiddenField()
    mode = RadioField("How it runs", choices=MODE_NAMES)
    days = IntegerField(
        "Length in days",
        [InputRequired("Enter the length in days."), Between(1, 366, "Enter 1 to 366 days.")],
    )
    volume_tokens = IntegerField(
        "Tokens in any 7 days",
        [Optional(), Between(1, MAX_TOKENS, "Enter a whole number, 1 or more.")],
    )
    max_instances = IntegerField("Instances", [Optional(), Between(1, 1000, "Enter 1 to 1,000.")])
    features = SelectMultipleField("Features")
    fingerprint = StringField(
        "Bind to this fingerprint",
        [
            Optional(),
            Regexp(rf"{FINGERPRINT}\Z", message="Use 8 to 128 letters, digits and . _ : - only."),
        ],
    )
    note = TextAreaField("Message to the customer", [Length(max=MAX_TEXT)])

    def offer(self, asked: Terms, kind: RequestKind) -> None:
        """Fill in the choices, and what was asked."""
        names = sorted({*(template_of(asked.sku).features or FEATURE_NAMES), *asked.features})
        self.features.choices = {name: FEATURE_NAMES[name] for name in names}
        if not self.is_submitted():
            self.mode.data = asked.mode.value
            self.days.data = None if asked.term_s is None else asked.term_s // DAY_S
            # A pilot's customer wishes for a volume; the plan's is granted unless staff say else.
            plan = template_of(asked.sku).limits.tokens_per_window
            is_wish = kind is RequestKind.PILOT
            self.volume_tokens.data = plan if is_wish else asked.limits.tokens_per_window
            self.max_instances.data = asked.limits.max_instances
            self.features.data = list(asked.features)
            self.fingerprint.data = next(iter(asked.fingerprints), None)

    def terms(self, asked: Terms) -> Terms:
        """Return what was asked with what was filled in; a number left out stays as asked."""
        limits = asked.limits
        if self.max_instances.data is not None:
            limits = replace(limits, max_instances=self.max_instances.data)
        if asked.limits.tokens_per_window is not None:
            volume = self.volume_tokens.data or asked.limits.tokens_per_window
            limits = replace(limits, tokens_per_window=volume)
        return replace(
            asked,
            mode=Mode(self.mode.data),
            term_s=self.days.data * DAY_S,
            limits=limits,
            features=tuple(self.features.data or ()),
            fingerprints=(self.fingerprint.data,) if self.fingerprint.data else (),
        )


@dataclass(frozen=True)
class Wanted:
    """What a customer asked for."""

    request_id: str
    kind: RequestKind
    terms: Terms
    wish: Terms
    """The terms, with the volume that they expect."""


class DeclineForm(PortalForm):
    """The form for declining."""

    note = TextAreaField(
        "Message to the customer",
        [
            InputRequired("Tell the customer why, and what they can do instead."),
            Length(max=MAX_TEXT),
        ],
    )


class NoteForm(PortalForm):
    """The form for a message to the customer or a note for staff."""

    audience = RadioField(
        "Who will read this?",
        [InputRequired("Choose who will read this.")],
        choices={
            Audience.STAFF.value: "Staff only: an internal note",
            Audience.CUSTOMER.value: "The customer, by e-mail",
        },
    )
    text = TextAreaField("Text", [InputRequired("Write a message."), Length(max=MAX_TEXT)])


@blueprint.get("")
@for_staff(roles.STAFF_READ)
def overview() -> ResponseReturnValue:
    """Show what is waiting, and the portal's health."""
    with portal().transactions.reading(request_actor()) as context:
        rows = requests.request_queue(context)
        found = health.findings(context, ())
        acts = acts_list(context, waiting=True)
        recent = licenses.search_licenses(context, "", most=10)
    unwell = [finding for finding in found if not finding.well]
    return render_template(
        "staff/overview.html",
        rows=rows,
        unwell=unwell,
        recent=recent,
        acts=acts,
        act_names=LICENSE_ACTS,
    )


@blueprint.get("/requests")
@for_staff(roles.STAFF_READ)
def queue() -> ResponseReturnValue:
    """List requests by kind and state, oldest first."""
    kind = one_of(RequestKind, request.args.get("kind"))
    state = one_of(RequestState, request.args.get("state")) or RequestState.OPEN
    with portal().transactions.reading(request_actor()) as context:
        rows = requests.request_queue(context, kind=kind, state=state)
    return render_template(
        "staff/requests.html",
        rows=rows,
        kind=kind,
        state=state,
        kinds=list(RequestKind),
        states=list(RequestState),
    )


def one_of(words: type[W], text: str | None) -> W | None:
    """Return the word that the query names; None if it is unknown or missing."""
    return words(text) if text in set(words) else None


@blueprint.get("/requests/<request_id>")
@for_staff(roles.STAFF_READ)
def show(request_id: str) -> ResponseReturnValue:
    """Show a request with everything that helps to decide it."""
    return page("staff/request.html", request_id, note_form=NoteForm.bound())


def page(template: str, request_id: str, **more: object) -> str:
    """Render one of a request's pages."""
    with portal().transactions.reading(request_actor()) as context:
        facts = requests.staff_request_page(context, request_id)
    return render_template(template, page=facts, sku=CATALOG[facts.request.asked.sku], **more)


@blueprint.post("/requests/<request_id>/take")
@for_staff(roles.REQUESTS_DECIDE)
def take(request_id: str) -> ResponseReturnValue:
    """Take a request: show others that this person is working on it."""
    with portal().transactions.writing(request_actor()) as context:
        requests.take_request(context, request_id, signed_in().person_id)
    return redirect(url_for("staff_requests.show", request_id=request_id))


@blueprint.route("/requests/<request_id>/approve", methods=["GET", "POST"])
@for_staff(roles.REQUESTS_DECIDE, fresh=True)
def approve(request_id: str) -> ResponseReturnValue:
    """Approve a request as asked or with changes, after showing the consequences."""
    form = ApproveForm.bound()
    with portal().transactions.reading(request_actor()) as context:
        row = requests.staff_request(context, request_id)
        wish = wished_terms(row.asked, row.background)
        wanted = Wanted(row.id, row.kind, row.asked, wish)
    form.offer(wanted.terms, wanted.kind)
    if form.validate_on_submit() and form.act.data in ("check", "approve"):
        try:
            if form.act.data == "check":
                return check_approval(form, wanted)
            return do_approve(form, wanted)
        except Stale:
            return check_approval(form, wanted, changed=True), 409
        except Invalid as error:
            form.show(error, {"term": "days", "limits": "max_instances"})
    plan = fill_terms(wish.sku, mode=wish.mode)
    html = page(
        "staff/request-approve.html", request_id, form=form, side_by_side=tabulate(plan, wish)
    )
    return html, 400 if form.errors else 200


def check_approval(form: ApproveForm, wanted: Wanted, *, changed: bool = False) -> str:
    """Show what is granted beside plan and request, and what a renewal does.

    Raises:
        PortalError: a renewal would be refused.
    """
    terms = form.terms(wanted.terms)
    plan = fill_terms(terms.sku, mode=terms.mode)
    preview = None
    if wanted.kind is RequestKind.RENEWAL:
        with portal().transactions.writing(request_actor()) as context:
            preview = renewals.preview_renewal(
                context,
                requests.staff_request(context, wanted.request_id),
                staff_id=signed_in().person_id,
                terms=terms,
                note=form.note.data or "",
            )
    return page(
        "staff/request-approve-check.html",
        wanted.request_id,
        form=form,
        side_by_side=tabulate(plan, wanted.wish, terms),
        compared=compare(wanted.wish, terms),
        preview=preview,
        changed=changed,
    )


def do_approve(form: ApproveForm, wanted: Wanted) -> ResponseReturnValue:
    """Approve: the customer starts what is granted, or a renewal is done at once.

    Raises:
        PortalError: it is refused.
    """
    terms, note, staff_id = form.terms(wanted.terms), form.note.data or "", signed_in().person_id
    told = "Approved. The customer was told by e-mail and can start it."
    with portal().transactions.writing(request_actor()) as context:
        if wanted.kind is RequestKind.RENEWAL:
            act = renewals.grant_renewal(
                context,
                requests.staff_request(context, wanted.request_id),
                staff_id=staff_id,
                terms=terms,
                note=note,
                seen=form.seen.data or "",
            )
            told = "Renewed. The customer was told by e-mail; the license is being signed."
            if act.state is ActState.PENDING:
                told = "Submitted. A second person has to approve it."
        else:
            granted = requests.approve_request(
                context, wanted.request_id, staff_id=staff_id, terms=terms, note=note or None
            )
            if granted.state is EntitlementState.PROPOSED:
                told = "Decided. It counts once the command approves it too, see below."
    flash(told, "good")
    return redirect(url_for("staff_requests.show", request_id=wanted.request_id))


@blueprint.route("/requests/<request_id>/decline", methods=["GET", "POST"])
@for_staff(roles.REQUESTS_DECIDE)
def decline(request_id: str) -> ResponseReturnValue:
    """Decline a request, with a message to the customer."""
    form = DeclineForm.bound()
    if form.validate_on_submit():
        with portal().transactions.writing(request_actor()) as context:
            requests.decline_request(
                context, request_id, staff_id=signed_in().person_id, note=form.note.data
            )
        flash("Declined. Your message was e-mailed to the customer.", "good")
        return redirect(url_for("staff_requests.show", request_id=request_id))
    return page("staff/request-decline.html", request_id, form=form), 400 if form.errors else 200


@blueprint.post("/requests/<request_id>/messages")
@for_staff(roles.NOTES_WRITE)
def post_message(request_id: str) -> ResponseReturnValue:
    """Send the customer a message, or add a note for staff."""
    form = NoteForm()
    if not form.validate_on_submit():
        return page("staff/request.html", request_id, note_form=form, form=form), 400
    with portal().transactions.writing(request_actor()) as context:
        row = requests.staff_request(context, request_id)
        requests.post_message(
            context,
            row,
            author_id=signed_in().person_id,
            audience=Audience(form.audience.data),
            text=form.text.data,
        )
    told = (
        "It was e-mailed to the customer."
        if form.audience.data == "customer"
        else "Only staff can see it."
    )
    flash(f"Noted. {told}", "good")
    return redirect(url_for("staff_requests.show", request_id=request_id))
