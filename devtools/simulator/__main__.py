"""Serve the simulator on loopback: `python -m devtools.simulator --directory DIR`.

Writes `license.json`, `keyset.json` and `enrollment-code` into DIR and prints where it listens as
one JSON object. POST `/_control/<act>` makes things happen; see `docs/router-authors/simulator.md`.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock
from typing import Any

from devtools.simulator import FAULTS, Faults, Simulator
from devtools.simulator.portal import Database


class Server(ThreadingHTTPServer):
    """The portal on a loopback port."""

    daemon_threads = True

    def __init__(self, port: int, directory: Path, ahead_s: int = 0) -> None:
        """Listen; the portal's clock is ahead by this many seconds."""
        super().__init__(("127.0.0.1", port), Handler)
        self.ahead_s = ahead_s
        self.turn = Lock()
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.faults = Faults(Simulator(self.now, origin=self.url))
        self.kept: Database | None = None
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.write()
        (directory / "enrollment-code").write_text(self.faults.simulator.code(uses=100) + "\n")

    def now(self) -> int:
        """Return the portal's time."""
        return int(time.time()) + self.ahead_s

    def write(self) -> None:
        """Write the license and the keyset where a router can read them."""
        (self.directory / "license.json").write_bytes(self.faults.simulator.license)
        (self.directory / "keyset.json").write_bytes(self.faults.simulator.db.keysets[0])

    def control(self, act: str, options: dict[str, Any]) -> dict[str, Any]:
        """Do an act.

        Raises:
            KeyError: there is no such act.
            ValueError, TypeError: an option cannot be used.
        """
        portal = self.faults.simulator
        acts: dict[str, Callable[[], object]] = {
            "fault": lambda: self.queue_faults([str(each) for each in options["faults"]]),
            "hold": lambda: portal.hold(held=bool(options.get("held", True))),
            "issue": lambda: portal.issue(overlap_s=int(options.get("overlap_s", 7 * 86_400))),
            "revoke": portal.revoke,
            "rotate": lambda: portal.rotate(roots=bool(options.get("roots", False))),
            "backup": self.back_up,
            "restore": self.restore,
            "resolve": portal.resolve_clone,
            "advance": lambda: self.advance(int(options["seconds"])),
            "code": lambda: portal.code(int(options.get("uses", 1))),
            "log": lambda: None,
        }
        outcome = acts[act]()
        if act == "code":
            return {"code": outcome}
        return {"log": portal.log, "passed": self.faults.passed}

    def queue_faults(self, names: list[str]) -> None:
        """Apply these faults to the next requests, one each.

        Raises:
            ValueError: a name is unknown.
        """
        if unknown := [name for name in names if name not in FAULTS]:
            raise ValueError(f"no faults {unknown}; known are {sorted(FAULTS)}")
        self.faults.queue.extend(names)

    def back_up(self) -> None:
        """Back the portal's database up."""
        self.kept = self.faults.simulator.backup()

    def restore(self) -> None:
        """Restore the backup.

        Raises:
            ValueError: there is none.
        """
        if self.kept is None:
            raise ValueError("there is no backup")
        self.faults.simulator.restore(self.kept)

    def advance(self, seconds: int) -> None:
        """Advance the portal's clock."""
        self.ahead_s += seconds


class Handler(BaseHTTPRequestHandler):
    """Passes requests to the simulator, one at a time."""

    server: Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer a GET."""
        self._pass("GET", b"")

    def do_POST(self) -> None:
        """Answer a POST."""
        length = int(self.headers.get("Content-Length", 0))
        self._pass("POST", self.rfile.read(min(length, 1024 * 1024)))

    def _pass(self, method: str, body: bytes) -> None:
        with self.server.turn:
            if self.path.startswith("/_control/"):
                self._control(body)
                return
            answer = self.server.faults.handle(
                method, self.path, body, self.headers.get("Content-Type", "")
            )
        if answer is None:
            self.close_connection = True
            return
        self._send(answer.status, answer.body, answer.content_type, answer.headers)

    def _control(self, body: bytes) -> None:
        act = self.path.removeprefix("/_control/")
        try:
            said = self.server.control(act, json.loads(body or b"{}"))
            status = 200
        except (KeyError, ValueError, TypeError) as error:
            said, status = {"error": f"{type(error).__name__}: {error}"}, 400
        self._send(status, json.dumps(said).encode(), "application/json", {})

    def _send(self, status: int, body: bytes, kind: str, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if kind:
            self.send_header("Content-Type", kind)
        self.send_header("Cache-Control", headers.get("Cache-Control", "no-store"))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Log nothing."""


def main() -> int:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(prog="python -m devtools.simulator", description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--directory", type=Path, required=True)
    options = parser.parse_args()
    server = Server(options.port, options.directory)
    files = {name: str(options.directory / name) for name in ("license.json", "keyset.json")}
    code = str(options.directory / "enrollment-code")
    print(json.dumps({"url": server.url, "enrollment-code": code, **files}), flush=True)
    try:
        server.serve_forever(0.1)
    except KeyboardInterrupt:
        return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
