"""A customer asks to renew: pre-filled from what runs now, checked, sent to staff."""

from flask import Blueprint, flash, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from msgspec.structs import replace
from wtforms import BooleanField, HiddenField, IntegerField, SelectMultipleField, TextAreaField
from wtforms.validators import InputRequired, Length, Optional

from portal.domain import roles
from portal.domain.catalog import DAY_S, template_of
from portal.domain.errors import Conflict, PortalError
from portal.domain.requests import MAX_TOKENS, Background, RequestKind
from portal.domain.terms import Terms, compare
from portal.domain.words import FEATURE_NAMES
from portal.services import renewals, requests
from portal.services.renewals import RenewalOffer
from portal.services.requests import Ask
from portal.web.access import for_members
from portal.web.forms import Between, PortalForm
from portal.web.limits import HOUR_S, limit
from portal.web.portal import account_id, portal, request_actor, signed_in

blueprint = Blueprint("renewals", __name__, url_prefix="/account/requests/new")


class RenewalForm(PortalForm):
    """The terms to renew with: those that run now, unless the customer asks for others."""

    step = HiddenField(default="check")
    license = HiddenField()
    days = IntegerField(
        "For how many days?",
        [InputRequired("Enter the days."), Between(1, 366, "Enter 1 to 366 days.")],
    )
    volume_tokens = IntegerField(
        "Tokens", [Optional(), Between(1, MAX_TOKENS, "Enter a whole number from 1 up.")]
    )
    max_instances = IntegerField("Instances", [Optional(), Between(1, 1000, "Enter 1 to 1,000.")])
    features = SelectMultipleField("Features")
    purpose = TextAreaField("Anything we should know?", [Length(max=2000)])
    terms = BooleanField(
        "I accept the terms of use", [InputRequired("Accept the terms of use to go on.")]
    )

    def offer(self, now: Terms) -> None:
        """Fill in what runs now; a limit that it does not have is not asked for."""
        names = {*(template_of(now.sku).features or FEATURE_NAMES), *now.features}
        self.features.choices = {name: FEATURE_NAMES[name] for name in sorted(names)}
        if not has_volume(now):
            del self.volume_tokens
        if now.limits.max_instances is None:
            del self.max_instances
        if self.is_submitted() or request.args.get("draft"):
            return
        self.days.data = None if now.term_s is None else now.term_s // DAY_S
        self.features.data = list(now.features)
        if self.volume_tokens is not None:
            self.volume_tokens.data = now.tokens_total or now.limits.tokens_per_window
        if self.max_instances is not None:
            self.max_instances.data = now.limits.max_instances

    def asked(self, now: Terms) -> Terms:
        """Return the terms that run now with what was filled in."""
        limits, tokens_total = now.limits, now.tokens_total
        volume = self.volume_tokens.data if self.volume_tokens is not None else None
        if volume is not None and tokens_total is not None:
            tokens_total = volume
        elif volume is not None:
            limits = replace(limits, tokens_per_window=volume)
        if self.max_instances is not None and self.max_instances.data is not None:
            limits = replace(limits, max_instances=self.max_instances.data)
        return replace(
            now,
            term_s=self.days.data * DAY_S,
            limits=limits,
            tokens_total=tokens_total,
            features=tuple(self.features.data or ()),
        )


def has_volume(terms: Terms) -> bool:
    """Say whether terms count tokens, by a budget or in a window."""
    return terms.tokens_total is not None or terms.limits.tokens_per_window is not None


@blueprint.route("/renewal", methods=["GET", "POST"])
@for_members(roles.REQUESTS_MAKE)
def new_renewal() -> ResponseReturnValue:
    """Ask to renew the line of the license that the form or the address names."""
    form = RenewalForm.bound()
    form.license.data = form.license.data or request.args.get("license")
    if not form.license.data:
        flash("Open the license that you want to renew, and choose Renew there.", "info")
        return redirect(url_for("deployments.overview"))
    with portal().transactions.reading(request_actor()) as context:
        offer = renewals.renewal_offer(context, account_id(), form.license.data)
    form.offer(offer.terms)
    status = 400
    if form.validate_on_submit() and form.step.data in ("check", "send"):
        try:
            if form.step.data == "send":
                return send(form, offer)
        except PortalError as error:
            names = {"limits": "max_instances", "term": "days", "term_s": "days"}
            form.show(error, names)
            status = 409 if isinstance(error, Conflict) else 400
        else:
            compared = compare(offer.terms, form.asked(offer.terms))
            return render_template(
                "account/renewal-check.html", form=form, offer=offer, compared=compared
            )
    page = render_template("account/renewal-new.html", form=form, offer=offer)
    return page, status if form.errors else 200


def send(form: RenewalForm, offer: RenewalOffer) -> ResponseReturnValue:
    """Send the request that was checked.

    Raises:
        PortalError: it cannot be taken; everything typed stays.
    """
    limit("request", account_id(), 20, HOUR_S)
    with portal().transactions.writing(request_actor()) as context:
        made = requests.submit_request(
            context,
            account_id=account_id(),
            person_id=signed_in().person_id,
            ask=Ask(
                kind=RequestKind.RENEWAL,
                deployment_id=offer.deployment.id,
                terms=form.asked(offer.terms),
                background=Background(purpose=form.purpose.data or ""),
            ),
        )
    return redirect(url_for("requests.show", request_id=made.id, sent=1))
