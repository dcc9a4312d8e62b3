"""The servers under load, and the CPU time their processes use."""

import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep

ROOT = Path(__file__).resolve().parents[2]
START_S = 60
STOP_S = 30
POLL_S = 0.05
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class BenchFailed(Exception):
    """The run cannot be counted; the message says why."""


@dataclass(frozen=True)
class Server:
    """A running gunicorn."""

    port: int
    pid: int

    @property
    def origin(self) -> str:
        """The address it listens on."""
        return f"http://127.0.0.1:{self.port}"


def free_port() -> int:
    """Return a port on loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def gunicorn(
    application: str, port: int, environment: Mapping[str, str], log: Path
) -> Iterator[Server]:
    """Serve an application with the portal's own gunicorn settings while the block runs.

    Raises:
        BenchFailed: it does not start.
    """
    arguments = ["--config", str(ROOT / "gunicorn.conf.py"), "--log-level", "warning"]
    arguments += ["--bind", f"127.0.0.1:{port}", application]
    with log.open("wb") as written:
        process = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", *arguments],
            cwd=ROOT,
            env={**os.environ, **environment},
            stdout=written,
            stderr=written,
        )
        try:
            server = Server(port, process.pid)
            _wait(server, process, log)
            yield server
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait(server: Server, process: subprocess.Popen[bytes], log: Path) -> None:
    end = monotonic() + START_S
    while monotonic() < end and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{server.origin}/healthz", timeout=START_S):
                return
        except (urllib.error.URLError, OSError):
            sleep(POLL_S)
    raise BenchFailed(f"gunicorn did not start:\n{log.read_text()}")


def _stat(pid: int) -> list[str] | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The name, in parentheses, may contain anything; state and parent follow it.
    return text.rpartition(")")[2].split()


def cpu_seconds(parent: int) -> float:
    """Return the CPU time of a process's children so far, including those that have ended.

    Source: proc_pid_stat(5): fields 4 (parent), 14 to 17 (utime, stime, and those of the children
    that ended).
    """
    own = _stat(parent)
    ticks = 0 if own is None else int(own[13]) + int(own[14])
    for entry in Path("/proc").iterdir():
        child = _stat(int(entry.name)) if entry.name.isdigit() else None
        if child is not None and int(child[1]) == parent:
            ticks += int(child[11]) + int(child[12])
    return ticks / TICKS_PER_S


def own_cpu_seconds(pid: int) -> float:
    """Return the CPU time of one process so far."""
    own = _stat(pid)
    return 0.0 if own is None else (int(own[11]) + int(own[12])) / TICKS_PER_S
