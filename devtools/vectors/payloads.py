"""Topic `payload`: restricted canonical JSON, in correctly signed licenses."""

from collections.abc import Iterator
from typing import Any

from devtools.vectors.build import Case, case, pack, payload, sign

KIND = "license"
_BODY = payload(KIND)


def _raw(name: str, comment: str, body: bytes, code: str | None = "malformed-payload") -> Case:
    """A payload with these bytes."""
    return case(KIND, name, comment, pack(sign(KIND, body)), code)


def _replaced(name: str, comment: str, old: bytes, new: bytes) -> Case:
    """The good payload with one piece of text replaced."""
    assert _BODY.count(old) == 1
    return _raw(name, comment, _BODY.replace(old, new))


def _valid(name: str, comment: str, **changes: Any) -> Case:
    return _raw(name, comment, payload(KIND, **changes), None)


def _refused(name: str, comment: str, **changes: Any) -> Case:
    return _raw(name, comment, payload(KIND, **changes))


def _ext(name: str, comment: str, text: bytes, code: str | None = "malformed-payload") -> Case:
    """A fact in `ext`, written as given."""
    body = payload(KIND, ext={"fact": 0}).replace(b'"fact":0', b'"fact":' + text)
    return _raw(name, comment, body, code)


def _numbers() -> Iterator[Case]:
    yield _valid("largest", "2^53 - 1", grace_s=2**53 - 1)
    yield _refused("beyond-largest", "2^53", grace_s=2**53)
    yield _ext("ext-largest", "2^53 - 1", b"9007199254740991", None)
    yield _ext("ext-beyond-largest", "2^53", b"9007199254740992")
    yield _ext("ext-smallest", "-(2^53 - 1)", b"-9007199254740991", None)
    yield _ext("ext-beyond-smallest", "-2^53", b"-9007199254740992")
    yield _ext("ext-booleans", "true and false", b"[true,false]", None)
    for name, text in (
        ("fraction", b"1.0"),
        ("exponent", b"1e2"),
        ("upper-exponent", b"1E2"),
        ("small-exponent", b"100e-2"),
        ("minus-zero", b"-0"),
        ("minus-zero-fraction", b"-0.0"),
        ("leading-zero", b"01"),
        ("plus", b"+1"),
        ("hex", b"0x10"),
        ("nan", b"NaN"),
        ("infinity", b"-Infinity"),
        ("overflowing", b"1e999"),
        ("500-digits", b"9" * 500),
        ("null", b"null"),
    ):
        yield _ext(f"ext-number-{name}", "integers only, written one way", text)
    for name, new in (("fraction", b"7.0"), ("exponent", b"7e0"), ("minus", b"-7")):
        yield _replaced(
            f"revision-{name}",
            "integers only, written one way",
            b'"revision":7',
            b'"revision":' + new,
        )


def _strings() -> Iterator[Case]:
    for name, comment, text in (
        ("u2028", "U+2028 and U+2029 stand raw", "line\u2028and\u2029paragraph"),
        ("markup", "<, > and & stand raw", "<b>&amp;</b>"),
        ("quote-backslash", "the only two escapes", 'a "quoted" \\ name'),
        ("slash", "stands raw", "a/b"),
        ("u00a0", "the first beyond the C1 controls", "a\u00a0b"),
        ("composed", "é as one code point", "Caf\u00e9"),
        ("decomposed", "é as two: NFC is the issuer's affair", "Cafe\u0301"),
        ("astral", "a code point beyond U+FFFF", "router \U0001f680"),
        ("noncharacter", "U+FFFF is a scalar value", "a\uffffb"),
        ("inner-bom", "U+FEFF inside a string", "a\ufeffb"),
    ):
        yield _valid(f"string-{name}", comment, customer_name=text)
    for name, comment, char in (
        ("u0000", "NUL", "\\u0000"),
        ("newline", "escaped U+000A", "\\n"),
        ("u001f", "escaped U+001F", "\\u001f"),
        ("u007f", "DEL stands raw", "\u007f"),
        ("u0080", "the first C1 control stands raw", "\u0080"),
        ("u009f", "the last C1 control stands raw", "\u009f"),
        ("escaped-letter", "\\u0061 for a", "\\u0061"),
        ("escaped-slash", "\\/ for /", "\\/"),
        ("escaped-markup", "\\u003c for <", "\\u003c"),
        ("escaped-u2028", "\\u2028", "\\u2028"),
        ("escaped-quote", '\\u0022 for \\"', "\\u0022"),
        ("escaped-pair", "an escaped surrogate pair", "\\ud83d\\ude80"),
        ("half-pair", "an escaped half", "\\ud83d"),
        ("raw-newline", "no JSON at all", "\n"),
    ):
        body = payload(KIND, customer_name="a@b").replace(b"a@b", f"a{char}b".encode())
        yield _raw(f"string-{name}", comment, body)
    yield _raw(
        "string-raw-half-pair",
        "surrogates are not UTF-8",
        payload(KIND, customer_name="a@b").replace(b"@", b"\xed\xa0\xbd"),
    )
    yield _raw(
        "string-not-utf-8", "Latin-1", payload(KIND, customer_name="a@b").replace(b"@", b"\xe9")
    )
    yield _refused("string-empty", "no empty strings", customer_name="")
    yield _ext("ext-string-empty", "no empty strings", b'""')
    yield _replaced(
        "string-trailing-newline", "beware of $", b'"enterprise-annual"', b'"enterprise-annual\\n"'
    )


def _shapes() -> Iterator[Case]:
    yield _raw("white-space", "none is allowed", _BODY.replace(b",", b", ", 1))
    yield _raw("space-before", "none is allowed", b" " + _BODY)
    yield _raw("newline-after", "none is allowed", _BODY + b"\n")
    yield _raw("byte-order-mark", "none is allowed", b"\xef\xbb\xbf" + _BODY)
    yield _raw("utf-16", "UTF-8 alone", _BODY.decode().encode("utf-16"))
    yield _raw("cut-short", "the last byte is missing", _BODY[:-1])
    yield _raw("array", "an object is wanted", b"[]")
    yield _raw("string", "an object is wanted", b'"license.v1"')
    yield _raw("number", "an object is wanted", b"1")
    yield _raw("empty-object", "all fields are missing", b"{}")
    moved = b'{"typ":"license.v1",' + _BODY[1:].replace(b',"typ":"license.v1"', b"")
    yield _raw("unsorted", "keys are sorted", moved)
    yield _raw(
        "unsorted-nested",
        "at every depth",
        _BODY.replace(
            b'"min_version":0,"require_current_bundle":false',
            b'"require_current_bundle":false,"min_version":0',
        ),
    )
    yield _replaced("key-twice", "duplicate keys", b'"revision":7', b'"revision":7,"revision":7')
    yield _replaced(
        "key-twice-differing", "duplicate keys", b'"revision":7', b'"revision":7,"revision":8'
    )
    yield _replaced(
        "key-twice-escaped", "duplicate keys", b'"revision":7', b'"revision":7,"revisio\\u006e":7'
    )
    yield _replaced(
        "key-escaped", "keys are written one way too", b'"revision"', b'"revisio\\u006e"'
    )
    yield _ext("ext-empty", "ext may be empty", b"0", None)
    yield _valid("ext-none", "an empty ext", ext={})
    yield _ext("ext-empty-array", "empty where it may not be", b"[]")
    yield _ext("ext-empty-object", "empty where it may not be", b"{}")
    yield _ext("ext-empty-array-nested", "empty where it may not be", b"[[]]")
    yield _ext("ext-empty-limits", "this name may be empty", b'{"limits":{}}', None)
    for name, key in (
        ("upper-case", b"Fact"),
        ("digit", b"1fact"),
        ("dash", b"a-fact"),
        ("empty", b""),
        ("letter-e-acute", "fäct".encode()),
    ):
        yield _ext(f"ext-key-{name}", "keys are [a-z][a-z0-9_]*", b'{"' + key + b'":1}')
    for depth, code in ((8, None), (9, "malformed-payload")):
        nested = b"[" * (depth - 2) + b"1" + b"]" * (depth - 2)
        yield _ext(f"depth-{depth}-arrays", "the outermost object is depth 1", nested, code)
        objects = b'{"a":' * (depth - 2) + b"1" + b"}" * (depth - 2)
        yield _ext(f"depth-{depth}-objects", "the outermost object is depth 1", objects, code)
    yield _raw("depth-5000", "far too deep", b'{"ext":' + b"[" * 5000)


def _extensions() -> Iterator[Case]:
    yield _valid("ext-not-critical", "what is not in crit may be ignored", ext={"color": "red"})
    yield _refused(
        "crit-unknown", "present, and not understood", ext={"color": "red"}, crit=["color"]
    )
    yield _refused("crit-missing", "not in ext", ext={"color": "red"}, crit=["shape"])
    yield _refused("crit-without-ext", "there is no ext", crit=["color"])
    yield _refused("crit-empty", "an empty array where none may be", ext={"color": "red"}, crit=[])
    yield _refused("ext-array", "an object is wanted", ext=["color"])
    yield _refused("field-of-lease", "another document's field is an unknown field", seq=1)
    yield _refused("field-case", "keys are case-sensitive", Revision=7)


def cases() -> Iterator[Case]:
    """Every case of the topic."""
    yield from _numbers()
    yield from _strings()
    yield from _shapes()
    yield from _extensions()
