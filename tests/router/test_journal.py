"""The journal: durable before it is answered, one fsync for many, and a full disk that heals."""

import asyncio
import errno
import os
import resource
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from licensing.license import Budget
from router.errors import StateError
from router.state.budgets import LimitExceeded, Terms
from router.state.journal import JournalBlocked
from router.state.store import State, StateFile
from tests.router.journals import DEPLOYMENT, FIRST, SECOND, TERMS, Disk, Router, copied, together
from tests.router.papers import AT, identifier
from tests.spread import examples


def test_what_was_answered_is_there_after_a_crash(router: Router) -> None:
    router.reserve("a", 100)
    router.reserve("b", 50)
    router.reserve("c", 30)
    router.settle("a", 10)
    router.settle("b", None)
    router.run(router.journal.release("c"))
    router.reserve("d", 5)
    assert (router.tally.used, router.tally.reserved, router.tally.requests) == (60, 5, 2)
    router.crash().start()
    assert (router.tally.used, router.tally.reserved, router.tally.requests) == (65, 0, 3)
    assert router.journal.state.budgets.reservations == {}


def test_only_the_current_segment_stays(router: Router) -> None:
    router.reserve("a", 100)
    for _ in range(3):
        router.crash().start()
        assert router.file.journal_segments() == [router.file.state.journal.segment]


def test_callers_that_wait_together_share_a_sync(router: Router) -> None:
    router.disk.syncs = 0
    journal = router.journal
    router.run(together(*(journal.reserve(f"r{n}", TERMS, 1, AT) for n in range(100))))
    assert router.disk.syncs <= 2
    assert router.tally.reserved == 100


def test_the_loop_runs_while_the_disk_is_slow(router: Router) -> None:
    began, ticked = threading.Event(), threading.Event()

    def slowly() -> None:
        began.set()
        assert ticked.wait(10), "the loop stood still while the disk worked"

    async def act() -> None:
        reserving = asyncio.ensure_future(router.journal.reserve("a", TERMS, 1, AT))
        while not began.is_set():  # noqa: ASYNC110 - set by another thread
            await asyncio.sleep(0)
        others = [
            asyncio.ensure_future(router.journal.reserve(f"r{n}", TERMS, 1, AT)) for n in range(9)
        ]
        await asyncio.sleep(0)
        assert not reserving.done()
        ticked.set()
        await asyncio.gather(reserving, *others)

    router.disk.syncs, router.disk.hold = 0, slowly
    router.run(act())
    assert router.disk.syncs == 2


def test_concurrent_callers_never_get_more_than_there_is(router: Router) -> None:
    journal = router.journal
    answers = router.run(together(*(journal.reserve(f"r{n}", TERMS, 300, AT) for n in range(5))))
    assert [type(each) for each in answers] == [type(None)] * 3 + [LimitExceeded] * 2
    assert router.tally.reserved == 900


def test_where_nothing_is_limited_nothing_is_written(router: Router) -> None:
    free = Terms(DEPLOYMENT)
    router.serve(free)
    before, router.disk.syncs = router.segment.read_bytes(), 0
    router.reserve("a", 5, free)
    with pytest.raises(ValueError, match="open already"):
        router.reserve("a", 5, free)
    router.settle("a", 7)
    router.reserve("b", 5, free)
    router.run(router.journal.release("b"))
    with pytest.raises(KeyError):
        router.settle("a", 7)
    assert router.segment.read_bytes() == before
    assert router.disk.syncs == 0


def test_a_cancelled_caller_leaves_nothing_reserved(router: Router) -> None:
    async def act() -> None:
        reserving = asyncio.ensure_future(router.journal.reserve("a", TERMS, 100, AT))
        await asyncio.sleep(0)
        reserving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reserving
        await router.journal.reserve("b", TERMS, 1, AT)
        await router.journal.reserve("c", TERMS, 1, AT)

    router.run(act())
    assert router.tally.reserved == 2
    router.crash().start()
    assert router.tally.used == 2


def test_a_cancelled_caller_on_a_full_disk(router: Router) -> None:
    async def act() -> None:
        reserving = asyncio.ensure_future(router.journal.reserve("a", TERMS, 100, AT))
        await asyncio.sleep(0)
        reserving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reserving
        with pytest.raises(JournalBlocked):
            await router.journal.reserve("b", TERMS, 1, AT)

    router.disk.error, router.disk.room = errno.ENOSPC, 0
    router.run(act())
    assert (router.tally.reserved, router.tally.used) == (0, 0)


def test_a_clean_stop_leaves_state_and_key_alone(router: Router) -> None:
    router.reserve("a", 100)
    router.reserve("b", 100)
    router.settle("a", 30)
    router.run(router.journal.close())
    router.run(router.journal.close())
    with pytest.raises(JournalBlocked, match="stopping"):
        router.reserve("c", 1)
    names = {each.name for each in router.path.parent.iterdir()}
    assert names == {router.path.name + suffix for suffix in ("", ".key", ".lock")}
    router.crash().start()
    assert router.tally.used == 130


def test_a_long_journal_is_folded(tmp_path: Path, runner: asyncio.Runner) -> None:
    router = Router(tmp_path / "s.json", runner, segment_bytes=1000).start()
    router.serve()
    first = router.file.state.journal.segment
    for number in range(30):
        router.reserve(f"r{number}", 10)
        if number % 2:
            router.settle(f"r{number}", 3)
        assert router.segment.stat().st_size < 2000
    assert router.file.state.journal.segment > first + 3
    assert (router.tally.used, router.tally.reserved) == (45, 150)
    router.crash().start()
    assert router.tally.used == 195
    router.crash()


def test_an_update_is_durable_with_all_that_was_counted(router: Router) -> None:
    router.reserve("a", 400)
    router.settle("a", 300)
    top_up = Terms(DEPLOYMENT, Budget(budget_id=SECOND, tokens_total=50, carry_over_from=FIRST))
    router.serve(top_up)
    assert router.file.state.budgets == router.journal.state.budgets
    stored = router.file.state.budgets.tallies
    assert (stored[FIRST].spent, stored[SECOND].carried_tokens) == (True, 700)
    router.crash().start()
    router.serve(top_up)
    assert router.journal.state.budgets.left(top_up, AT) == 750


def test_an_update_that_changes_nothing_writes_nothing(router: Router) -> None:
    before = router.file.state.journal
    router.serve()
    assert router.file.state.journal == before


def test_an_update_that_could_not_be_loaded_again_is_refused(router: Router) -> None:
    with pytest.raises(ValueError):
        router.run(router.journal.update(lambda state: state.document_seen(2**60)))
    router.reserve("a", 1)
    router.crash().start()
    assert router.tally.used == 1


def test_updates_and_reservations_at_once(router: Router) -> None:
    journal = router.journal

    def seen(at: int) -> Callable[[State], State]:
        return lambda state: state.document_seen(at)

    answers = router.run(
        together(
            *(journal.reserve(f"r{n}", TERMS, 1, AT) for n in range(5)),
            *(journal.update(seen(AT + n)) for n in range(5)),
            *(journal.reserve(f"s{n}", TERMS, 1, AT) for n in range(5)),
        )
    )
    assert not [each for each in answers if isinstance(each, Exception)]
    router.crash().start()
    assert router.tally.used == 10
    assert router.journal.state.time.doc_floor == AT + 4


# A full disk.


@pytest.mark.parametrize("room", [0, 1, 60, 200])
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_full_disk_blocks_spending_and_heals(router: Router, room: int, error: int) -> None:
    router.reserve("a", 100)
    router.disk.error, router.disk.room = error, room
    for _ in range(2):
        with pytest.raises(JournalBlocked, match="make room"):
            router.reserve("b", 10)
    assert router.journal.blocked is not None
    assert os.strerror(error) in router.journal.blocked
    # What ran is counted all the same.
    router.settle("a", 70)
    assert (router.tally.used, router.tally.reserved) == (70, 0)
    router.disk.error = None
    router.reserve("b", 10)
    assert router.journal.blocked is None
    router.crash().start()
    assert (router.tally.used, router.tally.requests) == (80, 2)


def test_a_crash_while_the_disk_is_full(router: Router) -> None:
    router.reserve("a", 100)
    router.disk.error, router.disk.room = errno.ENOSPC, 30
    router.settle("a", 70)
    with pytest.raises(JournalBlocked):
        router.reserve("b", 10)
    router.crash().start()
    assert router.tally.used == 100


def test_a_sync_that_fails_answers_nobody(router: Router) -> None:
    router.disk.sync_error = errno.EIO
    with pytest.raises(JournalBlocked):
        router.reserve("a", 100)
    router.disk.sync_error = None
    router.reserve("b", 10)
    router.crash().start()
    assert router.tally.used == 10


def test_what_was_owed_is_written_once(router: Router) -> None:
    for name in ("a", "b", "c"):
        router.reserve(name, 10)
    router.disk.error, router.disk.room = errno.ENOSPC, 0
    router.settle("a", 4)
    router.settle("b", 30)
    router.run(router.journal.release("c"))
    router.disk.error = None
    router.reserve("d", 1)
    router.reserve("e", 1)
    router.crash().start()
    assert router.tally.used == 36


@contextmanager
def no_room_beyond(size: int) -> Iterator[None]:
    """Let no file of this process grow beyond a size: EFBIG, from the kernel."""
    held = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, held[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, held)
        signal.signal(signal.SIGXFSZ, handler)


def test_the_kernel_refuses_to_let_the_journal_grow(router: Router) -> None:
    router.reserve("a", 100)
    size = router.segment.stat().st_size
    with no_room_beyond(size + 20):
        with pytest.raises(JournalBlocked, match="File too large"):
            router.reserve("b", 10)
        assert router.segment.stat().st_size == size
        with pytest.raises(JournalBlocked):
            router.serve(Terms(DEPLOYMENT, Budget(budget_id=FIRST, tokens_total=2000)))
        with pytest.raises(JournalBlocked):
            router.reserve("b", 10)
    router.reserve("b", 10)
    assert router.tally.left == 2000 - 110
    router.crash().start()
    assert router.tally.used == 110


def test_a_full_disk_at_the_start(router: Router) -> None:
    router.reserve("a", 100)
    router.crash()
    with no_room_beyond(10):
        router.start()
        assert router.journal.blocked is not None
        assert router.tally.used == 100
        with pytest.raises(JournalBlocked):
            router.reserve("b", 1)
    router.reserve("b", 1)
    assert router.journal.blocked is None
    router.crash().start()
    assert router.tally.used == 101


def test_a_full_disk_at_the_first_boot(tmp_path: Path) -> None:
    path = tmp_path / "license-state.json"
    with no_room_beyond(10), pytest.raises(StateError, match="File too large"):
        StateFile(path).open()
    with StateFile(path) as file:
        assert file.open() == State()


def test_a_full_disk_at_the_stop(router: Router) -> None:
    router.reserve("a", 100)
    router.settle("a", 10)
    with no_room_beyond(10):
        router.run(router.journal.close())
    router.crash().start()
    assert router.tally.used == 10


@pytest.mark.parametrize("call", ["replace", "fsync", "open"])
def test_a_checkpoint_that_fails_anywhere(
    router: Router, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """Also after the rename, when it is not known which state a power loss would leave."""
    router.reserve("a", 100)
    real, tokens = getattr(os, call), 1
    for failing in range(1, 12):
        left = iter(range(failing - 1))

        def fail(*arguments: Any, left: Iterator[int] = left, **named: Any) -> Any:
            value = real(*arguments, **named)
            if next(left, None) is None:
                if call == "open":
                    os.close(value)
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return value

        tokens += 1
        terms = Terms(DEPLOYMENT, Budget(budget_id=FIRST, tokens_total=1000 + tokens))
        with monkeypatch.context() as patch:
            patch.setattr(os, call, fail)
            try:
                router.serve(terms)
            except JournalBlocked:
                with pytest.raises(JournalBlocked):
                    router.reserve("b", 1)
        copy = copied(router.path, router.path.parent / f"copy-{failing}")
        other = Router(copy, router.runner).start()
        assert other.tally.used == 100
        other.crash()
        router.reserve(f"r{failing}", 0)
        router.run(router.journal.release(f"r{failing}"))
        assert router.tally.limit == 1000 + tokens
    router.crash().start()
    assert router.tally.used == 100


class Machine(RuleBasedStateMachine):
    """Random lives of a router beside a model that only adds."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.disk = Disk()
        self.used = {0: 0}
        self.open: dict[str, tuple[int, int]] = {}
        """Tokens and budget, by reservation id."""
        self.limit = {0: 500}
        self.carried = {0: 0}
        self.spent: set[int] = set()
        self.budget = 0
        self.names = 0
        self.highest: dict[str, int] = {}

    @initialize(segment_bytes=st.sampled_from([200, 1000, 100_000]))
    def boot(self, segment_bytes: int) -> None:
        self.directory = tempfile.TemporaryDirectory()
        path = Path(self.directory.name) / "license-state.json"
        self.router = Router(path, self.runner, self.disk, segment_bytes).start()
        self.router.serve(self.terms)

    @property
    def terms(self) -> Terms:
        """What serves now."""
        return self.terms_of(self.budget)

    def terms_of(self, budget: int) -> Terms:
        """Each budget continues the one before."""
        return Terms(
            DEPLOYMENT,
            Budget(
                budget_id=identifier("bud", budget),
                tokens_total=self.limit[budget],
                carry_over_from=identifier("bud", budget - 1) if budget else None,
            ),
            tokens_per_window=10**9,
            window_s=3600,
        )

    def left(self, budget: int) -> int:
        """What the model has left."""
        reserved = sum(tokens for tokens, of in self.open.values() if of == budget)
        return max(0, self.limit[budget] + self.carried[budget] - self.used[budget] - reserved)

    @rule(tokens=st.integers(0, 200), count=st.integers(1, 4))
    def reserve(self, tokens: int, count: int) -> None:
        names = [f"r{self.names + each}" for each in range(count)]
        self.names += count
        journal = self.router.journal
        answers = self.runner.run(
            together(*(journal.reserve(name, self.terms, tokens, AT) for name in names))
        )
        for name, answer in zip(names, answers, strict=True):
            if self.left(self.budget) < tokens:
                assert isinstance(answer, LimitExceeded)
            elif answer is None:
                self.open[name] = (tokens, self.budget)
            else:
                assert self.disk.error is not None
                assert isinstance(answer, JournalBlocked | LimitExceeded)

    @precondition(lambda self: self.open)
    @rule(data=st.data(), tokens=st.one_of(st.none(), st.integers(0, 300)))
    def settle(self, data: st.DataObject, tokens: int | None) -> None:
        name = data.draw(st.sampled_from(sorted(self.open)))
        reserved, budget = self.open.pop(name)
        self.router.settle(name, tokens)
        self.used[budget] += reserved if tokens is None else tokens

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.open)))
        del self.open[name]
        self.runner.run(self.router.journal.release(name))

    @precondition(lambda self: self.disk.error is None)
    @rule()
    def checkpoint(self) -> None:
        self.checkpoint_now()

    def checkpoint_now(self) -> None:
        """Fold the journal."""
        floor = self.router.journal.state.time.doc_floor + 1
        self.runner.run(self.router.journal.update(lambda state: state.document_seen(floor)))

    @precondition(lambda self: self.disk.error is None)
    @rule(more=st.integers(-50, 50))
    def replace(self, more: int) -> None:
        """The same budget under a corrected license."""
        self.limit[self.budget] = max(0, self.limit[self.budget] + more)
        self.router.serve(self.terms)

    @precondition(lambda self: self.disk.error is None)
    @rule(tokens=st.integers(0, 500))
    def top_up(self, tokens: int) -> None:
        rest = self.left(self.budget)
        self.spent.add(self.budget)
        self.budget += 1
        self.limit[self.budget], self.used[self.budget] = tokens, 0
        self.carried[self.budget] = rest
        self.router.serve(self.terms)

    @precondition(lambda self: self.budget > 0 and self.disk.error is None)
    @rule()
    def go_back(self) -> None:
        """The license before serves again, and then the current one: nothing is won."""
        self.router.serve(self.terms_of(self.budget - 1))
        assert self.router.journal.state.budgets.left(self.terms_of(self.budget - 1), AT) == 0
        self.router.serve(self.terms)

    @precondition(lambda self: self.disk.error is None)
    @rule(torn=st.binary(max_size=30).filter(lambda data: b"\n" not in data))
    def crash(self, torn: bytes) -> None:
        self.router.crash()
        with self.router.segment.open("ab") as segment:
            segment.write(torn)
        self._restart()

    @precondition(lambda self: self.disk.error is None)
    @rule()
    def stop(self) -> None:
        self.runner.run(self.router.journal.close())
        self.router.crash()
        self._restart()

    @rule(room=st.integers(0, 300))
    def fill_the_disk(self, room: int) -> None:
        self.disk.error, self.disk.room = errno.ENOSPC, room

    @rule()
    def make_room(self) -> None:
        """There is room again; the next commit brings what was owed."""
        self.disk.error = None
        self.checkpoint_now()

    def _restart(self) -> None:
        for tokens, budget in self.open.values():
            self.used[budget] += tokens
        self.open.clear()
        self.router.start()
        self.router.serve(self.terms)

    @invariant()
    def the_model_agrees(self) -> None:
        if not hasattr(self, "router"):
            return
        budgets = self.router.journal.state.budgets
        assert set(budgets.reservations) == set(self.open)
        for number, used in self.used.items():
            tally = budgets.tallies[identifier("bud", number)]
            assert tally.used == used
            assert tally.used >= self.highest.get(str(number), 0), "used fell"
            self.highest[str(number)] = tally.used
            assert tally.carried_tokens == self.carried[number]
            assert tally.spent == (number in self.spent)
            if number == self.budget:
                assert tally.left == self.left(number)
        everything = sum(self.used.values()) + sum(tokens for tokens, _ in self.open.values())
        assert budgets.windows[DEPLOYMENT].used(AT) == everything

    def teardown(self) -> None:
        if hasattr(self, "router"):
            self.router.crash()
            self.directory.cleanup()
        self.runner.close()


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=examples(25, 150), stateful_step_count=25)
