"""Topic `lease`: a lease as a document; whether it still allows serving is not tested here."""

from collections.abc import Iterator
from typing import Any

from devtools.vectors.build import (
    FINGERPRINT,
    NOW,
    OMIT,
    ZERO_SHA256,
    Case,
    case,
    identifier,
    signed,
)
from devtools.vectors.keys import INSTANCE, LEASE, LEASE_COMPROMISED, LICENSE, OTHER_INSTANCE

KIND = "lease"


def _case(name: str, comment: str, code: str | None = None, /, *flags: str, **changes: Any) -> Case:
    return case(KIND, name, comment, signed(KIND, **changes), code, *flags)


def _schema(name: str, comment: str, /, **changes: Any) -> Case:
    return _case(name, comment, "malformed-payload", "schema", **changes)


def _fields(name: str, comment: str, /, **changes: Any) -> Case:
    return _case(name, comment, "malformed-payload", "beyond-schema", **changes)


def cases() -> Iterator[Case]:
    """Every case of the topic."""
    yield _case("minimal", "only what is required")
    yield case(
        KIND,
        "full",
        "every optional field",
        signed(
            KIND,
            fingerprint=FINGERPRINT,
            status="superseded",
            reason="replaced",
            superseded_by=identifier("lic", 2),
            features=["routing"],
            limits={"max_concurrency": 4, "tokens_per_window": 10, "window_s": 60},
            budget={
                "budget_id": identifier("bud", 2),
                "tokens_total": 1,
                "carry_over_from": identifier("bud", 1),
            },
            clone_warning=True,
            ext={"more": {"facts": [1, 2]}},
        ),
        instance_keyid=INSTANCE.keyid,
    )
    for status in ("suspended", "revoked", "superseded", "ended"):
        yield _case(f"status-{status}", "the document is right; it does not serve", status=status)
    yield _case("first", "the first of all follows nothing", seq=1, prev_sha256=ZERO_SHA256)
    yield _case("first-of-epoch-2", "a later epoch may follow a lease", epoch=2, seq=1)
    yield _case("nothing-left", "features and limits may narrow to nothing", features=[], limits={})
    yield _case(
        "over",
        "a lease whose time is over is still a right document",
        expires_at=NOW - 1,
        grace_until_at=NOW - 1,
    )
    yield case(
        KIND, "of-this-instance", "its key's id", signed(KIND), instance_keyid=INSTANCE.keyid
    )
    yield case(
        KIND,
        "of-another-instance",
        "another key's id",
        signed(KIND),
        "wrong-instance",
        instance_keyid=OTHER_INSTANCE.keyid,
    )

    yield case(KIND, "is-a-license", "another kind", signed("license"), "wrong-type")
    yield case(
        KIND, "signed-by-license-key", "another role", signed(KIND, LICENSE), "untrusted-key"
    )
    yield case(
        KIND,
        "signed-by-instance",
        "instances sign no leases",
        signed(KIND, INSTANCE),
        "untrusted-key",
    )
    yield case(
        KIND,
        "signature-wrong",
        "one bit of the signature",
        signed(KIND, wrong=(LEASE,)),
        "bad-signature",
    )
    yield case(
        KIND,
        "compromised-key",
        "a compromised key never counts",
        signed(KIND, LEASE_COMPROMISED),
        "key-not-valid",
    )
    yield _case("other-issuer", "not the keyset's issuer", "wrong-issuer", iss="example.com")
    yield _case("other-product", "another product", "wrong-product", product="smart-fax")

    for field in ("instance_keyid", "status", "renew_at", "keyset_version", "product"):
        yield _schema(f"without-{field}", "a required field is missing", **{field: OMIT})
    yield _schema("unknown-field", "unknown fields are refused", serves=True)
    yield _schema("typ", "typ disagrees with the payload type", typ="license.v1")
    yield _schema("epoch-0", "epochs begin with 1", epoch=0)
    yield _schema("seq-0", "sequences begin with 1", seq=0)
    yield _schema("sha256-upper-case", "hex in lower case", request_sha256="A" * 64)
    yield _schema("instance-id", "another identifier's prefix", instance_id=identifier("lic", 1))
    yield _schema("status-unknown", "one of five", status="paused")
    yield _schema("limit-unknown", "an unknown limit is refused", limits={"max_moons": 1})
    yield _schema("renew-at-one", "two moments", renew_at=[NOW])
    yield _schema("renew-at-three", "two moments", renew_at=[NOW, NOW, NOW])
    yield _schema("clone-warning-false", "true only", clone_warning=False)
    yield _schema("clone-warning-1", "an integer is no boolean", clone_warning=1)
    yield _fields("issuer-201-bytes", "lengths are in bytes", iss="€" * 67)
    yield _fields("features-unsorted", "sorted by code point", features=["b", "a"])
    yield _fields(
        "grace-before-expiry", "grace ends no earlier than the lease", grace_until_at=NOW + 60
    )
    yield _fields("renew-at-reversed", "earliest, then latest", renew_at=[NOW + 2, NOW + 1])
    yield _fields("first-with-predecessor", "the first of all follows nothing", seq=1)
    yield _schema(
        "active-superseded-by",
        "superseded_by stands with its status alone",
        superseded_by=identifier("lic", 2),
    )
