"""Topic `times`: one second before, at and after each boundary, and one step around each floor."""

from collections.abc import Iterator

from devtools.vectors.build import (
    EXPIRES,
    ISSUED,
    KEYSET,
    NOW,
    RETIRED_WINDOW,
    Case,
    b64,
    case,
    floors,
    keyset_payload,
    sha256,
    signed,
    signed_keyset,
)
from devtools.vectors.bundles import entry
from devtools.vectors.keys import LICENSE_RETIRED

FLAG = "boundary"


def _sides(offset: int) -> str:
    return {-1: "before", 0: "at", 1: "after"}[offset]


def _license_times(offset: int) -> Iterator[Case]:
    side = _sides(offset)
    yield case(
        "license",
        f"not-before-{side}",
        "valid from not_before_at on",
        signed("license", not_before_at=NOW),
        "not-yet-valid" if offset < 0 else None,
        FLAG,
        now=NOW + offset,
    )
    yield case(
        "license",
        f"expires-{side}",
        "valid while now < expires_at",
        signed("license"),
        None if offset < 0 else "expired",
        FLAG,
        now=EXPIRES + offset,
    )
    late = "not-yet-valid" if offset > 0 else None
    issued = NOW + 300 + offset
    yield case(
        "license",
        f"issued-{side}",
        "300 s are allowed on issued_at",
        signed("license", issued_at=issued),
        late,
        FLAG,
    )
    yield case(
        "lease",
        f"lease-issued-{side}",
        "300 s are allowed on issued_at",
        signed("lease", issued_at=issued),
        late,
        FLAG,
    )
    yield case(
        "revocation-bundle",
        f"bundle-issued-{side}",
        "300 s are allowed on issued_at",
        signed("revocation-bundle", issued_at=issued, version=issued),
        late,
        FLAG,
    )
    yield case(
        "keyset",
        f"keyset-issued-{side}",
        "300 s are allowed on issued_at",
        signed_keyset(issued_at=issued),
        late,
        FLAG,
    )
    begin, end = RETIRED_WINDOW
    yield case(
        "license",
        f"key-begins-{side}",
        "not_before_at <= issued_at",
        signed("license", LICENSE_RETIRED, issued_at=begin + offset),
        "key-not-valid" if offset < 0 else None,
        FLAG,
    )
    yield case(
        "license",
        f"key-ends-{side}",
        "issued_at < not_after_at",
        signed("license", LICENSE_RETIRED, issued_at=end + offset),
        None if offset < 0 else "key-not-valid",
        FLAG,
    )


def _bundle_times(offset: int) -> Iterator[Case]:
    side = _sides(offset)
    effective = signed("revocation-bundle", entries=[entry(effective_at=NOW)])
    yield case(
        "license",
        f"revocation-{side}",
        "in effect from effective_at on",
        signed("license"),
        None if offset < 0 else "revoked",
        FLAG,
        now=NOW + offset,
        bundle_b64=b64(effective),
    )
    ending = signed("revocation-bundle", expires_at=NOW)
    yield case(
        "license",
        f"bundle-expires-{side}",
        "usable while now < expires_at",
        signed("license"),
        None if offset < 0 else "revocation-unusable",
        FLAG,
        now=NOW + offset,
        bundle_b64=b64(ending),
    )
    yield case(
        "revocation-bundle",
        f"bundle-current-{side}",
        "current while now < expires_at",
        ending,
        None if offset < 0 else "expired",
        FLAG,
        now=NOW + offset,
        require_current_bundle=True,
    )
    yield case(
        "revocation-bundle",
        f"bundle-not-required-{side}",
        "it need not be current",
        ending,
        None,
        FLAG,
        now=NOW + offset,
    )
    update = signed_keyset(version=4, prev_sha256=sha256(keyset_payload()), expires_at=NOW)
    yield case(
        "keyset",
        f"update-expires-{side}",
        "an update is current",
        update,
        None if offset < 0 else "expired",
        FLAG,
        now=NOW + offset,
        update=True,
    )


def _floors(offset: int) -> Iterator[Case]:
    side = {-1: "below", 0: "at", 1: "above"}[offset]
    low = offset < 0
    yield case(
        "license",
        f"revision-{side}",
        "revision 7 was in use",
        signed("license", revision=7 + offset),
        "rolled-back" if low else None,
        FLAG,
        floors=floors(revision=7),
    )
    bundle = signed("revocation-bundle", version=NOW + offset)
    seen = floors(bundle_version=NOW)
    yield case(
        "license",
        f"bundle-floor-{side}",
        "a bundle's version seen before",
        signed("license"),
        "revocation-unusable" if low else None,
        FLAG,
        floors=seen,
        bundle_b64=b64(bundle),
    )
    yield case(
        "license",
        f"min-version-{side}",
        "the license asks for a version",
        signed("license", revocation={"require_current_bundle": False, "min_version": NOW}),
        "revocation-unusable" if low else None,
        FLAG,
        bundle_b64=b64(bundle),
    )
    yield case(
        "revocation-bundle",
        f"bundle-rolled-back-{side}",
        "a version seen before",
        bundle,
        "rolled-back" if low else None,
        FLAG,
        floors=seen,
    )
    yield case(
        "license",
        f"keyset-floor-{side}",
        "the keyset at hand has version 3",
        signed("license"),
        None if offset < 1 else "rolled-back",
        FLAG,
        keyset=KEYSET,
        floors=floors(keyset_version=3 + offset),
    )
    yield case(
        "license",
        f"min-keyset-{side}",
        "the keyset at hand has version 3",
        signed("license", min_keyset_version=3 - offset),
        "keyset-too-old" if low else None,
        FLAG,
        keyset=KEYSET,
    )


def cases() -> Iterator[Case]:
    """Every case of the topic."""
    for offset in (-1, 0, 1):
        yield from _license_times(offset)
        yield from _bundle_times(offset)
        yield from _floors(offset)
    yield case(
        "license",
        "future-issue-expired-key",
        "row 7 before 9",
        signed("license", LICENSE_RETIRED, issued_at=NOW + 301),
        "key-not-valid",
        "order",
    )
    yield case(
        "revocation-bundle",
        "expired-and-rolled-back",
        "row 9 before 11",
        signed("revocation-bundle", expires_at=NOW),
        "expired",
        "order",
        floors=floors(bundle_version=ISSUED + 1),
        require_current_bundle=True,
    )
