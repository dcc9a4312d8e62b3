"""The load: instances that renew as fast as they get answers, over persistent connections.

It is a process of its own that takes orders as JSON lines: `enroll` once, then `drive` for some
seconds, again and again. The client does the same for every server: read the answer, take the hash
and number of the lease, sign the next request and send it. Each instance waits for its answer, so
there are as many concurrent requests as instances.

If a server closes a connection without an answer (gunicorn replaces its workers from time to time),
the request is sent again with the same bytes, as the protocol requires.
"""

import base64
import hashlib
import json
import os
import selectors
import socket
import sys
import urllib.request
from collections import Counter
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from licensing.encoding import crockford
from licensing.envelope import pae
from licensing.keys import key_id
from licensing.names import ENROLLMENT_REQUEST_TYPE, LEASE_REQUEST_TYPE

PATIENCE_S = 30.0
"""How long an answer may take, in seconds, before the run is given up."""
CHUNK_BYTES = 65536


def _encode(value: dict[str, Any]) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


@dataclass
class Instance:
    """A router with its key and, for each server, the lease it holds."""

    key: Ed25519PrivateKey
    raw: bytes
    keyid: str
    request: dict[str, Any]
    """The payload of the next request."""

    def sign(self, payload_type: str, value: dict[str, Any]) -> bytes:
        """Return a signed document as the body of a request."""
        payload = _encode(value)
        sig = base64.b64encode(self.key.sign(pae(payload_type, payload)))
        return b'{"payload":"%b","payloadType":"%b","signatures":[{"keyid":"%b","sig":"%b"}]}' % (
            base64.b64encode(payload),
            payload_type.encode(),
            self.keyid.encode(),
            sig,
        )

    def hold(self, envelope: dict[str, Any]) -> None:
        """Note the lease that the next request continues from."""
        payload = base64.b64decode(envelope["payload"])
        lease = json.loads(payload)
        self.request["prev_epoch"] = lease["epoch"]
        self.request["prev_seq"] = lease["seq"]
        self.request["prev_sha256"] = hashlib.sha256(payload).hexdigest()

    def next_request(self) -> bytes:
        """Sign the next request."""
        self.request["request_id"] = f"req_{crockford(os.urandom(16))}"
        return self.sign(LEASE_REQUEST_TYPE, self.request)


def enroll(order: dict[str, Any]) -> Instance:
    """Enroll a new instance at the portal."""
    key = Ed25519PrivateKey.generate()
    raw = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    shared = {
        "aud": order["origin"],
        "iss": "instance",
        "issued_at": order["at"],
        "license_id": order["license_id"],
        "license_sha256": order["license_sha256"],
        "software": "bench/1",
    }
    request = {
        **shared,
        "typ": "lease-request.v1",
        "boot_id": os.urandom(16).hex(),
        "bundle_version": 1,
        "keyset_version": 1,
    }
    made = Instance(key, raw, key_id(raw), request)
    body = made.sign(
        ENROLLMENT_REQUEST_TYPE,
        {
            **shared,
            "typ": "enrollment-request.v1",
            "request_id": f"req_{crockford(os.urandom(16))}",
            "code": order["code"],
            "public_key": base64.b64encode(raw).decode(),
        },
    )
    post = urllib.request.Request(
        f"{order['origin']}/v1/enrollments", body, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(post, timeout=PATIENCE_S) as answer:
        value = json.load(answer)
    request["instance_id"] = value["instance_id"]
    made.hold(value["lease"])
    return made


@dataclass
class Slice:
    """The results of driving one server."""

    seconds: float
    answers: int = 0
    """All answers with status 200, including those after the end."""
    in_time: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    resent: int = 0
    latencies_ms: list[float] = field(default_factory=list)


class Line:
    """One instance's connection to one server."""

    def __init__(self, instance: Instance, port: int) -> None:
        self.instance = instance
        self.port = port
        self.received = b""
        self.body = b""
        self.sent_at = 0.0
        self.fresh = True
        """Whether this connection has not given an answer yet."""
        self.socket = self._connect()

    def _connect(self) -> socket.socket:
        made = socket.create_connection(("127.0.0.1", self.port), PATIENCE_S)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return made

    def reconnect(self) -> None:
        """Send the current request again, over a new connection."""
        self.socket.close()
        self.socket = self._connect()
        self.fresh = True
        self.send()

    def begin(self) -> None:
        """Sign the next request and send it."""
        self.body = self.instance.next_request()
        self.sent_at = monotonic()
        self.send()

    def send(self) -> None:
        """Send the current request."""
        self.received = b""
        self.socket.sendall(
            b"POST /v1/leases HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n"
            b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
            % (self.port, len(self.body), self.body)
        )

    def read(self) -> tuple[int, bytes] | None:
        """Read what has arrived; return status and body once the answer is complete.

        Raises:
            ConnectionError: the server closed the connection.
        """
        chunk = self.socket.recv(CHUNK_BYTES)
        if not chunk:
            raise ConnectionResetError
        self.received += chunk
        head, found, body = self.received.partition(b"\r\n\r\n")
        if not found:
            return None
        lines = head.split(b"\r\n")
        for line in lines[1:]:
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length" and len(body) < int(value):
                return None
        self.fresh = False
        return int(lines[0].split(b" ", 2)[1]), body


def drive(instances: list[Instance], port: int, seconds: float) -> Slice:
    """Let all instances renew at one server for some time, then wait for the last answers.

    Raises:
        TimeoutError: an answer takes too long.
        ConnectionError: the server closes even new connections.
    """
    seen = Slice(seconds)
    lines = [Line(instance, port) for instance in instances]
    with selectors.DefaultSelector() as selector:
        for line in lines:
            line.begin()
            selector.register(line.socket, selectors.EVENT_READ, line)
        end = monotonic() + seconds
        under_way = len(lines)
        while under_way:
            events = selector.select(PATIENCE_S)
            if not events:
                raise TimeoutError(f"no answer within {PATIENCE_S} s")
            for key, _ in events:
                line = key.data
                try:
                    answer = line.read()
                except ConnectionError:
                    if line.fresh:
                        raise
                    selector.unregister(line.socket)
                    line.reconnect()
                    selector.register(line.socket, selectors.EVENT_READ, line)
                    seen.resent += 1
                    continue
                if answer is None:
                    continue
                at = monotonic()
                status, body = answer
                if status == 200:
                    seen.answers += 1
                    seen.in_time += at <= end
                    seen.latencies_ms.append((at - line.sent_at) * 1000)
                    line.instance.hold(json.loads(body))
                    if at < end:
                        line.begin()
                        continue
                else:
                    seen.refused[f"{status} {body[:300].decode('utf-8', 'replace')}"] += 1
                selector.unregister(line.socket)
                under_way -= 1
    for line in lines:
        line.socket.close()
    return seen


def main() -> None:
    """Carry out the orders on standard input; answer each with a line."""
    instances: list[Instance] = []
    enrolled: list[dict[str, Any]] = []
    held: dict[int, list[dict[str, Any]]] = {}
    for text in sys.stdin:
        order = json.loads(text)
        answer: dict[str, Any]
        if order["do"] == "enroll":
            instances = [enroll(order) for _ in range(order["count"])]
            enrolled = [dict(each.request) for each in instances]
            answer = {each.keyid: base64.b64encode(each.raw).decode() for each in instances}
        else:
            # Each server has a chain of its own.
            port = order["port"]
            for instance, request in zip(instances, held.get(port, enrolled), strict=True):
                instance.request = dict(request)
            seen = drive(instances, port, order["seconds"])
            held[port] = [instance.request for instance in instances]
            answer = {**vars(seen), "refused": dict(seen.refused)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
