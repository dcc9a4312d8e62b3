"""Topic `rotation`: several signatures, of which one valid one is enough."""

from collections.abc import Iterator

from devtools.vectors.build import KEYSET_ISSUED, NOW, WINDOW, Case, case, signed
from devtools.vectors.keys import (
    FILLERS,
    LEASE,
    LEASE_COMPROMISED,
    LICENSE,
    LICENSE_COMPROMISED,
    LICENSE_RETIRED,
    LICENSE_STRANGE,
    REVOCATION,
    REVOCATION_COMPROMISED,
    TestKey,
)

KIND = "license"


def _case(
    name: str,
    comment: str,
    code: str | None,
    *signers: TestKey,
    wrong: tuple[TestKey, ...] = (),
    issued_at: int = NOW - 10_000,
) -> Case:
    file = signed(KIND, *signers, wrong=wrong, issued_at=issued_at)
    return case(KIND, name, comment, file, code, "rotation")


def cases() -> Iterator[Case]:
    """Every case of the topic."""
    right, old, lost, strange = LICENSE, LICENSE_RETIRED, LICENSE_COMPROMISED, LICENSE_STRANGE
    yield _case("unknown-right", "unknown ones are passed over", None, strange, right)
    yield _case("right-unknown", "in any order", None, right, strange)
    yield _case("wrong-right", "wrong ones are passed over", None, old, right, wrong=(old,))
    yield _case("right-wrong", "in any order", None, right, old, wrong=(old,))
    yield _case("unknown-wrong-right", "both", None, strange, old, right, wrong=(strange, old))
    yield _case("other-role-right", "other roles are passed over", None, LEASE, right)
    yield _case("compromised-right", "beside an active one", None, lost, right)
    yield _case("right-compromised", "in any order", None, right, lost)
    yield _case("out-of-window-right", "beside one that counts", None, old, right)
    yield _case("seven-unknown-right", "eight signatures", None, *FILLERS[:7], right)
    yield _case("all-wrong", "none fits", "bad-signature", right, old, wrong=(right, old))
    yield _case(
        "unknown-wrong",
        "the unknown one does not help",
        "bad-signature",
        strange,
        right,
        wrong=(right,),
    )
    yield _case("all-unknown", "none is known", "untrusted-key", strange, FILLERS[0])
    yield _case("all-other-roles", "none may", "untrusted-key", LEASE, REVOCATION)
    yield _case(
        "compromised-right-wrong",
        "the active one's signature is wrong",
        "key-not-valid",
        lost,
        right,
        wrong=(right,),
    )
    yield _case(
        "compromised-unknown", "the unknown one does not help", "key-not-valid", lost, strange
    )
    yield _case("compromised-out-of-window", "neither counts", "key-not-valid", lost, old)
    yield _case(
        "compromised-long-ago",
        "whatever date the document bears",
        "key-not-valid",
        lost,
        issued_at=WINDOW[0],
    )
    yield _case(
        "compromised-wrong",
        "rows in order: it does not even fit",
        "bad-signature",
        lost,
        wrong=(lost,),
    )
    yield _case(
        "retired-in-window",
        "a retired key's old documents count",
        None,
        old,
        issued_at=KEYSET_ISSUED - 1,
    )
    for kind, good, bad in (
        ("lease", LEASE, LEASE_COMPROMISED),
        ("revocation-bundle", REVOCATION, REVOCATION_COMPROMISED),
    ):
        yield case(
            kind,
            f"{kind}-compromised-right",
            "beside an active one",
            signed(kind, bad, good),
            None,
            "rotation",
        )
        yield case(
            kind,
            f"{kind}-wrong-right",
            "wrong ones are passed over",
            signed(kind, bad, good, wrong=(bad,)),
            None,
            "rotation",
        )
        yield case(
            kind,
            f"{kind}-compromised-wrong",
            "the active one's signature is wrong",
            signed(kind, bad, good, wrong=(good,)),
            "key-not-valid",
            "rotation",
        )
