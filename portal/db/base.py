"""The declarative base: one metadata, one naming convention for constraints."""

from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import MetaData
from sqlalchemy.orm import DeclarativeBase

from portal.db.types import JsonValue, Stored, UtcDateTime, Word
from portal.domain.acts import ActState
from portal.domain.requests import Audience, Background, RequestKind, RequestState
from portal.domain.standing import HoldCause, RevokedReason
from portal.domain.succession import Hurry
from portal.domain.terms import Mode, Terms

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}


WORDS = (ActState, Audience, HoldCause, Hurry, Mode, RequestKind, RequestState, RevokedReason)


class Base(DeclarativeBase):
    """Every mapped class of the portal."""

    metadata = MetaData(naming_convention=NAMING)
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        datetime: UtcDateTime,
        dict[str, Any]: JsonValue,
        list[str]: JsonValue,
        list[Any]: JsonValue,
        **{words: Word(words) for words in WORDS},
        **{shape: Stored(shape) for shape in (Background, Terms)},
    }
