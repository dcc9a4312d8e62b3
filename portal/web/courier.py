"""Upload the request of a router without a network, and download the answer."""

import segno
from flask import Blueprint, Response, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from flask_wtf.file import FileField
from markupsafe import Markup
from wtforms import TextAreaField
from wtforms.validators import Length, ValidationError

from licensing.courier import to_parts
from portal.domain import roles
from portal.domain.errors import Unavailable
from portal.domain.lease_errors import ProtocolError
from portal.services import courier, instances
from portal.web.access import for_members
from portal.web.forms import PortalForm
from portal.web.limits import limit
from portal.web.portal import account_id, portal, request_actor

blueprint = Blueprint("courier", __name__, url_prefix="/account/courier")

HOUR_S = 3600
UPLOADS_AN_HOUR = 60
MOST_CODES = 40
"""The most QR codes an answer is shown as; a longer one is a file only."""


class UploadForm(PortalForm):
    """A request, as a file or as the text of its QR codes."""

    file = FileField("File")
    text = TextAreaField("Or the text of its QR codes", [Length(max=100_000)])
    content = b""
    """The upload."""

    def validate_file(self, field: FileField) -> None:
        """Return the uploaded file or the pasted text.

        Raises:
            ValidationError: there is neither.
        """
        sent = field.data.read(courier.MAX_UPLOAD_BYTES * 2 + 1) if field.data else b""
        self.content = sent or (self.text.data or "").strip().encode("utf-8", "replace")
        if not self.content:
            raise ValidationError("Choose the file written by router-license courier request.")


def page(form: UploadForm, status: int = 200) -> ResponseReturnValue:
    """Render the form."""
    return render_template("account/courier.html", form=form), status


@blueprint.get("")
@for_members(roles.INSTANCES_MANAGE)
def show() -> ResponseReturnValue:
    """Show the upload form."""
    return page(UploadForm())


@blueprint.post("")
@for_members(roles.INSTANCES_MANAGE)
def upload() -> ResponseReturnValue:
    """Answer a request and redirect to the answer."""
    form = UploadForm()
    if not form.validate_on_submit():
        return page(form, 400)
    limit("courier", account_id(), UPLOADS_AN_HOUR, HOUR_S)
    try:
        brought = courier.read_upload(form.content)
        answered = courier.answer_upload(
            portal().transactions, request_actor(), account_id(), brought
        )
    except ProtocolError as error:
        form.file.errors = [f"{error.message} {error.next_action}"]
        return page(form, 400)
    except Unavailable:
        form.file.errors = [
            "The portal cannot answer this request right now. Upload it again later."
        ]
        return page(form, 503)
    return redirect(
        url_for(
            "courier.answer",
            instance_id=answered.instance_id,
            lease_id=answered.lease_id,
            again="1" if answered.again else None,
        )
    )


@blueprint.get("/<instance_id>/<lease_id>")
@for_members(roles.INSTANCES_MANAGE)
def answer(instance_id: str, lease_id: str) -> ResponseReturnValue:
    """Show how to carry the answer to the router."""
    with portal().transactions.reading(request_actor()) as context:
        row = instances.account_instance(context, account_id(), instance_id)
        data = courier.courier_answer(context, account_id(), instance_id, lease_id)
        parts = to_parts(data)
        with_codes = request.args.get("codes") == "1" and len(parts) <= MOST_CODES
        return render_template(
            "account/courier-answer.html",
            row=row,
            lease_id=lease_id,
            size=len(data),
            again=request.args.get("again") == "1",
            parts=len(parts) if len(parts) <= MOST_CODES else 0,
            # Drawn where asked for: they weigh more than all else on the page.
            codes=[draw(part) for part in parts] if with_codes else [],
        )


@blueprint.get("/<instance_id>/<lease_id>/answer.json")
@for_members(roles.INSTANCES_MANAGE)
def download(instance_id: str, lease_id: str) -> ResponseReturnValue:
    """Send the answer as a file."""
    limit("download", account_id(), 300, HOUR_S)
    with portal().transactions.reading(request_actor()) as context:
        data = courier.courier_answer(context, account_id(), instance_id, lease_id)
    response = Response(data, content_type="application/json")
    response.headers["Content-Disposition"] = 'attachment; filename="answer.json"'
    response.headers["Cache-Control"] = "no-store"
    return response


def draw(part: str) -> Markup:
    """Draw one part as an inline SVG."""
    code = segno.make(part, error="l", micro=False)
    return Markup(code.svg_inline(scale=3, border=4, dark="#000", light="#fff", omitsize=False))  # noqa: S704
