"""What must hold for all bytes, all values and all licenses, not for examples alone."""

import base64
import contextlib
import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from devtools.vectors.build import FINGERPRINT, ISSUED, NOW, identifier, signed
from licensing.encoding import (
    MAX_INTEGER,
    b64decode,
    b64encode,
    canonical,
    parse_canonical,
    parse_json,
)
from licensing.envelope import Envelope
from licensing.errors import LicensingError, MalformedEnvelope, MalformedPayload
from licensing.license import License
from licensing.names import CODES, FEATURES, SKUS
from licensing.verify import examine_license, verify_bundle, verify_keyset, verify_license
from tests.licensing.documents import BUNDLE_FILE, HELD, KEYSET, LICENSE_FILE, TRUST
from tests.spread import examples

KEYS = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True)
TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20)
INTEGERS = st.integers(-MAX_INTEGER, MAX_INTEGER)
ATOMS = st.one_of(st.booleans(), INTEGERS, TEXT)


def _grown(children: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(
        st.lists(children, min_size=1, max_size=3),
        st.dictionaries(KEYS, children, min_size=1, max_size=3),
    )


def _depth(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max((_depth(item) for item in value.values()), default=0)
    if isinstance(value, list):
        return 1 + max((_depth(item) for item in value), default=0)
    return 0


OBJECTS = st.dictionaries(
    KEYS, st.recursive(ATOMS, _grown, max_leaves=12), min_size=1, max_size=4
).filter(lambda value: _depth(value) <= 8)
"""Values restricted canonical JSON can say."""

ANY_JSON = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(),
    ),
    lambda children: st.one_of(
        st.lists(children, max_size=3), st.dictionaries(st.text(), children, max_size=3)
    ),
    max_leaves=10,
)


@st.composite
def licenses(draw: st.DrawFn) -> bytes:
    """License files that verify."""
    limits = draw(
        st.dictionaries(
            st.sampled_from(["max_seats", "max_instances"]), st.integers(1, MAX_INTEGER)
        )
    )
    changes: dict[str, Any] = {
        "revision": draw(st.integers(1, MAX_INTEGER)),
        "sku": draw(st.sampled_from(SKUS)),
        "features": sorted(draw(st.sets(st.sampled_from(FEATURES)))),
        "limits": limits,
        "customer_name": draw(TEXT),
        "license_id": identifier("lic", draw(st.integers(0, 10**20))),
        "ext": {"facts": draw(OBJECTS.filter(lambda value: _depth(value) <= 6))},
    }
    return signed("license", **changes)


def _refused(data: bytes) -> str:
    """Return the code a license file is refused with.

    Raises:
        AssertionError: it is accepted.
    """
    try:
        verify_license(data, TRUST, NOW, fingerprint=FINGERPRINT)
    except LicensingError as error:
        return error.code
    raise AssertionError("accepted")


def _flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def _check_flipped(data: bytes, bit: int) -> None:
    code = _refused(_flipped(data, bit))
    before = data.index(b'"keyid":"') + len(b'"keyid":"')
    in_keyid = before <= bit // 8 < before + 64
    expected = {3, 7} if in_keyid else {3}
    assert CODES[code].exit in expected, code
    if CODES[code].exit == 7:
        assert code == "untrusted-key"


def test_no_flipped_bit_of_a_license_is_accepted() -> None:
    """All of them: exit 3, or 7 where another well-formed key id is left."""
    for bit in range(8 * len(LICENSE_FILE)):
        _check_flipped(LICENSE_FILE, bit)


@given(licenses(), st.data())
@settings(max_examples=examples(30, 300))
def test_no_flipped_bit_of_any_license_is_accepted(data: bytes, source: st.DataObject) -> None:
    assert verify_license(data, TRUST, NOW, fingerprint=FINGERPRINT)
    for _ in range(20):
        _check_flipped(data, source.draw(st.integers(0, 8 * len(data) - 1)))


@given(st.integers(0, len(LICENSE_FILE) - 1))
def test_no_cut_license_is_accepted(length: int) -> None:
    assert _refused(LICENSE_FILE[:length]) == "malformed-envelope"


@given(st.integers(0, len(LICENSE_FILE)), st.binary(min_size=1, max_size=4))
def test_nothing_inserted_changes_what_is_read(position: int, inserted: bytes) -> None:
    """White space between tokens may be added, and the backslash that may stand before a slash."""
    changed = LICENSE_FILE[:position] + inserted + LICENSE_FILE[position:]
    try:
        verified = verify_license(changed, TRUST, NOW)
    except LicensingError:
        return
    assert inserted == b"\\" or not inserted.strip(b" \t\r\n")
    assert verified.payload_sha256 == verify_license(LICENSE_FILE, TRUST, NOW).payload_sha256


@given(st.integers(0, 8 * len(KEYSET) - 1))
@settings(max_examples=examples(200, 1000))
def test_no_flipped_bit_of_a_keyset_changes_it(bit: int) -> None:
    """Two of three roots are needed and two signed, so that each signature matters."""
    with contextlib.suppress(LicensingError):
        assert verify_keyset(_flipped(KEYSET, bit), NOW).payload_sha256 != HELD.payload_sha256


@given(st.integers(0, 8 * len(BUNDLE_FILE) - 1))
def test_no_flipped_bit_of_a_bundle_is_accepted(bit: int) -> None:
    try:
        verify_bundle(_flipped(BUNDLE_FILE, bit), TRUST, NOW)
    except LicensingError:
        return
    raise AssertionError("accepted")


@given(licenses())
def test_licenses_are_written_as_they_were_read(data: bytes) -> None:
    envelope = Envelope.parse(data)
    assert License.parse(envelope.payload).to_bytes() == envelope.payload
    assert envelope.to_bytes() == data


@given(st.binary(max_size=300))
def test_any_bytes_raise_the_typed_error(data: bytes) -> None:
    assert _refused(data) == "malformed-envelope"
    assert examine_license(data, TRUST, NOW).verified is None
    with contextlib.suppress(MalformedPayload):
        parse_canonical(data)
    with contextlib.suppress(MalformedEnvelope):
        parse_json(data, max_bytes=300)


@given(OBJECTS)
def test_canonical_round_trip(value: dict[str, Any]) -> None:
    data = canonical(value)
    assert parse_canonical(data) == value
    assert canonical(parse_canonical(data)) == data


@given(OBJECTS)
def test_canonical_is_json(value: dict[str, Any]) -> None:
    data = canonical(value)
    assert json.loads(data) == parse_json(data, max_bytes=len(data)) == value


@given(OBJECTS, st.booleans(), st.booleans(), st.sampled_from([None, 0, 1]))
def test_every_other_way_to_write_a_value_is_refused(
    value: dict[str, Any], ascii_only: bool, reverse: bool, indent: int | None
) -> None:
    ordered = dict(sorted(value.items(), reverse=reverse))
    data = json.dumps(ordered, ensure_ascii=ascii_only, indent=indent).encode()
    try:
        assert parse_canonical(data) == value
    except MalformedPayload:
        assert data != canonical(value)
    else:
        assert data == canonical(value)


@given(ANY_JSON)
def test_strict_json_agrees_with_the_standard_parser(value: Any) -> None:
    try:
        data = json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:  # a lone surrogate
        data = json.dumps(value).encode()
    try:
        parsed = parse_json(data, max_bytes=len(data))
    except MalformedEnvelope as error:
        refused = error.detail
        assert "surrogate" in refused or "digits" in refused
    else:
        assert parsed == json.loads(data)


@given(ANY_JSON)
def test_what_canonical_refuses_is_refused_when_parsed(value: Any) -> None:
    data = json.dumps(value, ensure_ascii=True, sort_keys=True, separators=(",", ":")).encode()
    try:
        parsed = parse_canonical(data)
    except MalformedPayload:
        return
    assert canonical(parsed) == data


@given(st.binary())
def test_base64_round_trip(data: bytes) -> None:
    assert b64decode(b64encode(data)) == data
    assert b64encode(data) == base64.standard_b64encode(data).decode()


@given(
    st.one_of(
        st.text(max_size=12),
        st.text("AQgwZz09+/=-_ \n", max_size=12),
        st.from_regex(r"[A-Za-z0-9+/]{2,8}={0,3}", fullmatch=True),
    )
)
@settings(max_examples=examples(500, 2000))
def test_base64_has_one_way_to_write_bytes(text: str) -> None:
    try:
        data = b64decode(text)
    except MalformedEnvelope:
        return
    assert b64encode(data) == text


@given(st.binary(min_size=1), st.data())
def test_a_changed_character_of_base64_changes_the_bytes(
    data: bytes, source: st.DataObject
) -> None:
    text = b64encode(data)
    position = source.draw(st.integers(0, len(text) - 1))
    char = source.draw(st.characters(max_codepoint=0x17F).filter(lambda it: it != text[position]))
    with contextlib.suppress(MalformedEnvelope):
        assert b64decode(text[:position] + char + text[position + 1 :]) != data


@given(st.integers(ISSUED, NOW + 40 * 86_400))
def test_time_decides_alone(at: int) -> None:
    report = examine_license(LICENSE_FILE, TRUST, at)
    assert (report.error is None) == (at < NOW + 30 * 86_400)
