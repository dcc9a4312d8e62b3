"""Staff: accounts."""

from flask import Blueprint, render_template, request
from flask.typing import ResponseReturnValue

from portal.db.deployments import deployments_of
from portal.db.licenses import licenses_of
from portal.domain import roles
from portal.services import accounts, audit, licenses, requests
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
    """Show an account: people, deployments, requests, activity."""
    with portal().transactions.reading(request_actor()) as context:
        row = accounts.find_account(context, account_id)
        held = []
        for each in deployments_of(context.session, row.id):
            newest = next(iter(licenses_of(context.session, each.id)), None)
            state = None if newest is None else licenses.standing(context, newest).state
            held.append((each, newest, state))
        asked = requests.account_requests(context, row.id)
        people = accounts.members_of(context, row.id)
        trail = audit.account_activity(context, row.id, most=30)
    entries = [
        {"title": act_name(each.action), "at": each.at, "by": each.actor_kind, "text": each.reason}
        for each in trail
    ]
    return render_template(
        "staff/account.html", row=row, held=held, asked=asked, people=people, entries=entries
    )
