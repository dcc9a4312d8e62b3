"""A license's page and its files."""

from flask import Blueprint, Response, flash, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue

from portal.domain import roles
from portal.services import downloads, health, licenses
from portal.web.access import for_members
from portal.web.limits import HOUR_S, limit
from portal.web.portal import account_id, portal, request_actor

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
