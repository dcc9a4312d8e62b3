"""Staff: accounts."""

from flask import Blueprint, render_template, request
from flask.typing import ResponseReturnValue

from portal.domain import roles
from portal.services import accounts, overviews
from portal.web.access import for_staff
from portal.web.portal import portal, request_actor
from portal.web.words import act_name

blueprint = Blueprint("staff_accounts", __name__, url_prefix="/staff/accounts")


@blueprint.get("")
@for_staff(roles.STAFF_READ)
def overview() -> ResponseReturnValue:
    """Search accounts by id, name or domain."""
    words = request.args.get("q", "")[:200]
    with portal().transactions.reading(request_actor()) as context:
        rows = accounts.search_accounts(context, words)
    return render_template("staff/accounts.html", rows=rows, words=words)


@blueprint.get("/<account_id>")
@for_staff(roles.STAFF_READ)
def show(account_id: str) -> ResponseReturnValue:
    """Show an account with its people, deployments, requests and activity."""
    with portal().transactions.reading(request_actor()) as context:
        facts = overviews.staff_account_page(context, account_id)
    entries = [
        {
            "title": act_name(each.action),
            "at": each.at,
            "by": each.actor_name or each.actor_kind,
            "text": each.reason,
        }
        for each in facts.activity
    ]
    return render_template("staff/account.html", page=facts, entries=entries)
