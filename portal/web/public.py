"""Pages for everybody: landing, plans, help."""

from flask import Blueprint, render_template
from flask.typing import ResponseReturnValue

from portal.domain.catalog import CATALOG
from portal.domain.errors import NotFound
from portal.domain.words import FEATURE_NAMES
from portal.web.access import public
from portal.web.portal import portal
from portal.web.problems import KINDS

blueprint = Blueprint("public", __name__)

TOPICS = ("verify", "terms", "problems", "contact", "offline-or-leased")


@blueprint.get("/")
@public
def landing() -> ResponseReturnValue:
    """Show the landing page."""
    return render_template("public/landing.html")


@blueprint.get("/plans")
@public
def plans() -> ResponseReturnValue:
    """Show the plans."""
    return render_template("public/plans.html", catalog=CATALOG, feature_names=FEATURE_NAMES)


@blueprint.get("/help/<topic>")
@public
def help_page(topic: str) -> ResponseReturnValue:
    """Show one help topic."""
    if topic not in TOPICS:
        raise NotFound("There is no help page with this name.")
    web = portal()
    return render_template(
        f"public/help/{topic}.html",
        origin=web.settings.origin,
        terms_of_use_version=web.transactions.policy.terms_of_use_version,
        problems=KINDS,
    )
