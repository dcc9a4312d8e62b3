"""The table of the signed documents: which row decides, and what else is answered."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import pytest

from devtools.vectors.build import (
    EXPIRES,
    FINGERPRINT,
    ISSUED,
    NOW,
    ORIGIN,
    keyset_payload,
    pack,
    payload,
    sha256,
    sign,
    signed,
    signed_keyset,
)
from devtools.vectors.keys import (
    INSTANCE,
    LICENSE,
    LICENSE_COMPROMISED,
    LICENSE_RETIRED,
    LICENSE_STRANGE,
    NEW_ROOT_1,
    OTHER_INSTANCE,
    ROOT_1,
    ROOT_2,
    STRANGE_ROOT,
    TestKey,
)
from licensing.enrollment import LeaseRequest, ReleaseRequest
from licensing.envelope import Envelope
from licensing.errors import (
    BadSignature,
    Expired,
    KeyNotValid,
    LicensingError,
    MalformedEnvelope,
    MalformedPayload,
    NotYetValid,
    RolledBack,
    UntrustedKey,
    WrongInstance,
    WrongIssuer,
    WrongProduct,
    WrongType,
)
from licensing.keys import PublicKey
from licensing.names import CODES
from licensing.verify import (
    CLOCK_TOLERANCE_S,
    Floors,
    Report,
    SingleKeyTrust,
    examine_license,
    verify_bundle,
    verify_enrollment,
    verify_keyset,
    verify_keyset_update,
    verify_lease,
    verify_license,
    verify_request,
)
from tests.licensing.documents import (
    BUNDLE_FILE,
    HELD,
    KEYSET,
    LEASE_FILE,
    LICENSE_FILE,
    REVOKING_FILE,
    TRUST,
)


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong with a license or where it is used, and the row that says so."""

    row: int
    code: str
    changes: dict[str, Any] = field(default_factory=dict)
    signers: tuple[TestKey, ...] = ()
    wrong: tuple[TestKey, ...] = ()
    circumstances: dict[str, Any] = field(default_factory=dict)


ASKS_FOR_MORE = {"require_current_bundle": False, "min_version": ISSUED + 1}
SIGNER_FAULTS = (
    Fault(3, "untrusted-key", signers=(LICENSE_STRANGE,)),
    Fault(4, "bad-signature", wrong=(LICENSE,)),
    Fault(7, "key-not-valid", signers=(LICENSE_COMPROMISED,)),
    Fault(7, "key-not-valid", signers=(LICENSE_RETIRED,)),
)
FAULTS = (
    Fault(6, "wrong-issuer", {"iss": "example.com"}),
    Fault(8, "keyset-too-old", {"min_keyset_version": 4}),
    Fault(9, "expired", circumstances={"at": EXPIRES}),
    Fault(
        10,
        "wrong-instance",
        {"binding": {"fingerprints": [FINGERPRINT]}},
        circumstances={"fingerprint": "fp_test.other"},
    ),
    Fault(11, "rolled-back", circumstances={"revision": 8}),
    Fault(11, "rolled-back", circumstances={"keyset_version": 4}),
    Fault(12, "revoked", circumstances={"bundle": REVOKING_FILE}),
    Fault(13, "revocation-unusable", {"revocation": ASKS_FOR_MORE}),
)


def examine(*faults: Fault) -> Report:
    """Examine a license that has all these faults."""
    changes: dict[str, Any] = {}
    where: dict[str, Any] = {"at": NOW, "bundle": BUNDLE_FILE, "fingerprint": FINGERPRINT}
    signers: tuple[TestKey, ...] = (LICENSE,)
    wrong: tuple[TestKey, ...] = ()
    for fault in faults:
        changes |= fault.changes
        where |= fault.circumstances
        signers, wrong = fault.signers or signers, fault.wrong or wrong
    return examine_license(
        signed("license", *signers, wrong=wrong, **changes),
        TRUST,
        where["at"],
        fingerprint=where["fingerprint"],
        floors=lambda _deployment, _issuer: Floors(
            revision=where.get("revision", 0), keyset_version=where.get("keyset_version", 0)
        ),
        bundles=[where["bundle"]],
    )


def several(most: int) -> Iterator[tuple[Fault, ...]]:
    """Every choice of at least two faults, of which one at most is the signer's."""
    for signer in ((), *((fault,) for fault in SIGNER_FAULTS)):
        for count in range(most + 1):
            for chosen in combinations(FAULTS, count):
                if len(signer + chosen) > 1:
                    yield tuple(sorted(signer + chosen, key=lambda fault: fault.row))


def failed(report: Report) -> list[str]:
    return [check.code for check in report.checks if check.code is not None]


def test_no_fault() -> None:
    report = examine()
    assert report.error is None
    assert report.also == ()
    assert report.verified is not None
    assert [check.name for check in report.checks] == [
        "envelope", "signature", "payload", "origin", "key", "keyset", "time", "binding",
        "revision", "keyset-floor", "revocation", "bundle",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "fault", [*SIGNER_FAULTS, *FAULTS], ids=lambda fault: f"{fault.row}-{fault.code}"
)
def test_one_fault_has_one_code(fault: Fault) -> None:
    assert failed(examine(fault)) == [fault.code]


def test_the_first_in_the_table_decides_and_the_rest_is_listed() -> None:
    for faults in several(len(FAULTS)):
        report = examine(*faults)
        codes = [fault.code for fault in faults]
        assert report.error is not None
        assert report.error.code == codes[0]
        assert [check.code for check in report.also if check.code] == codes[1:]


def test_a_report_holds_what_was_verified_whatever_came_later() -> None:
    for faults in several(2):
        verified = examine(*faults).verified
        assert (verified is None) == any(fault.row <= 7 for fault in faults)


def test_where_the_payload_fails_no_later_row_can_be_answered() -> None:
    file = signed("license", LICENSE_STRANGE, revision=0, iss="example.com")
    report = examine_license(file, TRUST, EXPIRES)
    assert failed(report) == ["untrusted-key", "malformed-payload"]
    assert [check.name for check in report.also] == ["payload"]


@pytest.mark.parametrize("file", [LICENSE_FILE[:-1], LEASE_FILE])
def test_where_the_envelope_fails_nothing_else_is_answered(file: bytes) -> None:
    report = examine_license(file, TRUST, NOW)
    assert len(report.checks) == 1
    assert report.also == ()


def test_without_a_fingerprint_the_binding_is_not_asked() -> None:
    report = examine_license(LICENSE_FILE, TRUST, NOW)
    assert "binding" not in [check.name for check in report.checks]


def test_verify_raises_what_the_report_says() -> None:
    with pytest.raises(Expired):
        verify_license(LICENSE_FILE, TRUST, EXPIRES)
    file = signed("license", iss="example.com")
    with pytest.raises(WrongIssuer):
        verify_license(file, TRUST, EXPIRES)


def test_what_was_verified() -> None:
    verified = verify_license(LICENSE_FILE, TRUST, NOW)
    assert verified.keyid == LICENSE.keyid
    assert verified.payload_sha256 == sha256(payload("license"))
    assert verified.document.revision == 7
    assert verified.envelope.payload == payload("license")


def test_the_key_named_is_the_one_that_counted() -> None:
    signers = (LICENSE_COMPROMISED, LICENSE_STRANGE, LICENSE)
    assert verify_license(signed("license", *signers), TRUST, NOW).keyid == LICENSE.keyid


def test_every_code_that_is_raised_has_its_meaning() -> None:
    def leaves(cls: type[LicensingError]) -> Iterator[type[LicensingError]]:
        for each in cls.__subclasses__():
            yield each
            yield from leaves(each)

    ours = [each for each in leaves(LicensingError) if each.__module__ == "licensing.errors"]
    assert {each.code for each in ours} == CODES.keys() - {"clock-rollback"}


@pytest.mark.parametrize(("offset", "good"), [(0, True), (1, False)])
def test_clock_tolerance(offset: int, good: bool) -> None:
    at = ISSUED - CLOCK_TOLERANCE_S - offset
    files: list[tuple[Any, bytes]] = [(verify_lease, LEASE_FILE), (verify_bundle, BUNDLE_FILE)]
    for verify, file in files:
        if good:
            assert verify(file, TRUST, at)
        else:
            with pytest.raises(NotYetValid):
                verify(file, TRUST, at)


class TestSingleKey:
    """Trust in one approved key, without a keyset."""

    trust = SingleKeyTrust(PublicKey(LICENSE_STRANGE.raw))

    def test_its_signature_counts(self) -> None:
        file = signed("license", LICENSE_STRANGE, min_keyset_version=99)
        assert verify_license(file, self.trust, NOW).keyid == LICENSE_STRANGE.keyid
        report = examine_license(
            file, self.trust, NOW, floors=lambda _deployment, _issuer: Floors(keyset_version=9)
        )
        assert report.require(), "it has no version"

    def test_no_other_does(self) -> None:
        with pytest.raises(UntrustedKey):
            verify_license(LICENSE_FILE, self.trust, NOW)

    def test_wrong_signature(self) -> None:
        file = signed("license", LICENSE_STRANGE, wrong=(LICENSE_STRANGE,))
        with pytest.raises(BadSignature):
            verify_license(file, self.trust, NOW)

    def test_other_issuer(self) -> None:
        with pytest.raises(WrongIssuer):
            verify_license(signed("license", LICENSE_STRANGE, iss="other"), self.trust, NOW)


class TestLease:
    """Leases as documents."""

    def test_instance(self) -> None:
        assert verify_lease(LEASE_FILE, TRUST, NOW, instance_keyid=INSTANCE.keyid)
        with pytest.raises(WrongInstance):
            verify_lease(LEASE_FILE, TRUST, NOW, instance_keyid=OTHER_INSTANCE.keyid)

    def test_time_before_instance(self) -> None:
        with pytest.raises(NotYetValid):
            verify_lease(LEASE_FILE, TRUST, 0, instance_keyid=OTHER_INSTANCE.keyid)


class TestBundle:
    """Bundles as documents."""

    def test_expired_before_rolled_back(self) -> None:
        late = ISSUED + 35 * 86_400
        with pytest.raises(Expired):
            verify_bundle(BUNDLE_FILE, TRUST, late, floor=ISSUED + 1)
        with pytest.raises(RolledBack):
            verify_bundle(BUNDLE_FILE, TRUST, late, floor=ISSUED + 1, require_current=False)
        assert verify_bundle(BUNDLE_FILE, TRUST, late, floor=ISSUED, require_current=False)


class TestKeyset:
    """Keysets follow the same order, with their payload read first."""

    def test_product_before_threshold(self) -> None:
        with pytest.raises(WrongProduct):
            verify_keyset(signed_keyset(ROOT_1, product="smart-fax"), NOW)

    def test_signature_before_product(self) -> None:
        file = signed_keyset(ROOT_1, wrong=(ROOT_1,), product="smart-fax")
        with pytest.raises(BadSignature):
            verify_keyset(file, NOW)

    def test_threshold_before_time(self) -> None:
        with pytest.raises(KeyNotValid):
            verify_keyset(signed_keyset(ROOT_1), 0)
        with pytest.raises(NotYetValid):
            verify_keyset(KEYSET, 0)

    def test_payload_first(self) -> None:
        with pytest.raises(MalformedPayload):
            verify_keyset(signed_keyset(STRANGE_ROOT, root_threshold=0), NOW)

    def update(self, *signers: TestKey, at: int = NOW, **changes: Any) -> None:
        """Verify version 4, with some changes, as an update of version 3."""
        usual = {"version": 4, "prev_sha256": sha256(keyset_payload())}
        verify_keyset_update(signed_keyset(*signers, **{**usual, **changes}), HELD, at)

    def test_update(self) -> None:
        self.update()

    @pytest.mark.parametrize("product", ["genai-smart-router", "smart-fax"])
    def test_held_roots_before_product(self, product: str) -> None:
        roots = [
            {"keyid": each.keyid, "alg": "ed25519", "public_key": each.public_key}
            for each in (NEW_ROOT_1, STRANGE_ROOT)
        ]
        with pytest.raises(UntrustedKey):
            self.update(NEW_ROOT_1, STRANGE_ROOT, roots=roots, product=product)

    def test_issuer_before_product_before_threshold(self) -> None:
        with pytest.raises(WrongIssuer):
            self.update(ROOT_1, iss="example.com", product="smart-fax")
        with pytest.raises(WrongProduct):
            self.update(ROOT_1, product="smart-fax")

    def test_held_threshold_before_time(self) -> None:
        with pytest.raises(KeyNotValid):
            self.update(ROOT_1, root_threshold=1, issued_at=NOW + 301)

    def test_time_before_version(self) -> None:
        with pytest.raises(NotYetValid):
            self.update(issued_at=NOW + 301, version=2)
        with pytest.raises(Expired):
            self.update(expires_at=NOW, version=2)
        with pytest.raises(RolledBack):
            self.update(ROOT_1, ROOT_2, version=2)

    def test_steps_may_have_expired_but_not_the_last(self) -> None:
        usual: dict[str, Any] = {"version": 4, "prev_sha256": sha256(keyset_payload())}
        expired = {**usual, "expires_at": NOW}
        step = signed_keyset(**expired)
        newest = signed_keyset(version=5, prev_sha256=sha256(keyset_payload(**expired)))
        assert verify_keyset_update(newest, HELD, NOW, steps=[step]).document.version == 5
        with pytest.raises(Expired):
            verify_keyset_update(step, HELD, NOW)
        with pytest.raises(RolledBack):
            verify_keyset_update(newest, HELD, NOW, steps=[step, step])


class TestRequests:
    """What an instance signs."""

    key = PublicKey(INSTANCE.raw)

    def test_order(self) -> None:
        body = payload("release-request", aud=ORIGIN + "/")
        both = sign("release-request", body, INSTANCE, OTHER_INSTANCE)
        for value, error in (
            (sign("lease-request", payload("lease-request")), WrongType),
            (both, MalformedEnvelope),
            (sign("release-request", body, OTHER_INSTANCE), UntrustedKey),
            (sign("release-request", body, wrong=(INSTANCE,)), BadSignature),
            (sign("release-request", body), MalformedPayload),
        ):
            with pytest.raises(error):
                verify_request(Envelope.parse(pack(value)), ReleaseRequest, self.key)

    def test_verified(self) -> None:
        envelope = Envelope.parse(signed("lease-request"))
        verified = verify_request(envelope, LeaseRequest, self.key)
        assert verified.keyid == INSTANCE.keyid
        assert verified.payload_sha256 == sha256(payload("lease-request"))

    def test_enrollment_is_verified_under_the_key_it_brings(self) -> None:
        verified = verify_enrollment(Envelope.parse(signed("enrollment-request")))
        assert verified.keyid == INSTANCE.keyid
        foreign = signed("enrollment-request", public_key=OTHER_INSTANCE.public_key)
        with pytest.raises(UntrustedKey):
            verify_enrollment(Envelope.parse(foreign))
        wrong = signed("enrollment-request", wrong=(INSTANCE,))
        with pytest.raises(BadSignature):
            verify_enrollment(Envelope.parse(wrong))
        with pytest.raises(WrongType):
            verify_enrollment(Envelope.parse(signed("lease-request")))
