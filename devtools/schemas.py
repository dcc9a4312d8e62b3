"""JSON Schemas of the envelope and every payload: `python -m devtools.schemas` writes them.

They are generated from the models, and tightened where JSON Schema can express a model's own check.
What it cannot express (order, comparisons between fields, lengths in bytes, key ids) is in the
descriptions; the vectors for those rules have the flag `beyond-schema`.
"""

import argparse
import json
import sys
from collections.abc import Mapping
from inspect import cleandoc
from pathlib import Path
from typing import Any, Final

import msgspec

from licensing.document import Document
from licensing.enrollment import EnrollmentRequest, LeaseRequest, ReleaseRequest
from licensing.envelope import MAX_SIGNATURES
from licensing.keys import ZERO_SHA256, Keyset
from licensing.lease import Lease
from licensing.license import License
from licensing.names import PAYLOAD_TYPES
from licensing.revocation import RevocationBundle

DIRECTORY: Final = Path(__file__).resolve().parents[1] / "docs" / "schemas"
DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"

MODELS: Final[tuple[type[Document], ...]] = (
    License,
    Lease,
    RevocationBundle,
    Keyset,
    EnrollmentRequest,
    LeaseRequest,
    ReleaseRequest,
)

Schema = dict[str, Any]

_CANONICAL: Final = (
    "The payload is restricted canonical JSON: keys sorted by code point, no white space, integers "
    "without fraction or exponent, no null, no empty string, strings without U+0000-001F and "
    "U+007F-009F, depth at most 8. A schema cannot say that; a verifier writes what it parsed "
    "again and requires the same bytes."
)

_KEY: Final = "^[a-z][a-z0-9_]*$"
_NAME: Final = {"description": "At most 200 bytes of UTF-8."}
_SORTED: Final = {"description": "Sorted by code point, each once.", "uniqueItems": True}
_PUBLIC_KEY: Final = {
    "description": "Base64 of 32 bytes: a canonical Ed25519 public key, not of small order.",
    "pattern": "^[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=$",
}

_PROPERTIES: Final[Mapping[str, Schema]] = {
    "ext": {
        "description": "Optional facts. Unknown ones that `crit` does not name are passed over.",
        "propertyNames": {"pattern": _KEY},
    },
    "crit": {
        "description": "Facts of `ext` that must be understood; sorted. Unknown ones: refuse.",
        "minItems": 1,
        "uniqueItems": True,
    },
    "iss": {"description": "Who issued it; at most 200 bytes of UTF-8."},
    "customer_name": _NAME,
    "label": _NAME,
    "features": _SORTED,
    "fingerprints": _SORTED,
    "public_key": _PUBLIC_KEY,
    "entries": {"description": "Sorted by license_id, each once."},
    "roots": {"description": "No public key stands twice, across both lists.", "minItems": 1},
    "keys": {"description": "No public key stands twice, across both lists.", "minItems": 1},
    "keyid": {"description": "SHA-256 of the key's SubjectPublicKeyInfo in DER, in hex."},
    "aud": {"description": "An origin: no default port, no path, no slash."},
    "url": {"description": "An origin: no default port, no path, no slash."},
    "renew_at": {"description": "Earliest and latest moment to renew, in this order."},
}
"""What is added to every property with this name."""

_OBJECTS: Final[Mapping[str, Schema]] = {
    "License": {
        "description": "What a deployment may do, and until when: not_before_at < expires_at.",
        "if": {"properties": {"mode": {"const": "lease"}}},
        "then": {"required": ["lease"]},
        "else": {"not": {"required": ["lease"]}},
    },
    "Limits": {
        "dependentRequired": {
            "tokens_per_window": ["window_s"],
            "window_s": ["tokens_per_window"],
        }
    },
    "Lease": {
        "description": (
            "A short-lived right to serve, held by one instance: expires_at <= grace_until_at. "
            "The first of all has 64 zeros as prev_sha256."
        ),
        "if": {"required": ["superseded_by"]},
        "then": {"properties": {"status": {"const": "superseded"}}},
    },
    "RevocationBundle": {
        "description": "Which licenses no longer count: issued_at < expires_at, "
        "version >= issued_at."
    },
    "Keyset": {
        "description": (
            "The published verification keys, signed by the roots. issued_at < expires_at; "
            "root_threshold is at most the number of roots. Version 1 alone follows nothing."
        ),
    },
    "Key": {
        "description": (
            "A key that may sign documents of one role, issued in a span of time: "
            "not_before_at < not_after_at."
        )
    },
}
"""What is added to the objects of this model."""


def _without_null(value: Any) -> Any:
    """Remove null from optional fields: they are absent, never null."""
    if isinstance(value, list):
        return [_without_null(item) for item in value]
    if not isinstance(value, dict):
        return value
    kinds = value.get("anyOf")
    if kinds is not None and {"type": "null"} in kinds:
        (only,) = (kind for kind in kinds if kind != {"type": "null"})
        value = {**{key: each for key, each in value.items() if key != "anyOf"}, **only}
    return {
        key: _without_null(item)
        for key, item in value.items()
        if not (key == "default" and item is None)
    }


def _tightened(name: str, schema: Schema) -> Schema:
    properties = {
        field: {**rules, **_PROPERTIES.get(field, {})}
        for field, rules in schema["properties"].items()
    }
    described = {"description": cleandoc(schema["description"])}
    return {**schema, **described, "properties": properties, **_OBJECTS.get(name, {})}


def payload_schema(model: type[Document]) -> Schema:
    """Return the schema of a payload."""
    made = _without_null(msgspec.json.schema(model))
    parts = {name: _tightened(name, part) for name, part in made["$defs"].items()}
    top = parts.pop(model.__name__)
    top["properties"]["typ"] = {"const": model.TYP}
    if model is Keyset:
        top["if"] = {"properties": {"version": {"const": 1}}}
        top["then"] = {"properties": {"prev_sha256": {"const": ZERO_SHA256}}}
        top["else"] = {"properties": {"prev_sha256": {"not": {"const": ZERO_SHA256}}}}
    head = {"$schema": DIALECT, "$id": f"{model.TYP}.schema.json", "$comment": _CANONICAL}
    schema = {**head, **top, "title": model.TYP}
    return {**schema, "$defs": parts} if parts else schema


def envelope_schema() -> Schema:
    """Return the schema of the envelope."""
    base64 = "(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?"
    signature: Schema = {
        "type": "object",
        "properties": {
            "keyid": {"type": "string", "pattern": "^[0-9a-f]{64}$"} | _PROPERTIES["keyid"],
            "sig": {
                "description": "Base64 of the 64 bytes of an Ed25519 signature (RFC 8032) over "
                "'DSSEv1 LEN(type) type LEN(body) body'.",
                "type": "string",
                "pattern": "^[A-Za-z0-9+/]{85}[AQgw]==$",
            },
        },
        "required": ["keyid", "sig"],
        "additionalProperties": False,
    }
    return {
        "$schema": DIALECT,
        "$id": "envelope.v1.schema.json",
        "$comment": "JSON in UTF-8 without BOM and without duplicate keys; at most 16 KiB, a "
        "keyset 1 MiB, a revocation bundle 16 MiB.",
        "title": "envelope.v1",
        "description": "A strict profile of DSSE v1.0.",
        "type": "object",
        "properties": {
            "payload": {
                "description": "Standard base64 with padding and nothing else in it, no bits over.",
                "type": "string",
                "pattern": f"^{base64}$",
            },
            "payloadType": {"enum": list(PAYLOAD_TYPES)},
            "signatures": {
                "description": "Each key id at most once. What an instance signs has exactly one.",
                "type": "array",
                "minItems": 1,
                "maxItems": MAX_SIGNATURES,
                "items": signature,
            },
        },
        "required": ["payload", "payloadType", "signatures"],
        "additionalProperties": False,
    }


def files() -> dict[str, bytes]:
    """Return every schema's text by its file name."""
    schemas = [envelope_schema(), *(payload_schema(model) for model in MODELS)]
    return {
        schema["$id"]: (json.dumps(schema, indent=2, ensure_ascii=True) + "\n").encode()
        for schema in schemas
    }


def main() -> int:
    """Write or check the files; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m devtools.schemas", description=__doc__)
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
            DIRECTORY.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    return 1 if check and differing else 0


if __name__ == "__main__":
    sys.exit(main())
