"""The markup of form components, held against govuk-frontend's own examples, and form_field."""

import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
import tinyhtml5
from markupsafe import Markup
from werkzeug.datastructures import MultiDict
from wtforms import (
    BooleanField,
    EmailField,
    FileField,
    Form,
    FormField,
    HiddenField,
    IntegerField,
    PasswordField,
    RadioField,
    SelectField,
    SelectMultipleField,
    StringField,
    TextAreaField,
)
from wtforms.validators import InputRequired, Length, Optional

from portal.web.components import component, error_summary, form_field

EXAMPLES = Path(__file__).parent / "govuk_frontend_fixtures"

# Options of the compiled version that the port does not know yet. The portal uses none of them.
UNPORTED = {"countType", "maxwords"}


def tree(html: str) -> Any:
    """Parse HTML into nested tuples in which insignificant blanks do not count."""
    return _node(tinyhtml5.parse(f"<body>{html}", namespace_html_elements=False).find("body"))


def _node(element: ET.Element | None) -> Any:
    assert element is not None
    children: list[Any] = [_text(element.text)]
    for child in element:
        children += [_node(child), _text(child.tail)]
    attributes = sorted((name, " ".join(value.split())) for name, value in element.items())
    return element.tag, attributes, [child for child in children if child != ""]


def _text(text: str | None) -> str:
    return re.sub(r"\s+", " ", text or "").strip()


def examples() -> list[Any]:
    """Return each example the port can know as (component, options, html)."""
    return [
        pytest.param(path.stem, one["options"], one["html"], id=f"{path.stem}: {one['name']}")
        for path in sorted(EXAMPLES.glob("*.json"))
        for one in json.loads(path.read_text())
        if not UNPORTED & one["options"].keys()
    ]


@pytest.mark.parametrize(("name", "options", "html"), examples())
def test_port_writes_the_markup_of_the_compiled_version(
    name: str, options: dict[str, Any], html: str
) -> None:
    assert tree(component(name, options)) == tree(html)


class Sample(Form):
    name = StringField("Name", [InputRequired("Enter a name")], description="As you call it.")
    team = StringField("Team", [Optional()])
    email = EmailField("E-mail")
    volume = IntegerField("Volume")
    password = PasswordField("Password")
    goals = TextAreaField("Goals", [Length(max=500)])
    notes = TextAreaField("Notes")
    region = SelectField("Region", choices={"eu": "Europe", "us": "United States"})
    mode = RadioField("Mode", choices={"offline": "Offline", "lease": "Leases"})
    features = SelectMultipleField("Features", choices={"a": "A", "b": "B"})
    terms = BooleanField("I accept", [InputRequired("Accept the terms")])
    evidence = FileField("Evidence")
    token = HiddenField("Token")


def bound(**typed: Any) -> Sample:
    return Sample(MultiDict(typed))


def find(html: str, path: str) -> ET.Element:
    root: ET.Element = tinyhtml5.parse(f"<body>{html}", namespace_html_elements=False)
    found = root.find(f".//{path}")
    assert found is not None, f"no {path} in {html}"
    return found


@pytest.mark.parametrize("name", [field.name for field in Sample()])
def test_every_field_has_its_name_and_a_label_for_it(name: str) -> None:
    html = form_field(bound()[name])
    control = next(
        element
        for element in tinyhtml5.parse(html, namespace_html_elements=False).iter()
        if element.get("name") == name
    )
    if name != "token":
        assert find(html, f"label[@for='{control.get('id')}']") is not None


@pytest.mark.asvs("1.2.1")
@pytest.mark.parametrize("name", ["name", "email", "goals", "notes", "volume"])
def test_typed_markup_stays_text(name: str) -> None:
    form = bound(**{name: '"><script>alert(1)</script>'})
    html = form_field(form[name])
    assert "<script>" not in html
    assert "script" in html


@pytest.mark.parametrize("name", ["goals", "notes"])
@pytest.mark.parametrize("typed", ["one\n  two\n\nthree", "\n first line empty", "  padded  "])
def test_text_areas_keep_every_blank(name: str, typed: str) -> None:
    html = form_field(bound(**{name: typed})[name])
    assert find(html, "textarea").text == typed


def test_a_password_is_never_written_back() -> None:
    assert "correct horse" not in form_field(bound(password="correct horse")["password"])


def test_choices_keep_what_was_chosen() -> None:
    form = bound(region="us", mode="lease", features="b", terms="y")
    assert find(form_field(form.region), "option[@selected]").get("value") == "us"
    assert find(form_field(form.mode), "input[@checked]").get("value") == "lease"
    assert find(form_field(form.features), "input[@checked]").get("value") == "b"
    assert find(form_field(form.terms), "input[@checked]").get("value") == "y"


def test_hint_and_error_are_tied_to_the_input() -> None:
    form = bound()
    form.validate()
    html = form_field(form.name)
    assert (find(html, "input").get("aria-describedby") or "").split() == [
        "name-hint",
        "name-error",
    ]
    assert "Enter a name" in "".join(find(html, "p[@id='name-error']").itertext())


def test_only_what_need_not_be_filled_is_marked_optional() -> None:
    form = bound()
    assert "(optional)" in form_field(form.team)
    assert "(optional)" not in form_field(form.team, optional=False)
    assert "(optional)" not in form_field(form.name)
    assert "(optional)" not in form_field(form.mode)


def test_choice_hints_and_conditional_fields_belong_to_their_choice() -> None:
    html = form_field(
        bound().mode,
        hints={"offline": "Calls nobody."},
        conditional={"lease": Markup("<p>More</p>")},
    )
    assert _text(find(html, "div[@id='mode-item-hint']").text) == "Calls nobody."
    assert find(html, "div[@id='conditional-mode-2']/p").text == "More"


def test_error_summary_links_each_error_to_its_input() -> None:
    class Inner(Form):
        code = StringField("Code", [InputRequired("Enter the code")])

    class Outer(Sample):
        inner = FormField(Inner)

    form = Outer(MultiDict({"region": "eu", "mode": "offline"}))
    form.validate()
    html = error_summary(form)
    fields = "".join(form_field(field) for field in (form.name, form.terms, form.inner.form.code))
    links = [
        link.get("href") or ""
        for link in tinyhtml5.parse(html, namespace_html_elements=False).iter("a")
    ]
    assert links == ["#name", "#terms", "#inner-code"]
    for link in links:
        assert find(fields, f"input[@id='{link[1:]}']") is not None


def test_no_errors_no_summary() -> None:
    assert error_summary(bound()) == ""


def test_errors_of_the_form_as_a_whole_stand_in_the_summary() -> None:
    form = bound()
    form.form_errors = ["The two do not fit"]
    assert "The two do not fit" in error_summary(form)
