"""WTForms fields and govuk-frontend's components as HTML.

The markup is govuk-frontend's, written by its Jinja port (`govuk-frontend-jinja`). The port reads
optional parameters that may be missing. It therefore gets an environment of its own that allows
this; the portal's templates stay strict.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final, cast

from jinja2 import Environment, PackageLoader, PrefixLoader
from markupsafe import Markup
from wtforms import (
    BooleanField,
    Field,
    FileField,
    Form,
    FormField,
    HiddenField,
    IntegerField,
    PasswordField,
    RadioField,
    SelectField,
    SelectMultipleField,
    TextAreaField,
)
from wtforms.validators import Length

_PORT: Final = "govuk_frontend_jinja"


@cache
def _environment() -> Environment:
    return Environment(
        loader=PrefixLoader({_PORT: PackageLoader(_PORT)}),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )


@cache
def _macro(name: str) -> Any:
    template = _environment().get_template(f"{_PORT}/components/{name}/macro.html")
    title = "".join(word.capitalize() for word in name.split("-"))
    return getattr(template.module, f"govuk{title}")


def component(name: str, params: Mapping[str, Any]) -> Markup:
    """Return govuk-frontend's component `name` (`error-summary`) with its documented `params`."""
    html: Markup = _macro(name)(dict(params))
    return html.strip()


@dataclass(frozen=True, kw_only=True)
class Look:
    """How a field is shown."""

    hint: str | None = None
    """A sentence below the label; by default the field's `description`."""
    label: str | None = None
    """Replaces the field's own label."""
    heading: bool = False
    """Whether the label is the page's `h1`."""
    optional: bool | None = None
    """Whether to mark the field as optional; by default, text-like fields that may be empty are."""
    autocomplete: str | None = None
    """The HTML autofill token, such as `email`."""
    width: int | None = None
    """Characters expected, one of govuk-frontend's widths (2, 3, 4, 5, 10, 20, 30)."""
    classes: str = ""
    """More classes, such as `govuk-input--code`."""
    rows: int = 5
    """Lines of a text area."""
    inputmode: str | None = None
    """Such as `numeric`."""
    prefix: str | None = None
    """Text attached to the front of the input."""
    suffix: str | None = None
    """Text attached to the end of the input."""
    hints: Mapping[str, str] = field(default_factory=dict)
    """By choice value, a sentence below that choice."""
    conditional: Mapping[str, Markup] = field(default_factory=dict)
    """By choice value, the fields shown once it is chosen."""
    grid: bool = False
    """Whether the choices are laid out in columns."""


def form_field(bound: Field, **options: Any) -> Markup:
    """Return a bound WTForms field of any usual kind with its label, hint, error and value.

    Args:
        bound: the field.
        options: how to show it, see `Look`.
    """
    look = Look(**options)
    if isinstance(bound, HiddenField):
        hidden: Markup = bound()
        return hidden
    params: dict[str, Any] = {"id": bound.id, "name": bound.name, "classes": look.classes}
    if note := look.hint or bound.description:
        params["hint"] = {"text": note}
    if bound.errors:
        params["errorMessage"] = {"text": _first_error(bound.errors)}
    legend: dict[str, Any] = {"html": _title(bound, look)}
    if look.heading:
        legend |= {"isPageHeading": True, "classes": "govuk-label--heading"}
    if isinstance(bound, (RadioField, SelectMultipleField)):
        return _choices(bound, params, legend, look)
    if isinstance(bound, BooleanField):
        return _checkbox(bound, params, legend["html"])
    return _labelled(bound, params | {"label": legend}, look)


def _title(bound: Field, look: Look) -> Markup:
    name = look.label or str(bound.label.text)
    optional = look.optional
    if optional is None:
        optional = _is_text_like(bound) and not bound.flags.required
    if not optional:
        return Markup.escape(name)
    return Markup('{} <span class="govuk-label__optional">(optional)</span>').format(name)


def _labelled(bound: Field, params: dict[str, Any], look: Look) -> Markup:
    if isinstance(bound, SelectField):
        return component("select", params | {"items": _options(bound)})
    if isinstance(bound, FileField):
        return component("file-upload", params)
    if look.autocomplete:
        params["autocomplete"] = look.autocomplete
    if isinstance(bound, PasswordField):
        return component("password-input", params)
    value: str = cast(Any, bound)._value()  # noqa: SLF001 - WTForms' hook for what an input shows
    if isinstance(bound, TextAreaField):
        return _text_area(bound, params | {"rows": look.rows}, value)
    return _input(bound, params, look, value)


def _input(bound: Field, params: dict[str, Any], look: Look, value: str) -> Markup:
    kind, inputmode = getattr(bound.widget, "input_type", "text"), look.inputmode
    if isinstance(bound, IntegerField):
        kind, inputmode = "text", inputmode or "numeric"
    if look.width:
        params["classes"] = f"{look.classes} govuk-input--width-{look.width}".strip()
    if inputmode:
        params["inputmode"] = inputmode
    for name, text in (("prefix", look.prefix), ("suffix", look.suffix)):
        if text:
            params[name] = {"text": text}
    if kind in {"email", "url"} or inputmode == "numeric" or look.autocomplete:
        params["spellcheck"] = False
    return component("input", params | {"type": kind, "value": value})


def error_summary(*forms: Form) -> Markup:
    """Return the forms' errors as a list of links; empty if there are none."""
    errors = [
        {"text": message, "href": f"#{target}"} if target else {"text": message}
        for form in forms
        for target, message in _errors(form)
    ]
    if not errors:
        return Markup("")
    return component("error-summary", {"titleText": "Please correct this", "errorList": errors})


def _errors(form: Form) -> Iterable[tuple[str, str]]:
    for message in form.form_errors:
        yield "", str(message)
    for bound in form:
        if isinstance(bound, FormField):
            yield from _errors(bound.form)
        elif bound.errors and isinstance(bound, HiddenField):
            yield "", _first_error(bound.errors)
        elif bound.errors:
            yield bound.id, _first_error(bound.errors)


def _first_error(errors: Iterable[Any]) -> str:
    return str(next(iter(errors)))


def _is_text_like(bound: Field) -> bool:
    return not isinstance(bound, (BooleanField, SelectField, SelectMultipleField, HiddenField))


def _choices(
    bound: RadioField | SelectMultipleField,
    params: dict[str, Any],
    legend: dict[str, Any],
    look: Look,
) -> Markup:
    items = []
    for value, text, selected, *_ in bound.iter_choices():
        item: dict[str, Any] = {"value": str(value), "text": str(text), "checked": bool(selected)}
        if str(value) in look.hints:
            item["hint"] = {"text": look.hints[str(value)]}
        if str(value) in look.conditional:
            item["conditional"] = {"html": look.conditional[str(value)]}
        items.append(item)
    params |= {
        "idPrefix": params.pop("id"),
        "items": items,
        "fieldset": {"legend": legend},
    }
    if look.grid:
        params["formGroup"] = {"classes": "choices--grid"}
    return component("radios" if isinstance(bound, RadioField) else "checkboxes", params)


def _checkbox(bound: BooleanField, params: dict[str, Any], title: Markup) -> Markup:
    item: dict[str, Any] = {"value": "y", "html": title, "checked": bool(bound.data)}
    if "hint" in params:
        item["hint"] = params.pop("hint")
    params |= {
        "idPrefix": params.pop("id"),
        "items": [item],
        "classes": f"govuk-checkboxes--single {params['classes']}".strip(),
    }
    return component("checkboxes", params)


def _options(bound: SelectField) -> list[dict[str, Any]]:
    return [
        {"value": str(value), "text": str(text), "selected": bool(selected)}
        for value, text, selected, *_ in bound.iter_choices()
    ]


def _text_area(bound: TextAreaField, params: dict[str, Any], value: str) -> Markup:
    # The port indents what a component contains, which would add blanks to a text of several
    # lines. So the text is put in afterwards.
    longest = next((v.max for v in bound.validators if isinstance(v, Length) and v.max > 0), None)
    if longest is not None:
        params |= {"maxlength": longest, "threshold": 75}
    html = component("character-count" if longest is not None else "textarea", params)
    head, tail = html.split(Markup("</textarea>"), 1)
    # A parser drops the first line break of a text area.
    first = "\n" if value.startswith(("\n", "\r")) else ""
    return Markup("{}{}{}</textarea>{}").format(head, first, value, tail)
