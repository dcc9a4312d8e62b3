"""Kill -9 at every write of state and journal: it loads, and what was answered is counted.

A child lives the life of a router and dies before or after its nth system call. It tells through a
pipe which steps were answered. Whatever stands then must load, and hold at least what was answered
and at most what was asked for.
"""

import asyncio
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from licensing.license import Budget
from router.state.budgets import Tally, Terms
from router.state.journal import Journal
from router.state.store import StateFile, StateInvalid
from tests.router.papers import AT, identifier
from tests.router.test_legacy import unsigned
from tests.spread import KillPoints

pytestmark = pytest.mark.slow

CALLS = ("open", "fsync", "replace", "pwrite", "ftruncate", "unlink", "mkdir")
"""The system calls every durable write is made of."""
SAFETY = 400
FIRST, SECOND = identifier("bud", 1), identifier("bud", 2)
OLD = Terms(identifier("dep", 1), Budget(budget_id=FIRST, tokens_total=1000))
NEW = Terms(
    identifier("dep", 1),
    Budget(budget_id=SECOND, tokens_total=500, carry_over_from=FIRST),
)
Tell = Callable[[], object]
SUFFIXES = ("", ".key", ".lock")


def killed_at(point: int, act: Callable[[Tell], object]) -> tuple[bool, int]:
    """Act in a child that dies at its nth point; say whether it died there, and what it told."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            left = iter(range(point - 1))

            def reach() -> None:
                if next(left, None) is None:
                    os.kill(os.getpid(), signal.SIGKILL)

            def watched(call: Callable[..., Any]) -> Callable[..., Any]:
                def run(*arguments: Any, **named: Any) -> Any:
                    reach()
                    value = call(*arguments, **named)
                    reach()
                    return value

                return run

            for name in CALLS:
                setattr(os, name, watched(getattr(os, name)))
            act(lambda: os.write(writing, b"x"))
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        told = len(pipe.read())
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, told


def in_halves(descriptor: int, data: bytes, offset: int) -> int:
    """Write half of it, so that a process can die in the middle of a line."""
    return os.pwrite(descriptor, data[: (len(data) + 1) // 2], offset)


def sync(descriptor: int) -> None:
    """Sync by the call that is watched."""
    os.fsync(descriptor)


def live(path: Path, tell: Tell, *, migrate: bool = False) -> None:
    """Boot, serve, spend, fold, top up, stop; tell after each answer."""

    async def run() -> None:
        with StateFile(path) as file:
            file.open(migrate=migrate)
            journal = Journal.open(file, AT, segment_bytes=600, write=in_halves, sync=sync)
            tell()
            await journal.update(lambda state: state.serving(OLD, 1, AT))
            tell()
            await journal.reserve("a", OLD, 100, AT)
            tell()
            await journal.settle("a", 70, AT)
            tell()
            await journal.reserve("b", OLD, 30, AT)
            tell()
            await journal.reserve("c", OLD, 10, AT)
            tell()
            await journal.release("c")
            tell()
            await journal.update(lambda state: state.serving(NEW, 2, AT))
            tell()
            await journal.reserve("d", NEW, 200, AT)
            tell()
            await journal.settle("d", 150, AT)
            tell()
            await journal.close()
            tell()

    asyncio.run(run())


BOOTED, SERVED, RESERVED_A, SETTLED_A, RESERVED_B, RESERVED_C, RELEASED_C, TOPPED_UP, RESERVED_D = (
    range(1, 10)
)
SETTLED_D = 10


def check(state_path: Path, told: int) -> None:
    """Load after a death, and compare with what was answered and what was asked."""
    with StateFile(state_path) as file:
        file.open()
        journal = Journal.open(file, AT)
        budgets = journal.state.budgets
        none = Tally(limit=0)
        old, new = budgets.tallies.get(FIRST, none), budgets.tallies.get(SECOND, none)
        assert budgets.reservations == {}
        # "a" counts 100 until 70 were settled; "b" stays open; "c" counts until it was released.
        least, most = {
            BOOTED: (0, 0),
            SERVED: (0, 100),
            RESERVED_A: (70, 100),
            SETTLED_A: (70, 100),
            RESERVED_B: (100, 110),
            RESERVED_C: (100, 110),
        }.get(told, (100, 100) if told else (0, 0))
        assert least <= old.used <= most
        if told >= TOPPED_UP or new.saw_serving:
            assert (old.spent, new.carried_tokens, new.carried_over_from) == (True, 900, FIRST)
        else:
            assert not old.spent
        at_least = {RESERVED_D: 150, SETTLED_D: 150}.get(told, 150 if told > SETTLED_D else 0)
        assert at_least <= new.used <= (200 if told >= TOPPED_UP - 1 else 0)
        if told >= SETTLED_D:
            assert new.used == 150
        # Nothing is carried twice, and nothing is lost.
        asyncio.run(_serve_again(journal, old))
    assert {each.name for each in state_path.parent.iterdir()} == {
        state_path.name + suffix for suffix in SUFFIXES
    }


async def _serve_again(journal: Journal, old: Tally) -> None:
    for terms, revision in ((OLD, 1), (NEW, 2), (OLD, 1), (NEW, 2)):
        await journal.update(lambda state, t=terms, r=revision: state.serving(t, r, AT))  # type: ignore[misc]
    tallies = journal.state.budgets.tallies
    assert tallies[SECOND].carried_tokens == 1000 - old.used
    assert tallies[FIRST].left == 0
    assert tallies[SECOND].left == 500 + 1000 - old.used - tallies[SECOND].used
    await journal.close()


@pytest.mark.asvs("2.3.3")
def test_a_router_killed_anywhere_in_its_life(tmp_path: Path) -> None:
    points = KillPoints(every=4)
    for point in points:
        path = tmp_path / f"{point}" / "license-state.json"
        points.died, told = killed_at(point, lambda tell, path=path: live(path, tell))  # type: ignore[misc]
        check(path, told)
        shutil.rmtree(path.parent)
        if not points.died:
            assert told == 11
    assert points.last > 100, "the writes were not reached"


@pytest.mark.asvs("2.3.3")
def test_a_router_killed_again_while_it_recovers(tmp_path: Path) -> None:
    for last in range(100, SAFETY, 4):
        path = tmp_path / f"life-{last}" / "license-state.json"
        died, told = killed_at(last, lambda tell, path=path: live(path, tell))  # type: ignore[misc]
        if told >= RESERVED_B:
            break
    assert died
    assert told < SETTLED_D

    def recover(again: Path) -> None:
        with StateFile(again) as file:
            file.open()
            Journal.open(file, AT, write=in_halves, sync=sync)

    points = KillPoints(every=3)
    for point in points:
        again = tmp_path / f"{point}" / path.name
        shutil.copytree(path.parent, again.parent)
        points.died, _ = killed_at(point, lambda _, again=again: recover(again))  # type: ignore[misc]
        check(again, told)
        shutil.rmtree(again.parent)
    assert points.last > 15, "the writes were not reached"


def test_a_router_killed_while_it_imports(tmp_path: Path) -> None:
    """Before the signed state stands the import begins again; after it the flag is refused."""
    imported, refused = 0, 0
    points = KillPoints(every=2)
    for point in points:
        path = tmp_path / f"{point}" / "license-state.json"
        path.parent.mkdir()
        path.write_bytes(unsigned())

        def boot(tell: Tell, path: Path = path) -> None:
            with StateFile(path) as file:
                file.open(migrate=True)

        points.died, _ = killed_at(point, boot)
        signed = b"hmac" in path.read_bytes()
        with StateFile(path) as file:
            if signed:
                with pytest.raises(StateInvalid, match="without the flag"):
                    file.open(migrate=True)
                refused += 1
            else:
                imported += 1
            assert file.open(migrate=not signed).budgets.tallies[FIRST].used == 42
    assert imported > 5
    assert refused > 3


def test_each_file_of_a_first_boot_that_is_taken_away_is_missed(tmp_path: Path) -> None:
    """What a crash can leave loads; what only a person can leave does not."""
    path = tmp_path / "license-state.json"
    live(path, lambda: None)
    for name in (path.name, path.name + ".key"):
        held = (tmp_path / name).read_bytes()
        (tmp_path / name).unlink()
        with StateFile(path) as file, pytest.raises(StateInvalid):
            file.open()
        (tmp_path / name).write_bytes(held)
        (tmp_path / name).chmod(0o600)
    check(path, 11)
