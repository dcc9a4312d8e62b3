"""Strict JSON, restricted canonical JSON, strict base64, and the base32 of identifiers.

Invariants: a parser here returns a value or raises a `LicensingError`; nothing else escapes, for
any bytes. `parse_canonical(canonical(value)) == value`, and no other bytes parse to that value.

Source: "Envelope" and "Payloads" of the signed documents; RFC 8259; RFC 4648 section 4.
"""

import base64
import binascii
import hashlib
import json
import re
from typing import Any, Final, NoReturn

from licensing.errors import MalformedEnvelope, MalformedPayload

MAX_INTEGER: Final = 2**53 - 1
MAX_DEPTH: Final = 8
_MAY_BE_EMPTY: Final = frozenset({"features", "fingerprints", "limits", "entries", "ext"})
_KEY: Final = re.compile(r"[a-z][a-z0-9_]*")
_FORBIDDEN: Final = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_INTEGER_DIGITS: Final = 400
_CROCKFORD: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def sha256_hex(data: bytes) -> str:
    """Return the SHA-256 of `data` as 64 lower-case hex digits."""
    return hashlib.sha256(data).hexdigest()


def b64encode(data: bytes) -> str:
    """Encode with the standard alphabet and padding."""
    return base64.b64encode(data).decode("ascii")


def b64decode(text: str) -> bytes:
    """Decode standard base64 with padding, and nothing else.

    Raises:
        MalformedEnvelope: another alphabet, white space, wrong padding, or bits left over, so that
            encoding again would not give the same text.
    """
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise MalformedEnvelope(f"base64: {error}") from error
    if b64encode(data) != text:
        raise MalformedEnvelope("base64: not the canonical encoding of these bytes")
    return data


class _Refused(ValueError):
    """JSON that the standard parser accepts but this profile does not."""


def _no_constant(name: str) -> NoReturn:
    raise _Refused(f"{name} is not JSON")


def _integer(digits: str) -> int:
    if len(digits) > _INTEGER_DIGITS:
        raise _Refused("a number has too many digits")
    return int(digits)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise _Refused("an object has the same key twice")
    return value


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_object, parse_constant=_no_constant, parse_int=_integer
)


def parse_json(data: bytes, *, max_bytes: int) -> Any:
    """Parse strict JSON: UTF-8 without BOM, no duplicate keys, no NaN, no lone surrogate.

    Raises:
        MalformedEnvelope: longer than `max_bytes` bytes (checked first), or not strict JSON.
    """
    if len(data) > max_bytes:
        raise MalformedEnvelope(f"{len(data)} bytes; at most {max_bytes} are allowed")
    if data.startswith(b"\xef\xbb\xbf"):
        raise MalformedEnvelope("the text begins with a byte order mark; save it without one")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise MalformedEnvelope(f"not UTF-8 at byte {error.start}") from error
    try:
        value = _DECODER.decode(text)
        # Escapes may have made surrogates that UTF-8 itself cannot carry.
        if "\\u" in text:
            _refuse_surrogates(value)
    except RecursionError:
        raise MalformedEnvelope("nested too deeply") from None
    except ValueError as error:
        raise MalformedEnvelope(f"not JSON: {error}") from error
    return value


def _refuse_surrogates(value: Any) -> None:
    if isinstance(value, str):
        if _SURROGATE.search(value):
            raise _Refused("a string holds half of a surrogate pair")
    elif isinstance(value, list):
        for item in value:
            _refuse_surrogates(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            _refuse_surrogates(key)
            _refuse_surrogates(item)


_ENCODER: Final = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":")
)


def canonical(value: dict[str, Any]) -> bytes:
    """Write a payload in the only way that restricted canonical JSON allows.

    Raises:
        MalformedPayload: the value has something the restricted profile does not allow.
    """
    _check(value, "", 1)
    return _ENCODER.encode(value).encode("utf-8")


def _check(value: Any, where: str, depth: int) -> None:
    """Refuse what restricted canonical JSON cannot express. `where` is a JSON pointer."""
    kind = type(value)
    if kind is str:
        if not value:
            raise MalformedPayload(f"{where}: an empty string")
        if _FORBIDDEN.search(value):
            raise MalformedPayload(f"{where}: a control character or surrogate")
    elif kind is int:
        if not -MAX_INTEGER <= value <= MAX_INTEGER:
            raise MalformedPayload(f"{where}: an integer beyond 2^53-1")
    elif kind is dict:
        _check_depth(where, depth)
        _check_object(value, where, depth)
    elif kind in (list, tuple):
        _check_depth(where, depth)
        for index, item in enumerate(value):
            if not item and type(item) in (dict, list, tuple):
                raise MalformedPayload(f"{where}/{index}: empty")
            _check(item, f"{where}/{index}", depth + 1)
    elif kind is not bool:
        raise MalformedPayload(f"{where}: {_named(value)} is not allowed")


def _check_object(value: dict[Any, Any], where: str, depth: int) -> None:
    for key, item in value.items():
        if type(key) is not str or not _KEY.fullmatch(key):
            raise MalformedPayload(f"{where}: a key that is not [a-z][a-z0-9_]*")
        # Most items are scalars; no pointer is built for them.
        if type(item) is str and item and not _FORBIDDEN.search(item):
            continue
        if not item and type(item) in (dict, list, tuple) and key not in _MAY_BE_EMPTY:
            raise MalformedPayload(f"{where}/{key}: empty")
        _check(item, f"{where}/{key}", depth + 1)


def _check_depth(where: str, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise MalformedPayload(f"{where}: nested deeper than {MAX_DEPTH}")


def _named(value: object) -> str:
    return "null" if value is None else f"a {type(value).__name__}"


def parse_canonical(data: bytes) -> dict[str, Any]:
    """Parse a payload and require its canonical form.

    Raises:
        MalformedPayload: not an object, not strict JSON, or not the canonical bytes.
    """
    try:
        value = parse_json(data, max_bytes=len(data))
    except MalformedEnvelope as error:
        raise MalformedPayload(error.detail) from error
    if not isinstance(value, dict):
        raise MalformedPayload("the payload is not an object")
    if canonical(value) != data:
        raise MalformedPayload("the payload is not written in canonical form")
    return value


def crockford(raw: bytes) -> str:
    """Write 16 bytes as 26 digits of Crockford's base32, most significant first.

    They hold 130 bits, so the first is at most 7.

    Raises:
        ValueError: `raw` is not 16 bytes long.
    """
    if len(raw) != 16:
        raise ValueError("an identifier holds exactly 128 bits")
    number = int.from_bytes(raw, "big")
    return "".join(_CROCKFORD[(number >> shift) & 31] for shift in range(125, -1, -5))
