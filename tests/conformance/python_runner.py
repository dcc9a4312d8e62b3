"""Verify every vector with `licensing`: `python -m tests.conformance.python_runner DIRECTORY`.

Prints the `tc_id` of each test that came out otherwise, then one summary line; exits 1 on failures.
Loads nothing but `licensing`. `router.conformance` answers for the router.
"""

import base64
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from licensing.bounds import REJECTED, excess
from licensing.enrollment import InstanceDocument, LeaseRequest, ReleaseRequest
from licensing.envelope import MAX_BUNDLE_BYTES, Envelope
from licensing.errors import LicensingError
from licensing.keys import PublicKey
from licensing.revocation import NO_BUNDLE, BundleMemory, RevocationBundle
from licensing.verify import (
    Floors,
    KeysetTrust,
    RevocationPolicy,
    examine_license,
    verify_bundle,
    verify_enrollment,
    verify_keyset,
    verify_keyset_update,
    verify_lease,
    verify_license,
    verify_request,
)

Test = dict[str, Any]
REQUESTS: dict[str, type[InstanceDocument]] = {
    "lease-request": LeaseRequest,
    "release-request": ReleaseRequest,
}


def vector_files(directory: Path) -> list[Path]:
    """Return the files that hold tests, in order."""
    return [path for path in sorted(directory.glob("*.json")) if "groups" in _read(path)]


def _read(path: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(path.read_bytes())
    return value


def read_vectors(directory: Path) -> Iterator[tuple[bytes, Test]]:
    """Yield each test with its group's keyset."""
    for path in vector_files(directory):
        for group in _read(path)["groups"]:
            keyset = base64.b64decode(group["keyset_b64"])
            for test in group["tests"]:
                yield keyset, test


def verify(keyset: bytes, test: Test) -> str | None:
    """Verify a vector's document as its options say.

    Returns the code of a lease that is genuine and goes beyond its license.

    Raises:
        LicensingError: it is refused.
    """
    at, options = test["now_at"], test["options"]
    data = base64.b64decode(test["envelope_b64"])
    trust = KeysetTrust(verify_keyset(keyset, at).document)
    current = options.get("require_current_bundle", False)
    floors = options.get("floors", {})
    match options["kind"]:
        case "license":
            bundles = [base64.b64decode(options[each]) for each in options if each == "bundle_b64"]
            seen = Floors(
                floors.get("revision", 0),
                floors.get("keyset_version", 0),
                remembered(floors.get("bundle_version", 0), *bundles),
            )
            examine_license(
                data,
                trust,
                at,
                fingerprint=options.get("fingerprint"),
                floors=lambda _deployment_id, _issuer: seen,
                bundles=bundles,
                policy=RevocationPolicy(require_current=current),
            ).require()
        case "lease":
            lease = verify_lease(data, trust, at, instance_keyid=options.get("instance_keyid"))
            if "license_b64" in options:
                license_ = verify_license(base64.b64decode(options["license_b64"]), trust, at)
                if excess(lease.document, license_, at, options.get("periods", {})) is not None:
                    return REJECTED
        case "revocation-bundle":
            floor = floors.get("bundle_version", 0)
            verify_bundle(data, trust, at, floor=floor, require_current=current)
        case "keyset" if options.get("update"):
            steps = [base64.b64decode(step) for step in options.get("steps_b64", [])]
            verify_keyset_update(data, verify_keyset(keyset, at), at, steps=steps)
        case "keyset":
            verify_keyset(data, at)
        case "enrollment-request":
            verify_enrollment(Envelope.parse(data))
        case kind:
            key = PublicKey.from_base64(options["public_key_b64"])
            verify_request(Envelope.parse(data), REQUESTS[kind], key)
    return None


def remembered(version: int, bundle: bytes | None = None) -> BundleMemory:
    """Return the memory of a bundle whose version alone is told: it said what this one says."""
    memory = msgspec.structs.replace(NO_BUNDLE, version=version)
    if not version or bundle is None:
        return memory
    entries = RevocationBundle.parse(
        Envelope.parse(bundle, max_bytes=MAX_BUNDLE_BYTES).payload
    ).entries
    return msgspec.structs.replace(memory, entries={each.license_id: each for each in entries})


def outcome(keyset: bytes, test: Test) -> str:
    """Return `valid`, or the code of the refusal."""
    try:
        return verify(keyset, test) or "valid"
    except LicensingError as error:
        return error.code


def main(directory: str) -> int:
    """Run every test; return the exit code."""
    count = failures = 0
    for keyset, test in read_vectors(Path(directory)):
        count += 1
        expected = test.get("code", "valid")
        found = outcome(keyset, test)
        if found != expected:
            failures += 1
            sys.stdout.write(f"{test['tc_id']}: {found}, not {expected}\n")
    sys.stdout.write(f"python: {count} tests, {failures} failed\n")
    return 1 if failures or not count else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
