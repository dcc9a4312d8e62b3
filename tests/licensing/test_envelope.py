"""The envelope: signing input, shape, limits, and writing."""

import json

import pytest

from devtools.vectors.build import NOW, pack, payload, sign, signature, signed, signed_keyset
from devtools.vectors.keys import FILLERS, LICENSE
from licensing.envelope import (
    MAX_BUNDLE_BYTES,
    MAX_BYTES,
    MAX_KEYSET_BYTES,
    Envelope,
    Signature,
    pae,
)
from licensing.errors import LicensingError, MalformedEnvelope
from licensing.verify import verify_bundle, verify_keyset, verify_lease, verify_license
from tests.licensing.documents import BUNDLE_FILE, KEYSET, LEASE_FILE, LICENSE_FILE, TRUST


@pytest.mark.parametrize(
    ("kind", "body", "expected"),
    [
        (
            "http://example.com/HelloWorld",
            b"hello world",
            b"DSSEv1 29 http://example.com/HelloWorld 11 hello world",
        ),
        ("", b"", b"DSSEv1 0  0 "),
        ("\u00e9", b"\xff\x00", b"DSSEv1 2 \xc3\xa9 2 \xff\x00"),
    ],
)
def test_signing_input(kind: str, body: bytes, expected: bytes) -> None:
    """The first is the example of DSSE's protocol."""
    assert pae(kind, body) == expected


def test_parse() -> None:
    envelope = Envelope.parse(LICENSE_FILE)
    assert envelope.payload == payload("license")
    assert envelope.payload_type == "application/vnd.metrum.license.v1+json"
    assert [each.keyid for each in envelope.signatures] == [LICENSE.keyid]
    assert len(envelope.signatures[0].sig) == 64
    assert envelope.signing_input() == pae(envelope.payload_type, envelope.payload)


def test_what_is_written_is_what_is_parsed() -> None:
    body = payload("license")
    several = pack(sign("license", body, LICENSE, *FILLERS[:3]))
    for file in (LICENSE_FILE, several):
        envelope = Envelope.parse(file)
        assert envelope.to_bytes() == file
        assert envelope.to_object() == json.loads(file)
        assert Envelope.from_object(envelope.to_object()) == envelope


def test_bytes_are_verified_as_they_came() -> None:
    """A payload that is no JSON at all goes through the envelope untouched."""
    envelope = Envelope(b"\x00\xff not json", "text/plain", (Signature("0" * 64, bytes(64)),))
    assert Envelope.parse(envelope.to_bytes()) == envelope


@pytest.mark.parametrize("wrong", [None, [], "x", 1, {}, {"payload": "", "payloadType": ""}])
def test_objects_of_another_shape(wrong: object) -> None:
    with pytest.raises(MalformedEnvelope):
        Envelope.from_object(wrong)


@pytest.mark.parametrize(
    ("file", "limit"),
    [
        (LICENSE_FILE, MAX_BYTES),
        (LEASE_FILE, MAX_BYTES),
        (BUNDLE_FILE, MAX_BUNDLE_BYTES),
        (KEYSET, MAX_KEYSET_BYTES),
    ],
    ids=["license", "lease", "bundle", "keyset"],
)
def test_the_largest_file_and_one_byte_more(file: bytes, limit: int) -> None:
    def verify(data: bytes) -> object:
        if file is LICENSE_FILE:
            return verify_license(data, TRUST, NOW)
        if file is LEASE_FILE:
            return verify_lease(data, TRUST, NOW)
        return verify_bundle(data, TRUST, NOW) if file is BUNDLE_FILE else verify_keyset(data, NOW)

    assert verify(file.ljust(limit))
    with pytest.raises(MalformedEnvelope, match=f"{limit + 1} bytes; at most {limit}"):
        verify(file.ljust(limit + 1))


def test_eight_signatures_and_one_more() -> None:
    entries = [signature(key.keyid, bytes(64)) for key in (*FILLERS, LICENSE)]
    value = {"payload": "", "payloadType": "x"}
    assert len(Envelope.from_object({**value, "signatures": entries[:8]}).signatures) == 8
    for wrong in (entries, [], [entries[0], entries[0]]):
        with pytest.raises(MalformedEnvelope):
            Envelope.from_object({**value, "signatures": wrong})


def test_a_refusal_quotes_no_signature() -> None:
    """Details are shown and logged; they name key ids at most."""
    for file in (LICENSE_FILE[:-1], signed("license", FILLERS[0]), signed_keyset(FILLERS[0])):
        with pytest.raises(LicensingError) as caught:
            verify_license(file, TRUST, NOW)
        for each in json.loads(signed("license", FILLERS[0]))["signatures"]:
            assert each["sig"] not in caught.value.detail
