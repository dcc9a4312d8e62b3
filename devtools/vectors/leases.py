"""Topic `lease`: a lease as a document, and beside its license.

Whether it still allows serving is not tested here.
"""

from collections.abc import Iterator
from itertools import chain
from typing import Any, Final

from devtools.vectors.build import (
    EXPIRES,
    FINGERPRINT,
    NOW,
    OMIT,
    ORIGIN,
    ZERO_SHA256,
    Case,
    Object,
    b64,
    case,
    changed,
    identifier,
    pack,
    payload,
    sha256,
    sign,
    signed,
)
from devtools.vectors.keys import INSTANCE, LEASE, LEASE_COMPROMISED, LICENSE, OTHER_INSTANCE

KIND: Final = "lease"
REJECTED: Final = "lease-rejected"
PERIOD_S: Final = 28 * 86_400
_OWN: Final = identifier("bud", 1)
_BOUNDS: Final[Object] = {
    "mode": "lease",
    "lease": {"url": ORIGIN, "ttl_s": 86_400, "grace_s": 3 * 86_400},
    "limits": {
        "max_concurrency": 64,
        "max_instances": 3,
        "max_seats": 8,
        "tokens_per_window": 1000,
        "window_s": 3600,
    },
    "budget": {
        "budget_id": _OWN,
        "tokens_total": 1000,
        "carry_over_from": identifier("bud", 9),
    },
}
"""What the license grants that leases are compared with."""


def _case(name: str, comment: str, code: str | None = None, /, *flags: str, **changes: Any) -> Case:
    return case(KIND, name, comment, signed(KIND, **changes), code, *flags)


def _schema(name: str, comment: str, /, **changes: Any) -> Case:
    return _case(name, comment, "malformed-payload", "schema", **changes)


def _fields(name: str, comment: str, /, **changes: Any) -> Case:
    return _case(name, comment, "malformed-payload", "beyond-schema", **changes)


def _bound(
    name: str,
    comment: str,
    code: str | None = None,
    /,
    *flags: str,
    under: Object | None = None,
    options: Object | None = None,
    **changes: Any,
) -> Case:
    """Compare a lease with its license; `under` changes the license."""
    body = payload("license", **{**_BOUNDS, **(under or {})})
    file = signed(KIND, **{"license_sha256": sha256(body), **changes})
    license_b64 = b64(pack(sign("license", body)))
    return case(KIND, name, comment, file, code, *flags, license_b64=license_b64, **(options or {}))


def _pair(name: str, comment: str, right: Object, wrong: Object, /, **more: Any) -> Iterator[Case]:
    """Compare a lease at a bound, and one that is one step beyond."""
    yield _bound(f"{name}-at", comment, None, "boundary", **right, **more)
    yield _bound(f"{name}-beyond", comment, REJECTED, "boundary", **wrong, **more)


def _budget(number: int = 1, **changes: Any) -> Object:
    """Return a lease with a budget that is as large as its license's."""
    base = {"budget_id": identifier("bud", number), "tokens_total": 1000}
    return {"budget": changed(base, changes)}


def _bounds() -> Iterator[Case]:
    """Cases of what a lease may grant beside its license."""
    yield _bound("bounds-nothing", "a lease that narrows nothing")
    yield from _pair(
        "bounds-grace",
        "grace_until_at never passes the license's expires_at",
        {"grace_until_at": EXPIRES},
        {"grace_until_at": EXPIRES + 1},
    )
    yield from _pair(
        "bounds-expires",
        "expires_at never passes the license's expires_at",
        {"expires_at": EXPIRES, "grace_until_at": EXPIRES},
        {"expires_at": EXPIRES + 1, "grace_until_at": EXPIRES + 1},
    )
    yield from _pair(
        "bounds-features",
        "no feature that the license lacks",
        {"features": ["routing", "usage_reporting"]},
        {"features": ["pii_filtering", "routing", "usage_reporting"]},
    )
    for limit, most in (("max_concurrency", 64), ("max_instances", 3), ("max_seats", 8)):
        yield from _pair(
            f"bounds-{limit}",
            "no limit above the license's",
            {"limits": {limit: most}},
            {"limits": {limit: most + 1}},
        )
    yield from _pair(
        "bounds-tokens_per_window",
        "no more tokens in a window",
        {"limits": {"tokens_per_window": 1000, "window_s": 3600}},
        {"limits": {"tokens_per_window": 1001, "window_s": 3600}},
    )
    yield from _pair(
        "bounds-window_s",
        "no shorter window",
        {"limits": {"tokens_per_window": 1000, "window_s": 3600}},
        {"limits": {"tokens_per_window": 1000, "window_s": 3599}},
    )
    yield _bound(
        "bounds-slow-burst",
        "fewer tokens a second, and still more of them in the license's window",
        REJECTED,
        limits={"tokens_per_window": 1001, "window_s": 86_400},
    )
    yield _bound(
        "bounds-where-there-is-none",
        "a license without limits and budget is narrowed by any",
        under={"limits": {}, "budget": OMIT},
        limits={"max_seats": 10**6, "tokens_per_window": 10**9, "window_s": 1},
        **_budget(2, tokens_total=10**9),
    )
    yield from _pair(
        "bounds-tokens_total",
        "no larger budget",
        _budget(),
        _budget(tokens_total=1001),
    )
    yield _bound("bounds-budget-0", "a budget may shrink to nothing", **_budget(tokens_total=0))
    yield from _pair(
        "bounds-carry-over",
        "carry_over_from is the license's or absent",
        _budget(carry_over_from=identifier("bud", 9)),
        _budget(carry_over_from=identifier("bud", 8)),
    )
    yield _bound(
        "bounds-carry-over-none",
        "the license carries nothing over",
        REJECTED,
        under={"budget": {"budget_id": _OWN, "tokens_total": 1000}},
        **_budget(carry_over_from=identifier("bud", 9)),
    )
    yield _bound(
        "bounds-carry-over-no-budget",
        "the license has no budget that could carry over",
        REJECTED,
        under={"budget": OMIT},
        **_budget(carry_over_from=identifier("bud", 9)),
    )
    yield _bound("bounds-budget-id", "the license's budget alone", REJECTED, **_budget(2))
    yield _bound(
        "bounds-not-active",
        "whatever its status",
        REJECTED,
        status="suspended",
        **_budget(tokens_total=1001),
    )
    yield _bound(
        "bounds-another-license",
        "a lease for another license grants nothing of its own: nothing is compared",
        license_sha256=sha256(b"another license"),
        grace_until_at=EXPIRES + 1,
        features=["pii_filtering"],
        **_budget(2, tokens_total=1001),
    )
    yield _bound(
        "bounds-order",
        "the instance comes before the bounds",
        "wrong-instance",
        "order",
        options={"instance_keyid": OTHER_INSTANCE.keyid},
        **_budget(tokens_total=1001),
    )


def _periods() -> Iterator[Case]:
    """Cases of period budgets: `ext.budget_period_s` of the license permits them."""

    def period(
        name: str,
        comment: str,
        code: str | None,
        number: int,
        /,
        *flags: str,
        known: Object | None = None,
        period_s: object = PERIOD_S,
        **changes: Any,
    ) -> Case:
        return _bound(
            f"period-{name}",
            comment,
            code,
            *flags,
            under={"ext": {"budget_period_s": period_s}},
            options={} if known is None else {"periods": known},
            **_budget(number, **changes),
        )

    late, early = NOW - PERIOD_S, NOW - PERIOD_S + 1
    second, third = identifier("bud", 2), identifier("bud", 3)
    yield period("first", "the first that is met", None, 2)
    yield period(
        "next-at", "a period after the one before", None, 3, "boundary", known={second: late}
    )
    yield period(
        "next-beyond", "sooner than a period", REJECTED, 3, "boundary", known={second: early}
    )
    yield period("held", "the one in use", None, 2, known={second: early})
    yield period(
        "before", "one that was in use is not new", None, 2, known={second: late, third: NOW}
    )
    yield period(
        "latest-counts",
        "the latest of them begins the period",
        REJECTED,
        4,
        known={second: late, third: early},
    )
    yield period("own", "the license's own is always right", None, 1, known={second: NOW})
    yield period(
        "clock-back", "one in use since later than now", REJECTED, 3, known={second: NOW + 1}
    )
    yield period("tokens-beyond", "no larger than the license's", REJECTED, 2, tokens_total=1001)
    for name, value in (("text", "3600"), ("0", 0), ("true", True), ("below-0", -1)):
        yield period(
            f"of-{name}", "what is no positive integer permits none", REJECTED, 2, period_s=value
        )
    yield _bound(
        "period-not-permitted",
        "one in use under the license before is none that this one permits",
        REJECTED,
        options={"periods": {second: late}},
        **_budget(2),
    )


def cases() -> Iterator[Case]:
    """Every case of the topic."""
    return chain(_documents(), _bounds(), _periods())


def _documents() -> Iterator[Case]:
    """Cases of a lease by itself."""
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
