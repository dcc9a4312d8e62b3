"""Strict JSON, restricted canonical JSON and strict base64, by example."""

import hashlib
from typing import Any

import pytest

from licensing.encoding import (
    MAX_INTEGER,
    b64decode,
    b64encode,
    canonical,
    crockford,
    parse_canonical,
    parse_json,
    sha256_hex,
)
from licensing.errors import MalformedEnvelope, MalformedPayload


def parse(text: bytes) -> Any:
    return parse_json(text, max_bytes=1000)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b' {"a" : [1, 2.5, true, null, "b"]}\r\n', {"a": [1, 2.5, True, None, "b"]}),
        (b'"\\u00e9\\n\\/\\ud83d\\ude80"', "\u00e9\n/\U0001f680"),
        (b"[]", []),
        (b"-0", 0),
    ],
)
def test_strict_json_is_json(text: bytes, value: Any) -> None:
    assert parse(text) == value


def test_length_comes_first() -> None:
    with pytest.raises(MalformedEnvelope, match="6 bytes; at most 5"):
        parse_json(b"\xff" * 6, max_bytes=5)
    assert parse_json(b"     1", max_bytes=6) == 1


@pytest.mark.parametrize(
    ("text", "detail"),
    [
        (b"\xef\xbb\xbf1", "byte order mark"),
        (b'"\xff"', "not UTF-8 at byte 1"),
        (b'{"a":1,"a":1}', "same key twice"),
        (b'{"a":1,"\\u0061":2}', "same key twice"),
        (b'[{"b":{"a":1,"a":1}}]', "same key twice"),
        (b"NaN", "not JSON"),
        (b'"\\ud800"', "surrogate"),
        (b'{"\\ud800":1}', "surrogate"),
        (b'[["\\ud83d"]]', "surrogate"),
        (b"1" * 401, "too many digits"),
        (b"1 2", "not JSON"),
        (b"[" * 1000, "nested too deeply|not JSON"),
    ],
)
def test_strict_json_refuses(text: bytes, detail: str) -> None:
    with pytest.raises(MalformedEnvelope, match=detail):
        parse(text)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({}, "{}"),
        ({"b": 1, "a": True, "a_1": "x"}, '{"a":true,"a_1":"x","b":1}'),
        ({"a": [1, {"c": -MAX_INTEGER}]}, '{"a":[1,{"c":-9007199254740991}]}'),
        ({"a": '"\\/<&>'}, '{"a":"\\"\\\\/<&>"}'),
        ({"a": "\u00e9e\u0301\u2028\U0001f680"}, '{"a":"\u00e9e\u0301\u2028\U0001f680"}'),
        ({"features": [], "limits": {}, "ext": {}}, '{"ext":{},"features":[],"limits":{}}'),
    ],
)
def test_canonical(value: dict[str, Any], text: str) -> None:
    assert canonical(value) == text.encode()
    assert parse_canonical(text.encode()) == value


def nested(depth: int) -> dict[str, Any]:
    """Return an object that is `depth` deep."""
    value: dict[str, Any] = {"a": 1}
    for _ in range(depth - 1):
        value = {"a": value}
    return value


def test_depth() -> None:
    assert canonical(nested(8))
    with pytest.raises(MalformedPayload, match="deeper than 8"):
        canonical(nested(9))


@pytest.mark.parametrize(
    "value",
    [
        {"a": None},
        {"a": 1.0},
        {"a": ""},
        {"a": []},
        {"a": {}},
        {"features": [[]]},
        {"a": [{}]},
        {"A": 1},
        {"": 1},
        {"1a": 1},
        {"\u00e9": 1},
        {"a\n": 1},
        {1: 1},
        {"a": MAX_INTEGER + 1},
        {"a": -MAX_INTEGER - 1},
        {"a": "\x00"},
        {"a": "\x1f"},
        {"a": "\x7f"},
        {"a": "\x9f"},
        {"a": "\ud800"},
        {"a": b"bytes"},
        {"a": {1, 2}},
    ],
)
def test_canonical_refuses(value: dict[str, Any]) -> None:
    with pytest.raises(MalformedPayload):
        canonical(value)


@pytest.mark.parametrize(
    "text",
    [
        b'{"b":1,"a":1}',
        b'{"a": 1}',
        b' {"a":1}',
        b'{"a":1}\n',
        b'{"a":"\\u0061"}',
        b'{"a":"\\/"}',
        b'{"a":-0}',
        b'{"a":1e2}',
        b'{"a":1.0}',
        b'{"a":1,"a":1}',
        b"[1]",
        b'"a"',
        b"1",
        b"",
    ],
)
def test_parse_canonical_refuses(text: bytes) -> None:
    with pytest.raises(MalformedPayload):
        parse_canonical(text)


@pytest.mark.parametrize(
    ("data", "text"),
    [(b"", ""), (b"f", "Zg=="), (b"fo", "Zm8="), (b"foo", "Zm9v"), (b"\xff", "/w==")],
)
def test_base64(data: bytes, text: str) -> None:
    """RFC 4648 section 10."""
    assert b64encode(data) == text
    assert b64decode(text) == data


@pytest.mark.parametrize(
    "text",
    [
        "Zg",
        "Zg=",
        "Zg===",
        "Zh==",
        "Zm9=",
        "Zg==\n",
        " Zg==",
        "Z g==",
        "Zm9v====",
        "_w==",
        "Z",
        "=",
        "====",
        "Zg==Zg==",
        "\u00e9g==",
        "Zm9v\x00",
        "*m9v",
    ],
)
def test_base64_refuses(text: str) -> None:
    with pytest.raises(MalformedEnvelope):
        b64decode(text)


def test_sha256() -> None:
    assert sha256_hex(b"abc") == hashlib.sha256(b"abc").hexdigest()


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "00000000000000000000000000"),
        (31, "0000000000000000000000000Z"),
        (32, "00000000000000000000000010"),
        (2**128 - 1, "7ZZZZZZZZZZZZZZZZZZZZZZZZZ"),
    ],
)
def test_crockford(number: int, text: str) -> None:
    assert crockford(number.to_bytes(16, "big")) == text


@pytest.mark.parametrize("size", [0, 15, 17])
def test_crockford_takes_128_bits(size: int) -> None:
    with pytest.raises(ValueError, match="128 bits"):
        crockford(bytes(size))
