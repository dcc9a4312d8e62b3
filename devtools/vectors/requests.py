"""Topic `requests`: what an instance signs, verified under the instance's own key."""

from collections.abc import Iterator
from typing import Any

from devtools.vectors.build import (
    FINGERPRINT,
    OMIT,
    ORIGIN,
    Case,
    b64,
    case,
    identifier,
    pack,
    payload,
    sign,
    signed,
)
from devtools.vectors.keys import INSTANCE, LEASE, OTHER_INSTANCE, TestKey

ENROLLMENT = "enrollment-request"
RENEWAL = "lease-request"
RELEASE = "release-request"


def _options(kind: str) -> dict[str, Any]:
    """An enrollment carries its key; for the others the verifier is given the key."""
    return {} if kind == ENROLLMENT else {"public_key_b64": INSTANCE.public_key}


def _case(
    kind: str, name: str, comment: str, code: str | None = None, /, *flags: str, **changes: Any
) -> Case:
    return case(
        kind, f"{kind}-{name}", comment, signed(kind, **changes), code, *flags, **_options(kind)
    )


def _signed_by(
    kind: str, name: str, comment: str, code: str, *signers: TestKey, wrong: bool = False
) -> Case:
    return case(
        kind,
        f"{kind}-{name}",
        comment,
        signed(kind, *signers, wrong=signers if wrong else ()),
        code,
        **_options(kind),
    )


def _schema(kind: str, name: str, comment: str, /, **changes: Any) -> Case:
    return _case(kind, name, comment, "malformed-payload", "schema", **changes)


def cases() -> Iterator[Case]:
    """Every case of the topic."""
    for kind in (ENROLLMENT, RENEWAL, RELEASE):
        yield _case(kind, "minimal", "only what is required")
        yield _signed_by(
            kind,
            "signature-wrong",
            "one bit of the signature",
            "bad-signature",
            INSTANCE,
            wrong=True,
        )
        yield _signed_by(
            kind, "other-key", "signed by another instance", "untrusted-key", OTHER_INSTANCE
        )
        yield _signed_by(
            kind, "vendor-key", "signed by a key of the keyset", "untrusted-key", LEASE
        )
        yield _signed_by(
            kind,
            "two-signatures",
            "exactly one, right or not",
            "malformed-envelope",
            INSTANCE,
            OTHER_INSTANCE,
        )
        yield case(
            kind,
            f"{kind}-is-a-license",
            "another kind",
            signed("license", INSTANCE),
            "wrong-type",
            **_options(kind),
        )
        yield _schema(kind, "iss", "the literal `instance`", iss="metrum.ai")
        yield _schema(kind, "product", "requests name no product", product="genai-smart-router")
        yield _schema(kind, "without-aud", "a required field is missing", aud=OMIT)
        yield _schema(kind, "without-request-id", "a required field is missing", request_id=OMIT)
        yield _schema(kind, "typ", "typ disagrees with the payload type", typ="request.v1")
        yield _schema(kind, "aud-slash", "an origin has no slash", aud=ORIGIN + "/")
        yield _schema(kind, "aud-upper-case", "an origin is in lower case", aud=ORIGIN.upper())
        yield _schema(
            kind, "aud-default-port", "an origin has no default port", aud=ORIGIN + ":443"
        )

    yield _case(
        ENROLLMENT,
        "full",
        "every optional field",
        fingerprint=FINGERPRINT,
        label="Göteborg rack 3",
        ext={"region": "north"},
    )
    yield _case(ENROLLMENT, "label-200-bytes", "200 bytes of UTF-8", label="é" * 100)
    yield _case(
        ENROLLMENT,
        "label-202-bytes",
        "lengths are in bytes",
        "malformed-payload",
        "beyond-schema",
        label="é" * 101,
    )
    for name, code in (("21", "a" * 21), ("65", "a" * 65), ("plus", "a" * 21 + "+")):
        yield _schema(ENROLLMENT, f"code-{name}", "22 to 64 of 0-9 A-Z a-z _ -", code=code)
    yield _schema(ENROLLMENT, "key-31-bytes", "32 bytes", public_key=b64(INSTANCE.raw[:31]))
    yield _case(
        ENROLLMENT,
        "key-small-order",
        "the identity is no key",
        "malformed-payload",
        "beyond-schema",
        public_key=b64(bytes([1]) + bytes(31)),
    )
    yield _schema(ENROLLMENT, "software-line-break", "printable ASCII", software="router\u00a01")
    yield _schema(ENROLLMENT, "software-65", "at most 64", software="r" * 65)
    foreign = payload(ENROLLMENT, public_key=OTHER_INSTANCE.public_key)
    yield case(
        ENROLLMENT,
        f"{ENROLLMENT}-brings-another-key",
        "the key that signs is the key it brings",
        pack(sign(ENROLLMENT, foreign)),
        "untrusted-key",
    )

    yield _case(
        RENEWAL,
        "full",
        "every optional field",
        fingerprint=FINGERPRINT,
        usage={"budget_id": identifier("bud", 1), "tokens_total": 0, "requests_total": 2**53 - 1},
    )
    yield _case(
        RENEWAL,
        "first",
        "an instance without a lease",
        prev_epoch=0,
        prev_seq=0,
        prev_sha256="0" * 64,
    )
    yield _schema(RENEWAL, "boot-id-31", "32 hex digits", boot_id="a" * 31)
    yield _schema(RENEWAL, "prev-seq-negative", "never below 0", prev_seq=-1)
    yield _schema(
        RENEWAL,
        "usage-unknown-field",
        "unknown fields are refused",
        usage={"budget_id": identifier("bud", 1), "tokens_total": 0, "requests_total": 0, "usd": 0},
    )
    yield _schema(
        RENEWAL,
        "usage-without-requests",
        "a required field is missing",
        usage={"budget_id": identifier("bud", 1), "tokens_total": 0},
    )
    yield _schema(RELEASE, "lease-id", "another identifier's prefix", lease_id=identifier("lic", 1))
