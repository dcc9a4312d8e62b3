"""The account's overview, members and activity."""

from flask import Blueprint, render_template
from flask.typing import ResponseReturnValue

from portal.db.deployments import deployments_of
from portal.db.licenses import licenses_of
from portal.domain import roles
from portal.services import accounts, audit, entitlements, instances, licenses, requests
from portal.web.access import for_members, for_signed_in
from portal.web.portal import account_id, portal, request_actor
from portal.web.words import act_name

blueprint = Blueprint("accounts", __name__, url_prefix="/account")


@blueprint.get("")
@for_members(roles.ACCOUNT_READ)
def overview() -> ResponseReturnValue:
    """Answer "am I fine?" at a glance, and say what to do next."""
    with portal().transactions.reading(request_actor()) as context:
        rows = []
        for each in deployments_of(context.session, account_id()):
            newest = next(iter(licenses_of(context.session, each.id)), None)
            state = None if newest is None else licenses.standing(context, newest).state
            routers = [
                instances.instance_health(context, row).state
                for row in instances.instances_of(context, each.id)
            ]
            rows.append((each, newest, state, routers))
        asked = [
            each
            for each in requests.account_requests(context, account_id())
            if each.state == "open"
        ]
        waiting = entitlements.waiting_to_start(context, account_id())
    return render_template("account/overview.html", rows=rows, asked=asked, waiting=waiting)


@blueprint.get("/members")
@for_members(roles.ACCOUNT_READ)
def members() -> ResponseReturnValue:
    """List who belongs to the account."""
    with portal().transactions.reading(request_actor()) as context:
        rows = accounts.members_of(context, account_id())
    return render_template("account/members.html", rows=rows)


@blueprint.get("/activity")
@for_members(roles.ACCOUNT_READ)
def activity() -> ResponseReturnValue:
    """Show what happened in the account."""
    with portal().transactions.reading(request_actor()) as context:
        # That staff noted something among themselves is theirs to know.
        rows = [
            row
            for row in audit.account_activity(context, account_id())
            if row.detail.get("audience") != "staff"
        ]
        names = accounts.names_of(context, {row.actor_id for row in rows if row.actor_id})
    entries = [
        {
            "title": act_name(row.action),
            "at": row.at,
            "by": names.get(
                row.actor_id or "", {"system": "the portal", "staff": "staff"}.get(row.actor_kind)
            ),
            # Reasons of staff are written for staff; words to the customer stand on the request.
            "text": row.reason if row.actor_kind == "person" else None,
        }
        for row in rows
    ]
    return render_template("account/activity.html", entries=entries)


@blueprint.get("/none")
@for_signed_in()
def no_account() -> ResponseReturnValue:
    """Tell somebody who belongs to no account what to do."""
    return render_template("account/none.html")
