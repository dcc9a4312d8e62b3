"""How much of a large matrix a run takes: a fixed spread of it, or with PROVE=1 all of it.

`make test` takes the spread, `make prove` everything.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

PROVE: Final = os.environ.get("PROVE") == "1"

T = TypeVar("T")


def spread(cases: Sequence[T], every: int) -> list[T]:
    """Return the first case, every nth after it, and the last; with PROVE=1 all."""
    if PROVE:
        return list(cases)
    return [*cases[:-1:every], *cases[-1:]]


def examples(few: int, many: int) -> int:
    """Return how many examples a property is tried with."""
    return many if PROVE else few


@dataclass
class KillPoints:
    """The points at which a process is to die, from the first to the one it no longer reaches.

    Whoever walks them says of each whether the process died there. With PROVE=1 that is every
    point. Otherwise it is the first few, every nth, and around the end as many as it takes to find
    the last one exactly.
    """

    every: int
    safety: int = 400
    died: bool = True
    last: int = 0
    """The last point at which it died."""
    walked: int = 0
    """How many points were tried."""

    FIRST = 4

    def __iter__(self) -> Iterator[int]:
        point, survived = 1, None
        while survived is None or survived - self.last > 1:
            assert point < self.safety, "the process never came to its end"
            self.walked += 1
            yield point
            if self.died:
                self.last = point
            else:
                survived = point
            if survived is not None:
                point = (self.last + survived) // 2
            else:
                point += 1 if PROVE or point < self.FIRST else self.every
