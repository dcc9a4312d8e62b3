"""A journal that was torn by a crash, altered, or taken from another history."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from router.state.store import StateInvalid
from tests.router.journals import Router, copied

# Torn and altered.


def test_a_torn_tail_is_cut_at_the_last_whole_commit(router: Router, tmp_path: Path) -> None:
    for number in range(3):
        router.reserve(f"r{number}", 10**number)
    router.crash()
    source, segment = router.path, router.segment
    whole = segment.read_bytes()
    ends = [index + 1 for index, byte in enumerate(whole) if byte == 10]
    assert len(ends) == 4
    sizes = {end + step for end in ends for step in (-70, -20, -1, 0, 1, 30)}
    for size in sorted(size for size in sizes if ends[0] <= size <= len(whole)):
        router.path = copied(source, tmp_path / f"cut-{size}")
        router.path.with_name(segment.name).write_bytes(whole[:size])
        router.start()
        commits = sum(end <= size for end in ends) - 1
        assert router.tally.used == sum(10**each for each in range(commits))
        router.crash()


def test_a_power_loss_may_keep_the_end_of_a_commit(router: Router) -> None:
    router.reserve("a", 10)
    router.reserve("b", 100)
    router.crash()
    data = router.segment.read_bytes()
    last = data.rindex(b"\n", 0, -1) + 1
    router.segment.write_bytes(data[:last] + bytes(40) + data[last + 40 :])
    router.start()
    assert router.tally.used == 10


def _flip_in_line(data: bytes, line: int) -> bytes:
    lines = data.split(b"\n")
    lines[line] = lines[line].replace(b'"tokens":10', b'"tokens":1')
    return b"\n".join(lines)


def _without_line(data: bytes, line: int) -> bytes:
    lines = data.split(b"\n")
    del lines[line]
    return b"\n".join(lines)


def _swapped(data: bytes) -> bytes:
    lines = data.split(b"\n")
    lines[1], lines[2] = lines[2], lines[1]
    return b"\n".join(lines)


def _repeated(data: bytes) -> bytes:
    lines = data.split(b"\n")
    return b"\n".join([*lines[:2], *lines[1:]])


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (lambda data: _flip_in_line(data, 1), "altered in line 2"),
        (lambda data: _flip_in_line(data, 2), "altered in line 3"),
        (lambda data: _flip_in_line(data, 3), "altered in line 4"),
        (lambda data: _without_line(data, 0), "altered in line 1"),
        (lambda data: _without_line(data, 1), "altered in line 2"),
        (lambda data: _without_line(data, 2), "altered in line 3"),
        (_swapped, "altered in line 2"),
        (_repeated, "altered in line 3"),
        (lambda data: b"", "lost its first line"),
        (lambda data: data[:20], "lost its first line"),
        (lambda data: data[:200] + bytes(50) + data[250:], "altered in line"),
        (lambda data: b"\n" + data, "altered in line 1"),
        (lambda data: data + b"[] \n", "altered in line 5"),
        (lambda data: None, "without its journal"),
    ],
)
def test_a_chain_that_is_broken(
    router: Router, harm: Callable[[bytes], bytes | None], says: str
) -> None:
    for name in ("a", "b", "c"):
        router.reserve(name, 10)
    router.crash()
    segment = router.segment
    good = segment.read_bytes()
    bad = harm(good)
    if bad is None:
        segment.unlink()
    else:
        segment.write_bytes(bad)
    for _ in range(2):
        with pytest.raises(StateInvalid, match=says) as refused:
            router.start()
        router.crash()
    assert "Restore a trusted backup" in refused.value.message
    segment.write_bytes(good)
    router.start()
    assert router.tally.used == 30


def test_a_journal_of_another_moment(router: Router, tmp_path: Path) -> None:
    router.reserve("a", 10)
    router.crash()
    old = copied(router.path, tmp_path / "old")
    router.start()
    router.reserve("b", 10)
    router.crash()
    # Only the state file of the backup, beside the newer journal.
    shutil.copy(old, router.path)
    with pytest.raises(StateInvalid, match="is older than its journal"):
        router.start()
    router.crash()
    # All of the backup, beside it.
    for each in old.parent.iterdir():
        shutil.copy(each, router.path.parent)
    with pytest.raises(StateInvalid, match="is older than its journal"):
        router.start()
    router.crash()
    # The way back.
    for each in router.path.parent.glob("*.journal-*"):
        each.unlink()
    for each in old.parent.iterdir():
        shutil.copy(each, router.path.parent)
    router.start()
    assert router.tally.used == 10


def test_a_journal_of_another_history(router: Router, tmp_path: Path) -> None:
    router.crash()
    fork = copied(router.path, tmp_path / "fork")
    router.start()
    segment = router.segment
    router.crash()
    other = Router(fork, router.runner).start()
    assert other.segment.name == segment.name
    other.crash()
    shutil.copy(other.segment, segment)
    with pytest.raises(StateInvalid, match="does not go on with its journal"):
        router.start()


def test_a_first_line_of_a_checkpoint_that_never_was(router: Router) -> None:
    router.reserve("a", 10)
    router.crash()
    (segment,) = router.file.journal_segments()
    router.file.journal_path(segment + 1).write_bytes(b"a first line\n")
    router.start()
    assert router.tally.used == 10
