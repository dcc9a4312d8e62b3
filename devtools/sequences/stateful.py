"""Sequences of decisions, leases, moments and budgets, and what all sequences are built from.

Expected results are stated by hand. Every document is signed by published test keys.
"""

from base64 import b64encode
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from msgspec import structs

from devtools.simulator.portal import Simulator
from devtools.vectors.keys import (
    INSTANCE,
    LEASE,
    LICENSE,
    LICENSE_COMPROMISED,
    OTHER_INSTANCE,
    REVOCATION_COMPROMISED,
    ROOT_1,
    TestKey,
)
from licensing.document import Document
from licensing.encoding import sha256_hex
from licensing.envelope import Envelope, Signature, pae
from licensing.keys import Key, Keyset
from licensing.lease import Lease
from licensing.license import Binding, Budget, License, Limits, RevocationTerms
from licensing.names import PRODUCT
from licensing.revocation import RevocationEntry

AT: Final = 1_800_000_000
"""2027-01-15T08:00:00Z."""
HOUR_S: Final = 3600
DAY_S: Final = 86_400
SECRET: Final = "5a" * 32
Object = dict[str, Any]


def text(data: bytes) -> str:
    """Return base64."""
    return b64encode(data).decode()


def sign(document: Document, *keys: TestKey) -> bytes:
    """Sign a document with each key."""
    payload = document.to_bytes()
    message = pae(document.PAYLOAD_TYPE, payload)
    signatures = tuple(Signature(key.keyid, key.sign(message)) for key in keys)
    return Envelope(payload, document.PAYLOAD_TYPE, signatures).to_bytes()


def identifier(prefix: str, number: int) -> str:
    """Return a well-formed identifier."""
    return f"{prefix}_{number:026d}"


@dataclass
class Vendor:
    """Signs what the sequences are about."""

    clock: int = AT
    simulator: Simulator = field(init=False)

    def __post_init__(self) -> None:
        self.simulator = Simulator(lambda: self.clock, origin="https://licenses.example.com")

    @property
    def keyset(self) -> bytes:
        """The keyset."""
        return self.simulator.db.keysets[0]

    def next_keyset(self) -> bytes:
        """Sign version 2 of the keyset, with a lease key more."""
        self.simulator.rotate()
        return self.simulator.db.keysets[1]

    def keyset_with(self, version: int, status: Literal["active", "compromised"]) -> bytes:
        """Sign a keyset with a second license key and a second revocation key of some status."""
        first = Keyset.parse(Envelope.parse(self.keyset).payload)
        like: dict[str, Key] = {key.role: key for key in first.keys}
        second = tuple(
            structs.replace(
                like[key.role], keyid=key.keyid, public_key=key.public_key, status=status
            )
            for key in (LICENSE_COMPROMISED, REVOCATION_COMPROMISED)
        )
        keyset = structs.replace(
            first, version=version, prev_sha256="1" * 64, keys=(*first.keys, *second)
        )
        return sign(keyset, ROOT_1)

    def license(
        self, mode: str = "offline", *, by: tuple[TestKey, ...] = (LICENSE,), **changes: Any
    ) -> bytes:
        """Sign a license for 30 days, without a budget."""
        base = self.simulator.db.licenses[0][1]
        values: Object = {name: getattr(base, name) for name in License.__struct_fields__}
        values |= {
            "mode": mode,
            "lease": base.lease if mode == "lease" else None,
            "limits": Limits(),
            "budget": None,
        }
        return sign(License(**{**values, **changes}), *by)

    def bundle(self, version: int, *entries: RevocationEntry) -> bytes:
        """Sign a revocation bundle of a version."""
        held, self.clock = self.clock, version
        try:
            self.simulator.db.bundles.clear()
            self.simulator.publish_bundle(*entries)
            return self.simulator.bundle
        finally:
            self.clock = held

    def lease(self, license_: bytes, **changes: Any) -> bytes:
        """Sign a lease of the instance for a license: a day, and three of grace."""
        known = License.parse(Envelope.parse(license_).payload)
        values: Object = {
            "typ": Lease.TYP,
            "iss": known.iss,
            "product": PRODUCT,
            "issued_at": AT,
            "lease_id": identifier("lea", 1),
            "deployment_id": known.deployment_id,
            "license_id": known.license_id,
            "license_revision": known.revision,
            "license_sha256": sha256_hex(Envelope.parse(license_).payload),
            "customer_id": known.customer_id,
            "instance_id": identifier("ins", 1),
            "instance_keyid": INSTANCE.keyid,
            "epoch": 1,
            "seq": 1,
            "prev_sha256": "0" * 64,
            "request_id": identifier("req", 1),
            "request_sha256": "1" * 64,
            "status": "active",
            "expires_at": AT + DAY_S,
            "grace_until_at": AT + 4 * DAY_S,
            "renew_at": (AT + 8 * HOUR_S, AT + 12 * HOUR_S),
            "bundle_version": 0,
            "keyset_version": 1,
        }
        return sign(Lease(**{**values, **changes}), LEASE)


def hash_of(envelope: bytes) -> str:
    """Return the hash of an envelope's payload."""
    return sha256_hex(Envelope.parse(envelope).payload)


VENDOR: Final = Vendor()
PLAIN: Final = VENDOR.license()
DEPLOYMENT: Final = License.parse(Envelope.parse(PLAIN).payload).deployment_id
LICENSE_ID: Final = License.parse(Envelope.parse(PLAIN).payload).license_id
SHORT: Final = VENDOR.license(expires_at=AT + 2 * HOUR_S)
UNGRACED: Final = VENDOR.license(grace_s=0)
SECOND: Final[Object] = {"license_id": identifier("lic", 2)}
NEXT: Final = VENDOR.license(
    license_id=identifier("lic", 2), revision=2, issued_at=AT + HOUR_S, not_before_at=AT
)
ELSEWHERE: Final = VENDOR.license(binding=Binding(fingerprints=("fp_elsewhere.1",)))
LEASED: Final = VENDOR.license("lease")
ASKING: Final = VENDOR.license(
    revocation=RevocationTerms(require_current_bundle=True, min_version=0)
)
HALF: Final = PLAIN[:200]
NEXT_KEYSET: Final = VENDOR.next_keyset()


def step(now_at: int, expect: tuple[bool, str, str | None], **files: bytes | None) -> Object:
    """Return one step: what lies there at an instant, and what the router does."""
    serving, status, reason = expect
    files = {"keyset": VENDOR.keyset, **files}
    given = {f"{name}_b64": text(data) for name, data in files.items() if data is not None}
    return {
        "now_at": now_at,
        "files": given,
        "expect": {"serving": serving, "status": status, "reason": reason},
    }


VALID: Final = (True, "valid", None)
UNUSABLE: Final = (False, "blocked", "license-revocation-check-failed")
MISSING: Final = (False, "blocked", "license-missing")
IN_GRACE: Final = (True, "grace", "license-missing")


def blocked(code: str) -> tuple[bool, str, str]:
    """Return the expectation of a block."""
    return (False, "blocked", code)


def decides() -> list[Object]:
    """Sequences of decisions."""
    grace = {"grace_s": DAY_S}
    enforced = {"revocation": {"mode": "file"}}
    loose = {"revocation": {"mode": "file", "fail_closed_on_bundle_error": False}}
    revoked = RevocationEntry(
        license_id=LICENSE_ID, status="revoked", effective_at=AT, reason="withdrawn"
    )
    later = RevocationEntry(
        license_id=LICENSE_ID, status="suspended", effective_at=AT + HOUR_S, reason="on-hold"
    )
    empty, full = VENDOR.bundle(AT), VENDOR.bundle(AT + 5, revoked)
    coming, lifted = VENDOR.bundle(AT + 6, later), VENDOR.bundle(AT + 7)
    again, aging = VENDOR.bundle(AT + 8, revoked), VENDOR.bundle(AT - 20 * DAY_S)
    lease = VENDOR.lease(LEASED)
    narrowed = VENDOR.lease(LEASED, budget=Budget(budget_id=identifier("bud", 1), tokens_total=7))
    of_another = VENDOR.lease(LEASED, license_sha256="2" * 64)
    suspended = VENDOR.lease(LEASED, status="suspended", reason="on-hold")
    instance = {"instance_keyid": INSTANCE.keyid}
    return [
        sequence(
            "grace.to-the-second",
            "Grace begins with the first error after a valid license and ends to the second.",
            [
                step(AT, VALID, license=PLAIN),
                step(AT + 10, IN_GRACE),
                step(AT + 9 + DAY_S, IN_GRACE),
                step(AT + 10 + DAY_S, MISSING),
                step(AT + 11 + DAY_S, VALID, license=PLAIN),
            ],
            grace,
            after={"grace": None},
        ),
        sequence(
            "grace.never-on-first-boot",
            "A router that never saw a valid license has no grace.",
            [step(AT, MISSING), step(AT + 1, blocked("license-invalid"), license=HALF)],
            grace,
            after={"grace": None, "last_valid": None},
        ),
        sequence(
            "grace.goes-on",
            "Another error does not begin grace anew; a half-written file is covered too.",
            [
                step(AT, VALID, license=PLAIN),
                step(AT + 10, IN_GRACE),
                step(AT + 20, (True, "grace", "license-invalid"), license=HALF),
                step(AT + 10 + DAY_S, blocked("license-invalid"), license=HALF),
            ],
            grace,
            after={"grace": {"began_at": AT + 10}},
        ),
        sequence(
            "grace.never-covers-expiry",
            "The last valid license is evaluated in full.",
            [
                step(AT, VALID, license=SHORT),
                step(AT + 2 * HOUR_S - 1, IN_GRACE),
                step(AT + 2 * HOUR_S, blocked("license-expired")),
            ],
            grace,
        ),
        sequence(
            "grace.the-license-caps-it",
            "grace_s 0 is no grace.",
            [step(AT, VALID, license=UNGRACED), step(AT + 1, MISSING)],
            grace,
        ),
        sequence(
            "grace.not-for-another-instance",
            "A genuine license of another instance is no file error.",
            [
                step(AT, VALID, license=PLAIN),
                step(AT + 1, blocked("license-instance-mismatch"), license=ELSEWHERE),
            ],
            {**grace, "instance_fingerprint": "fp_here.1"},
        ),
        sequence(
            "clock.rollback",
            "300 s below the floor are allowed, one more are not.",
            [
                step(AT + 9000, VALID, license=PLAIN),
                step(AT + 8700, VALID, license=PLAIN),
                step(AT + 8699, blocked("license-clock-rollback"), license=PLAIN),
            ],
            after={"time": {"wall_floor": AT + 9000}},
        ),
        sequence(
            "clock.a-higher-revision-mends-it",
            "A license of higher revision resets wall_floor to its issued_at.",
            [
                step(AT + 20 * DAY_S, VALID, license=PLAIN),
                step(AT + 2 * HOUR_S, blocked("license-clock-rollback"), license=PLAIN),
                step(AT + 2 * HOUR_S, VALID, license=NEXT),
            ],
            after={"time": {"wall_floor": AT + 2 * HOUR_S}, "revisions": {DEPLOYMENT: 2}},
        ),
        sequence(
            "revision.a-lower-one-is-refused",
            "Once a revision served, a lower one is superseded.",
            [
                step(AT + 2 * HOUR_S, VALID, license=NEXT),
                step(AT + 2 * HOUR_S, blocked("license-superseded"), license=PLAIN),
            ],
        ),
        sequence(
            "keyset.a-lower-version-is-refused",
            "Once a keyset was in use, one of a lower version is rolled back; no grace covers it.",
            [
                step(AT, VALID, license=PLAIN, keyset=NEXT_KEYSET),
                step(AT, blocked("license-superseded"), license=PLAIN),
                step(AT, blocked("license-superseded")),
                step(AT, VALID, license=PLAIN, keyset=NEXT_KEYSET),
            ],
            after={"keysets": {"metrum.ai": 2}},
        ),
        sequence(
            "revision.the-fetched-license-counts",
            "Of the file and the fetched license, the highest revision that verifies is used.",
            [
                step(AT + 2 * HOUR_S, VALID, license=PLAIN, fetched_license=NEXT),
                step(AT + 2 * HOUR_S, VALID, fetched_license=NEXT),
            ],
            after={"revisions": {DEPLOYMENT: 2}},
        ),
        sequence(
            "bundle.remembered",
            "An entry applies until a higher version lacks it; deleting evades nothing.",
            [
                step(AT + 10, VALID, license=PLAIN, bundle=empty),
                step(AT + 20, blocked("license-revoked"), license=PLAIN, bundle=full),
                step(AT + 30, blocked("license-revoked"), license=PLAIN),
                step(AT + 40, blocked("license-revoked"), license=PLAIN, bundle=empty),
                step(AT + 50, VALID, license=PLAIN, bundle=lifted),
            ],
            enforced,
            after={"bundles": {"metrum.ai": {"version": AT + 7}}},
        ),
        sequence(
            "bundle.an-older-one-brings-nothing-back",
            "What a higher version lifted, an older one does not bring back; nor can it be used.",
            [
                step(AT + 10, VALID, license=PLAIN, bundle=lifted),
                step(AT + 20, UNUSABLE, license=PLAIN, bundle=full),
            ],
            enforced,
            after={"bundles": {"metrum.ai": {"version": AT + 7}}},
        ),
        sequence(
            "bundle.what-cannot-be-used-may-pass",
            "Configured so, an older, missing or damaged one warns; an entry still blocks.",
            [
                step(AT + 10, VALID, license=PLAIN, bundle=lifted),
                step(AT + 20, VALID, license=PLAIN, bundle=empty),
                step(AT + 20, VALID, license=PLAIN),
                step(AT + 20, VALID, license=PLAIN, bundle=HALF),
                step(AT + 30, blocked("license-revoked"), license=PLAIN, bundle=again),
            ],
            loose,
        ),
        sequence(
            "bundle.ends-to-the-second",
            "Where it must be usable, an expired bundle ends service at once.",
            [
                step(AT + 10, VALID, license=PLAIN, bundle=aging),
                step(AT + 15 * DAY_S - 1, VALID, license=PLAIN, bundle=aging),
                step(AT + 15 * DAY_S, UNUSABLE, license=PLAIN, bundle=aging),
            ],
            enforced,
        ),
        sequence(
            "bundle.a-license-asks-for-one",
            "A license tightens the configuration: a bundle is needed, and must be current.",
            [
                step(AT + 10, blocked("license-revocation-required"), license=ASKING),
                step(AT + 20, VALID, license=ASKING, bundle=empty),
                step(AT + 30, UNUSABLE, license=ASKING),
            ],
            loose,
        ),
        sequence(
            "bundle.effective-later",
            "An entry blocks from effective_at on, whatever grace says.",
            [
                step(AT + 10, VALID, license=PLAIN, bundle=coming),
                step(AT + HOUR_S - 1, VALID, license=PLAIN, bundle=coming),
                step(AT + HOUR_S, blocked("license-suspended"), license=PLAIN, bundle=coming),
                step(AT + HOUR_S, blocked("license-suspended"), bundle=coming),
            ],
            enforced,
        ),
        sequence(
            "bundle.gone-after-it-was-seen",
            "A bundle that was seen and is missing cannot be used.",
            [
                step(AT + 10, VALID, license=PLAIN),
                step(AT + 10, VALID, license=PLAIN, bundle=empty),
                step(AT + 20, blocked("license-revocation-check-failed"), license=PLAIN),
            ],
            enforced,
        ),
        sequence(
            "lease.serves-until-its-grace-ends",
            "An active lease serves until grace_until_at, exclusive.",
            [
                step(AT, blocked("license-lease-required"), license=LEASED),
                step(AT, VALID, license=LEASED, lease=lease),
                step(AT + 4 * DAY_S - 1, VALID, license=LEASED, lease=lease),
                step(AT + 4 * DAY_S, blocked("license-lease-expired"), license=LEASED, lease=lease),
            ],
            more=instance,
        ),
        sequence(
            "lease.not-active-blocks-at-once",
            "A signed lease that is not active blocks with its reason.",
            [
                step(AT, VALID, license=LEASED, lease=lease),
                step(AT, blocked("license-suspended"), license=LEASED, lease=suspended),
            ],
            more=instance,
        ),
        sequence(
            "lease.of-another-instance",
            "A lease counts for the instance whose key it names.",
            [step(AT, blocked("license-lease-required"), license=LEASED, lease=lease)],
            more={"instance_keyid": OTHER_INSTANCE.keyid},
        ),
        sequence(
            "lease.narrows-when-the-license-matches",
            "Its budget applies when license_sha256 is the license's.",
            [
                {
                    **step(AT, VALID, license=LEASED, lease=narrowed),
                    "expect": {"serving": True, "budget_tokens": 7},
                },
                {
                    **step(AT, VALID, license=LEASED, lease=of_another),
                    "expect": {"serving": True, "budget_tokens": None},
                },
            ],
            more=instance,
        ),
        {
            **sequence(
                "state.before",
                "Grace that began before this process goes on where it was.",
                [step(AT + 99, IN_GRACE), step(AT + 100, MISSING)],
                {"grace_s": 100},
            ),
            "state_before": {
                "grace": {"began_at": AT, "reason": "license-missing"},
                "last_valid": {"envelope": text(PLAIN), "at": AT - 50},
                "time": {"doc_floor": AT, "wall_floor": AT - 50},
                "revisions": {DEPLOYMENT: 1},
            },
            "state_after": {"grace": {"began_at": AT}},
        },
    ]


def sequence(
    name: str,
    comment: str,
    steps: list[Object],
    config: Object | None = None,
    *,
    after: Object | None = None,
    more: Object | None = None,
) -> Object:
    """Return a sequence of decisions."""
    return {
        "sequence_id": name,
        "comment": comment,
        "op": "decide",
        "config": config or {},
        **(more or {}),
        "state_before": None,
        "steps": steps,
        "state_after": after or {},
    }


HELD: Final = VENDOR.lease(LEASED, seq=3, prev_sha256="4" * 64)
ANSWER: Final[Object] = {
    "lease_id": identifier("lea", 2),
    "seq": 4,
    "prev_sha256": hash_of(HELD),
    "request_id": identifier("req", 2),
    "issued_at": AT + HOUR_S,
}
"""The lease that continues the held one and answers the pending request."""
ASKED: Final[Object] = {
    "op": "accept_lease",
    "now_at": AT + HOUR_S,
    "keyset_b64": text(VENDOR.keyset),
    "license_b64": text(LEASED),
    "held_b64": text(HELD),
    "pending": identifier("req", 2),
    "instance_keyid": INSTANCE.keyid,
}
"""Whether a lease is installed, but for the lease."""


def accepts() -> list[Object]:
    """Which leases are installed."""
    cases: list[tuple[str, str, Object, str]] = [
        ("next", "The next of the chain.", {}, "installed"),
        ("other-request", "It answers another request.", {"request_id": identifier("req", 3)}, ""),
        (
            "other-instance",
            "It is another instance's.",
            {"instance_keyid": OTHER_INSTANCE.keyid},
            "",
        ),
        ("other-deployment", "Of another deployment.", {"deployment_id": identifier("dep", 9)}, ""),
        ("not-above", "(epoch, seq) is not above the held one.", {"seq": 3}, ""),
        ("broken", "prev_sha256 is not the held lease.", {"prev_sha256": "3" * 64}, ""),
        (
            "clone-warning",
            "A broken chain with clone_warning.",
            {"prev_sha256": "3" * 64, "clone_warning": True},
            "installed",
        ),
        (
            "new-epoch",
            "A broken chain with a new epoch.",
            {"prev_sha256": "3" * 64, "epoch": 2, "seq": 1},
            "installed",
        ),
        ("future", "Dated more than 300 s ahead.", {"issued_at": AT + HOUR_S + 301}, ""),
    ]
    made = [
        {
            "sequence_id": f"accept.{name}",
            "comment": comment,
            **ASKED,
            "lease_b64": text(VENDOR.lease(LEASED, **{**ANSWER, **changes})),
            "expect": {"result": result or "rejected"},
        }
        for name, comment, changes, result in cases
    ]
    fresh = {**made[-1], "sequence_id": "accept.future-and-fresh", "fresh": True}
    fresh["comment"] = "A fresh answer tells the time, so it may be dated ahead."
    fresh["expect"] = {"result": "installed"}
    return [*made, fresh]


def moments() -> list[Object]:
    """When a router renews."""
    # HMAC-SHA-256 of the lease id under the secret, first 8 bytes, modulo the window's length.
    return [
        {
            "sequence_id": "moment.inside-the-window",
            "comment": "The moment follows from secret and lease id alone.",
            "op": "renewal_moment",
            "secret": SECRET,
            "lease_b64": text(VENDOR.lease(LEASED)),
            "expect": {"moment": MOMENT},
        },
        {
            "sequence_id": "moment.a-window-of-one-second",
            "comment": "Both ends belong to the window.",
            "op": "renewal_moment",
            "secret": SECRET,
            "lease_b64": text(VENDOR.lease(LEASED, renew_at=(AT + 5, AT + 5))),
            "expect": {"moment": AT + 5},
        },
    ]


MOMENT: Final = 1_800_036_614
"""From `openssl dgst -sha256 -mac HMAC` over the lease id, and a pocket calculator."""


def budgets() -> list[Object]:
    """Reservations, settlement, crashes, carry-over."""
    first = {"budget_id": identifier("bud", 1), "tokens_total": 100}
    second = {
        "budget_id": identifier("bud", 2),
        "tokens_total": 50,
        "carry_over_from": identifier("bud", 1),
    }
    third = {**second, "budget_id": identifier("bud", 3)}

    def act(budget: Object, what: str, left: int, **more: Any) -> Object:
        refused = more.pop("refused", False)
        return {
            "deployment_id": DEPLOYMENT,
            "budget": budget,
            "act": what,
            "now_at": AT,
            **more,
            "expect": {"left": left, "refused": refused},
        }

    return [
        {
            "sequence_id": "budget.reserve-and-settle",
            "comment": "A reservation is held, and settled with what was used; unknown counts it.",
            "op": "budget",
            "state_before": None,
            "steps": [
                act(first, "serve", 100),
                act(first, "reserve", 60, reservation="a", tokens=40),
                act(first, "reserve", 60, reservation="b", tokens=61, refused=True),
                act(first, "settle", 88, reservation="a", tokens=12),
                act(first, "reserve", 38, reservation="c", tokens=50),
                act(first, "settle", 38, reservation="c"),
            ],
            "state_after": {"budgets": {"tallies": {first["budget_id"]: {"used": 62}}}},
        },
        {
            "sequence_id": "budget.crash",
            "comment": "After a crash, open reservations count as spent.",
            "op": "budget",
            "state_before": None,
            "steps": [
                act(first, "serve", 100),
                act(first, "reserve", 70, reservation="a", tokens=30),
                act(first, "crash", 70),
                act(first, "serve", 70),
            ],
            "state_after": {"budgets": {"tallies": {first["budget_id"]: {"used": 30}}}},
        },
        {
            "sequence_id": "budget.carried-once",
            "comment": "What was left comes along once, and neither doubles nor chains.",
            "op": "budget",
            "state_before": None,
            "steps": [
                act(first, "serve", 100),
                act(first, "reserve", 70, reservation="a", tokens=30),
                act(first, "settle", 70, reservation="a", tokens=30),
                act(second, "serve", 120),
                act(second, "serve", 120),
                act(first, "serve", 0),
                act(third, "serve", 50),
            ],
            "state_after": {"budgets": {"tallies": {second["budget_id"]: {"carried_tokens": 70}}}},
        },
        {
            "sequence_id": "budget.not-carried-from-one-never-seen",
            "comment": "Only what this state saw serve is carried.",
            "op": "budget",
            "state_before": None,
            "steps": [act(second, "serve", 50)],
            "state_after": {},
        },
    ]
