"""Verify every vector with `licensing`: `python -m tests.conformance.python_runner DIRECTORY`.

Prints the `tc_id` of each test that came out otherwise, then one summary line; exits 1 on failures.
"""

import base64
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from licensing.enrollment import InstanceDocument, LeaseRequest, ReleaseRequest
from licensing.envelope import Envelope
from licensing.errors import LicensingError
from licensing.keys import PublicKey
from licensing.verify import (
    Floors,
    KeysetTrust,
    verify_bundle,
    verify_enrollment,
    verify_keyset,
    verify_keyset_update,
    verify_lease,
    verify_license,
    verify_request,
)

REQUESTS: dict[str, type[InstanceDocument]] = {
    "lease-request": LeaseRequest,
    "release-request": ReleaseRequest,
}

Test = dict[str, Any]


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


def _keyset(data: bytes, held: bytes, at: int, options: dict[str, Any]) -> None:
    """Verify a keyset under its own roots, or as an update of the held one."""
    if not options.get("update"):
        verify_keyset(data, at)
        return
    steps = [base64.b64decode(step) for step in options.get("steps_b64", [])]
    verify_keyset_update(data, verify_keyset(held, at), at, steps=steps)


def verify(keyset: bytes, test: Test) -> None:
    """Verify a test's document as its options say.

    Raises:
        LicensingError: it is refused.
    """
    at, options = test["now_at"], test["options"]
    data = base64.b64decode(test["envelope_b64"])
    kind = options["kind"]
    if kind == "keyset":
        _keyset(data, keyset, at, options)
        return
    if kind == "enrollment-request":
        verify_enrollment(Envelope.parse(data))
        return
    if kind in REQUESTS:
        key = PublicKey.from_base64(options["public_key_b64"])
        verify_request(Envelope.parse(data), REQUESTS[kind], key)
        return
    trust = KeysetTrust(verify_keyset(keyset, at).document)
    floors = Floors(**options.get("floors", {}))
    current = options.get("require_current_bundle", False)
    if kind == "license":
        bundle = options.get("bundle_b64")
        verify_license(
            data,
            trust,
            at,
            fingerprint=options.get("fingerprint"),
            floors=floors,
            bundle=None if bundle is None else base64.b64decode(bundle),
            require_current_bundle=current,
        )
    elif kind == "lease":
        verify_lease(data, trust, at, instance_keyid=options.get("instance_keyid"))
    else:
        verify_bundle(data, trust, at, floor=floors.bundle_version, require_current=current)


def outcome(keyset: bytes, test: Test) -> str:
    """Return `valid`, or the code of the refusal."""
    try:
        verify(keyset, test)
    except LicensingError as error:
        return error.code
    return "valid"


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
