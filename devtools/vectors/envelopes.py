"""Topic `envelope`: one correct license, written in every way an envelope may or may not be."""

from collections.abc import Iterator

from devtools.vectors.build import (
    NOW,
    Case,
    Object,
    b64,
    case,
    flipped,
    pack,
    pae,
    payload,
    payload_type,
    sign,
    signature,
)
from devtools.vectors.keys import FILLERS, LICENSE

KIND = "license"
MAX_BYTES = 16 * 1024

_BODY = payload(KIND)
_VALUE = sign(KIND, _BODY)
_GOOD = pack(_VALUE)
_ENTRY = _VALUE["signatures"][0]
_FILLERS = [signature(key.keyid, key.sign(pae(payload_type(KIND), _BODY))) for key in FILLERS]


def _case(
    name: str, comment: str, envelope: bytes, code: str | None = "malformed-envelope"
) -> Case:
    return case(KIND, name, comment, envelope, code)


def _valid(name: str, comment: str, envelope: bytes) -> Case:
    return _case(name, comment, envelope, None)


def _with(**changes: object) -> bytes:
    """The good envelope with some members changed."""
    return pack({**_VALUE, **changes})


def _entry(**changes: object) -> bytes:
    """The good envelope with its signature's members changed."""
    return _with(signatures=[{**_ENTRY, **changes}])


def _texts() -> Iterator[Case]:
    yield _valid("compact", "no white space", _GOOD)
    yield _valid(
        "white-space",
        "around every token",
        b" \t\r\n"
        + pack(_VALUE)
        .replace(b",", b" ,\n\t")
        .replace(b":", b" :\r\n ")
        .replace(b"{", b"{ ")
        .replace(b"]", b" ]")
        + b"\n\n",
    )
    yield _valid(
        "other-order",
        "the keys of an object have no order",
        pack({key: _VALUE[key] for key in reversed(_VALUE)}),
    )
    yield _valid(
        "escapes",
        "escapes in keys and values",
        _GOOD.replace(b'"payload"', b'"\\u0070ayload"')
        .replace(b"application/", b"application\\/")
        .replace(b'"keyid"', b'"\\u006Beyid"'),
    )
    yield _case("byte-order-mark", "UTF-8 without BOM", b"\xef\xbb\xbf" + _GOOD)
    yield _case("utf-16-le", "with a byte order mark", _GOOD.decode().encode("utf-16"))
    yield _case("utf-16-be", "without one", _GOOD.decode().encode("utf-16-be"))
    yield _case("utf-32", "UTF-8 alone", _GOOD.decode().encode("utf-32-le"))
    yield _case("not-utf-8", "a byte no UTF-8 has", _GOOD.replace(b"vnd", b"vn\xff"))
    yield _case("overlong", "U+0064 in two bytes", _GOOD.replace(b"vnd", b"vn\xc1\xa4"))
    yield _case(
        "raw-surrogate", "half a pair in three bytes", _GOOD.replace(b"vnd", b"vn\xed\xa0\x80")
    )
    yield _case("escaped-surrogate", "half a pair", _GOOD.replace(b"vnd", b"vn\\ud800"))
    yield _case(
        "escaped-surrogates-reversed",
        "two halves are not a pair in this order",
        _GOOD.replace(b"vnd", b"vn\\udc00\\ud800"),
    )
    yield _case("raw-control", "a tab in a string", _GOOD.replace(b"vnd", b"vn\td"))
    yield _case("raw-nul", "NUL in a string", _GOOD.replace(b"vnd", b"vn\x00d"))
    yield _case("bad-escape", "JSON has no \\x", _GOOD.replace(b"vnd", b"vn\\x64"))
    yield _case("short-escape", "four hex digits", _GOOD.replace(b"vnd.", b"vn\\u64."))
    yield _case("form-feed", "no white space of JSON", b"\x0c" + _GOOD)
    yield _case("no-break-space", "no white space of JSON", _GOOD + b"\xc2\xa0")
    yield _case("nul-after", "nothing may follow", _GOOD + b"\x00")
    yield _case("brace-after", "nothing may follow", _GOOD + b"}")
    yield _case("two-documents", "nothing may follow", _GOOD + b"\n" + _GOOD)
    yield _case("comment", "JSON has no comments", b"/* license */" + _GOOD)
    yield _case("trailing-comma", "JSON has none", _GOOD[:-1] + b",}")
    yield _case("single-quotes", "JSON has none", _GOOD.replace(b'"', b"'"))
    yield _case("bare-key", "keys are strings", _GOOD.replace(b'"signatures"', b"signatures"))
    yield _case("cut-short", "the last byte is missing", _GOOD[:-1])
    yield _case("empty", "no bytes", b"")
    for name, text in (
        ("null", b"null"),
        ("true", b"true"),
        ("number", b"0"),
        ("string", b'"license"'),
        ("array", b"[]"),
        ("object", b"{}"),
        ("nan", b"NaN"),
        ("minus", b"-"),
        ("leading-zero", b"01"),
    ):
        yield _case(f"text-{name}", "no envelope", text)
    yield _case("in-array", "an object is wanted", b"[" + _GOOD + b"]")
    yield _case("deep-arrays", "8,000 deep", b"[" * 8000)
    yield _case("deep-objects", "3,000 deep", b'{"a":' * 3000)
    yield _valid("16384-bytes", "the most", _GOOD.ljust(MAX_BYTES))
    yield _case("16385-bytes", "one too many", _GOOD.ljust(MAX_BYTES + 1))


def _keys() -> Iterator[Case]:
    for key in _VALUE:
        yield _case(
            f"without-{key}",
            "exactly three keys",
            pack({name: value for name, value in _VALUE.items() if name != key}),
        )
    yield _case("unknown-key", "exactly three keys", _with(version=1))
    for key, other in (
        ("payload", "Payload"),
        ("payloadType", "payloadtype"),
        ("signatures", "SIGNATURES"),
    ):
        yield _case(
            f"case-{other}",
            "keys are case-sensitive",
            _GOOD.replace(f'"{key}"'.encode(), f'"{other}"'.encode()),
        )
        yield _case(
            f"case-and-{other}", "both spellings", _GOOD[:-1] + f',"{other}":"x"}}'.encode()
        )
    value = b64(_BODY).encode()
    yield _case("payload-twice", "duplicate keys", _GOOD[:-1] + b',"payload":"' + value + b'"}')
    yield _case(
        "payload-twice-escaped",
        "judged after unescaping",
        _GOOD[:-1] + b',"p\\u0061yload":"' + value + b'"}',
    )
    yield _case("signatures-twice", "duplicate keys", _GOOD[:-1] + b',"signatures":[]}')
    yield _case(
        "keyid-twice", "in a signature", _GOOD.replace(b'{"keyid":', b'{"keyid":"x","keyid":')
    )
    yield _case(
        "sig-twice-escaped",
        "in a signature, after unescaping",
        _GOOD.replace(b',"sig":', b',"\\u0073ig":"x","sig":'),
    )
    yield _case("signature-unknown-key", "exactly two keys", _entry(cert="x"))
    yield _case(
        "signature-without-keyid", "exactly two keys", _with(signatures=[{"sig": _ENTRY["sig"]}])
    )
    yield _case("signature-keyID", "keys are case-sensitive", _GOOD.replace(b'"keyid"', b'"keyID"'))
    for name, wrong in (("payload", 1), ("payloadType", None), ("signatures", {"0": _ENTRY})):
        yield _case(f"kind-{name}", "of another JSON kind", _with(**{name: wrong}))
    yield _case("signature-is-string", "an object is wanted", _with(signatures=[_ENTRY["sig"]]))
    yield _case("keyid-is-number", "a string is wanted", _entry(keyid=1))
    yield _case("sig-is-null", "a string is wanted", _entry(sig=None))
    for name, keyid in (
        ("upper-case", LICENSE.keyid.upper()),
        ("63", LICENSE.keyid[:63]),
        ("65", LICENSE.keyid + "0"),
        ("line-break", LICENSE.keyid + "\n"),
        ("letter-g", "g" + LICENSE.keyid[1:]),
        ("empty", ""),
    ):
        yield _case(f"keyid-{name}", "64 lower-case hex digits", _entry(keyid=keyid))
    for name, kind in (
        ("empty", ""),
        ("upper-case", payload_type(KIND).upper()),
        ("space", payload_type(KIND) + " "),
        ("parameter", payload_type(KIND) + "; charset=utf-8"),
    ):
        yield _case(
            f"type-{name}",
            "compared exactly",
            pack(sign(KIND, _BODY) | {"payloadType": kind}),
            "wrong-type",
        )


def _with_last_bits(text: str) -> str:
    """The same bytes in base64 whose unused bits are not zero; `text` ends in one `=`."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    return text[:-2] + alphabet[alphabet.index(text[-2]) + 1] + "="


def _padded_bodies() -> tuple[bytes, bytes]:
    """Two correct payloads: one whose base64 ends in one `=`, one whose base64 has `+` and `/`."""
    named = [payload(KIND, customer_name="?" * 20 + "~" * 20 + "x" * more) for more in range(3)]
    one_pad = next(body for body in named if len(body) % 3 == 2)
    return one_pad, next(body for body in named if {"+", "/"} & set(b64(body)))


def _base64() -> Iterator[Case]:
    one_pad, special = _padded_bodies()
    padded = sign(KIND, one_pad)
    text: str = padded["payload"]
    yield _valid("base64-padded", "with its padding", pack(padded))
    yield _valid("base64-special", "with + or /", pack(sign(KIND, special)))
    special_text = b64(special)
    sig: str = _ENTRY["sig"]
    variants: tuple[tuple[str, str, Object, str], ...] = (
        ("unpadded", "without its padding", padded, text.rstrip("=")),
        ("overpadded", "padding that is not needed", padded, text + "===="),
        ("last-bits", "unused bits that are not zero", padded, _with_last_bits(text)),
        (
            "url",
            "the alphabet of URLs",
            sign(KIND, special),
            special_text.replace("+", "-").replace("/", "_"),
        ),
        ("line-breaks", "as MIME writes it", padded, text[:76] + "\r\n" + text[76:]),
        ("space-after", "white space", padded, text + " "),
        ("padding-inside", "padding in the middle", padded, text[:8] + "====" + text[8:]),
        ("foreign", "a character of no alphabet", padded, "*" + text[1:]),
        ("one-left", "one character more than whole groups", padded, text.rstrip("=") + "AA"),
        ("not-ascii", "a fullwidth letter", padded, "\uff21" + text[1:]),
    )
    for name, comment, value, changed in variants:
        yield _case(f"base64-{name}", comment, pack({**value, "payload": changed}))
    yield _case("sig-unpadded", "a signature's base64 ends in ==", _entry(sig=sig.rstrip("=")))
    yield _case("sig-one-pad", "half the padding", _entry(sig=sig[:-1]))
    yield _case("sig-line-break", "white space", _entry(sig=sig + "\n"))
    raw = LICENSE.sign(pae(payload_type(KIND), _BODY))
    yield _case("sig-63-bytes", "64 bytes", _entry(sig=b64(raw[:63])))
    yield _case("sig-65-bytes", "64 bytes", _entry(sig=b64(raw + b"\0")))
    yield _case("sig-empty", "64 bytes", _entry(sig=""))
    yield _case("payload-empty", "signed nothing", pack(sign(KIND, b"")), "malformed-payload")


def _counts() -> Iterator[Case]:
    raw = LICENSE.sign(pae(payload_type(KIND), _BODY))
    yield _case("signatures-0", "at least one", _with(signatures=[]))
    yield _valid("signatures-8", "at most eight", _with(signatures=[*_FILLERS[:7], _ENTRY]))
    yield _case("signatures-9", "at most eight", _with(signatures=[*_FILLERS, _ENTRY]))
    yield _case("same-keyid-twice", "each key id once", _with(signatures=[_ENTRY, _ENTRY]))
    yield _case(
        "same-keyid-right-and-wrong",
        "each key id once",
        _with(signatures=[_ENTRY, signature(LICENSE.keyid, flipped(raw))]),
    )
    yield case(
        KIND,
        "malformed-and-expired",
        "row 1 decides",
        _GOOD[:-1],
        "malformed-envelope",
        now=NOW * 2,
    )


def cases() -> Iterator[Case]:
    """Every case of the topic."""
    yield from _texts()
    yield from _keys()
    yield from _base64()
    yield from _counts()
