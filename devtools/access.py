"""Writes docs/contributing/access.md: who may use which route, from the URL map and the roles."""

import secrets
import sys
import tempfile
from pathlib import Path
from typing import cast

from werkzeug.routing import Rule as UrlRule

from portal.app import Application, create_app
from portal.config import load_settings
from portal.db.session import Database, make_engine
from portal.domain.roles import ACCOUNT_ROLES, STAFF_ROLES
from portal.gateways.mail import JinjaMailTemplates
from portal.gateways.system import SystemClock
from portal.services.context import Policy, Ports, Transactions
from portal.web.access import Rule, rule_of
from portal.web.portal import WebPortal

MATRIX = Path(__file__).resolve().parents[1] / "docs" / "contributing" / "access.md"
INTRODUCTION = """# Who may use which route

Written by `python -m devtools.access` from the URL map; a test compares it with the application.
Every view states its rule (`portal/web/access.py`); a view without one answers nobody.
"""


def rules_of(application: Application) -> list[tuple[UrlRule, Rule | None]]:
    """Return the routes of both applications, each with its access rule if it states one."""
    found = []
    for app in (application.pages, application.machine):
        with app.app_context():
            found += [(rule, rule_of(rule.endpoint)) for rule in app.url_map.iter_rules()]
    return found


def access_matrix(application: Application) -> str:
    """Return the page: one row for each route, with the roles that may use it."""
    lines = [INTRODUCTION, "| route | methods | who |", "|---|---|---|"]
    for rule, access in sorted(rules_of(application), key=lambda each: each[0].rule):
        assert access is not None, f"{rule.rule} states no rule"
        methods = ", ".join(sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}))
        route = rule.rule.replace("|", "\\|")
        lines.append(f"| `{route}` | {methods} | {who(access)} |")
    return "\n".join(lines) + "\n"


def who(access: Rule) -> str:
    """Return in words who may use a route with this rule."""
    fresh = ", re-authenticated within 15 minutes" if access.fresh else ""
    if access.kind in ("account", "staff"):
        roles = ACCOUNT_ROLES if access.kind == "account" else STAFF_ROLES
        named = [role for role, permitted in roles.items() if access.permission in permitted]
        return f"{access.kind}: {', '.join(named)}{fresh}"
    words = {
        "public": "everybody",
        "machine": "programs, by their signatures",
        "pending": "anybody signed in, even before the second factor",
        "signed-in": "anybody signed in",
    }
    return words[access.kind] + fresh


def main() -> int:
    """Write the page."""
    with tempfile.TemporaryDirectory() as directory:
        settings = load_settings({"PORTAL_DATA_DIR": directory})
        # Only the URL map is read; no request is answered.
        transactions = Transactions(
            Database(make_engine("sqlite://")),
            cast(Ports, _OnlyClock()),
            Policy(origin=settings.origin),
        )
        app = create_app(
            WebPortal(
                settings, transactions, secrets.token_bytes(32), JinjaMailTemplates(settings.origin)
            )
        )
        MATRIX.write_text(access_matrix(app))
    return 0


class _OnlyClock:
    clock = SystemClock()


if __name__ == "__main__":
    sys.exit(main())
