"""The bench of the guard runs and gives its ratios; what they are is for whoever runs it."""

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow


def test_it_measures_both_servers_in_one_run() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "devtools.router_bench", "--rounds=1", "--seconds=0.4"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines[1:3]] == ["bare", "guarded"], done.stderr
    ratios = json.loads(lines[-1])
    assert ratios.keys() == {"p50_added", "throughput_lost"}
    assert done.returncode == int(max(ratios.values()) >= 0.05)
