"""Sample pages with invented data that show every macro, to look at and to test the markup.

Run with `python -m flask --app devtools.assets.sample.app run`.
"""

from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from flask import Flask, flash, render_template, request
from flask_wtf import CSRFProtect, FlaskForm
from jinja2 import ChoiceLoader, FileSystemLoader
from wtforms import (
    BooleanField,
    EmailField,
    IntegerField,
    PasswordField,
    RadioField,
    SelectField,
    SelectMultipleField,
    StringField,
    TextAreaField,
)
from wtforms.validators import InputRequired, Length, NumberRange, Optional

from portal.domain.catalog import CATALOG
from portal.domain.words import FEATURE_NAMES
from portal.web.templating import STATUSES, init_templating

ROOT = Path(__file__).parents[3]
NOW = datetime(2026, 11, 23, 20, 12, 7, tzinfo=UTC)
PEOPLE = {
    "account": SimpleNamespace(
        name="Ada Lind", email="ada@northwind.example", account_name="Northwind AB", is_staff=False
    ),
    "staff": SimpleNamespace(
        name="Robin Vale", email="robin@metrum.example", account_name=None, is_staff=True
    ),
}
SERVED = (
    "/downloads",
    "/help/verify",
    "/account",
    "/account/deployments",
    "/account/requests",
    "/account/activity",
    "/account/security",
    "/staff",
    "/staff/requests",
    "/staff/accounts",
    "/staff/licenses",
    "/staff/instances",
    "/staff/keys",
    "/staff/audit",
)


class SampleForm(FlaskForm):  # type: ignore[misc]
    """One field of each kind."""

    name = StringField("Deployment name", [InputRequired("Enter a name for the deployment")])
    email = EmailField("Work e-mail", [InputRequired("Enter your work e-mail address")])
    password = PasswordField("Password", [InputRequired("Choose a password"), Length(min=12)])
    company = StringField("Team", [Optional()])
    volume = IntegerField("Expected volume", [NumberRange(min=1, message="Enter at least 1 token")])
    goals = TextAreaField(
        "What do you want to find out?",
        [InputRequired("Say what you want to find out"), Length(max=500)],
    )
    region = SelectField("Region", choices={"eu": "Europe", "us": "United States"})
    mode = RadioField(
        "How will the router check its license?",
        choices={"offline": "Offline", "lease": "With leases"},
        validators=[InputRequired("Choose offline or leases")],
    )
    features = SelectMultipleField("Features", choices=FEATURE_NAMES)
    terms = BooleanField(
        "I accept the terms of use", [InputRequired("Accept the terms of use to continue")]
    )


def create_sample() -> Flask:
    """Create the application that serves the sample pages."""
    app = Flask(
        __name__, static_folder=str(ROOT / "static"), template_folder=str(ROOT / "templates")
    )
    app.config.update(SECRET_KEY="sample", TESTING=True)
    CSRFProtect(app)
    assets = init_templating(
        app, now=lambda: NOW, templates=ROOT / "templates", static=ROOT / "static"
    )
    loader = app.jinja_env.loader
    assert loader is not None
    app.jinja_env.loader = ChoiceLoader([loader, FileSystemLoader(Path(__file__).parent)])

    @app.context_processor
    def viewer() -> dict[str, Any]:
        return {"viewer": PEOPLE.get(request.path.split("/")[1])}

    @app.after_request
    def cache(answer: Any) -> Any:
        if request.endpoint == "static" and request.view_args:
            answer.headers["Cache-Control"] = assets.cache_control(
                request.view_args["filename"], request.args.get("v")
            )
        return answer

    def page(template: str) -> Any:
        form = SampleForm(request.form if request.method == "POST" else None)
        if request.args.get("errors"):
            form = SampleForm(meta={"csrf": False}, formdata=None)
            form.validate()
            flash("Your password was changed. Other sessions were signed out.", "good")
        return render_template(
            template,
            form=form,
            now=NOW,
            statuses=STATUSES,
            catalog=CATALOG,
            feature_names=FEATURE_NAMES,
            message="The request was decided by Robin Vale at 20:11 UTC.",
            request_id="5f0e2c9a1b7d4e6f8a90",
            fields=[
                ("deployment_name", "Northwind production"),
                ("goals", "Compare <two> upstreams"),
            ],
            action="/form",
        )

    app.add_url_rule("/plans", "plans", lambda: page("public/plans.html"))
    app.add_url_rule("/errors/<name>", "errors", lambda name: page(f"errors/{name}.html"))
    for path in SERVED:
        template = f"sample_{path.split('/')[1]}.html"
        if (Path(__file__).parent / template).exists():
            app.add_url_rule(path, path, lambda template=template: page(template))
        else:
            app.add_url_rule(path, path, lambda: "")
    app.add_url_rule("/", "/", lambda: page("public/landing.html"))
    app.add_url_rule("/sign-up", "/sign-up", lambda: page("sample_focused.html"))
    app.add_url_rule("/form", "/form", lambda: page("sample_form.html"))
    return app


app = create_sample()
