"""A router as a process of its own, with an upstream and a vendor whose documents hold today."""

import hashlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec
from argon2 import PasswordHasher

from licensing.envelope import Envelope
from licensing.keys import Keyset
from router.clock import unix_now
from router.config import load_config
from router.state.store import State, StateFile
from tests.router.papers import DAY_S, Vendor

NOW = unix_now()
TOKEN = "caller-token-canary-5f1c"
OTHER_TOKEN = "other-token-canary-77aa"
METRICS_TOKEN = "metrics-token-canary-9d20"
PASSWORD = "admin-password-canary-31"
HASH = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1).hash(PASSWORD)
PROMPT = "prompt-canary-4b2e"
ANSWER = "answer-canary-8c6d"

# Ends the process at once when anything but the ports it may reach is looked up or connected to.
_GUARDED = """
import os, sys
ports = [int(each) for each in sys.argv.pop(1).split(",")]
def watch(event, arguments):
    if event == "socket.connect":
        wrong = arguments[1][0] != "127.0.0.1" or arguments[1][1] not in ports
    elif event == "socket.getaddrinfo":
        wrong = arguments[0] not in ("127.0.0.1", "::1", b"127.0.0.1")
    else:
        wrong = event in ("socket.sendto", "socket.sendmsg", "socket.gethostbyname",
                          "socket.gethostbyaddr", "urllib.Request")
    if wrong:
        os.write(2, f"NETWORK {event} {arguments!r}".encode())
        os._exit(97)
sys.addaudithook(watch)
from router.commands.cli import main
main(sys.argv[1:])
"""


class TodaysVendor(Vendor):
    """Signs documents that hold now."""

    def keyset(self, **changes: Any) -> bytes:
        """Return the keyset, its keys valid around today."""
        keyset = Keyset.parse(Envelope.parse(super().keyset()).payload)
        keys = tuple(
            msgspec.structs.replace(
                key, not_before_at=NOW - 30 * DAY_S, not_after_at=NOW + 365 * DAY_S
            )
            for key in keyset.keys
        )
        dated = {"issued_at": NOW - 10 * DAY_S, "expires_at": NOW + 365 * DAY_S, "keys": keys}
        return super().keyset(**{**dated, **changes})

    def license(self, **changes: Any) -> bytes:
        """Return a license that holds from yesterday on."""
        dated = {
            "issued_at": NOW - DAY_S,
            "not_before_at": NOW - DAY_S,
            "expires_at": NOW + 29 * DAY_S,
        }
        return super().license(**{**dated, **changes})

    def bundle(self, *entries: Any, **changes: Any) -> bytes:
        """Return a bundle of yesterday."""
        dated = {
            "issued_at": NOW - DAY_S,
            "version": NOW - DAY_S,
            "expires_at": NOW + 34 * DAY_S,
        }
        return super().bundle(*entries, **{**dated, **changes})


class Upstream(ThreadingHTTPServer):
    """An OpenAI-compatible server that answers with usage, unless told otherwise."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.bodies: list[dict[str, Any]] = []
        self.headers_seen: list[dict[str, str]] = []
        self.status = 200
        self.usage: dict[str, int] | None = {
            "prompt_tokens": 7,
            "completion_tokens": 5,
            "total_tokens": 12,
        }
        self.cut = False
        """End a stream in the middle."""
        self.gate = threading.Event()
        """Answers wait for it."""
        self.gate.set()
        self.arrived = threading.Semaphore(0)

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.server_address[1])


class _Handler(BaseHTTPRequestHandler):
    server: Upstream
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.bodies.append(body)
        self.server.headers_seen.append(dict(self.headers.items()))
        self.server.arrived.release()
        self.server.gate.wait(20)
        if body.get("stream"):
            self._stream(body)
            return
        answer: dict[str, Any] = {
            "id": "x",
            "object": "chat.completion",
            "choices": [{"index": 0, "message": {"role": "assistant", "content": ANSWER}}],
        }
        if self.server.status != 200:
            answer = {"error": {"message": "no"}}
        elif self.server.usage is not None:
            answer["usage"] = self.server.usage
        data = json.dumps(answer).encode()
        self.send_response(self.server.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _stream(self, body: dict[str, Any]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for word in (ANSWER, "more"):
            self._chunk({"choices": [{"index": 0, "delta": {"content": word}}], "usage": None})
        if self.server.cut:
            self.close_connection = True
            return
        if body.get("stream_options", {}).get("include_usage") and self.server.usage:
            self._chunk({"choices": [], "usage": self.server.usage})
        self._send(b"data: [DONE]\n\n")
        self.wfile.write(b"0\r\n\r\n")

    def _chunk(self, value: dict[str, Any]) -> None:
        self._send(b"data: " + json.dumps(value).encode() + b"\n\n")

    def _send(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
        self.wfile.flush()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@dataclass(frozen=True)
class Answer:
    """What a surface answered."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body."""
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The code of the error."""
        return str(self.json["error"]["code"])


@dataclass
class House:
    """One installation: its files, its upstream, and the router once it is started."""

    directory: Path
    upstream: Upstream
    vendor: TodaysVendor = field(default_factory=TodaysVendor)
    settings: dict[str, Any] = field(default_factory=dict)
    """Of `server.license`."""
    callers: list[dict[str, Any]] = field(default_factory=list)
    features: tuple[str, ...] = ("routing",)
    reachable: tuple[int, ...] = ()
    """Ports on loopback the router may reach beside its upstream."""
    environment: dict[str, str] = field(default_factory=dict)
    process: "subprocess.Popen[bytes] | None" = None
    port: int = 0
    messages: list[str] = field(default_factory=list)

    @property
    def license_file(self) -> Path:
        """Where the license is."""
        return self.directory / "license.json"

    @property
    def bundle_file(self) -> Path:
        """Where the bundle is, where one is used."""
        return self.directory / "revocation-bundle.json"

    @property
    def keyset_file(self) -> Path:
        """Where the keyset is."""
        return self.directory / "keyset.json"

    @property
    def state_file(self) -> Path:
        """Where the state is."""
        return self.directory / "state" / "license-state.json"

    def install(self, **changes: Any) -> None:
        """Put a license in place, in one step."""
        self.put(self.license_file, self.vendor.license(**changes))

    def put(self, path: Path, data: bytes) -> None:
        """Replace a file in one step."""
        new = path.with_suffix(".new")
        new.write_bytes(data)
        new.replace(path)

    def use_bundle(self, data: bytes | None, **settings: Any) -> None:
        """Configure a revocation bundle, and put it in place if there is one."""
        given = {"mode": "file", "path": str(self.bundle_file), **settings}
        self.settings["revocation"] = given
        if data is not None:
            self.put(self.bundle_file, data)

    def prepare_state(self, change: Any) -> None:
        """Write a state before the router starts; `change` takes and returns one."""
        with StateFile(self.state_file) as file:
            state: State = file.open()
            file.save(change(state))

    def write_config(self) -> Path:
        """Write the configuration."""
        path = self.directory / "router.yaml"
        license_ = {
            "path": str(self.license_file),
            "state_path": str(self.state_file),
            **self.settings,
        }
        token = hashlib.sha256(TOKEN.encode()).hexdigest()
        config = {
            "server": {
                "listen": "127.0.0.1:0",
                "upstream": f"http://127.0.0.1:{self.upstream.port}/v1",
                "license": license_,
            },
            "admin": {"users": {"admin": HASH}, "metrics_token_file": "metrics-token"},
            "callers": self.callers or [{"name": "app-1", "token_sha256": token}],
            "models": [{"id": "general", "group": "chat", "features": list(self.features)}],
        }
        path.write_text(json.dumps(config))
        (self.directory / "metrics-token").write_text(METRICS_TOKEN + "\n")
        return path

    def command(self) -> list[str]:
        """Return the call of the router under its socket guard."""
        if not self.keyset_file.exists():
            self.put(self.keyset_file, self.vendor.keyset())
        config = self.write_config()
        serve = ["serve", "--config", str(config), "--keyset", str(self.keyset_file)]
        ports = ",".join(str(port) for port in (self.upstream.port, *self.reachable))
        return [sys.executable, "-W", "error", "-c", _GUARDED, ports, *serve]

    def start(self) -> None:
        """Start the router and wait until it listens."""
        load_config(self.write_config())
        env = {**os.environ, "PYTHONPATH": str(Path.cwd()), **self.environment}
        self.launch(self.command(), env)

    def launch(self, command: list[str], env: dict[str, str]) -> None:
        """Run this command and wait until it listens."""
        with (self.directory / "rows.jsonl").open("ab") as rows:
            self.process = subprocess.Popen(command, stdout=rows, stderr=subprocess.PIPE, env=env)
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.messages.append(line.decode())
            if found := re.search(r"listening on http://127\.0\.0\.1:(\d+)", self.messages[-1]):
                self.port = int(found[1])
                return
        self.process.wait(10)
        raise AssertionError("".join(self.messages))

    def hang_up(self) -> None:
        """Send SIGHUP: look at everything now."""
        assert self.process is not None
        self.process.send_signal(signal.SIGHUP)

    def fail_to_start(self) -> tuple[int, str]:
        """Start a router that shall refuse; return its exit code and what it said."""
        done = subprocess.run(
            self.command(),
            capture_output=True,
            timeout=20,
            check=False,
            env={**os.environ, "PYTHONPATH": str(Path.cwd()), **self.environment},
        )
        return done.returncode, done.stderr.decode()

    def stop(self) -> None:
        """End the router as an operator does, and require a clean end."""
        if self.process is None:
            return
        self.process.terminate()
        self.end()

    def end(self) -> None:
        """Require a clean end of a router that was told to stop.

        It is not told again: a second signal may meet a process whose loop is closed already.
        """
        assert self.process is not None
        process, self.process = self.process, None
        try:
            _, rest = process.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise
        self.messages.append(rest.decode())
        assert process.returncode == 0, self.said
        assert "Traceback" not in self.said, self.said

    @property
    def said(self) -> str:
        """Everything on standard error."""
        return "".join(self.messages)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The usage rows so far."""
        text = (self.directory / "rows.jsonl").read_text()
        return [json.loads(line) for line in text.splitlines()]

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        """Send one request."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
            connection.request(method, path, data, headers or {})
            answer = connection.getresponse()
            return Answer(answer.status, dict(answer.getheaders()), answer.read())
        finally:
            connection.close()

    def chat(self, token: str = TOKEN, **changes: Any) -> Answer:
        """Ask for a completion."""
        body = {
            "model": "general",
            "max_tokens": 20,
            "messages": [{"role": "user", "content": PROMPT}],
            **changes,
        }
        return self.ask("POST", "/v1/chat/completions", body, {"Authorization": f"Bearer {token}"})

    def status(self, password: str = PASSWORD) -> Answer:
        """Ask for the license's status."""
        credentials = b64encode(f"admin:{password}".encode()).decode()
        return self.ask(
            "GET", "/admin/license/status", headers={"Authorization": f"Basic {credentials}"}
        )

    def metrics(self, token: str = METRICS_TOKEN) -> Answer:
        """Scrape."""
        return self.ask("GET", "/metrics", headers={"Authorization": f"Bearer {token}"})

    def wait_for(self, code: str | None) -> None:
        """Wait until `/readyz` shows a code, or that it is ready."""
        pause = threading.Event()
        for _ in range(200):
            answer = self.ask("GET", "/readyz")
            if (answer.json.get("code") if answer.status == 503 else None) == code:
                return
            pause.wait(0.05)
        raise AssertionError(f"/readyz shows {answer.body!r}, not {code}; {self.said}")


@contextmanager
def house(directory: Path) -> Iterator[House]:
    """Give an installation with an upstream; ends whatever runs."""
    upstream = Upstream()
    thread = threading.Thread(target=upstream.serve_forever, args=(0.05,))
    thread.start()
    built = House(directory, upstream)
    try:
        yield built
        built.stop()
    finally:
        if built.process is not None:
            built.process.kill()
            built.process.communicate()
        upstream.gate.set()
        upstream.shutdown()
        thread.join()
        upstream.server_close()
