"""Offline, a router reaches for no network: a day of simulated time under a socket guard.

The whole process runs: guard, surfaces, rechecks, file watch, SIGHUP, a replaced license and a
revocation bundle. Every name that is looked up and every socket that connects ends it.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from router.state.store import StateFile
from tests.router.papers import DAY_S, identifier
from tests.router.running import NOW, TodaysVendor, house

pytestmark = pytest.mark.slow

DAY = """
import asyncio, os, signal, sys

def watch(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname",
                 "socket.gethostbyaddr", "socket.sendto", "socket.sendmsg", "urllib.Request"):
        os.write(2, f"NETWORK {event} {arguments!r}".encode())
        os._exit(97)

from pathlib import Path
from router.clock import SystemClock
from router.config import load_config
from router.commands.serve import run

class Day(SystemClock):
    passed = 0
    def wall(self):
        return super().wall() + self.passed
    def boottime(self):
        return super().boottime() + self.passed

clock, place, looks = Day(), Path(sys.argv[1]), 0

async def half_a_minute(_):
    global looks
    looks += 1
    clock.passed = looks * 30
    if looks == 720:
        os.replace(place / "next.json", place / "license.json")
    if looks % 720 == 360:
        os.kill(os.getpid(), signal.SIGHUP)
    if looks == 2880:
        os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.sleep(0)

sys.addaudithook(watch)
asyncio.run(run(load_config(place / "router.yaml"), place / "keyset.json", clock=clock,
                wait=half_a_minute))
import json
print(json.dumps(sorted(name for name in sys.modules if name.split(".")[0] == "router")))
"""


def test_a_day_offline_touches_no_network(tmp_path: Path) -> None:
    vendor = TodaysVendor()
    with house(tmp_path) as built:
        built.settings["revocation"] = {"mode": "file", "path": str(built.bundle_file)}
        built.install()
        built.put(built.bundle_file, vendor.bundle())
        built.put(built.keyset_file, vendor.keyset())
        built.put(
            tmp_path / "next.json", vendor.license(revision=2, license_id=identifier("lic", 2))
        )
        built.write_config()
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", DAY, str(tmp_path)],
            capture_output=True,
            timeout=60,
            check=False,
            env={**os.environ, "PYTHONPATH": str(Path.cwd())},
        )
        said = done.stderr.decode()
        assert done.returncode == 0, said
        assert f"license valid, {identifier('lic', 1)}" in said
        assert f"license valid, {identifier('lic', 2)}" in said
        # The state saw the whole day go by.
        file = StateFile(built.state_file)
        seen = file.open().time.wall_floor - NOW
        file.close()
        assert DAY_S - 60 <= seen <= DAY_S + 600
        loaded = json.loads(done.stdout)
        assert "router.serve.guard" in loaded
        assert [name for name in loaded if name.startswith("router.network")] == []
