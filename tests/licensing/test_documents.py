"""The payload models: parsing, writing, and what can be asked of a document."""

from typing import Any

import pytest

from devtools.vectors.build import (
    BASES,
    NOW,
    ORIGIN,
    ZERO_SHA256,
    dumps,
    identifier,
    keyset_payload,
    payload,
)
from devtools.vectors.bundles import entry
from licensing.document import Document
from licensing.enrollment import EnrollmentRequest, LeaseRequest, ReleaseRequest
from licensing.errors import MalformedPayload
from licensing.keys import Keyset
from licensing.lease import Lease
from licensing.license import Binding, License, Limits, RevocationTerms
from licensing.names import PAYLOAD_TYPE_PREFIX, PAYLOAD_TYPES
from licensing.revocation import RevocationBundle

MODELS: dict[str, type[Document]] = {
    "license": License,
    "lease": Lease,
    "revocation-bundle": RevocationBundle,
    "keyset": Keyset,
    "enrollment-request": EnrollmentRequest,
    "lease-request": LeaseRequest,
    "release-request": ReleaseRequest,
}


def body_of(kind: str) -> bytes:
    return keyset_payload() if kind == "keyset" else payload(kind)


def parses(kind: str, **changes: Any) -> bool:
    """Say whether a payload with these changes is taken."""
    try:
        MODELS[kind].parse(payload(kind, **changes))
    except MalformedPayload:
        return False
    return True


def test_every_kind_has_its_model() -> None:
    assert {model.PAYLOAD_TYPE for model in MODELS.values()} == set(PAYLOAD_TYPES)
    for kind, model in MODELS.items():
        assert f"{kind}.v1" == model.TYP
        assert f"{PAYLOAD_TYPE_PREFIX}{kind}.v1+json" == model.PAYLOAD_TYPE


@pytest.mark.parametrize("kind", MODELS)
def test_what_is_written_is_what_is_parsed(kind: str) -> None:
    body = body_of(kind)
    document = MODELS[kind].parse(body)
    assert document.to_bytes() == body
    assert MODELS[kind].parse(document.to_bytes()) == document


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("other", MODELS)
def test_no_kind_is_taken_for_another(kind: str, other: str) -> None:
    if kind != other:
        with pytest.raises(MalformedPayload):
            MODELS[kind].parse(body_of(other))


@pytest.mark.parametrize("kind", BASES)
def test_each_field_is_needed_and_of_one_json_kind(kind: str) -> None:
    """Every field of a minimal payload is required, and a value of another kind is refused."""
    for field, value in BASES[kind].items():
        rest = {name: each for name, each in BASES[kind].items() if name != field}
        with pytest.raises(MalformedPayload):
            MODELS[kind].parse(dumps(rest))
        for wrong in (True, 1, "x!", {"x": 1}, [{"x": 1}]):
            if type(wrong) is not type(value):
                assert not parses(kind, **{field: wrong}), (field, wrong)


@pytest.mark.parametrize("kind", BASES)
def test_extensions(kind: str) -> None:
    assert parses(kind, ext={"color": "red", "depth": [1, {"more": True}]})
    assert not parses(kind, ext={"color": "red"}, crit=["color"])
    assert not parses(kind, ext={"color": "red"}, crit=["shape"])
    assert not parses(kind, crit=["color"])


def test_crit_is_taken_where_it_is_understood() -> None:
    class Understanding(ReleaseRequest, frozen=True, kw_only=True):
        UNDERSTOOD = frozenset({"color", "shape"})

    def understands(crit: list[str]) -> bool:
        body = payload("release-request", ext={"color": "red", "shape": 1, "size": 2}, crit=crit)
        try:
            Understanding.parse(body)
        except MalformedPayload:
            return False
        return True

    assert understands(["color"])
    assert understands(["color", "shape"])
    assert not understands(["shape", "color"])
    assert not understands(["color", "color"])
    assert not understands(["size"])


@pytest.mark.parametrize(
    ("origin", "good"),
    [
        (ORIGIN, True),
        ("http://127.0.0.1:8000", True),
        ("http://localhost", True),
        ("https://[::1]:8443", True),
        ("https://a.example:80", True),
        ("http://a.example:443", True),
        ("https://a.example:4430", True),
        ("https://a.example:443", False),
        ("http://a.example:80", False),
        ("https://[::1]:443", False),
        ("https://a.example/", False),
        ("https://a.example?x", False),
        ("https://A.example", False),
        ("HTTPS://a.example", False),
        ("https://a.example:", False),
        ("https://a.example:080", False),
        ("https://me@a.example", False),
        ("ftp://a.example", False),
        ("a.example", False),
        ("https://", False),
        ("https://-a.example", False),
    ],
)
def test_origins(origin: str, good: bool) -> None:
    assert parses("release-request", aud=origin) is good


@pytest.mark.parametrize(
    ("text", "good"), [("é" * 100, True), ("é" * 101, False), ("€" * 67, False)]
)
def test_names_are_measured_in_bytes(text: str, good: bool) -> None:
    assert parses("license", customer_name=text) is good
    assert parses("enrollment-request", label=text) is good


def test_an_issuer_cannot_write_what_a_verifier_refuses() -> None:
    license_ = License.parse(payload("license"))
    fields = {name: getattr(license_, name) for name in license_.__struct_fields__}
    for wrong in (
        {"revision": 0},
        {"features": ("b", "a")},
        {"sku": "Upper"},
        {"customer_name": ""},
        {"expires_at": license_.not_before_at},
        {"binding": Binding(fingerprints=("short",))},
        {"limits": Limits(window_s=1)},
        {"revocation": RevocationTerms(require_current_bundle=True, min_version=-1)},
    ):
        with pytest.raises(MalformedPayload):
            License(**{**fields, **wrong}).to_bytes()


def test_a_lease_serves_while_active_and_in_grace() -> None:
    lease = Lease.parse(payload("lease"))
    assert lease.serves(NOW)
    assert lease.serves(lease.expires_at)
    assert lease.serves(lease.grace_until_at - 1)
    assert not lease.serves(lease.grace_until_at)
    for status in ("suspended", "revoked", "superseded", "ended"):
        assert not Lease.parse(payload("lease", status=status)).serves(NOW)


def test_the_first_lease_of_all_follows_nothing() -> None:
    assert parses("lease", epoch=1, seq=1, prev_sha256=ZERO_SHA256)
    assert not parses("lease", epoch=1, seq=1)
    assert parses("lease", epoch=2, seq=1)


def test_entries_of_a_bundle() -> None:
    bundle = RevocationBundle.parse(payload("revocation-bundle", entries=[entry(1), entry(3)]))
    found = bundle.entry(identifier("lic", 3))
    assert found is not None
    assert found.status == "revoked"
    assert bundle.entry(identifier("lic", 2)) is None


def test_details_name_the_field() -> None:
    with pytest.raises(MalformedPayload, match="revision"):
        License.parse(payload("license", revision=0))
    with pytest.raises(MalformedPayload, match="unknown field"):
        License.parse(payload("license", moons=1))
