"""What all payload models share: parsing, writing, and the rules that no type can say.

Invariants: a model that came out of `parse` obeys its schema and its cross-field rules; `to_bytes`
goes through the same checks, so that an issuer cannot write what a verifier would refuse.

Source: "Payloads: restricted canonical JSON" of the signed documents.
"""

import itertools
from typing import Annotated, Any, ClassVar, Final, Self

import msgspec

from licensing.encoding import MAX_INTEGER, canonical, parse_canonical
from licensing.errors import MalformedPayload

_ID: Final = "_[0-7][0-9A-HJKMNP-TV-Z]{25}$"


def _id(prefix: str) -> msgspec.Meta:
    return msgspec.Meta(pattern=f"^{prefix}{_ID}")


AccountId = Annotated[str, _id("cus")]
BudgetId = Annotated[str, _id("bud")]
DeploymentId = Annotated[str, _id("dep")]
InstanceId = Annotated[str, _id("ins")]
LeaseId = Annotated[str, _id("lea")]
LicenseId = Annotated[str, _id("lic")]
RequestId = Annotated[str, _id("req")]

Token = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9_.-]{0,63}$")]
"""An SKU, feature, reason or support tier."""
Fingerprint = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9._:-]{8,128}$")]
Sha256 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}$")]
Keyid = Sha256
BootId = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{32}$")]
Code = Annotated[str, msgspec.Meta(pattern=r"^[0-9A-Za-z_-]{22,64}$")]
Software = Annotated[str, msgspec.Meta(pattern=r"^[ -~]{1,64}$")]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
"""At most 200 bytes of UTF-8."""
Origin = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^(?!http://[^/]*:80$|https://[^/]*:443$)"
        r"https?://(?:[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?|\[[0-9a-f:.]+\])(?::[1-9][0-9]{0,4})?$",
        max_length=253 + 14,
    ),
]
"""Scheme and host in lower case, no default port, no path, no slash."""
Issuer = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
"""At most 200 bytes of UTF-8."""
UnixTime = Annotated[int, msgspec.Meta(ge=0, le=MAX_INTEGER)]
Count = Annotated[int, msgspec.Meta(ge=0, le=MAX_INTEGER)]
Positive = Annotated[int, msgspec.Meta(ge=1, le=MAX_INTEGER)]

MAX_NAME_BYTES: Final = 200


class Part(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """A nested object of a payload."""


class Document(Part, frozen=True, kw_only=True):
    """A payload. `ext` holds optional facts; `crit` names those that must be understood."""

    PAYLOAD_TYPE: ClassVar[str]
    TYP: ClassVar[str]
    UNDERSTOOD: ClassVar[frozenset[str]] = frozenset()
    """The `ext` facts this code understands, hence may be named in `crit`."""

    typ: str
    iss: Issuer
    issued_at: UnixTime
    ext: dict[str, Any] | None = None
    crit: tuple[str, ...] | None = None

    @classmethod
    def parse(cls, payload: bytes) -> Self:
        """Parse and check a payload.

        Raises:
            MalformedPayload: not canonical, unknown or missing fields, values out of their ranges,
                or fields that contradict one another.
        """
        return cls._from_value(parse_canonical(payload))

    @classmethod
    def _from_value(cls, value: dict[str, Any]) -> Self:
        try:
            document = msgspec.convert(value, cls)
        except msgspec.ValidationError as error:
            raise MalformedPayload(str(error)) from error
        if document.typ != cls.TYP:
            raise MalformedPayload(f"typ is {document.typ!r}, not {cls.TYP!r}")
        require_name(document.iss, "iss")
        document.check_crit()
        document.check()
        return document

    def to_bytes(self) -> bytes:
        """Return the canonical payload.

        Raises:
            MalformedPayload: a verifier would refuse it.
        """
        value = msgspec.to_builtins(self)
        payload = canonical(value)
        # Parsing these bytes gives this very value, so only the model is left to check.
        self._from_value(value)
        return payload

    def check(self) -> None:
        """Check the rules between fields.

        Raises:
            MalformedPayload: two fields contradict one another.
        """

    def check_crit(self) -> None:
        """Check that what must be understood is there.

        Raises:
            MalformedPayload: `crit` is empty or out of order, or names what is absent or unknown.
        """
        if self.crit is None:
            return
        if not self.crit:
            raise MalformedPayload("crit is empty")
        require_sorted(self.crit, "crit")
        for name in self.crit:
            if name not in (self.ext or {}):
                raise MalformedPayload(f"crit names {name}, which ext does not have")
            if name not in self.UNDERSTOOD:
                raise MalformedPayload(f"crit names {name}, which this version does not know")


def require_sorted(names: tuple[str, ...], field: str) -> None:
    """Require that an array is sorted by code point and has no duplicates.

    Raises:
        MalformedPayload: it is not.
    """
    if any(left >= right for left, right in itertools.pairwise(names)):
        raise MalformedPayload(f"{field} must be sorted, each entry once")


def require_name(text: str | None, field: str) -> None:
    """Require that a name, label or issuer has at most 200 bytes of UTF-8: no type counts bytes.

    Raises:
        MalformedPayload: it is longer.
    """
    if text is not None and len(text.encode("utf-8")) > MAX_NAME_BYTES:
        raise MalformedPayload(f"{field} is longer than {MAX_NAME_BYTES} bytes")


def require(condition: bool, detail: str) -> None:
    """Require a rule between fields.

    Raises:
        MalformedPayload: `condition` is false; `detail` states the rule.
    """
    if not condition:
        raise MalformedPayload(detail)
