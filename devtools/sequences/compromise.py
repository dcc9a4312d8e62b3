"""Sequences in which a key was compromised: what only it vouched for is forgotten."""

from msgspec import structs

from devtools.sequences.stateful import (
    AT,
    DEPLOYMENT,
    HOUR_S,
    LICENSE_ID,
    NEXT,
    PLAIN,
    SECOND,
    VALID,
    VENDOR,
    Object,
    blocked,
    sequence,
    sign,
    step,
)
from devtools.vectors.keys import LICENSE, LICENSE_COMPROMISED, REVOCATION_COMPROMISED
from licensing.envelope import Envelope
from licensing.revocation import RevocationBundle, RevocationEntry


def compromises() -> list[Object]:
    """Sequences of decisions around a compromise."""
    enforced = {"revocation": {"mode": "file"}}
    revoked = RevocationEntry(
        license_id=LICENSE_ID, status="revoked", effective_at=AT, reason="withdrawn"
    )
    full, lifted = VENDOR.bundle(AT + 5, revoked), VENDOR.bundle(AT + 7)
    again = VENDOR.bundle(AT + 8, revoked)
    both, ended = VENDOR.keyset_with(2, "active"), VENDOR.keyset_with(3, "compromised")
    stolen = VENDOR.license(by=(LICENSE_COMPROMISED,), revision=9, **SECOND)
    old = VENDOR.license(by=(LICENSE_COMPROMISED,))
    shared = VENDOR.license(by=(LICENSE, LICENSE_COMPROMISED), revision=9, **SECOND)
    forged = sign(
        structs.replace(RevocationBundle.parse(Envelope.parse(full).payload), version=2**50),
        REVOCATION_COMPROMISED,
    )
    return [
        sequence(
            "compromise.a-revision-that-only-it-vouched-for-is-forgotten",
            "A stolen license key raises the revision's floor, until the keyset ends the key.",
            [
                step(AT + 10, VALID, license=PLAIN, keyset=both),
                step(AT + 20, VALID, license=stolen, keyset=both),
                step(AT + 30, blocked("license-superseded"), license=PLAIN, keyset=both),
                step(AT + 40, VALID, license=PLAIN, keyset=ended),
                step(AT + 50, blocked("license-invalid"), license=stolen, keyset=ended),
            ],
            after={"revisions": {DEPLOYMENT: 1}},
        ),
        sequence(
            "compromise.a-revision-that-another-key-vouched-for-stays",
            "What a good key signed too was no forgery, and stays the floor.",
            [
                step(AT + 10, VALID, license=shared, keyset=both),
                step(AT + 20, VALID, license=shared, keyset=ended),
                step(AT + 30, blocked("license-superseded"), license=PLAIN, keyset=ended),
            ],
            after={"revisions": {DEPLOYMENT: 9}},
        ),
        sequence(
            "compromise.license-and-keyset-in-either-order",
            "A license that both keys signed counts before and after the keyset that ends one.",
            [
                step(AT + 10, VALID, license=PLAIN),
                step(AT + 20, VALID, license=shared),
                step(AT + 30, VALID, license=shared, keyset=ended),
            ],
        ),
        sequence(
            "compromise.the-fetched-license-outlives-the-file",
            "A file whose key ended makes way for the fetched license.",
            [
                step(AT + 2 * HOUR_S, VALID, license=old, keyset=both),
                step(AT + 2 * HOUR_S, VALID, license=old, fetched_license=NEXT, keyset=ended),
                step(AT + 2 * HOUR_S, blocked("license-invalid"), license=old, keyset=ended),
            ],
            after={"revisions": {DEPLOYMENT: 2}},
        ),
        sequence(
            "compromise.a-bundle-that-only-it-vouched-for-is-forgotten",
            "Version and entries of a forged bundle are forgotten, and genuine ones count again.",
            [
                step(AT + 10, VALID, license=PLAIN, bundle=lifted, keyset=both),
                step(
                    AT + 20, blocked("license-revoked"), license=PLAIN, bundle=forged, keyset=both
                ),
                step(
                    AT + 30, blocked("license-revoked"), license=PLAIN, bundle=lifted, keyset=both
                ),
                step(AT + 40, VALID, license=PLAIN, bundle=lifted, keyset=ended),
                step(
                    AT + 50, blocked("license-revoked"), license=PLAIN, bundle=again, keyset=ended
                ),
            ],
            enforced,
            after={"bundles": {"metrum.ai": {"version": AT + 8}}},
        ),
    ]
