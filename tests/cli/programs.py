"""The installed commands, run as an operator's shell runs them: processes, files, exit codes."""

import json
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

BIN = Path(sys.executable).parent
RUN_S = 60
START_S = 60
STOP_S = 30
POLL_S = 0.05


@dataclass(frozen=True)
class Ran:
    """How a command ended."""

    status: int
    stdout: str
    stderr: str

    @property
    def facts(self) -> dict[str, Any]:
        """The one object it printed."""
        value = json.loads(self.stdout)
        assert isinstance(value, dict)
        return value


@dataclass(frozen=True)
class Shell:
    """A directory to work in, and the environment commands get: nothing but what is said here."""

    directory: Path
    environment: dict[str, str]

    def run(self, program: str, *arguments: str | Path, stdin: str = "") -> Ran:
        """Run a command to its end."""
        ended = subprocess.run(
            [BIN / program, *arguments],
            check=False,
            input=stdin,
            cwd=self.directory,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=RUN_S,
        )
        return Ran(ended.returncode, ended.stdout, ended.stderr)

    def ask(self, program: str, *arguments: str | Path, stdin: str = "") -> dict[str, Any]:
        """Run a command that must succeed; return the object it prints."""
        ran = self.run(program, *arguments, "--json", stdin=stdin)
        assert ran.status == 0, f"{program} {arguments}: {ran.status}\n{ran.stdout}\n{ran.stderr}"
        return ran.facts

    def portal(self, *arguments: str | Path) -> dict[str, Any]:
        """Run `portal`."""
        return self.ask("portal", *arguments)

    def router(self, *arguments: str | Path) -> dict[str, Any]:
        """Run `router-license`."""
        return self.ask("router-license", *arguments)


def make_shell(directory: Path, database_url: str, port: int = 8000) -> Shell:
    """Return a shell whose portal keeps its data in `directory` and its rows in the database."""
    return Shell(
        directory,
        {
            "PATH": "/usr/bin:/bin",
            "PORTAL_DATA_DIR": str(directory / "data"),
            "PORTAL_DATABASE_URL": database_url,
            "PORTAL_ORIGIN": f"http://127.0.0.1:{port}",
        },
    )


def free_port() -> int:
    """Return a port of loopback that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


@contextmanager
def serving(shell: Shell, port: int) -> Iterator[None]:
    """Run `portal serve` while the block runs."""
    with (shell.directory / "serve.log").open("w+") as log:
        server = subprocess.Popen(
            [BIN / "portal", "serve", "--port", str(port), "--workers", "1"],
            cwd=shell.directory,
            env=shell.environment,
            stdout=log,
            stderr=log,
        )
        try:
            wait_until_ready(f"http://127.0.0.1:{port}/readyz", server, Path(log.name))
            yield
        finally:
            server.terminate()
            try:
                server.wait(STOP_S)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def wait_until_ready(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    """Ask until the answer is 200; between two questions, wait for the server's end."""
    end = monotonic() + START_S
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    seen = "no answer"
    while monotonic() < end:
        try:
            with opener.open(url, timeout=5) as answer:
                assert answer.status == 200
                return
        except urllib.error.HTTPError as error:
            seen = error.read().decode()
            error.close()
        except OSError as error:
            seen = str(error)
        try:
            status = server.wait(POLL_S)
        except subprocess.TimeoutExpired:
            continue
        raise AssertionError(f"portal serve ended with {status}: {log.read_text()}")
    raise AssertionError(f"{url} was never ready: {seen}\n{log.read_text()}")
