"""The floor: a bare WSGI application that does only the work no renewal can avoid.

Each request costs one Ed25519 verification of the body, one committed SQL statement that updates a
row and inserts another, and one Ed25519 signature. The floor checks nothing else and knows no
protocol; its answer is about as long as a lease. gunicorn serves it with the portal's settings.
"""

import base64
import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterable
from typing import Any

import psycopg
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from licensing.envelope import pae
from licensing.names import LEASE_REQUEST_TYPE, LEASE_TYPE

DATABASE = "BENCH_DATABASE"
KEYS = "BENCH_KEYS"
FILLER_BYTES = 1000
"""The size of a lease without epoch and seq."""

TABLES = """
CREATE TABLE floor_instances (
    keyid text PRIMARY KEY,
    seq bigint NOT NULL,
    lease_sha256 text NOT NULL,
    seen_at timestamptz NOT NULL
);
CREATE TABLE floor_leases (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    keyid text NOT NULL,
    request_sha256 text NOT NULL,
    envelope bytea NOT NULL,
    issued_at timestamptz NOT NULL,
    UNIQUE (keyid, request_sha256)
);
"""
MOVE = b"""
WITH moved AS (
    UPDATE floor_instances SET seq = seq + 1, lease_sha256 = %s, seen_at = now()
    WHERE keyid = %s RETURNING keyid
)
INSERT INTO floor_leases (keyid, request_sha256, envelope, issued_at)
SELECT keyid, %s, %s, now() FROM moved
"""

_PAYLOAD = b'{"epoch":1,"filler":"%b","seq":1}' % (b"x" * FILLER_BYTES)
_key = Ed25519PrivateKey.generate()
_keyid = "0" * 64
_local = threading.local()


def prepare(conninfo: str, keyids: Iterable[str]) -> None:
    """Create the floor's tables, with a row for each instance."""
    with psycopg.connect(conninfo) as connection:
        connection.execute(TABLES)
        for keyid in keyids:
            connection.execute("INSERT INTO floor_instances VALUES (%s, 0, '', now())", [keyid])


def _load_keys() -> dict[str, Ed25519PublicKey]:
    keys = json.loads(os.environ.get(KEYS, "{}"))
    return {
        keyid: Ed25519PublicKey.from_public_bytes(base64.b64decode(raw))
        for keyid, raw in keys.items()
    }


_keys = _load_keys()


def _connection() -> psycopg.Connection[Any]:
    held: psycopg.Connection[Any] | None = getattr(_local, "connection", None)
    if held is None:
        held = _local.connection = psycopg.connect(os.environ[DATABASE], autocommit=True)
    return held


def application(
    environ: dict[str, Any], start_response: Callable[[str, list[tuple[str, str]]], object]
) -> list[bytes]:
    """Answer a signed request."""
    length = environ.get("CONTENT_LENGTH")
    if not length:
        start_response("200 OK", [("Content-Length", "0")])
        return []
    envelope = json.loads(environ["wsgi.input"].read(int(length)))
    payload = base64.b64decode(envelope["payload"])
    signature = envelope["signatures"][0]
    keyid = signature["keyid"]
    _keys[keyid].verify(base64.b64decode(signature["sig"]), pae(LEASE_REQUEST_TYPE, payload))
    signed = _key.sign(pae(LEASE_TYPE, _PAYLOAD))
    answer = b'{"payload":"%b","payloadType":"%b","signatures":[{"keyid":"%b","sig":"%b"}]}' % (
        base64.b64encode(_PAYLOAD),
        LEASE_TYPE.encode(),
        _keyid.encode(),
        base64.b64encode(signed),
    )
    digest = hashlib.sha256(payload).hexdigest()
    _connection().execute(MOVE, [digest, keyid, digest, answer])
    start_response(
        "200 OK",
        [("Content-Type", "application/json"), ("Content-Length", str(len(answer)))],
    )
    return [answer]
