"""What all forms share: CSRF, errors from services, and restoring drafts."""

from typing import Final, Self

from flask import request
from flask_wtf import FlaskForm
from wtforms import BooleanField, Field
from wtforms.validators import ValidationError

from portal.domain.errors import PortalError
from portal.web.drafts import draft_fields

OF_A_STEP: Final = ("csrf_token", "step", "act", "seen")
"""Fields that tell one step from the next; each page sends its own."""


class Between:
    """Requires a whole number from `lowest` to `highest`, however many digits were typed.

    WTForms' own `NumberRange` fails on integers beyond the range of floats.
    """

    def __init__(self, lowest: int, highest: int, message: str) -> None:
        self.lowest, self.highest, self.message = lowest, highest, message

    def __call__(self, _form: object, field: Field) -> None:
        """Check a field.

        Raises:
            ValidationError: it is no number, or out of range.
        """
        if field.data is None or not self.lowest <= field.data <= self.highest:
            raise ValidationError(self.message)


class PortalForm(FlaskForm):  # type: ignore[misc]
    """A form of the portal; a GET that names a draft shows it filled in."""

    @classmethod
    def bound(cls, **options: object) -> Self:
        """Fill the form from the request, or from the draft it names."""
        fields = draft_fields() if request.args.get("draft") else None
        return cls(fields, **options) if fields is not None else cls(**options)

    def carried(self) -> list[tuple[str, str]]:
        """Return what was entered, as hidden fields carry it from a check page to the next step."""
        pairs: list[tuple[str, str]] = []
        for field in self:
            if field.name in OF_A_STEP or field.data in (None, False):
                continue
            if isinstance(field, BooleanField):
                pairs.append((field.name, "y"))
            else:
                values = field.data if isinstance(field.data, list) else [field.data]
                pairs += [(field.name, str(value)) for value in values]
        return pairs

    def show(self, error: PortalError, names: dict[str, str] | None = None) -> None:
        """Show a service's refusal at the field it is about, or else at the first one.

        Args:
            error: the refusal.
            names: maps the service's field names to the form's, where they differ.
        """
        name = (names or {}).get(error.field or "", error.field or "")
        fields: list[Field] = [field for field in self if field.name != "csrf_token"]
        chosen = next((field for field in fields if field.name == name), fields[0])
        chosen.errors = [*chosen.errors, error.message]
