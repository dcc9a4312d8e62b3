"""Runs the bench: `python -m devtools.bench [--seconds 15] [--instances 64]`.

The servers are driven in turn, a few seconds each, so that a noisy machine affects both alike. The
last line is `ratio: ` and the portal's rate divided by the floor's.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from devtools.bench import floor
from devtools.bench.servers import (
    ROOT,
    BenchFailed,
    Server,
    cpu_seconds,
    free_port,
    gunicorn,
    own_cpu_seconds,
)
from devtools.bench.site import MOST_INSTANCES, check_chains, site
from devtools.postgres import NoPostgres, cluster
from portal.services.keys import unix

SLICE_S = 3.0
WARM_UP_S = 1.0


@dataclass
class Side:
    """What one server did in all its slices."""

    server: Server
    seconds: float = 0.0
    answers: int = 0
    in_time: int = 0
    resent: int = 0
    server_cpu_s: float = 0.0
    database_cpu_s: float = 0.0
    load_cpu_s: float = 0.0
    latencies_ms: list[float] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)

    @property
    def rate(self) -> float:
        """Answers a second."""
        return self.in_time / self.seconds

    def each_ms(self, cpu_s: float) -> float:
        """Return the CPU milliseconds of one renewal."""
        return cpu_s * 1000 / max(1, self.answers)

    def percentile(self, part: float) -> float:
        """Return a percentile of the latencies, in milliseconds."""
        ordered = sorted(self.latencies_ms)
        return ordered[min(len(ordered) - 1, int(part * len(ordered)))] if ordered else 0.0


class Load:
    """The process that generates the load."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process

    def ask(self, **order: Any) -> dict[str, Any]:
        """Give an order and wait for its answer.

        Raises:
            BenchFailed: the process ended; it said why.
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise BenchFailed("the load ended; see above")
        value: dict[str, Any] = json.loads(line)
        return value


@contextmanager
def loading() -> Iterator[Load]:
    """Run the load process while the block runs."""
    process = subprocess.Popen(
        [sys.executable, "-m", "devtools.bench.load"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield Load(process)
    finally:
        process.kill()
        process.communicate()


def drive(load: Load, side: Side, database: int, seconds: float) -> None:
    """Drive one server for a slice and add up the results."""
    servers, rows = cpu_seconds(side.server.pid), cpu_seconds(database)
    own = own_cpu_seconds(load.process.pid)
    seen = load.ask(do="drive", port=side.server.port, seconds=seconds)
    side.server_cpu_s += cpu_seconds(side.server.pid) - servers
    side.database_cpu_s += cpu_seconds(database) - rows
    side.load_cpu_s += own_cpu_seconds(load.process.pid) - own
    side.seconds += seen["seconds"]
    side.answers += seen["answers"]
    side.in_time += seen["in_time"]
    side.resent += seen["resent"]
    side.latencies_ms += seen["latencies_ms"]
    side.refused.update(seen["refused"])
    if side.refused:
        told = [f"{count} x {what}" for what, count in side.refused.items()]
        raise BenchFailed("\n".join(("refused:", *told)))


def report(sides: dict[str, Side]) -> None:
    """Print the results of both, side by side."""
    rows: list[tuple[str, list[str]]] = [
        ("renewals a second", [f"{side.rate:.1f}" for side in sides.values()]),
        ("server CPU ms each", [f"{s.each_ms(s.server_cpu_s):.2f}" for s in sides.values()]),
        ("database CPU ms each", [f"{s.each_ms(s.database_cpu_s):.2f}" for s in sides.values()]),
        ("load CPU ms each", [f"{s.each_ms(s.load_cpu_s):.2f}" for s in sides.values()]),
        ("latency p50 ms", [f"{side.percentile(0.5):.1f}" for side in sides.values()]),
        ("latency p99 ms", [f"{side.percentile(0.99):.1f}" for side in sides.values()]),
        ("answers with 200", [str(side.answers) for side in sides.values()]),
        ("other answers", [str(side.refused.total()) for side in sides.values()]),
        ("sent again", [str(side.resent) for side in sides.values()]),
    ]
    print(f"{'':22}" + "".join(f"{name:>12}" for name in sides))
    for name, values in rows:
        print(f"{name:22}" + "".join(f"{value:>12}" for value in values))


def run(seconds: float, instances: int) -> None:
    """Run the bench.

    Raises:
        BenchFailed: the run cannot be counted.
        NoPostgres: PostgreSQL is not installed.
    """
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        running = stack.enter_context(cluster(durable=True))
        database = int((running.socket_dir / "data" / "postmaster.pid").read_text().split()[0])
        port = free_port()
        made = stack.enter_context(site(running, directory, port, instances))
        portal = stack.enter_context(
            gunicorn("wsgi:application", port, made.environment, directory / "portal.log")
        )
        load = stack.enter_context(loading())
        keys = load.ask(
            do="enroll",
            count=instances,
            origin=portal.origin,
            at=unix(made.transactions.ports.clock.now()),
            license_id=made.license_id,
            license_sha256=made.license_sha256,
            code=made.code,
        )
        floor.prepare(made.conninfo, keys)
        bare = stack.enter_context(
            gunicorn(
                "devtools.bench.floor:application",
                free_port(),
                {
                    **made.environment,
                    floor.DATABASE: made.conninfo,
                    floor.KEYS: json.dumps(keys),
                },
                directory / "floor.log",
            )
        )
        sides = {"portal": Side(portal), "floor": Side(bare)}
        warm_ups = [Side(side.server) for side in sides.values()]
        for side in warm_ups:
            drive(load, side, database, min(WARM_UP_S, seconds / 2))
        slices = max(1, round(seconds / SLICE_S))
        print(
            f"{instances} instances, {slices} x {seconds / slices:g} s each in turn,"
            f" {os.cpu_count()} CPUs, Python {platform.python_version()},"
            f" PostgreSQL with fsync and synchronous_commit on",
            flush=True,
        )
        for number in range(slices):
            for side in sides.values():
                drive(load, side, database, seconds / slices)
            rates = ", ".join(f"{name} {side.rate:.1f}" for name, side in sides.items())
            print(f"after slice {number + 1}: {rates} renewals a second", flush=True)
        leases = check_chains(made, instances, sides["portal"].answers + warm_ups[0].answers)
        report(sides)
        print(f"{leases} leases in the database, in {instances} whole chains")
        print(f"ratio: {sides['portal'].rate / sides['floor'].rate:.2f}")


def main() -> int:
    """Parse the arguments and run; return 1 if the run cannot be counted."""
    parser = argparse.ArgumentParser(prog="devtools.bench", description=__doc__)
    parser.add_argument("--seconds", type=float, default=15.0, help="for each server")
    parser.add_argument("--instances", type=int, default=64, help="concurrent requests")
    arguments = parser.parse_args()
    if not 1 <= arguments.instances <= MOST_INSTANCES or arguments.seconds <= 0:
        parser.error(f"--instances is 1 to {MOST_INSTANCES}, --seconds above 0")
    try:
        run(arguments.seconds, arguments.instances)
    except (BenchFailed, NoPostgres, subprocess.CalledProcessError) as error:
        print(f"make bench: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
