"""The account's overview, members and activity."""

from flask import Blueprint, render_template
from flask.typing import ResponseReturnValue

from portal.domain import roles
from portal.services import accounts, audit, overviews
from portal.web.access import for_members, for_signed_in
from portal.web.portal import account_id, portal, request_actor
from portal.web.words import act_name, actor_name

blueprint = Blueprint("accounts", __name__, url_prefix="/account")


@blueprint.get("")
@for_members(roles.ACCOUNT_READ)
def overview() -> ResponseReturnValue:
    """Show at a glance whether all is in order, and what to do next."""
    with portal().transactions.reading(request_actor()) as context:
        facts = overviews.account_overview(context, account_id())
    return render_template("account/overview.html", page=facts)


@blueprint.get("/members")
@for_members(roles.ACCOUNT_READ)
def members() -> ResponseReturnValue:
    """List the account's members."""
    with portal().transactions.reading(request_actor()) as context:
        rows = accounts.members_of(context, account_id())
    return render_template("account/members.html", rows=rows)


@blueprint.get("/activity")
@for_members(roles.ACCOUNT_READ)
def activity() -> ResponseReturnValue:
    """Show the account's activity."""
    with portal().transactions.reading(request_actor()) as context:
        acts = audit.activity_for_members(context, account_id())
    entries = [
        {
            "title": act_name(each.action),
            "at": each.at,
            "by": each.actor_name or actor_name(each.actor_kind),
            "text": each.reason,
        }
        for each in acts
    ]
    return render_template("account/activity.html", entries=entries)


@blueprint.get("/none")
@for_signed_in()
def no_account() -> ResponseReturnValue:
    """Tell a person without an account what to do."""
    return render_template("account/none.html")
