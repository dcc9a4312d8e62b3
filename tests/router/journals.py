"""A journal on a disk that can be filled, slowed and lost, and the process that uses it."""

import asyncio
import os
import shutil
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from licensing.license import Budget
from router.state.budgets import Tally, Terms
from router.state.journal import Journal
from router.state.store import StateFile
from tests.router.papers import AT, identifier

DEPLOYMENT = identifier("dep", 1)
FIRST, SECOND = identifier("bud", 1), identifier("bud", 2)
TERMS = Terms(DEPLOYMENT, Budget(budget_id=FIRST, tokens_total=1000))
T = TypeVar("T")


@dataclass
class Disk:
    """The seam to the disk: counts, and fails where it is told to."""

    error: int | None = None
    room: int = 1 << 40
    """Bytes that still fit while `error` is set."""
    syncs: int = 0
    sync_error: int | None = None
    hold: Callable[[], None] = lambda: None
    """What a sync waits for."""

    def write(self, descriptor: int, data: bytes, offset: int) -> int:
        if self.error is None:
            return os.pwrite(descriptor, data, offset)
        if self.room == 0:
            raise OSError(self.error, os.strerror(self.error))
        fits = data[: self.room]
        self.room -= len(fits)
        return os.pwrite(descriptor, fits, offset)

    def sync(self, descriptor: int) -> None:
        self.syncs += 1
        self.hold()
        if self.sync_error is not None:
            raise OSError(self.sync_error, os.strerror(self.sync_error))


@dataclass
class Router:
    """A state file with its journal, on a loop that goes on between calls."""

    path: Path
    runner: asyncio.Runner
    disk: Disk = field(default_factory=Disk)
    segment_bytes: int = 1 << 20
    file: StateFile = field(init=False)
    journal: Journal = field(init=False)

    def start(self, at: int = AT) -> "Router":
        """Open state and journal."""
        self.file = StateFile(self.path)
        self.file.open()
        self.journal = Journal.open(
            self.file,
            at,
            segment_bytes=self.segment_bytes,
            write=self.disk.write,
            sync=self.disk.sync,
        )
        return self

    def crash(self) -> "Router":
        """Go away without a word; only the lock is let go, as the kernel does."""
        self.file.close()
        return self

    def run(self, act: Coroutine[Any, Any, T]) -> T:
        """Run until it is done."""
        return self.runner.run(act)

    def serve(self, terms: Terms = TERMS) -> None:
        """Serve under these terms."""
        self.run(self.journal.update(lambda state: state.serving(terms, 1, AT)))

    def reserve(self, name: str, tokens: int, terms: Terms = TERMS) -> None:
        """Reserve."""
        self.run(self.journal.reserve(name, terms, tokens, AT))

    def settle(self, name: str, tokens: int | None) -> None:
        """Settle."""
        self.run(self.journal.settle(name, tokens, AT))

    @property
    def tally(self) -> Tally:
        """The first budget's counters."""
        return self.journal.state.budgets.tallies[FIRST]

    @property
    def segment(self) -> Path:
        """The journal's file."""
        return self.file.journal_path(self.file.journal_segments()[-1])


async def together(*acts: Coroutine[Any, Any, Any]) -> list[Any]:
    """Run at the same time; return values and errors."""
    return await asyncio.gather(*acts, return_exceptions=True)


def copied(path: Path, to: Path) -> Path:
    """Copy a state with everything beside it; return where it is now."""
    to.mkdir()
    for each in path.parent.iterdir():
        if each.is_file():
            shutil.copy(each, to)
    return to / path.name
