"""The mails that were sent, shown in development only."""

import email
import email.policy
import re

from flask import Blueprint, render_template, request
from flask.typing import ResponseReturnValue

from portal.domain.errors import NotFound
from portal.web.access import public
from portal.web.portal import portal

blueprint = Blueprint("dev_mail", __name__, url_prefix="/dev/mail")

MOST = 100


@blueprint.get("")
@public
def overview() -> ResponseReturnValue:
    """List the newest mails with their links."""
    folder = portal().settings.mail_dir
    wanted = request.args.get("to", "")
    rows = []
    for path in sorted(folder.glob("*.eml"), reverse=True)[:MOST]:
        message = email.message_from_bytes(path.read_bytes(), policy=email.policy.default)
        if wanted and wanted != message["To"]:
            continue
        body = message.get_body(("plain",))
        text = body.get_content() if body is not None else ""
        rows.append(
            {
                "name": path.stem,
                "to": message["To"],
                "subject": message["Subject"],
                "text": text,
                "links": re.findall(r"https?://\S+", text),
            }
        )
    return render_template("public/dev-mail.html", rows=rows)


@blueprint.get("/<name>")
@public
def show(name: str) -> ResponseReturnValue:
    """Show the text of a mail."""
    known = {path.stem: path for path in portal().settings.mail_dir.glob("*.eml")}
    if name not in known:
        raise NotFound("There is no such mail.")
    message = email.message_from_bytes(known[name].read_bytes(), policy=email.policy.default)
    body = message.get_body(("plain",))
    text = body.get_content() if body is not None else ""
    return render_template("public/dev-mail-one.html", message=message, text=text)
