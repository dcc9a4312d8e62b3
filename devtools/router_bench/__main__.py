"""Runs the bench: `python -m devtools.router_bench [--rounds 6] [--seconds 4] [--callers 32]`.

The last line is one JSON object with the ratios. Exits 1 if the guard adds 5 % or more to the
median latency, takes 5 % or more of the throughput, or any answer was not 200.
"""

import argparse
import asyncio
import hashlib
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from devtools.simulator import Simulator
from licensing.license import Budget, Limits
from router.clock import unix_now

MOST = 0.05
TOKEN = "bench-token"
BODY = {
    "model": "general",
    "max_tokens": 400,
    "messages": [{"role": "user", "content": "Tell me about licenses. " * 30}],
}


class BenchFailed(Exception):
    """The run gives no ratio; the message says why."""


@dataclass
class Side:
    """What one server did in all its rounds."""

    name: str
    url: str
    medians_ms: list[float] = field(default_factory=list)
    tails_ms: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)


@contextmanager
def running(command: list[str], rows: Path) -> Iterator[str]:
    """Run a server of this bench while the block runs; yield its address."""
    with rows.open("ab") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if found := re.search(r"listening on (http://\S+)", line):
                yield found[1]
                return
            print(line, end="", file=sys.stderr)
        raise BenchFailed(f"{command} did not start")
    finally:
        process.kill()
        process.wait()


async def drive(side: Side, callers: int, seconds: float, *, counts: bool) -> None:
    """Let all callers send requests at the same time, each one after another."""
    taken: list[float] = []
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        begun = time.perf_counter()
        ends = begun + seconds

        async def caller() -> None:
            while time.perf_counter() < ends:
                at = time.perf_counter()
                async with session.post(
                    side.url + "/v1/chat/completions", json=BODY, headers=headers
                ) as answer:
                    await answer.read()
                    if answer.status != 200:
                        raise BenchFailed(f"{side.name} answered {answer.status}")
                taken.append(time.perf_counter() - at)

        await asyncio.gather(*(caller() for _ in range(callers)))
        lasted = time.perf_counter() - begun
    if counts:
        side.medians_ms.append(statistics.median(taken) * 1000)
        side.tails_ms.append(statistics.quantiles(taken, n=100)[98] * 1000)
        side.rates.append(len(taken) / lasted)


def install(place: Path, upstream: str) -> Path:
    """Write license, keyset and configuration; return the configuration."""
    vendor = Simulator(unix_now)
    vendor.issue(
        mode="offline",
        lease=None,
        limits=Limits(max_concurrency=10_000),
        budget=Budget(budget_id="bud_00000000000000000000000001", tokens_total=10**12),
    )
    (place / "license.json").write_bytes(vendor.license)
    (place / "keyset.json").write_bytes(vendor.keyset)
    config: dict[str, Any] = {
        "server": {
            "listen": "127.0.0.1:0",
            "upstream": f"{upstream}/v1",
            "license": {"path": "license.json", "state_path": "state/license-state.json"},
        },
        "callers": [{"name": "bench", "token_sha256": hashlib.sha256(TOKEN.encode()).hexdigest()}],
        "models": [{"id": "general", "group": "chat", "features": ["routing"]}],
    }
    path = place / "router.yaml"
    path.write_text(json.dumps(config))
    return path


def main() -> int:
    """Run everything and print the ratios."""
    try:
        return measure()
    except BenchFailed as error:
        print(f"no ratio: {error}", file=sys.stderr)
        return 1


def measure() -> int:
    """Run everything and print the ratios.

    Raises:
        BenchFailed: a server did not start, or an answer was not 200.
    """
    parser = argparse.ArgumentParser(prog="python -m devtools.router_bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--callers", type=int, default=32)
    options = parser.parse_args()
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        python = [sys.executable, "-m"]
        upstream = stack.enter_context(
            running([*python, "devtools.router_bench.upstream"], place / "upstream.log")
        )
        config = install(place, upstream)
        guarded = [*python, "router", "serve", "--config", str(config)]
        guarded += ["--keyset", str(place / "keyset.json")]
        bare = [*python, "devtools.router_bench.bare", str(config)]
        sides = [
            Side("bare", stack.enter_context(running(bare, place / "bare.jsonl"))),
            Side("guarded", stack.enter_context(running(guarded, place / "guarded.jsonl"))),
        ]
        print(
            f"{options.callers} callers, {options.rounds} x {options.seconds:g} s each in turn, "
            f"{os.cpu_count()} CPUs, Python {platform.python_version()}"
        )
        for side in sides:
            asyncio.run(drive(side, options.callers, 1.0, counts=False))
        for number in range(options.rounds):
            for side in sides if number % 2 == 0 else sides[::-1]:
                asyncio.run(drive(side, options.callers, options.seconds, counts=True))
    for side in sides:
        print(
            f"{side.name:8} p50 {statistics.median(side.medians_ms):7.1f} ms   "
            f"p99 {statistics.median(side.tails_ms):7.1f} ms   "
            f"{statistics.median(side.rates):7.1f} requests a second"
        )
    without, with_ = sides
    added = statistics.median(with_.medians_ms) / statistics.median(without.medians_ms) - 1
    lost = 1 - statistics.median(with_.rates) / statistics.median(without.rates)
    print(json.dumps({"p50_added": round(added, 4), "throughput_lost": round(lost, 4)}))
    return 0 if max(added, lost) < MOST else 1


if __name__ == "__main__":
    sys.exit(main())
