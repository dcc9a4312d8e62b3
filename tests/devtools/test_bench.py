"""The bench runs through: both servers answer, every chain is whole, the last line is the ratio."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
RUN_S = 300


@pytest.mark.xdist_group("bench")
def test_a_short_run_ends_with_the_ratio() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "devtools.bench", "--seconds", "1", "--instances", "4"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=RUN_S,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert re.fullmatch(r"ratio: \d+\.\d\d", ran.stdout.splitlines()[-1])
    assert re.search(r"^other answers +0 +0$", ran.stdout, re.MULTILINE)
    assert "in 4 whole chains" in ran.stdout


def test_numbers_that_cannot_be_run_are_refused() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "devtools.bench", "--instances", "101"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=RUN_S,
        check=False,
    )
    assert ran.returncode == 2
    assert "--instances is 1 to 100" in ran.stderr
