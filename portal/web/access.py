"""Who may use which route. Every view states its rule; a view without one is closed to everybody.

The rule is an attribute of the view, so a test can walk the URL map and print who may do what.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit

from flask import current_app, flash, g, redirect, request, url_for
from flask.typing import ResponseReturnValue
from werkzeug.wrappers import Response

from portal.domain.errors import Forbidden, NotFound
from portal.web.drafts import keep_draft
from portal.web.portal import portal

View = TypeVar("View", bound=Callable[..., Any])
Kind = Literal["public", "pending", "signed-in", "account", "staff", "machine"]


@dataclass(frozen=True)
class Rule:
    """Who may use a view.

    `public`: everybody. `pending`: people who have signed in, even without their second factor.
    `signed-in`: people who are fully signed in. `account`, `staff`: people with the permission.
    `machine`: programs that sign what they send.
    """

    kind: Kind
    permission: str | None = None
    fresh: bool = False
    """Whether the person must have re-authenticated within the last 15 minutes."""


def _ruled(view: View, rule: Rule) -> View:
    view.access_rule = rule  # type: ignore[attr-defined]
    return view


def public(view: View) -> View:
    """Let everybody use the view."""
    return _ruled(view, Rule("public"))


def machine(view: View) -> View:
    """Let programs use the view: no cookie and no CSRF token; their signature counts."""
    return _ruled(view, Rule("machine"))


def pending(view: View) -> View:
    """Let people use the view who have not given their second factor yet."""
    return _ruled(view, Rule("pending"))


def for_signed_in(*, fresh: bool = False) -> Callable[[View], View]:
    """Let everybody use the view who is fully signed in."""
    return lambda view: _ruled(view, Rule("signed-in", None, fresh))


def for_members(permission: str, *, fresh: bool = False) -> Callable[[View], View]:
    """Let members use the view whose role in the account carries the permission."""
    return lambda view: _ruled(view, Rule("account", permission, fresh))


def for_staff(permission: str, *, fresh: bool = False) -> Callable[[View], View]:
    """Let staff use the view whose roles carry the permission."""
    return lambda view: _ruled(view, Rule("staff", permission, fresh))


def rule_of(endpoint: str) -> Rule | None:
    """Return the rule of an endpoint; None if its view states none."""
    rule: Rule | None = getattr(current_app.view_functions[endpoint], "access_rule", None)
    return rule


def check_access() -> ResponseReturnValue | None:
    """Refuse, redirect, or let the request through. Runs before every view."""
    if request.endpoint is None:
        return None
    rule = rule_of(request.endpoint)
    if rule is None:
        raise Forbidden("This page does not say who may use it.")
    if rule.kind in ("public", "machine"):
        return None
    return _check_person(rule)


def _check_person(rule: Rule) -> ResponseReturnValue | None:
    who = g.signed_in
    if who is None:
        return _to_sign_in()
    if rule.kind == "pending":
        return None
    if who.factor_wanted:
        return redirect(url_for("sign_ins.second_factor", next=here()))
    if rule.kind in ("account", "staff"):
        belongs = who.kind == "staff" if rule.kind == "staff" else who.kind == "customer"
        if not belongs:
            # Customers and staff do not learn of each other's pages.
            raise NotFound("There is no such page.")
        if rule.kind == "account" and who.place is None:
            return redirect(url_for("accounts.no_account"))
        if rule.permission not in who.permissions:
            raise Forbidden("Your role does not permit this.")
    if rule.fresh and not who.is_fresh(portal().transactions.ports.clock.now()):
        return redirect(url_for("sign_ins.reauthenticate", next=page_of_form()))
    return None


def _to_sign_in() -> Response:
    if request.method in ("GET", "HEAD"):
        if g.get("had_token"):
            flash("Your session has ended. Sign in to continue.", "info")
        return redirect(url_for("sign_ins.sign_in", next=here()))
    page = page_of_form()
    draft = keep_draft(page)
    target = page if draft is None else f"{page}?draft={draft}"
    kept = " What you typed has been kept." if draft else ""
    flash(f"Your session has ended. Sign in to continue.{kept}", "info")
    return redirect(url_for("sign_ins.sign_in", next=target))


def here() -> str:
    """Return this request's path and query, to be opened again by GET."""
    if request.method == "GET" and request.query_string:
        return f"{request.path}?{request.query_string.decode('ascii', 'replace')}"
    return request.path


def page_of_form() -> str:
    """Return the page to open again by GET: this one, or the one whose form was sent here."""
    if request.method in ("GET", "HEAD"):
        return here()
    methods = current_app.url_map.bind("").allowed_methods(request.path)
    if "GET" in methods:
        return request.path
    sender = urlsplit(request.referrer or "")
    return safe_next(sender.path, "/") if sender.netloc == request.host else "/"


def safe_next(target: str | None, fallback: str) -> str:
    """Return where to go after signing in: a path of this site, or the fallback."""
    if not target or not target.startswith("/") or target.startswith(("//", "/\\")):
        return fallback
    if any(character <= " " or character in "\\\x7f" for character in target):
        return fallback
    return target
