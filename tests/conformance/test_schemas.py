"""The published JSON Schemas say the same as the vectors, as far as a schema can."""

import base64
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from devtools.schemas import MODELS, files
from licensing.envelope import MAX_KEYSET_BYTES, Envelope
from licensing.names import PAYLOAD_TYPE_PREFIX, PAYLOAD_TYPES
from tests.conformance.python_runner import read_vectors

ROOT = Path(__file__).resolve().parents[2]
TESTS = [test for _, test in read_vectors(ROOT / "licensing" / "vectors")]
VALID = [test for test in TESTS if test["result"] == "valid"]
SCHEMAS = {name: json.loads(data) for name, data in files().items()}


def _validator(name: str) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(SCHEMAS[f"{name}.v1.schema.json"])


def _file(test: dict[str, Any]) -> bytes:
    return base64.b64decode(test["envelope_b64"])


def _payload_obeys(test: dict[str, Any]) -> bool:
    envelope = Envelope.parse(_file(test), max_bytes=MAX_KEYSET_BYTES)
    return _validator(test["options"]["kind"]).is_valid(json.loads(envelope.payload))


def _flagged(flag: str) -> list[Any]:
    return [pytest.param(test, id=test["tc_id"]) for test in TESTS if flag in test["flags"]]


def test_files_are_what_the_models_say() -> None:
    directory = ROOT / "docs" / "schemas"
    assert {path.name for path in directory.glob("*.json")} == files().keys()
    for name, data in files().items():
        assert (directory / name).read_bytes() == data, f"{name}: run python -m devtools.schemas"


def test_every_payload_type_has_a_schema() -> None:
    assert {model.PAYLOAD_TYPE for model in MODELS} == set(PAYLOAD_TYPES)
    for payload_type in PAYLOAD_TYPES:
        name = payload_type.removeprefix(PAYLOAD_TYPE_PREFIX).removesuffix("+json")
        assert f"{name}.schema.json" in SCHEMAS


@pytest.mark.parametrize("name", SCHEMAS)
def test_schemas_are_schemas(name: str) -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMAS[name])


def test_valid_payloads_obey() -> None:
    assert [test["tc_id"] for test in VALID if not _payload_obeys(test)] == []


def test_valid_envelopes_obey() -> None:
    validator = _validator("envelope")
    refused = [test["tc_id"] for test in VALID if not validator.is_valid(json.loads(_file(test)))]
    assert refused == []


@pytest.mark.parametrize("test", _flagged("schema"))
def test_flagged_payloads_do_not_obey(test: dict[str, Any]) -> None:
    assert not _payload_obeys(test)


@pytest.mark.parametrize("test", _flagged("beyond-schema"))
def test_what_a_schema_cannot_say(test: dict[str, Any]) -> None:
    assert _payload_obeys(test)
