"""WTForms fields and govuk-frontend's components as HTML.

The markup is that of govuk-frontend, written by its Jinja port (`govuk-frontend-jinja`). The port
reads optional parameters that are not there, so it has an environment of its own that allows this;
the portal's templates stay strict.
"""

from collections.abc import Iterable, Mapping
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


def form_field(
    field: Field,
    *,
    hint: str | None = None,
    label: str | None = None,
    heading: bool = False,
    optional: bool | None = None,
    autocomplete: str | None = None,
    width: int | None = None,
    classes: str = "",
    rows: int = 5,
    inputmode: str | None = None,
    prefix: str | None = None,
    suffix: str | None = None,
    hints: Mapping[str, str] | None = None,
    conditional: Mapping[str, Markup] | None = None,
    grid: bool = False,
) -> Markup:
    """Return a bound WTForms field with its label, hint, error and value.

    Args:
        field: the field, of any of WTForms' usual kinds.
        hint: a sentence below the label; else the field's `description`.
        label: replaces the field's own label.
        heading: whether the label is the page's `h1`.
        optional: whether to mark it so; by default text-like fields that need not be filled are.
        autocomplete: the HTML autofill token, as `email`.
        width: characters expected, one of govuk-frontend's widths (2, 3, 4, 5, 10, 20, 30).
        classes: more classes, as `govuk-input--code`.
        rows: lines of a text area.
        inputmode: as `numeric`.
        prefix: text stuck to the front of the input.
        suffix: text stuck to the end of the input.
        hints: by choice value, a sentence below that choice.
        conditional: by choice value, fields shown when it is chosen.
        grid: whether choices stand in columns.
    """
    name = label or str(field.label.text)
    if optional is None:
        optional = _is_text_like(field) and not field.flags.required
    title = (
        Markup('{} <span class="govuk-label__optional">(optional)</span>').format(name)
        if optional
        else Markup.escape(name)
    )
    note = hint or field.description
    params: dict[str, Any] = {"id": field.id, "name": field.name, "classes": classes}
    if note:
        params["hint"] = {"text": note}
    if field.errors:
        params["errorMessage"] = {"text": _first_error(field.errors)}
    if isinstance(field, HiddenField):
        hidden: Markup = field()
        return hidden
    legend: dict[str, Any] = {"html": title}
    if heading:
        legend |= {"isPageHeading": True, "classes": "govuk-label--heading"}
    if isinstance(field, (RadioField, SelectMultipleField)):
        return _choices(field, params, legend, hints or {}, conditional or {}, grid=grid)
    if isinstance(field, BooleanField):
        return _checkbox(field, params, title)
    params["label"] = legend
    if isinstance(field, SelectField):
        return component("select", params | {"items": _options(field)})
    if isinstance(field, FileField):
        return component("file-upload", params)
    if autocomplete:
        params["autocomplete"] = autocomplete
    if isinstance(field, PasswordField):
        return component("password-input", params)
    value: str = cast(Any, field)._value()
    if isinstance(field, TextAreaField):
        return _text_area(field, params | {"rows": rows}, value)
    kind = getattr(field.widget, "input_type", "text")
    if isinstance(field, IntegerField):
        kind, inputmode = "text", inputmode or "numeric"
    if width:
        params["classes"] = f"{classes} govuk-input--width-{width}".strip()
    if inputmode:
        params["inputmode"] = inputmode
    if prefix:
        params["prefix"] = {"text": prefix}
    if suffix:
        params["suffix"] = {"text": suffix}
    if kind in {"email", "url"} or inputmode == "numeric" or autocomplete:
        params["spellcheck"] = False
    return component("input", params | {"type": kind, "value": value})


def error_summary(*forms: Form) -> Markup:
    """Return the linked list of what is wrong with the forms; nothing when nothing is."""
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
    for field in form:
        if isinstance(field, FormField):
            yield from _errors(field.form)
        elif field.errors and isinstance(field, HiddenField):
            yield "", _first_error(field.errors)
        elif field.errors:
            yield field.id, _first_error(field.errors)


def _first_error(errors: Iterable[Any]) -> str:
    return str(next(iter(errors)))


def _is_text_like(field: Field) -> bool:
    return not isinstance(field, (BooleanField, SelectField, SelectMultipleField, HiddenField))


def _choices(
    field: RadioField | SelectMultipleField,
    params: dict[str, Any],
    legend: dict[str, Any],
    hints: Mapping[str, str],
    conditional: Mapping[str, Markup],
    *,
    grid: bool,
) -> Markup:
    items = []
    for value, text, selected, *_ in field.iter_choices():
        item: dict[str, Any] = {"value": str(value), "text": str(text), "checked": bool(selected)}
        if str(value) in hints:
            item["hint"] = {"text": hints[str(value)]}
        if str(value) in conditional:
            item["conditional"] = {"html": conditional[str(value)]}
        items.append(item)
    params |= {
        "idPrefix": params.pop("id"),
        "items": items,
        "fieldset": {"legend": legend},
    }
    if grid:
        params["formGroup"] = {"classes": "choices--grid"}
    return component("radios" if isinstance(field, RadioField) else "checkboxes", params)


def _checkbox(field: BooleanField, params: dict[str, Any], title: Markup) -> Markup:
    item: dict[str, Any] = {"value": "y", "html": title, "checked": bool(field.data)}
    if "hint" in params:
        item["hint"] = params.pop("hint")
    params |= {
        "idPrefix": params.pop("id"),
        "items": [item],
        "classes": f"govuk-checkboxes--single {params['classes']}".strip(),
    }
    return component("checkboxes", params)


def _options(field: SelectField) -> list[dict[str, Any]]:
    return [
        {"value": str(value), "text": str(text), "selected": bool(selected)}
        for value, text, selected, *_ in field.iter_choices()
    ]


def _text_area(field: TextAreaField, params: dict[str, Any], value: str) -> Markup:
    # The port indents what a component contains, which would add blanks to a text of several
    # lines: the text is put in afterwards.
    longest = next((v.max for v in field.validators if isinstance(v, Length) and v.max > 0), None)
    if longest is not None:
        params |= {"maxlength": longest, "threshold": 75}
    html = component("character-count" if longest is not None else "textarea", params)
    head, tail = html.split(Markup("</textarea>"), 1)
    # A parser drops the first line break of a text area.
    first = "\n" if value.startswith(("\n", "\r")) else ""
    return Markup("{}{}{}</textarea>{}").format(head, first, value, tail)
