"""The vector files themselves: up to date, well-formed, and with all that was promised."""

import base64
import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import jsonschema

from devtools.vectors.__main__ import NOTES, files
from devtools.vectors.keys import SEED_TEXT, TEST_KEYS
from licensing.bounds import REJECTED
from licensing.envelope import Envelope
from licensing.keys import key_id
from licensing.names import CODES
from licensing.verify import verify_keyset
from router.documents.test_keys import TEST_KEY_IDS
from tests.conformance.python_runner import read_vectors, vector_files

VECTORS = Path(__file__).resolve().parents[2] / "licensing" / "vectors"


def _load(name: str) -> Any:
    return json.loads((VECTORS / name).read_bytes())


def test_files_are_what_the_generator_writes() -> None:
    for name, data in files().items():
        assert (VECTORS / name).read_bytes() == data, f"{name}: run python -m devtools.vectors"


def test_no_file_is_left_over() -> None:
    present = {path.name for path in VECTORS.iterdir()}
    assert present == {*files(), "vectors.schema.json"}


def test_files_obey_their_schema() -> None:
    validator = jsonschema.Draft202012Validator(_load("vectors.schema.json"))
    for path in vector_files(VECTORS):
        validator.validate(_load(path.name))


def test_ids_are_unique_and_flags_are_explained() -> None:
    tests = [test for _, test in read_vectors(VECTORS)]
    counts = Counter(test["tc_id"] for test in tests)
    assert [name for name, count in counts.items() if count > 1] == []
    assert {flag for test in tests for flag in test["flags"]} <= NOTES.keys()


def test_every_code_but_the_clock_is_covered() -> None:
    covered = {test["code"] for _, test in read_vectors(VECTORS) if "code" in test}
    assert covered == CODES.keys() - {"clock-rollback"} | {REJECTED}


def test_every_kind_is_covered_right_and_wrong() -> None:
    seen = Counter((test["options"]["kind"], test["result"]) for _, test in read_vectors(VECTORS))
    assert len(seen) == 14


def test_test_keys_agree_with_the_ids_release_builds_refuse() -> None:
    listed = _load("test-keys.json")["keys"]
    assert {entry["keyid"] for entry in listed} == TEST_KEY_IDS
    assert len(listed) == len(TEST_KEY_IDS) == len(TEST_KEYS)


def test_test_keys_follow_from_their_names() -> None:
    for entry in _load("test-keys.json")["keys"]:
        seed = hashlib.sha256(f"{SEED_TEXT}{entry['name']}".encode()).hexdigest()
        assert entry["seed_hex"] == seed
        assert entry["keyid"] == key_id(base64.b64decode(entry["public_key"]))


def test_keysets_hold_test_keys_alone() -> None:
    for keyset, test in read_vectors(VECTORS):
        document = verify_keyset(keyset, test["now_at"]).document
        assert {root.keyid for root in document.roots} <= TEST_KEY_IDS
        assert {key.keyid for key in document.keys} <= TEST_KEY_IDS


def test_all_that_verifies_was_signed_by_test_keys() -> None:
    for _, test in read_vectors(VECTORS):
        if test["result"] == "valid":
            envelope = Envelope.parse(base64.b64decode(test["envelope_b64"]), max_bytes=1024 * 1024)
            assert {signature.keyid for signature in envelope.signatures} <= TEST_KEY_IDS
