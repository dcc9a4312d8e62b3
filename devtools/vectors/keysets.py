"""Topic `keyset`: keysets under their own roots, and as updates of another keyset."""

from collections.abc import Iterator
from typing import Any

from devtools.vectors.build import (
    KEYSET,
    KEYSET_ISSUED,
    NOW,
    OMIT,
    ZERO_SHA256,
    Case,
    Object,
    b64,
    case,
    changed,
    key_entry,
    keyset_payload,
    pack,
    root_entry,
    sha256,
    sign,
    signed,
    signed_keyset,
)
from devtools.vectors.keys import (
    LEASE,
    LICENSE,
    NEW_ROOT_1,
    NEW_ROOT_2,
    REVOCATION,
    ROOT_1,
    ROOT_2,
    ROOT_3,
    STRANGE_ROOT,
)
from licensing.keys import key_id

KIND = "keyset"
_P = 2**255 - 19


def _own(name: str, comment: str, code: str | None = None, /, *flags: str, **changes: Any) -> Case:
    return case(KIND, name, comment, signed_keyset(**changes), code, *flags)


def _schema(name: str, comment: str, /, **changes: Any) -> Case:
    return _own(name, comment, "malformed-payload", "schema", **changes)


def _fields(name: str, comment: str, /, **changes: Any) -> Case:
    return _own(name, comment, "malformed-payload", "beyond-schema", **changes)


def _raw_key(raw: bytes) -> Object:
    """A document key with these bytes, under the key id they would have."""
    return key_entry(LICENSE, keyid=key_id(raw), public_key=b64(raw))


def _little(number: int) -> bytes:
    return number.to_bytes(32, "little")


_ORDER_8 = "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"
_BAD_KEYS = (
    ("identity", "order 1", _little(1)),
    ("identity-signed", "order 1 with a sign", _little(1 | 1 << 255)),
    ("order-2", "order 2", _little(_P - 1)),
    ("order-4", "order 4", _little(0)),
    ("order-4-signed", "order 4, the other one", _little(1 << 255)),
    ("order-8", "order 8", bytes.fromhex(_ORDER_8)),
    (
        "order-8-negative",
        "order 8, another one",
        _little(_P - int.from_bytes(bytes.fromhex(_ORDER_8), "little")),
    ),
    ("non-canonical-0", "y = p, which is 0 again", _little(_P)),
    ("non-canonical-4", "y = p + 4, the point of y = 4 written another way", _little(_P + 4)),
    ("largest-y", "y = 2^255 - 1 with a sign", b"\xff" * 32),
    ("off-curve", "y = 2 is no point of the curve", _little(2)),
    ("31-bytes", "a byte is missing", LICENSE.raw[:31]),
    ("33-bytes", "a byte too many", LICENSE.raw + b"\0"),
)


def _documents() -> Iterator[Case]:
    yield _own("two-of-three", "the keyset of most groups")
    yield case(
        KIND, "three-of-three", "more than the threshold", signed_keyset(ROOT_1, ROOT_2, ROOT_3)
    )
    yield _own("version-1", "the first follows nothing", version=1, prev_sha256=ZERO_SHA256)
    yield _own("issuer-200-bytes", "200 bytes of UTF-8", iss="é" * 100)
    yield _own("expired", "an expired keyset warns; it never stops service", expires_at=NOW - 1)
    yield case(
        KIND,
        "threshold-1",
        "one root is enough where one is asked for",
        signed_keyset(ROOT_2, root_threshold=1),
    )
    yield case(
        KIND,
        "strange-root-beside",
        "unknown signatures are passed over",
        signed_keyset(STRANGE_ROOT, ROOT_1, ROOT_2),
    )
    yield case(
        KIND,
        "wrong-root-beside",
        "wrong signatures are passed over",
        signed_keyset(ROOT_3, ROOT_1, ROOT_2, wrong=(ROOT_3,)),
    )

    yield case(KIND, "is-a-license", "another kind", signed("license"), "wrong-type")
    yield case(
        KIND,
        "signed-by-strangers",
        "no root among the signers",
        signed_keyset(STRANGE_ROOT, NEW_ROOT_1),
        "untrusted-key",
    )
    yield case(
        KIND,
        "signed-by-own-keys",
        "document keys are no roots",
        signed_keyset(LICENSE, LEASE, REVOCATION),
        "untrusted-key",
    )
    yield case(
        KIND,
        "both-wrong",
        "no root's signature fits",
        signed_keyset(ROOT_1, ROOT_2, wrong=(ROOT_1, ROOT_2)),
        "bad-signature",
    )
    for name, comment, file in (
        ("one-root", "one of two", signed_keyset(ROOT_1)),
        (
            "one-right-one-wrong",
            "a wrong one does not count",
            signed_keyset(ROOT_1, ROOT_2, wrong=(ROOT_2,)),
        ),
        (
            "one-root-one-stranger",
            "an unknown one does not count",
            signed_keyset(ROOT_1, STRANGE_ROOT),
        ),
        ("one-root-one-key", "a document key does not count", signed_keyset(ROOT_1, LICENSE)),
    ):
        yield case(KIND, name, comment, file, "key-not-valid")
    one = sign(KIND, keyset_payload(), ROOT_1)
    twice = pack({**one, "signatures": one["signatures"] * 2})
    yield case(KIND, "one-root-twice", "one key is one signature", twice, "malformed-envelope")
    yield _own("other-product", "another product", "wrong-product", product="smart-fax")
    yield case(
        KIND,
        "product-before-threshold",
        "row 6 before 7",
        signed_keyset(ROOT_1, product="smart-fax"),
        "wrong-product",
        "order",
    )

    yield _schema("threshold-0", "at least one root signs", root_threshold=0)
    yield _schema("version-0", "versions begin with 1", version=0, prev_sha256=ZERO_SHA256)
    for field in ("roots", "keys", "root_threshold", "prev_sha256"):
        yield _schema(f"without-{field}", "a required field is missing", **{field: OMIT})
    yield _schema("typ", "typ disagrees with the payload type", typ="license.v1")
    yield _schema("alg", "one algorithm", keys=[key_entry(LICENSE, alg="rsa")])
    yield _schema(
        "role-root", "roots stand in their own list", keys=[key_entry(LICENSE, role="root")]
    )
    yield _schema("status-unknown", "one of three", keys=[key_entry(LICENSE, "lost")])
    yield _schema(
        "keyid-upper-case",
        "hex in lower case",
        keys=[key_entry(LICENSE, keyid=LICENSE.keyid.upper())],
    )
    yield _fields("threshold-4", "more than there are roots", root_threshold=4)
    yield _schema("no-roots", "an empty array where none may be", roots=[])
    yield _schema("no-keys", "an empty array where none may be", keys=[])
    yield _schema("version-1-follows", "the first follows nothing", version=1)
    yield _schema(
        "version-3-follows-nothing", "a later one follows something", prev_sha256=ZERO_SHA256
    )
    yield _fields("issuer-201-bytes", "lengths are in bytes", iss="€" * 67)
    yield _fields("no-time", "expires_at is after issued_at", expires_at=KEYSET_ISSUED)
    yield _fields(
        "key-window-empty",
        "not_before_at is before not_after_at",
        keys=[key_entry(LICENSE, window=(NOW, NOW))],
    )
    yield _fields(
        "keyid-of-another",
        "a key id is that of its key",
        keys=[key_entry(LICENSE, keyid=LEASE.keyid)],
    )
    yield _fields(
        "root-twice", "no public key stands twice", roots=[root_entry(ROOT_1), root_entry(ROOT_1)]
    )
    yield _fields(
        "key-twice",
        "no public key stands twice, not even in two roles",
        keys=[key_entry(LICENSE), key_entry(LICENSE, role="lease")],
    )
    yield _fields(
        "root-is-key",
        "no public key stands twice, across both lists",
        keys=[key_entry(LICENSE), {**key_entry(LICENSE), **root_entry(ROOT_1)}],
    )
    for name, comment, raw in _BAD_KEYS:
        make = _fields if len(raw) == len(LICENSE.raw) else _schema
        yield make(f"key-{name}", comment, keys=[_raw_key(raw)])
    yield _fields(
        "root-identity",
        "roots are checked too",
        roots=[
            changed(
                root_entry(ROOT_1), {"keyid": key_id(_little(1)), "public_key": b64(_little(1))}
            ),
            root_entry(ROOT_1),
            root_entry(ROOT_2),
        ],
    )
    yield _schema(
        "key-unpadded",
        "base64 has its padding",
        keys=[key_entry(LICENSE, public_key=LICENSE.public_key.rstrip("="))],
    )


_HELD_SHA256 = sha256(keyset_payload())
_NEW_ROOTS = [root_entry(NEW_ROOT_1), root_entry(NEW_ROOT_2)]


def _update(
    name: str,
    comment: str,
    envelope: bytes,
    code: str | None = None,
    *flags: str,
    steps: tuple[bytes, ...] = (),
    now: int = NOW,
    keyset: bytes = KEYSET,
) -> Case:
    """A keyset that is to replace the group's."""
    options: Object = {"update": True}
    if steps:
        options["steps_b64"] = [b64(step) for step in steps]
    return case(KIND, name, comment, envelope, code, *flags, now=now, keyset=keyset, **options)


def _updates() -> Iterator[Case]:
    follows: Object = {"version": 4, "prev_sha256": _HELD_SHA256, "issued_at": NOW - 1000}
    flag = "update"
    following = signed_keyset(**follows)
    yield _update("update-next", "version 4 after 3", following, None, flag)
    yield _update(
        "update-skips", "version 9 after 3, by the same roots", signed_keyset(version=9), None, flag
    )
    yield _update("update-itself", "the held one again", KEYSET, "rolled-back", flag)
    yield _update(
        "update-older", "version 2 after 3", signed_keyset(version=2), "rolled-back", flag
    )
    yield _update(
        "update-fork",
        "version 4 that follows another 3",
        signed_keyset(**{**follows, "prev_sha256": sha256(b"another")}),
        "rolled-back",
        flag,
    )
    yield _update(
        "update-other-issuer",
        "another issuer's",
        signed_keyset(**follows, iss="example.com"),
        "wrong-issuer",
        flag,
    )
    yield _update(
        "update-issuer-before-threshold",
        "row 6 before 7",
        signed_keyset(ROOT_1, **follows, iss="example.com"),
        "wrong-issuer",
        flag,
        "order",
    )

    rotated: Object = {**follows, "roots": _NEW_ROOTS}
    both = (ROOT_1, ROOT_3, NEW_ROOT_1, NEW_ROOT_2)
    rotation = signed_keyset(*both, **rotated)
    yield _update("rotation", "new roots, signed by the held and its own", rotation, None, flag)
    yield _update(
        "rotation-by-new-alone",
        "whoever has new roots has no old ones",
        signed_keyset(NEW_ROOT_1, NEW_ROOT_2, **rotated),
        "untrusted-key",
        flag,
    )
    yield _update(
        "rotation-by-held-alone",
        "its own roots did not sign",
        signed_keyset(ROOT_1, ROOT_2, **rotated),
        "untrusted-key",
        flag,
    )
    yield _update(
        "rotation-one-held",
        "the held threshold is 2",
        signed_keyset(ROOT_1, NEW_ROOT_1, NEW_ROOT_2, **rotated),
        "key-not-valid",
        flag,
    )
    yield _update(
        "rotation-one-new",
        "its own threshold is 2",
        signed_keyset(ROOT_1, ROOT_2, NEW_ROOT_1, **rotated),
        "key-not-valid",
        flag,
    )
    yield _update(
        "rotation-held-wrong",
        "the held roots' signatures are wrong",
        signed_keyset(*both, wrong=(ROOT_1, ROOT_3), **rotated),
        "bad-signature",
        flag,
    )
    yield _update(
        "threshold-lowered",
        "lowering the threshold takes the held threshold",
        signed_keyset(ROOT_1, **follows, root_threshold=1),
        "key-not-valid",
        flag,
    )
    yield _update(
        "threshold-raised",
        "raising it takes the new one",
        signed_keyset(ROOT_1, ROOT_2, **follows, root_threshold=3),
        "key-not-valid",
        flag,
    )

    after_4 = sha256(keyset_payload(**rotated))
    fifth: Object = {**rotated, "version": 5, "prev_sha256": after_4}
    newest = signed_keyset(NEW_ROOT_1, NEW_ROOT_2, **fifth)
    yield _update(
        "step-needed", "version 5 is by the new roots alone", newest, "untrusted-key", flag
    )
    yield _update("step", "version 4 on the way to 5", newest, None, flag, steps=(rotation,))
    yield _update(
        "step-fails",
        "the first step that fails decides",
        newest,
        "key-not-valid",
        flag,
        steps=(signed_keyset(ROOT_1, NEW_ROOT_1, NEW_ROOT_2, **rotated),),
    )
    yield _update(
        "step-back",
        "after the step an old root counts no more",
        signed_keyset(ROOT_1, ROOT_2, **{**follows, "version": 6}),
        "untrusted-key",
        flag,
        steps=(rotation, newest),
    )
    over: Object = {**rotated, "expires_at": NOW - 500}
    stale = signed_keyset(*both, **over)
    after_stale: Object = {**fifth, "prev_sha256": sha256(keyset_payload(**over))}
    current = signed_keyset(NEW_ROOT_1, NEW_ROOT_2, **after_stale)
    yield _update(
        "step-expired",
        "a step on the way may have expired since",
        current,
        None,
        flag,
        steps=(stale,),
    )
    yield _update(
        "step-expired-twice",
        "so may each of several",
        signed_keyset(
            NEW_ROOT_1,
            NEW_ROOT_2,
            **{
                **after_stale,
                "version": 6,
                "prev_sha256": sha256(keyset_payload(**{**after_stale, "expires_at": NOW})),
            },
        ),
        None,
        flag,
        steps=(
            stale,
            signed_keyset(NEW_ROOT_1, NEW_ROOT_2, **{**after_stale, "expires_at": NOW}),
        ),
    )
    yield _update(
        "step-expired-and-last",
        "the last must be current",
        signed_keyset(NEW_ROOT_1, NEW_ROOT_2, **{**after_stale, "expires_at": NOW}),
        "expired",
        flag,
        steps=(stale,),
    )
    yield _update("step-expired-as-last", "as an update it is none", stale, "expired", flag)
    yield _update(
        "step-expired-one-held",
        "an expired step needs its signatures like any other",
        current,
        "key-not-valid",
        flag,
        steps=(signed_keyset(ROOT_1, NEW_ROOT_1, NEW_ROOT_2, **over),),
    )
    yield _update(
        "step-expired-older",
        "and a higher version",
        current,
        "rolled-back",
        flag,
        steps=(signed_keyset(*both, **{**over, "version": 2}),),
    )
    yield _update(
        "step-expired-fork",
        "and continues the held one",
        current,
        "rolled-back",
        flag,
        steps=(signed_keyset(*both, **{**over, "prev_sha256": sha256(b"another")}),),
    )
    yield _update(
        "step-from-the-future",
        "a step was issued 301 s from now",
        newest,
        "not-yet-valid",
        flag,
        steps=(signed_keyset(*both, **{**rotated, "issued_at": NOW + 301}),),
    )
    one = signed_keyset(
        ROOT_1, version=1, prev_sha256=ZERO_SHA256, root_threshold=1, roots=[root_entry(ROOT_1)]
    )
    yield _update(
        "more-roots",
        "from one root at version 1 to two of three at 3",
        signed_keyset(),
        None,
        flag,
        keyset=one,
    )


def cases() -> Iterator[Case]:
    """Every case of the topic."""
    yield from _documents()
    yield from _updates()
