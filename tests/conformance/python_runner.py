"""Verify every vector with `licensing`: `python -m tests.conformance.python_runner DIRECTORY`.

Prints the `tc_id` of each test that came out otherwise, then one summary line; exits 1 on failures.
"""

import base64
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from licensing.conformance import verify_vector
from licensing.errors import LicensingError

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


def outcome(keyset: bytes, test: Test) -> str:
    """Return `valid`, or the code of the refusal."""
    try:
        verify_vector(keyset, test)
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
