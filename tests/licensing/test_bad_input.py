"""No bytes make a parser raise anything but its typed error."""

import contextlib
from collections.abc import Callable

import pytest

from devtools.vectors.build import NOW, pack, sign
from licensing.encoding import parse_canonical, parse_json
from licensing.enrollment import EnrollmentRequest, LeaseRequest, ReleaseRequest
from licensing.envelope import MAX_BUNDLE_BYTES, MAX_KEYSET_BYTES, Envelope
from licensing.errors import (
    MalformedEnvelope,
    MalformedPayload,
    RevocationUnusable,
)
from licensing.keys import Keyset, PublicKey
from licensing.lease import Lease
from licensing.license import License
from licensing.revocation import RevocationBundle
from licensing.verify import (
    examine_license,
    verify_bundle,
    verify_keyset,
    verify_keyset_update,
    verify_lease,
    verify_license,
)
from tests.licensing.corpus import CORPUS
from tests.licensing.documents import HELD, LICENSE_FILE, TRUST

ENVELOPES: dict[str, Callable[[bytes], object]] = {
    "envelope": Envelope.parse,
    "envelope of a keyset": lambda data: Envelope.parse(data, max_bytes=MAX_KEYSET_BYTES),
    "envelope of a bundle": lambda data: Envelope.parse(data, max_bytes=MAX_BUNDLE_BYTES),
    "license": lambda data: verify_license(data, TRUST, NOW),
    "lease": lambda data: verify_lease(data, TRUST, NOW),
    "bundle": lambda data: verify_bundle(data, TRUST, NOW),
    "keyset": lambda data: verify_keyset(data, NOW),
    "keyset update": lambda data: verify_keyset_update(data, HELD, NOW),
}
PAYLOADS: dict[str, Callable[[bytes], object]] = {
    "license": License.parse,
    "lease": Lease.parse,
    "bundle": RevocationBundle.parse,
    "keyset": Keyset.parse,
    "enrollment": EnrollmentRequest.parse,
    "lease request": LeaseRequest.parse,
    "release request": ReleaseRequest.parse,
}

corpus = pytest.mark.parametrize("name", CORPUS)


@corpus
@pytest.mark.parametrize("parser", ENVELOPES)
def test_no_envelope(parser: str, name: str) -> None:
    with pytest.raises(MalformedEnvelope):
        ENVELOPES[parser](CORPUS[name])


@corpus
@pytest.mark.parametrize("parser", PAYLOADS)
def test_no_payload(parser: str, name: str) -> None:
    with pytest.raises(MalformedPayload):
        PAYLOADS[parser](CORPUS[name])


@pytest.mark.parametrize("name", sorted(CORPUS.keys() - {"empty object"}))
def test_not_canonical(name: str) -> None:
    with pytest.raises(MalformedPayload):
        parse_canonical(CORPUS[name])


@corpus
def test_no_payload_even_where_it_is_signed(name: str) -> None:
    data = CORPUS[name]
    if len(data) > 10_000:
        data = data[:5000]
    with pytest.raises(MalformedPayload):
        verify_license(pack(sign("license", data)), TRUST, NOW)


@corpus
def test_no_bundle_beside_a_license(name: str) -> None:
    with pytest.raises(RevocationUnusable, match="malformed-envelope"):
        examine_license(LICENSE_FILE, TRUST, NOW, bundles=[CORPUS[name]]).require()


@corpus
def test_a_report_is_made_of_anything(name: str) -> None:
    report = examine_license(CORPUS[name], TRUST, NOW)
    assert isinstance(report.error, MalformedEnvelope)
    assert report.verified is None


@corpus
def test_strict_json_raises_one_error(name: str) -> None:
    with contextlib.suppress(MalformedEnvelope):
        parse_json(CORPUS[name], max_bytes=MAX_BUNDLE_BYTES)


@corpus
def test_no_public_key(name: str) -> None:
    data = CORPUS[name]
    with pytest.raises(MalformedPayload):
        PublicKey(data)
    with pytest.raises(MalformedPayload):
        PublicKey.from_pem(data)
    with pytest.raises(MalformedPayload):
        PublicKey.from_base64(data[:5000].decode("latin-1"))
