"""What a run takes of a large matrix: always its ends, and with PROVE=1 all of it."""

import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from tests.spread import PROVE, KillPoints, examples, spread

ROOT = Path(__file__).resolve().parents[2]


def walk(points: KillPoints, last: int) -> list[int]:
    """Walk over a process that has this many points; return those it was to die at."""
    seen = []
    for point in points:
        seen.append(point)
        points.died = point <= last
    return seen


@pytest.mark.parametrize("last", [0, 1, 2, 5, 23, 24, 25, 99, 350])
@pytest.mark.parametrize("every", [1, 4, 7])
def test_the_last_kill_point_is_found_exactly(last: int, every: int) -> None:
    points = KillPoints(every)
    seen = walk(points, last)
    assert points.last == last
    assert {last, last + 1} - {0} <= set(seen)
    assert points.walked == len(seen)
    gaps = sorted({0, *(point for point in seen if point <= last)})
    widest = 1 if PROVE else every
    assert all(after - before <= widest for before, after in pairwise(gaps))


def test_a_process_that_never_ends_is_not_walked_for_ever() -> None:
    with pytest.raises(AssertionError, match="never came to its end"):
        walk(KillPoints(7, safety=50), 1000)


@pytest.mark.skipif(PROVE, reason="everything is taken")
def test_a_spread_has_both_ends() -> None:
    assert spread(range(10), 4) == [0, 4, 8, 9]
    assert spread("abc", 9) == ["a", "c"]
    assert spread([1], 3) == [1]
    assert spread([], 3) == []
    assert examples(3, 90) == 3


def test_proving_takes_everything() -> None:
    said = subprocess.run(
        [
            sys.executable,
            "-c",
            "from tests.spread import *; print(spread(range(4), 3), examples(3, 90))",
        ],
        cwd=ROOT,
        env={"PROVE": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert said.stdout == "[0, 1, 2, 3] 90\n"
