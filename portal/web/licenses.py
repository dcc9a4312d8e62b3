"""A license's page and its files."""

from datetime import datetime

from flask import Blueprint, Response, flash, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from wtforms import BooleanField, HiddenField, RadioField, StringField
from wtforms.validators import InputRequired, Optional, Regexp

from portal.domain import roles
from portal.domain.errors import PortalError
from portal.domain.terms import FINGERPRINT
from portal.services import downloads, health, licenses, replacements
from portal.services.acts.machinery import Preview, Stale
from portal.services.replacements import Replacement
from portal.web.access import for_members
from portal.web.forms import PortalForm
from portal.web.limits import HOUR_S, limit
from portal.web.portal import account_id, portal, request_actor, signed_in

blueprint = Blueprint("licenses", __name__, url_prefix="/account/licenses")

REFRESH_S = 1
PURPOSES = {
    downloads.LICENSE_JSON: "The signed license: this is what the router needs",
    downloads.SUMMARY_JSON: "Facts that are safe to paste into a ticket",
    downloads.CHECKLIST_TXT: "Step by step, for whoever installs it",
    downloads.KIT_ZIP: "All of these with keyset, revocation bundle and SHA256SUMS",
}
FOR_RECORDS = {
    **PURPOSES,
    downloads.LICENSE_JSON: "The signed license as it was issued. Do not install it",
    downloads.CHECKLIST_TXT: "What to do now, for whoever runs the router",
}


WHY = {
    "lost": "The file was lost or may have been copied",
    "fingerprint": "The router has a new fingerprint",
}


class ReplaceForm(PortalForm):
    """Why a license is replaced, and what is new."""

    step = HiddenField(default="check")
    seen = HiddenField()
    why = RadioField(
        "Why do you replace it?", [InputRequired("Choose why you replace it.")], choices=WHY
    )
    fingerprint = StringField(
        "New instance fingerprint",
        [
            Optional(),
            Regexp(rf"{FINGERPRINT}\Z", message="Use 8 to 128 letters, digits and . _ : - only."),
        ],
    )
    at_once = BooleanField("The old file must stop counting at once")

    def wanted(self, license_id: str) -> Replacement | None:
        """Return what was filled in; None, with an error, when a fingerprint is missing."""
        is_new = self.why.data == "fingerprint"
        if is_new and not self.fingerprint.data:
            self.fingerprint.errors = ["Enter the new fingerprint."]
            return None
        return Replacement(
            license_id=license_id,
            fingerprint=self.fingerprint.data if is_new else None,
            at_once=bool(self.at_once.data),
            reason=WHY[self.why.data],
        )


@blueprint.get("/<license_id>")
@for_members(roles.ACCOUNT_READ)
def show(license_id: str) -> ResponseReturnValue:
    """Show a license; while it is being signed, the page refreshes itself."""
    with portal().transactions.reading(request_actor()) as context:
        page = downloads.license_page(context, account_id(), license_id)
        delayed = health.worker_is_silent(context)
    document = page.license.document
    if page.result is None or document is None:
        return issuing(page, delayed=delayed)
    return render_template(
        "account/license.html",
        page=page,
        document=document,
        purposes=PURPOSES if page.is_installable else FOR_RECORDS,
        command=downloads.verify_command(document, with_bundle=page.result.by_bundle),
        config=downloads.config_lines(document),
        origin=portal().settings.origin,
    )


def issuing(page: downloads.LicensePage, *, delayed: bool) -> ResponseReturnValue:
    """Render the page of a license that is being signed."""
    html = render_template("account/license-issuing.html", page=page, delayed=delayed)
    headers = {} if request.headers.get("HX-Request") else {"Refresh": str(REFRESH_S)}
    if delayed:
        headers = {"Refresh": "30"}
    return html, 200, headers


@blueprint.get("/<license_id>/<any('license.json','summary.json','checklist.txt','kit.zip'):name>")
@for_members(roles.LICENSES_DOWNLOAD)
def download(license_id: str, name: str) -> ResponseReturnValue:
    """Hand out one of a license's files, and note it."""
    limit("download", account_id(), 300, HOUR_S)
    with portal().transactions.writing(request_actor()) as context:
        row = licenses.account_license(context, account_id(), license_id)
        file = downloads.make_download(context, row, name)
        downloads.record_download(context, row, name)
    response = Response(file.content, content_type=downloads.CONTENT_TYPES[name])
    response.headers["Content-Disposition"] = f'attachment; filename="{name}"'
    response.headers["Cache-Control"] = "no-store"
    return response


@blueprint.post("/<license_id>/installed")
@for_members(roles.LICENSES_DOWNLOAD)
def mark_installed(license_id: str) -> ResponseReturnValue:
    """Note that the license is in place, which ends reminders to install it."""
    with portal().transactions.writing(request_actor()) as context:
        licenses.mark_installed(context, account_id(), license_id)
    flash("Noted: this license is installed.", "good")
    return redirect(url_for("licenses.show", license_id=license_id))


@blueprint.route("/<license_id>/replace", methods=["GET", "POST"])
@for_members(roles.DEPLOYMENTS_MANAGE, fresh=True)
def replace(license_id: str) -> ResponseReturnValue:
    """Replace a license by oneself: say why, see what happens, confirm."""
    form = ReplaceForm.bound()
    with portal().transactions.reading(request_actor()) as context:
        page = downloads.license_page(context, account_id(), license_id)
    status = 200
    wanted = form.wanted(license_id) if form.validate_on_submit() else None
    if wanted is not None and form.step.data in ("check", "do"):
        try:
            return confirm_replacement(form, page, wanted)
        except PortalError as error:
            form.show(error, {"fingerprints": "fingerprint", "step": "why"})
            status = error.status
    elif form.errors:
        status = 400
    return render_template("account/license-replace.html", page=page, form=form), status


def confirm_replacement(
    form: ReplaceForm, page: downloads.LicensePage, wanted: Replacement
) -> ResponseReturnValue:
    """Show what a replacement does, or do what was confirmed.

    Raises:
        PortalError: it is refused.
    """
    limit("replace", account_id(), 60, HOUR_S)
    person_id, status, changed = signed_in().person_id, 200, False
    if form.step.data == "do":
        try:
            with portal().transactions.writing(request_actor()) as context:
                made = replacements.replace_license(
                    context, account_id(), person_id, wanted, seen=form.seen.data or ""
                )
            license_id = (made.outcome or {}).get("license_id", page.license.id)
            return redirect(url_for("licenses.show", license_id=license_id))
        except Stale:
            status, changed = 409, True
    with portal().transactions.writing(request_actor()) as context:
        now = replacements.preview_replacement(context, account_id(), person_id, wanted)
    html = render_template(
        "account/license-replace-check.html",
        page=page,
        form=form,
        now=now,
        ends=ends_of(now, page),
        changed=changed,
    )
    return html, status


def ends_of(now: Preview, page: downloads.LicensePage) -> datetime | None:
    """Return when the old file stops counting, by the preview; None when it does not."""
    ended = (e for e in now.shown["licenses"]["ended"] if e["license_id"] == page.license.id)
    at = next((each["at"] for each in ended), None)
    return None if at is None else datetime.fromisoformat(at)
