"""Staff: the log of e-mails, what each said, and sending one again.

A message is shown as text, never as HTML: pages take no foreign styles. Links that act for whoever
holds them are left out: secrets were erased, and the address to decline reminders is made anew for
each message that goes out.
"""

from collections.abc import Container

from flask import Blueprint, flash, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from jinja2 import TemplateError

from portal.domain import roles
from portal.domain.mails import MAILS, is_reminder
from portal.domain.ports import Rendered
from portal.services import emails
from portal.web.access import for_staff
from portal.web.portal import portal, request_actor

blueprint = Blueprint("staff_emails", __name__, url_prefix="/staff/emails")


@blueprint.get("")
@for_staff(roles.STAFF_READ)
def overview() -> ResponseReturnValue:
    """List messages by state, template and recipient, newest first."""
    wanted = emails.Wanted(
        recipient=request.args.get("q", "")[:200].strip(),
        state=one_of(emails.STATES, request.args.get("state")),
        template=one_of(MAILS, request.args.get("template")),
    )
    with portal().transactions.reading(request_actor()) as context:
        page = emails.search_emails(context, wanted, after=request.args.get("after"))
    return render_template(
        "staff/emails.html", page=page, wanted=wanted, kinds=MAILS, states=emails.STATES
    )


def one_of(words: Container[str], text: str | None) -> str | None:
    """Return the word a query names; None for another or none."""
    return text if text in words else None


@blueprint.get("/<email_id>")
@for_staff(roles.STAFF_READ)
def show(email_id: str) -> ResponseReturnValue:
    """Show what became of a message, and what it says."""
    with portal().transactions.reading(request_actor()) as context:
        page = emails.email_page(context, email_id)
    return render_template("staff/email.html", page=page, said=said(page), kinds=MAILS)


def said(page: emails.EmailPage) -> Rendered | None:
    """Render a message without any secret; None when it cannot or must not be shown."""
    email = page.email
    if page.carries_secret:
        return None
    facts = emails.shown_facts(email, email.sent_at or email.created_at)
    if is_reminder(email.template):
        facts["unsubscribe_url"] = "(a link for the recipient alone)"
    try:
        return portal().mail_templates.render(email.template, facts)
    except TemplateError:
        # The template has changed since and needs facts that this message does not have.
        return None


@blueprint.post("/<email_id>/resend")
@for_staff(roles.EMAILS_RESEND)
def resend(email_id: str) -> ResponseReturnValue:
    """Send a message again."""
    with portal().transactions.writing(request_actor()) as context:
        again = emails.resend_email(context, email_id)
    flash("It is on its way again.", "good")
    return redirect(url_for("staff_emails.show", email_id=again.id))
