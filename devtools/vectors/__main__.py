"""Writes `licensing/vectors/*.json`; with `--check`, names the files that differ and exits 1."""

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Final

from devtools.vectors import (
    bundles,
    envelopes,
    keysets,
    leases,
    licenses,
    payloads,
    requests,
    rotation,
    times,
)
from devtools.vectors.build import Case, Object, b64
from devtools.vectors.keys import SEED_TEXT, TEST_KEYS

DIRECTORY: Final = Path(__file__).resolve().parents[2] / "licensing" / "vectors"

TOPICS: Final[dict[str, Callable[[], Iterator[Case]]]] = {
    "license": licenses.cases,
    "lease": leases.cases,
    "bundle": bundles.cases,
    "keyset": keysets.cases,
    "requests": requests.cases,
    "envelope": envelopes.cases,
    "payload": payloads.cases,
    "rotation": rotation.cases,
    "times": times.cases,
}

NOTES: Final = {
    "test-keys": "Every key here is a TEST KEY whose seed is published in test-keys.json.",
    "beyond-schema": "The payload obeys its JSON Schema and breaks a rule no schema can say.",
    "boundary": "One second, or one step, before, at and after a boundary.",
    "order": "Several checks fail; the first in the order of the table decides.",
    "rotation": "Several signatures; one that counts is enough.",
    "schema": "The payload breaks its JSON Schema (docs/schemas).",
    "update": "A keyset that shall take the place of the group's keyset.",
}


def _test(topic: str, case: Case) -> Object:
    test: Object = {
        "tc_id": f"{topic}.{case.name}",
        "comment": case.comment,
        "flags": list(case.flags),
        "now_at": case.now,
        "options": case.options,
        "envelope_b64": b64(case.envelope),
        "result": "valid" if case.code is None else "invalid",
    }
    if case.code is not None:
        test["code"] = case.code
    return test


def topic_file(topic: str, cases: Iterable[Case]) -> bytes:
    """Return the bytes of a topic's file."""
    groups = [
        {"keyset_b64": b64(keyset), "tests": [_test(topic, case) for case in together]}
        for keyset, together in groupby(cases, key=lambda case: case.keyset)
    ]
    value = {"schema": "vectors.schema.json", "notes": NOTES, "groups": groups}
    return _text(value)


def test_keys_file() -> bytes:
    """Return the bytes of the list of test keys."""
    keys = [
        {
            "name": key.name,
            "role": key.role,
            "keyid": key.keyid,
            "seed_hex": key.seed.hex(),
            "public_key": key.public_key,
        }
        for key in TEST_KEYS
    ]
    note = (
        "TEST KEYS. Their seeds are published here, so whoever reads this can sign with them; "
        f"distributions refuse them. Seed: SHA-256 of '{SEED_TEXT}' and the name."
    )
    return _text({"note": note, "keys": keys})


def _text(value: object) -> bytes:
    return (json.dumps(value, indent=1, ensure_ascii=True) + "\n").encode()


def files() -> dict[str, bytes]:
    """Return every file by its name."""
    made = {f"{topic}.json": topic_file(topic, cases()) for topic, cases in TOPICS.items()}
    return {**made, "test-keys.json": test_keys_file()}


def main() -> int:
    """Write or check the files; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m devtools.vectors", description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if different")
    check = parser.parse_args().check
    differing = 0
    for name, data in files().items():
        path = DIRECTORY / name
        if path.is_file() and path.read_bytes() == data:
            continue
        differing += 1
        print(f"{name} differs" if check else f"wrote {name}")
        if not check:
            path.write_bytes(data)
    return 1 if check and differing else 0


if __name__ == "__main__":
    sys.exit(main())
