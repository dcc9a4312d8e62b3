"""Topic `license`: schema, each row of the table, and which row decides when several fail."""

from collections.abc import Iterator
from typing import Any

from devtools.vectors.build import (
    EXPIRES,
    FINGERPRINT,
    ISSUED,
    NOW,
    OMIT,
    ORIGIN,
    Case,
    b64,
    case,
    flipped,
    floors,
    identifier,
    pack,
    pae,
    payload,
    payload_type,
    sign,
    signature,
    signed,
    signed_keyset,
)
from devtools.vectors.keys import (
    LEASE,
    LICENSE,
    LICENSE_COMPROMISED,
    LICENSE_RETIRED,
    LICENSE_STRANGE,
    REVOCATION,
    ROOT_1,
)

KIND = "license"
_L = 2**252 + 27742317777372353535851937790883648493
"""The order of the base point, RFC 8032 section 5.1."""


def _case(name: str, comment: str, code: str | None = None, /, *flags: str, **changes: Any) -> Case:
    return case(KIND, name, comment, signed(KIND, **changes), code, *flags)


def _schema(name: str, comment: str, /, **changes: Any) -> Case:
    """A payload that its JSON Schema refuses."""
    return _case(name, comment, "malformed-payload", "schema", **changes)


def _fields(name: str, comment: str, /, **changes: Any) -> Case:
    """A payload whose fields contradict each other, or with a wrong length in bytes."""
    return _case(name, comment, "malformed-payload", "beyond-schema", **changes)


LEASE_TERMS = {"url": ORIGIN, "ttl_s": 86_400, "grace_s": 172_800}
BUDGET = {"budget_id": identifier("bud", 2), "tokens_total": 5_000_000}


def _valid() -> Iterator[Case]:
    yield _case("minimal", "only what is required")
    yield case(
        KIND,
        "full",
        "every optional field",
        signed(
            KIND,
            supersedes=identifier("lic", 2),
            customer_name="Example & Söhne <GmbH>",
            mode="lease",
            lease=LEASE_TERMS,
            grace_s=86_400,
            limits={
                "tokens_per_window": 1_000_000,
                "window_s": 86_400,
                "max_concurrency": 8,
                "max_instances": 2,
                "max_seats": 100,
            },
            budget={**BUDGET, "carry_over_from": identifier("bud", 1)},
            binding={"fingerprints": [FINGERPRINT, "fp_test.router-02"]},
            support_tier="gold",
            ext={"note": "a fact nobody needs"},
        ),
        fingerprint=FINGERPRINT,
    )
    yield _case("no-features-no-limits", "features and limits may be empty", features=[], limits={})
    yield _case("unknown-feature", "an unknown feature grants nothing", features=["telepathy"])
    yield _case("unknown-sku", "the catalog is the issuer's affair", sku="not-in-any-catalog")
    yield _case("sku-64", "64 characters are the most", sku="s" * 64)
    yield _case("name-200-bytes", "200 bytes of UTF-8", customer_name="é" * 100)
    yield _case("grace-0", "0 is no grace, not no cap", grace_s=0)
    yield _case("budget-0", "a budget may be empty", budget={**BUDGET, "tokens_total": 0})
    yield _case(
        "url-with-port",
        "an origin may have a port",
        mode="lease",
        lease={**LEASE_TERMS, "url": "https://licenses.example.com:8443"},
    )
    yield _case(
        "url-http",
        "http with 443 is no default port",
        mode="lease",
        lease={**LEASE_TERMS, "url": "http://127.0.0.1:443"},
    )


def _signatures() -> Iterator[Case]:
    body = payload(KIND)
    for kind in ("lease", "revocation-bundle", "enrollment-request"):
        yield case(
            KIND, f"is-a-{kind}", "a right document of another kind", signed(kind), "wrong-type"
        )
    yield case(
        KIND,
        "unknown-type",
        "no type of ours",
        pack(sign(KIND, body, as_type="application/json")),
        "wrong-type",
    )
    yield case(
        KIND,
        "later-type",
        "version 2 of the type",
        pack(sign(KIND, body, as_type="application/vnd.metrum.license.v2+json")),
        "wrong-type",
    )
    for key, who in (
        (LICENSE_STRANGE, "a key nobody listed"),
        (LEASE, "the lease key"),
        (REVOCATION, "the revocation key"),
        (ROOT_1, "a root"),
    ):
        yield case(
            KIND,
            f"signed-by-{key.name.replace(' ', '-')}",
            f"signed by {who}",
            signed(KIND, key),
            "untrusted-key",
        )

    right = LICENSE.sign(pae(payload_type(KIND), body))
    scalar = int.from_bytes(right[32:], "little") + _L
    for name, comment, sig in (
        ("bit-flipped", "one bit of the signature", flipped(right)),
        ("all-zero", "64 zero bytes", bytes(64)),
        (
            "malleable",
            "S + L in place of S (RFC 8032 section 5.1.7)",
            right[:32] + scalar.to_bytes(32, "little"),
        ),
        ("over-payload-alone", "made without the pre-authentication encoding", LICENSE.sign(body)),
        (
            "over-base64",
            "made over the payload as it is carried",
            LICENSE.sign(pae(payload_type(KIND), b64(body).encode())),
        ),
        (
            "over-other-type",
            "made over another payload type",
            LICENSE.sign(pae(payload_type("lease"), body)),
        ),
        (
            "of-another-key",
            "another key's signature under this key's id",
            LICENSE_STRANGE.sign(pae(payload_type(KIND), body)),
        ),
    ):
        envelope = {**sign(KIND, body), "signatures": [signature(LICENSE.keyid, sig)]}
        yield case(KIND, f"signature-{name}", comment, pack(envelope), "bad-signature")
    altered = {**sign(KIND, body), "payload": b64(payload(KIND, revision=8))}
    yield case(
        KIND,
        "payload-altered",
        "the payload was edited after signing",
        pack(altered),
        "bad-signature",
    )


REQUIRED = (
    "typ",
    "iss",
    "issued_at",
    "product",
    "license_id",
    "deployment_id",
    "revision",
    "customer_id",
    "sku",
    "mode",
    "not_before_at",
    "expires_at",
    "features",
    "limits",
    "binding",
    "revocation",
    "min_keyset_version",
)


def _schemas() -> Iterator[Case]:
    for field in REQUIRED:
        yield _schema(f"without-{field}", "a required field is missing", **{field: OMIT})
    yield _schema("unknown-field", "unknown fields are refused", notes="none")
    yield _schema("typ-of-lease", "typ disagrees with the payload type", typ="lease.v1")
    yield _schema("typ-v2", "typ disagrees with the payload type", typ="license.v2")
    for name, value in (
        ("lower-case", "lic_0000000000000000000000000a"),
        ("prefix", identifier("dep", 1)),
        ("letter-i", "lic_0000000000000000000000000I"),
        ("first-digit", "lic_80000000000000000000000000"),
        ("short", "lic_0000000000000000000000000"),
    ):
        yield _schema(f"license-id-{name}", "not such an identifier", license_id=value)
    yield _schema("revision-0", "revisions begin with 1", revision=0)
    yield _schema("revision-string", "a number is no string", revision="7")
    yield _schema("revision-true", "a boolean is no integer", revision=True)
    yield _schema("times-negative", "times are not negative", not_before_at=-1)
    yield _schema("sku-upper-case", "names are in lower case", sku="Enterprise")
    yield _schema("sku-65", "one character too many", sku="s" * 65)
    yield _schema("sku-leading-dash", "names begin with a letter or digit", sku="-pilot")
    yield _schema("mode-unknown", "offline or lease", mode="online")
    yield _schema("features-object", "an array is wanted", features={})
    yield _schema("features-numbers", "of strings", features=[1])
    yield _schema("feature-space", "no spaces in names", features=["usage export"])
    yield _schema("limits-array", "an object is wanted", limits=[])
    yield _schema("limit-unknown", "an unknown limit is refused", limits={"max_moons": 1})
    yield _schema("limit-0", "a limit is at least 1", limits={"max_seats": 0})
    yield _schema(
        "budget-without-total", "a budget says how much", budget={"budget_id": identifier("bud", 1)}
    )
    yield _schema("binding-string", "an object is wanted", binding=FINGERPRINT)
    for name, value in (("7", "a" * 7), ("129", "a" * 129), ("space", "fp test 01")):
        yield _schema(
            f"fingerprint-{name}",
            "8 to 128 of A-Z a-z 0-9 . _ : -",
            binding={"fingerprints": [value]},
        )
    for name, url in (
        ("slash", ORIGIN + "/"),
        ("path", ORIGIN + "/api"),
        ("upper-case", "https://Licenses.example.com"),
        ("scheme", "ftp://licenses.example.com"),
        ("user", "https://me@licenses.example.com"),
        ("port-443", ORIGIN + ":443"),
        ("port-80", "http://licenses.example.com:80"),
        ("port-0", ORIGIN + ":0"),
    ):
        yield _schema(
            f"url-{name}", "not an origin", mode="lease", lease={**LEASE_TERMS, "url": url}
        )
    yield _schema(
        "require-current-1",
        "an integer is no boolean",
        revocation={"require_current_bundle": 1, "min_version": 0},
    )
    yield _schema(
        "revocation-unknown-field",
        "unknown fields are refused at every depth",
        revocation={"require_current_bundle": False, "min_version": 0, "x": 1},
    )

    yield _fields("features-unsorted", "sorted by code point", features=["b", "a"])
    yield _schema("features-twice", "each once", features=["a", "a"])
    yield _fields(
        "fingerprints-unsorted",
        "sorted by code point",
        binding={"fingerprints": ["fingerprint", "Fingerprint"]},
    )
    yield _schema(
        "window-alone", "window_s stands beside tokens_per_window", limits={"window_s": 60}
    )
    yield _schema(
        "tokens-alone", "tokens_per_window stands beside window_s", limits={"tokens_per_window": 60}
    )
    yield _fields(
        "carry-from-itself",
        "a budget cannot carry over from itself",
        budget={**BUDGET, "carry_over_from": BUDGET["budget_id"]},
    )
    yield _schema(
        "lease-mode-without-terms", "lease stands exactly when the mode is lease", mode="lease"
    )
    yield _schema(
        "offline-with-terms", "lease stands exactly when the mode is lease", lease=LEASE_TERMS
    )
    yield _fields("empty-time", "expires_at is after not_before_at", expires_at=ISSUED)
    yield _fields(
        "supersedes-itself", "a license cannot supersede itself", supersedes=identifier("lic", 1)
    )
    yield _fields(
        "name-201-bytes", "lengths are in bytes, not in characters", customer_name="€" * 67
    )
    yield _schema("name-201-characters", "too long either way", customer_name="n" * 201)
    yield _fields("issuer-201-bytes", "lengths are in bytes, not in characters", iss="€" * 67)
    yield _schema("issuer-201-characters", "too long either way", iss="i" * 201)
    yield case(
        KIND,
        "issuer-200-bytes",
        "200 bytes of UTF-8, the keyset's issuer too",
        signed(KIND, iss="é" * 100),
        keyset=signed_keyset(iss="é" * 100),
    )


def _rows() -> Iterator[Case]:
    yield _case("other-issuer", "not the keyset's issuer", "wrong-issuer", iss="example.com")
    yield _case("instance-issuer", "what instances sign says so", "wrong-issuer", iss="instance")
    yield _case("other-product", "another product's license", "wrong-product", product="smart-fax")
    yield case(
        KIND,
        "compromised-key",
        "a compromised key never counts",
        signed(KIND, LICENSE_COMPROMISED),
        "key-not-valid",
    )
    yield case(
        KIND,
        "retired-key-after-window",
        "a retired key signs nothing new",
        signed(KIND, LICENSE_RETIRED),
        "key-not-valid",
    )
    yield _case("keyset-version-equal", "the keyset at hand has version 3", min_keyset_version=3)
    yield _case(
        "keyset-version-above",
        "the keyset at hand has version 3",
        "keyset-too-old",
        min_keyset_version=4,
    )

    bound = signed(KIND, binding={"fingerprints": [FINGERPRINT]})
    yield case(KIND, "binding-right", "bound to this instance", bound, fingerprint=FINGERPRINT)
    yield case(KIND, "binding-not-asked", "no fingerprint given: the binding is left open", bound)
    for name, value in (
        ("other", "fp_test.router-02"),
        ("none", ""),
        ("case", FINGERPRINT.upper()),
        ("prefix", FINGERPRINT[:-1]),
    ):
        yield case(
            KIND, f"binding-{name}", "compared exactly", bound, "wrong-instance", fingerprint=value
        )
    yield case(
        KIND,
        "binding-any",
        "bound to none: any will do",
        signed(KIND),
        fingerprint="fp_test.router-09",
    )


def _order() -> Iterator[Case]:
    """Two neighboring rows of the table fail together, and the first decides."""
    flag = "order"
    body = payload(KIND, revision=0)
    yield case(
        KIND,
        "order-1-2",
        "row 1 before 2",
        pack({**sign("lease", payload("lease")), "more": 1}),
        "malformed-envelope",
        flag,
    )
    yield case(
        KIND, "order-2-3", "row 2 before 3", signed("lease", LICENSE_STRANGE), "wrong-type", flag
    )
    yield case(
        KIND,
        "order-3-4",
        "row 3 before 4",
        signed(KIND, LICENSE_STRANGE, wrong=(LICENSE_STRANGE,)),
        "untrusted-key",
        flag,
    )
    yield case(
        KIND,
        "order-3-5",
        "row 3 before 5",
        pack(sign(KIND, body, LICENSE_STRANGE)),
        "untrusted-key",
        flag,
    )
    yield case(
        KIND,
        "order-4-5",
        "row 4 before 5",
        pack(sign(KIND, body, wrong=(LICENSE,))),
        "bad-signature",
        flag,
    )
    yield _case(
        "order-5-6",
        "row 5 before 6",
        "malformed-payload",
        flag,
        "schema",
        revision=0,
        iss="example.com",
    )
    yield _case(
        "order-6-6",
        "issuer before product",
        "wrong-issuer",
        flag,
        iss="example.com",
        product="smart-fax",
    )
    yield case(
        KIND,
        "order-6-7",
        "row 6 before 7",
        signed(KIND, LICENSE_COMPROMISED, product="smart-fax"),
        "wrong-product",
        flag,
    )
    yield case(
        KIND,
        "order-7-8",
        "row 7 before 8",
        signed(KIND, LICENSE_COMPROMISED, min_keyset_version=4),
        "key-not-valid",
        flag,
    )
    yield case(
        KIND,
        "order-8-9",
        "row 8 before 9",
        signed(KIND, min_keyset_version=4),
        "keyset-too-old",
        flag,
        now=EXPIRES,
    )
    bound = signed(KIND, binding={"fingerprints": [FINGERPRINT]})
    yield case(
        KIND, "order-9-10", "row 9 before 10", bound, "expired", flag, now=EXPIRES, fingerprint=""
    )
    yield case(
        KIND,
        "order-9-9",
        "not yet before expired",
        signed(KIND, issued_at=NOW + 301, expires_at=NOW),
        "not-yet-valid",
        flag,
    )
    yield case(
        KIND,
        "order-10-11",
        "row 10 before 11",
        bound,
        "wrong-instance",
        flag,
        fingerprint="",
        floors=floors(revision=8),
    )
    revoking = signed(
        "revocation-bundle",
        entries=[
            {
                "license_id": identifier("lic", 1),
                "status": "revoked",
                "effective_at": ISSUED,
                "reason": "withdrawn",
            }
        ],
    )
    yield case(
        KIND,
        "order-11-12",
        "row 11 before 12",
        signed(KIND),
        "rolled-back",
        flag,
        floors=floors(revision=8),
        bundle_b64=b64(revoking),
    )
    yield case(
        KIND,
        "order-8-11",
        "row 8 before 11: what the license asks for before what was seen",
        signed(KIND, min_keyset_version=4),
        "keyset-too-old",
        flag,
        floors=floors(keyset_version=4),
    )
    yield case(
        KIND,
        "order-11-12-keyset",
        "row 11 before 12, for the keyset too",
        signed(KIND),
        "rolled-back",
        flag,
        floors=floors(keyset_version=4),
        bundle_b64=b64(revoking),
    )
    yield case(
        KIND,
        "order-12-13",
        "row 12 before 13: even an old bundle revokes",
        signed(KIND),
        "revoked",
        flag,
        floors=floors(bundle_version=ISSUED + 1),
        bundle_b64=b64(revoking),
    )


def cases() -> Iterator[Case]:
    """Every case of the topic."""
    yield from _valid()
    yield from _signatures()
    yield from _schemas()
    yield from _rows()
    yield from _order()
