"""Column types that mean the same on SQLite and PostgreSQL."""

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import msgspec
from sqlalchemy import JSON, BigInteger, CheckConstraint, DateTime, Dialect, Integer, String
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.types import TypeDecorator, TypeEngine

JsonValue = JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")
"""A JSON document; JSONB on PostgreSQL."""

RowNumber = BigInteger().with_variant(Integer(), "sqlite")
"""A number that the database assigns (SQLite only does so for INTEGER PRIMARY KEY)."""


class UtcDateTime(TypeDecorator[datetime]):
    """An instant. Aware values in UTC only, on the way in and on the way out.

    PostgreSQL keeps `timestamptz`. SQLite keeps text of fixed width, which sorts as time does.

    Raises:
        ValueError: a naive datetime was given.
    """

    impl = DateTime(timezone=True)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Return `timestamptz` for PostgreSQL, plain text for SQLite."""
        return dialect.type_descriptor(DateTime(timezone=dialect.name == "postgresql"))

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return the value for the driver."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a stored instant needs its time zone")
        value = value.astimezone(UTC)
        return value if dialect.name == "postgresql" else value.replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, _dialect: Dialect) -> datetime | None:
        """Return the value for the code."""
        if value is None:
            return None
        return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)


class Word(TypeDecorator[StrEnum]):
    """A value of an enumeration, stored as text; `one_of` constrains the column to its values."""

    impl = String
    cache_ok = True

    def __init__(self, words: type[StrEnum]) -> None:
        super().__init__()
        self.words = words

    def process_bind_param(self, value: str | None, _dialect: Dialect) -> str | None:
        """Return the value as text; an unknown one is a ValueError."""
        return None if value is None else self.words(value).value

    def process_result_value(self, value: str | None, _dialect: Dialect) -> StrEnum | None:
        """Return the value."""
        return None if value is None else self.words(value)


class Stored(TypeDecorator[msgspec.Struct]):
    """A frozen struct, stored as one JSON document that is checked when it is read.

    Raises:
        ValidationError: the document does not fit the struct.
    """

    impl = JSON
    cache_ok = True

    def __init__(self, shape: type[msgspec.Struct]) -> None:
        super().__init__(none_as_null=True)
        self.shape = shape

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Return the database's own type for JSON."""
        return JsonValue.dialect_impl(dialect)

    def process_bind_param(self, value: msgspec.Struct | None, _dialect: Dialect) -> Any:
        """Return the struct as plain values."""
        return None if value is None else msgspec.to_builtins(value)

    def process_result_value(self, value: Any, _dialect: Dialect) -> msgspec.Struct | None:
        """Return the struct, checked."""
        return None if value is None else msgspec.convert(value, self.shape)


def one_of(column: str, *values: str) -> CheckConstraint:
    """Constrain a text column to these values."""
    listed = ", ".join(f"'{value}'" for value in values)
    return CheckConstraint(f"{column} IN ({listed})", name=f"{column}_known")
