"""A throwaway PostgreSQL server on this machine, for tests and the bench.

It listens only on a Unix socket in its own directory. PostgreSQL refuses to run as root; then it
runs as the user `postgres` (or `nobody`).
"""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from devtools.scratch import scratch_directory


class NoPostgres(Exception):
    """PostgreSQL is not installed."""


@dataclass(frozen=True)
class Cluster:
    """A running server."""

    socket_dir: Path

    def url(self, database: str = "postgres") -> str:
        """Return the SQLAlchemy URL of a database on this server."""
        return f"postgresql+psycopg://postgres@/{database}?host={self.socket_dir}"


def _binaries() -> Path:
    found = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3])
    )
    if found:
        return found[-1].parent
    initdb = shutil.which("initdb")
    if initdb is None:
        raise NoPostgres("PostgreSQL is missing: apt-get install postgresql")
    return Path(initdb).parent


def _unprivileged() -> str | None:
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            pwd.getpwnam(name)
        except KeyError:
            continue
        return name
    raise NoPostgres("as root, a user postgres or nobody is needed to run PostgreSQL as")


@contextmanager
def cluster(*, durable: bool = False) -> Iterator[Cluster]:
    """Run a server while the block runs.

    Args:
        durable: whether commits must reach the disk. Tests do not need that; the bench does.

    Raises:
        NoPostgres: PostgreSQL is not installed.
    """
    binaries = _binaries()
    user = _unprivileged()
    directory = Path(tempfile.mkdtemp(prefix="pg-", dir=None if durable else scratch_directory()))
    prefix: list[str] = []
    if user is not None:
        shutil.chown(directory, user)
        directory.chmod(0o755)
        group = str(pwd.getpwnam(user).pw_gid)
        prefix = ["setpriv", "--reuid", user, "--regid", group, "--clear-groups"]

    def run(*arguments: str) -> None:
        subprocess.run([*prefix, *arguments], check=True, cwd=directory, stdout=subprocess.DEVNULL)

    data = directory / "data"
    fast = (
        ""
        if durable
        else " -c fsync=off -c synchronous_commit=off -c full_page_writes=off -c autovacuum=off"
    )
    try:
        run(
            str(binaries / "initdb"),
            "-D",
            str(data),
            "-U",
            "postgres",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--locale=C.UTF-8",
            "--no-sync",
        )
        options = (
            f"-c listen_addresses='' -c unix_socket_directories='{directory}'"
            f" -c max_connections=200{fast}"
        )
        log = str(directory / "log")
        run(str(binaries / "pg_ctl"), "-D", str(data), "-o", options, "-l", log, "-w", "start")
        try:
            yield Cluster(directory)
        finally:
            run(str(binaries / "pg_ctl"), "-D", str(data), "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(directory, ignore_errors=True)
