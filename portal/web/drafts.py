"""What a person had typed when their session ended: kept encrypted for an hour, for them alone."""

import json
from datetime import timedelta

from flask import g, request
from werkzeug.datastructures import MultiDict

from portal.services.drafts import read_draft, save_draft
from portal.web.portal import portal, request_actor, signed_in

KEEP = timedelta(hours=1)
MOST_BYTES = 64 * 1024
NEVER_KEPT = ("csrf_token", "password", "new_password", "code")


def typed_fields() -> list[tuple[str, str]]:
    """Return what was typed into this request's form, without secrets."""
    return [
        (name, value) for name, value in request.form.items(multi=True) if name not in NEVER_KEPT
    ]


def keep_draft(page: str) -> str | None:
    """Keep this request's form for the person whose session ended; None if nothing is to be kept.

    Args:
        page: the path of the page that shows the form.
    """
    person_id = g.get("person_of_token")
    fields = typed_fields()
    text = json.dumps(fields)
    if person_id is None or not fields or len(text) > MOST_BYTES:
        return None
    with portal().transactions.writing(request_actor()) as context:
        return save_draft(context, person_id=person_id, path=page, text=text, keep=KEEP)


def draft_fields() -> MultiDict[str, str] | None:
    """Return the draft this request names, if it belongs to this person and this page."""
    token = request.args.get("draft")
    if token is None or request.method != "GET":
        return None
    with portal().transactions.reading(request_actor()) as context:
        text = read_draft(context, token, person_id=signed_in().person_id, path=request.path)
    return None if text is None else MultiDict([(name, value) for name, value in json.loads(text)])
