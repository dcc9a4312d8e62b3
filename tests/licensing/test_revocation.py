"""What is remembered of revocation bundles, and what a license is worth by it."""

from typing import Any

import pytest

from devtools.vectors.build import NOW, signed
from devtools.vectors.bundles import entry
from licensing.envelope import Envelope
from licensing.license import License
from licensing.revocation import NO_BUNDLE, BundleMemory, RevocationBundle
from licensing.verify import Floors, Report, RevocationPolicy, examine_license
from tests.licensing.documents import BUNDLE_FILE, EXPIRES, ISSUED, LICENSE_FILE, TRUST

LICENSE_ID = License.parse(Envelope.parse(LICENSE_FILE).payload).license_id
OTHER_ID = LICENSE_ID[:-1] + ("0" if LICENSE_ID[-1] != "0" else "1")
OPEN = RevocationPolicy(fail_closed=False)
UNASKED = RevocationPolicy(asked=False)
REQUIRED = RevocationPolicy(asked=False, fail_closed=False, require_current=True)
LATER = ISSUED + 5


def bundle(version: int, *entries: dict[str, Any], **changes: Any) -> bytes:
    """Return the file of a bundle."""
    return signed("revocation-bundle", version=version, entries=list(entries), **changes)


def document(version: int, *entries: dict[str, Any]) -> RevocationBundle:
    """Return a bundle."""
    return RevocationBundle.parse(Envelope.parse(bundle(version, *entries)).payload)


REVOKED = NO_BUNDLE.seen(document(LATER, entry()), "a" * 64, LICENSE_ID)


def examine(
    *bundles: bytes,
    memory: BundleMemory = NO_BUNDLE,
    policy: RevocationPolicy = RevocationPolicy(),
    at: int = NOW,
    **changes: Any,
) -> Report:
    """Examine a license where some bundle was seen before."""
    return examine_license(
        signed("license", **changes),
        TRUST,
        at,
        floors=lambda _deployment_id, _issuer: Floors(bundle=memory),
        bundles=bundles,
        policy=policy,
    )


def code(report: Report) -> str | None:
    """Return the code that decides."""
    return None if report.error is None else report.error.code


class TestMemory:
    """An entry applies until a higher version lacks it."""

    def test_older_and_same(self) -> None:
        assert REVOKED.seen(document(LATER - 1), "b" * 64, LICENSE_ID) is REVOKED
        assert REVOKED.seen(document(LATER), "b" * 64, LICENSE_ID) == REVOKED

    def test_higher(self) -> None:
        lifted = REVOKED.seen(document(LATER + 1), "b" * 64, LICENSE_ID)
        assert lifted == BundleMemory(version=LATER + 1, sha256="b" * 64)

    def test_another_license_does_not_forget_the_entry(self) -> None:
        memory = REVOKED
        for version in (LATER, LATER + 1):
            memory = memory.seen(document(version, entry()), "b" * 64, OTHER_ID)
            assert memory.entries.keys() == {LICENSE_ID}

    def test_a_license_met_later_is_looked_up_in_the_same_version(self) -> None:
        memory = NO_BUNDLE.seen(document(LATER, entry()), "a" * 64, OTHER_ID)
        assert not memory.entries
        assert memory.seen(document(LATER, entry()), "a" * 64, LICENSE_ID) == REVOKED


class TestEntries:
    """Row 12, with what is remembered."""

    @pytest.mark.parametrize("policy", [RevocationPolicy(), OPEN, UNASKED])
    @pytest.mark.parametrize("files", [(), (b"{}",), (bundle(LATER - 1),), (bundle(LATER),)])
    def test_what_is_remembered_revokes(
        self, files: tuple[bytes, ...], policy: RevocationPolicy
    ) -> None:
        assert code(examine(*files, memory=REVOKED, policy=policy)) == "revoked"

    def test_a_higher_version_lifts_it(self) -> None:
        report = examine(bundle(LATER + 1), memory=REVOKED)
        assert report.require()
        assert report.memory.version == LATER + 1

    def test_an_older_one_brings_nothing_back(self) -> None:
        lifted = NO_BUNDLE.seen(document(LATER + 1), "a" * 64, LICENSE_ID)
        older = bundle(LATER, entry())
        assert code(examine(older, memory=lifted)) == "revocation-unusable"
        assert examine(older, memory=lifted, policy=OPEN).require()

    def test_one_to_come_ends_it(self) -> None:
        report = examine(bundle(LATER, entry(effective_at=NOW + 9)))
        assert report.require()
        assert (NOW + 9, "revoked") in report.ends


class TestSeveral:
    """Of several bundles, the highest version that verifies counts."""

    def test_the_highest(self) -> None:
        files = bundle(LATER, entry()), bundle(LATER + 1)
        for each in (files, files[::-1]):
            report = examine(*each)
            assert report.require()
            assert report.bundle == document(LATER + 1)

    @pytest.mark.parametrize("files", [(b"{}", BUNDLE_FILE), (BUNDLE_FILE, b"{}")])
    def test_one_that_does_not_verify_is_passed_over(self, files: tuple[bytes, ...]) -> None:
        assert examine(*files).require()

    def test_the_first_error_is_told(self) -> None:
        error = examine(b"{}", LICENSE_FILE).error
        assert error is not None
        assert error.detail.startswith("malformed-envelope")


SEEN = BundleMemory(version=LATER, sha256="a" * 64)
ASKS = {"require_current_bundle": True, "min_version": 0}
AT_LEAST = {"require_current_bundle": False, "min_version": LATER + 1}
UNUSABLE: dict[str, tuple[bytes, ...]] = {
    "missing": (),
    "malformed": (b"{}",),
    "older": (bundle(LATER - 1),),
    "expired": (bundle(LATER + 1, expires_at=NOW),),
}


class TestUse:
    """Row 13: closed, open, unasked; and what a license asks for."""

    @pytest.mark.parametrize("name", UNUSABLE)
    def test_one_that_cannot_be_used(self, name: str) -> None:
        files = UNUSABLE[name]
        assert code(examine(*files, memory=SEEN)) == "revocation-unusable"
        assert code(examine(*files, memory=SEEN, policy=REQUIRED)) == "revocation-unusable"
        asking = examine(*files, memory=SEEN, policy=OPEN, revocation=ASKS)
        assert code(asking) == "revocation-unusable"
        passed = examine(*files, memory=SEEN, policy=OPEN)
        assert passed.require()
        assert passed.warning is not None
        assert passed.warning.code == "revocation-unusable"
        unasked = examine(*files, memory=SEEN, policy=UNASKED)
        assert (unasked.error, unasked.warning) == (None, None)

    @pytest.mark.parametrize("policy", [RevocationPolicy(), OPEN, UNASKED])
    def test_one_that_was_never_seen(self, policy: RevocationPolicy) -> None:
        assert examine(policy=policy).require()
        for asks in (ASKS, AT_LEAST):
            report = examine(policy=policy, revocation=asks)
            assert code(report) == "revocation-required"
        assert code(examine(policy=REQUIRED)) == "revocation-required"

    def test_below_the_version_a_license_asks_for(self) -> None:
        report = examine(bundle(LATER), revocation=AT_LEAST)
        assert code(report) == "revocation-unusable"
        assert examine(bundle(LATER + 1), revocation=AT_LEAST).require()
        warned = examine(bundle(LATER), policy=OPEN, revocation=AT_LEAST)
        assert warned.require()
        assert warned.warning is not None

    def test_when_it_ends(self) -> None:
        file = bundle(LATER, expires_at=NOW + 7)
        whole = [(EXPIRES, "expired")]
        both = [*whole, (NOW + 7, "revocation-unusable")]
        assert list(examine(file).ends) == both
        assert list(examine(file, policy=OPEN).ends) == whole
        assert list(examine(file, policy=UNASKED).ends) == whole
        assert list(examine(file, policy=OPEN, revocation=ASKS).ends) == both
        assert examine(file, at=NOW + 6).require()
        assert code(examine(file, at=NOW + 7)) == "revocation-unusable"
