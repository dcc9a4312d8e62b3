"""Topic `bundle`: revocation bundles as documents, and licenses verified beside one."""

from collections.abc import Iterator
from typing import Any

from devtools.vectors.build import (
    DAY_S,
    ISSUED,
    NOW,
    OMIT,
    Case,
    Object,
    b64,
    case,
    floors,
    identifier,
    signed,
)
from devtools.vectors.keys import (
    FILLERS,
    LICENSE,
    REVOCATION,
    REVOCATION_COMPROMISED,
)

KIND = "revocation-bundle"


def entry(number: int = 1, status: str = "revoked", **changes: Any) -> Object:
    """Return an entry in effect."""
    reasons = {"revoked": "withdrawn", "suspended": "on-hold", "superseded": "replaced"}
    base = {
        "license_id": identifier("lic", number),
        "status": status,
        "effective_at": ISSUED,
        "reason": reasons.get(status, "withdrawn"),
    }
    return {**base, **changes}


def _case(name: str, comment: str, code: str | None = None, /, *flags: str, **changes: Any) -> Case:
    return case(KIND, name, comment, signed(KIND, **changes), code, *flags)


def _schema(name: str, comment: str, /, **changes: Any) -> Case:
    return _case(name, comment, "malformed-payload", "schema", **changes)


def _fields(name: str, comment: str, /, **changes: Any) -> Case:
    return _case(name, comment, "malformed-payload", "beyond-schema", **changes)


def _documents() -> Iterator[Case]:
    yield _case("empty", "nothing is revoked")
    yield _case(
        "entries",
        "each status, sorted",
        entries=[
            entry(1),
            entry(2, "suspended"),
            entry(3, "superseded", superseded_by=identifier("lic", 4)),
            entry(5, reason="key-compromise", effective_at=NOW + DAY_S),
        ],
    )
    yield case(KIND, "is-a-license", "another kind", signed("license"), "wrong-type")
    yield case(
        KIND, "signed-by-license-key", "another role", signed(KIND, LICENSE), "untrusted-key"
    )
    yield case(
        KIND,
        "signature-wrong",
        "one bit of the signature",
        signed(KIND, wrong=(REVOCATION,)),
        "bad-signature",
    )
    yield case(
        KIND,
        "compromised-key",
        "a compromised key never counts",
        signed(KIND, REVOCATION_COMPROMISED),
        "key-not-valid",
    )
    yield _case("other-issuer", "not the keyset's issuer", "wrong-issuer", iss="example.com")
    yield _case("other-product", "another product", "wrong-product", product="smart-fax")
    for field in ("version", "entries", "expires_at"):
        yield _schema(f"without-{field}", "a required field is missing", **{field: OMIT})
    yield _schema("typ", "typ disagrees with the payload type", typ="bundle.v1")
    yield _schema(
        "entry-without-reason",
        "an entry says why",
        entries=[{key: value for key, value in entry().items() if key != "reason"}],
    )
    yield _schema("entry-status", "one of three", entries=[entry(status="lost")])
    yield _schema("entry-reason", "one of four", entries=[entry(reason="mood")])
    yield _schema("entry-unknown-field", "unknown fields are refused", entries=[entry(x=1)])
    yield _schema("version-0", "versions begin with 1", version=0)
    yield _fields("unsorted", "sorted by license id", entries=[entry(2), entry(1)])
    yield _fields("twice", "each license once", entries=[entry(1), entry(1, "suspended")])
    yield _fields(
        "version-below-issued-at", "a version is never below its time", version=ISSUED - 1
    )
    yield _fields("issuer-201-bytes", "lengths are in bytes", iss="€" * 67)
    yield _fields("no-time", "expires_at is after issued_at", expires_at=ISSUED)


def _beside(
    name: str,
    comment: str,
    code: str | None = None,
    *flags: str,
    bundle: bytes | None = None,
    revocation: Object | None = None,
    **options: Any,
) -> Case:
    """A license verified beside a bundle."""
    changes: Object = {} if revocation is None else {"revocation": revocation}
    if bundle is not None:
        options["bundle_b64"] = b64(bundle)
    return case("license", name, comment, signed("license", **changes), code, *flags, **options)


_NEEDED = {"require_current_bundle": True, "min_version": 0}


def _licenses() -> Iterator[Case]:
    good = signed(KIND)
    for status in ("revoked", "suspended", "superseded"):
        yield _beside(
            f"license-{status}",
            "an entry in effect",
            status,
            bundle=signed(KIND, entries=[entry(1, status)]),
        )
    yield _beside(
        "license-superseded-by",
        "an entry that names the successor",
        "superseded",
        bundle=signed(KIND, entries=[entry(1, "superseded", superseded_by=identifier("lic", 2))]),
    )
    yield _beside(
        "license-other-revoked", "another license's entry", bundle=signed(KIND, entries=[entry(2)])
    )
    yield _beside(
        "license-revoked-by-expired",
        "an expired bundle still revokes",
        "revoked",
        bundle=signed(KIND, entries=[entry(1)], expires_at=NOW),
    )
    yield _beside("license-beside-bundle", "nothing is revoked", bundle=good)
    yield _beside("license-needs-bundle", "and there it is", bundle=good, revocation=_NEEDED)
    yield _beside(
        "license-needs-bundle-none", "never seen", "revocation-required", revocation=_NEEDED
    )
    yield _beside(
        "license-min-version-none",
        "never seen",
        "revocation-required",
        revocation={"require_current_bundle": False, "min_version": 1},
    )
    yield _beside(
        "verifier-needs-bundle-none",
        "the verifier asks for one",
        "revocation-required",
        require_current_bundle=True,
    )
    yield _beside(
        "verifier-needs-bundle",
        "the verifier asks for one",
        bundle=good,
        require_current_bundle=True,
    )
    seen = floors(bundle_version=ISSUED)
    yield _beside(
        "bundle-went-missing",
        "one was seen before, and no other is asked for",
        "revocation-unusable",
        floors=seen,
    )
    yield _beside(
        "needed-bundle-went-missing",
        "one was seen before",
        "revocation-unusable",
        revocation=_NEEDED,
        floors=seen,
    )
    yield _beside(
        "bundle-expired",
        "given, hence looked at",
        "revocation-unusable",
        bundle=signed(KIND, expires_at=NOW - 1),
    )
    for name, comment, bundle in (
        ("cut-short", "not an envelope", good[:-1]),
        ("wrong-signature", "one bit of the signature", signed(KIND, wrong=(REVOCATION,))),
        ("wrong-role", "signed by the license key", signed(KIND, LICENSE)),
        ("unknown-key", "signed by an unknown key", signed(KIND, FILLERS[0])),
        ("compromised-key", "signed by a compromised key", signed(KIND, REVOCATION_COMPROMISED)),
        ("other-issuer", "another issuer's", signed(KIND, iss="example.com")),
        ("other-product", "another product's", signed(KIND, product="smart-fax")),
        ("is-a-license", "another kind of document", signed("license")),
        ("schema", "a version of 0", signed(KIND, version=0)),
        (
            "from-the-future",
            "issued 301 s from now",
            signed(KIND, issued_at=NOW + 301, version=NOW + 301),
        ),
    ):
        yield _beside(f"bundle-{name}", comment, "revocation-unusable", bundle=bundle)
    yield _beside(
        "bad-bundle-does-not-revoke",
        "an unverified entry says nothing",
        "revocation-unusable",
        bundle=signed(KIND, LICENSE, entries=[entry(1)]),
    )


def cases() -> Iterator[Case]:
    """Every case of the topic."""
    yield from _documents()
    yield from _licenses()
