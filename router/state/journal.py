"""Every reservation on disk before its tokens are spent: an append-only journal beside the state.

    journal = Journal.open(file, at=now)             # replays; what was open counts as spent
    await journal.update(lambda state: state.serving(terms, revision, now))
    await journal.reserve(request_id, terms, tokens, now)    # returns when it is durable
    await journal.settle(request_id, used, now)              # None: usage unknown, the reservation
    await journal.release(request_id)                        # the upstream was never reached
    journal.state                                    # the present state, counters included
    journal.blocked                                  # why nothing can be spent, or None
    await journal.close()

One event loop uses a journal; files are written on a thread of its own. Callers that wait together
share one fsync. Where the terms limit nothing, nothing is written.

A segment is a file of lines, each `<JSON> <HMAC>`: the HMAC covers the HMAC before it and the JSON,
so that a line can only stand where it was written. The first line names the segment, each other
holds the records of one commit. The state file names the segment it goes on with and the HMAC of
its first line:

    checkpoint: write segment N+1 with its first line, replace the state (which folds segment N and
    names N+1), remove segment N. A crash leaves N with the old state, or N+1 with the new one.

Invariants: a commit follows only a commit that is durable, hence only the last line can be torn,
and a torn line was never answered for: it is cut. Any other line that does not fit is
`StateInvalid`. After a failed write nothing is appended before the end of the file is where it was;
after a failed checkpoint nothing is appended before one succeeds. So a full disk blocks spending,
loses nothing, and heals by itself: the next reservation tries again. What a request really used is
counted at once, and written as soon as the disk permits; after a crash before that, the reservation
counts.

What the chain cannot notice: whole lines cut off the end. See `store.py` for what is beyond
the HMAC.
"""

import asyncio
import contextlib
import hmac
import os
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import msgspec

from router.errors import RouterError
from router.files import write_atomically
from router.state.budgets import Budgets, Reservation, Terms
from router.state.store import Head, State, StateFile, invalid, require_storable

SEGMENT_BYTES: Final = 1024 * 1024
"""A segment that grew beyond this is folded into the state."""
_PURPOSE: Final = b"license-journal.v1\n"
_TAG_BYTES: Final = 64


class JournalBlocked(RouterError):
    """The disk does not take what must be durable: nothing new can be spent, nothing is lost."""

    code = "state-not-durable"


class _Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="act"):
    """What happened to a reservation."""

    id: str


class _Reserve(_Record, frozen=True, tag="reserve"):
    reservation: Reservation

    def apply(self, budgets: Budgets) -> Budgets:
        return budgets.hold(self.id, self.reservation)


class _Settle(_Record, frozen=True, tag="settle"):
    tokens: int
    at: int

    def apply(self, budgets: Budgets) -> Budgets:
        return budgets.settle(self.id, self.tokens, self.at)


class _Release(_Record, frozen=True, tag="release"):
    def apply(self, budgets: Budgets) -> Budgets:
        return budgets.release(self.id)


_Act = _Reserve | _Settle | _Release


class _FirstLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    segment: int
    nonce: str
    """Tells this segment from another of its number, before a backup was restored."""


@dataclass
class _Waiting:
    """A record on its way to the disk, and who waits for it."""

    act: _Act
    durable: asyncio.Future[None] | None


class Journal:
    """The state of a serving router, and the records that make its changes durable.

    `write` and `sync` are the seams to the disk for records; `segment_bytes` is when a segment is
    folded.
    """

    def __init__(
        self,
        file: StateFile,
        state: State,
        *,
        segment_bytes: int = SEGMENT_BYTES,
        write: Callable[[int, bytes, int], int] = os.pwrite,
        sync: Callable[[int], None] = os.fsync,
    ) -> None:
        self._file = file
        self._state = state
        self._segment_bytes = segment_bytes
        self._pwrite = write
        self._fsync = sync
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="license-journal")
        self._descriptor: int | None = None
        self._tag = ""
        """Of the last durable line."""
        self._size = 0
        """Bytes of durable lines."""
        self._torn = False
        """Something may stand after the durable lines."""
        self._nonce = secrets.token_hex(8)
        """Of the next segment."""
        self._unsaved = True
        """The state has changes that no record tells; until a checkpoint, nothing is appended."""
        self._waiting: list[_Waiting] = []
        self._owed: list[_Waiting] = []
        """Settled and released while the disk was full."""
        self._updates: list[asyncio.Future[None]] = []
        self._uncounted: set[str] = set()
        self._failure: OSError | None = None
        self._working: asyncio.Task[None] | None = None
        self._closed = False

    @classmethod
    def open(
        cls,
        file: StateFile,
        at: int,
        *,
        segment_bytes: int = SEGMENT_BYTES,
        write: Callable[[int, bytes, int], int] = os.pwrite,
        sync: Callable[[int], None] = os.fsync,
    ) -> "Journal":
        """Replay what is beside an open state file; reservations left open count as spent at `at`.

        On a full disk the journal opens blocked: see `blocked`.

        Raises:
            StateInvalid: the journal was altered, or is not this state's.
        """
        budgets = _replay(file).spend_open(at)
        state = msgspec.structs.replace(file.state, budgets=budgets)
        journal = cls(file, state, segment_bytes=segment_bytes, write=write, sync=sync)
        try:
            journal._write_checkpoint(state)
        except OSError as error:
            journal._failure = error
        else:
            journal._unsaved = False
            journal._saved()
        return journal

    @property
    def state(self) -> State:
        """The present state, with everything that was counted."""
        return self._state

    @property
    def blocked(self) -> str | None:
        """Why nothing can be spent now; None while the disk takes everything."""
        if self._failure is None:
            return None
        return (
            f"the license state {self._file.path} cannot be written "
            f"({self._failure.strerror}): make room on its disk"
        )

    async def reserve(self, reservation_id: str, terms: Terms, tokens: int, at: int) -> None:
        """Promise tokens to a request; returns when that is durable.

        A caller that is cancelled meanwhile leaves nothing reserved.

        Raises:
            LimitExceeded: less is left; nothing was reserved.
            JournalBlocked: the disk is full; nothing was reserved.
            ValueError: the terms never served, or the id is open already.
        """
        self._require_open()
        if not terms.limited:
            if reservation_id in self._uncounted:
                raise ValueError(f"the reservation {reservation_id} is open already")
            self._uncounted.add(reservation_id)
            return
        self._change(self._state.budgets.reserve(reservation_id, terms, tokens, at))
        act = _Reserve(reservation_id, self._state.budgets.reservations[reservation_id])
        durable = self._write(act)
        try:
            await asyncio.shield(durable)
        except asyncio.CancelledError:
            durable.add_done_callback(lambda done: self._abandon(reservation_id, done))
            raise

    async def settle(self, reservation_id: str, tokens: int | None, at: int) -> None:
        """Count what a request really used; None counts the reservation.

        It counts at once. Returns when it is durable, or when the disk is full: then it is written
        before anything else is spent.

        Raises:
            KeyError: no such reservation is open.
        """
        self._require_open()
        if reservation_id in self._uncounted:
            self._uncounted.remove(reservation_id)
            return
        used = self._state.budgets.reservations[reservation_id].tokens if tokens is None else tokens
        self._change(self._state.budgets.settle(reservation_id, used, at))
        await asyncio.shield(self._write(_Settle(reservation_id, used, at)))

    async def release(self, reservation_id: str) -> None:
        """Give back a reservation whose request never reached the upstream.

        Raises:
            KeyError: no such reservation is open.
        """
        self._require_open()
        if reservation_id in self._uncounted:
            self._uncounted.remove(reservation_id)
            return
        self._change(self._state.budgets.release(reservation_id))
        await asyncio.shield(self._write(_Release(reservation_id)))

    async def update(self, transition: Callable[[State], State]) -> State:
        """Change the state; returns it when it is durable. No change writes nothing.

        Raises:
            JournalBlocked: the disk is full. The change holds in this process, nothing is spent
                until it is durable, and the next reservation or update tries again.
            ValueError: the transition made a state that could not be loaded again.
        """
        self._require_open()
        changed = transition(self._state)
        if changed == self._state and not self._unsaved:
            return changed
        require_storable(changed)
        self._state = changed
        await self._checkpoint()
        return changed

    async def close(self) -> None:
        """Fold everything into the state, so that state and key alone are a whole backup.

        On a full disk what is durable stays as it is. The state file stays open.
        """
        if self._closed:
            return
        self._closed = True
        while self._working is not None:
            await self._working
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):
            await loop.run_in_executor(self._pool, self._write_last_state, self._state)
        self._pool.shutdown()
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _require_open(self) -> None:
        if self._closed:
            raise JournalBlocked("the router is stopping")

    def _change(self, budgets: Budgets) -> None:
        self._state = msgspec.structs.replace(self._state, budgets=budgets)

    def _abandon(self, reservation_id: str, reserved: asyncio.Future[None]) -> None:
        """Nobody waits for this reservation any more."""
        if reserved.cancelled() or reserved.exception() is not None or self._closed:
            return
        self._change(self._state.budgets.release(reservation_id))
        self._write(_Release(reservation_id))

    def _write(self, act: _Act) -> asyncio.Future[None]:
        durable = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(act, durable))
        self._work()
        return durable

    async def _checkpoint(self) -> None:
        self._unsaved = True
        durable = asyncio.get_running_loop().create_future()
        self._updates.append(durable)
        self._work()
        await asyncio.shield(durable)

    def _work(self) -> None:
        if self._working is None:
            self._working = asyncio.get_running_loop().create_task(self._commit_all())

    async def _commit_all(self) -> None:
        """Commit what waits, together, until nothing waits."""
        try:
            while self._waiting or self._updates:
                group, self._waiting = [*self._owed, *self._waiting], []
                updates, self._updates = self._updates, []
                self._owed = []
                try:
                    await self._commit(group)
                except OSError as error:
                    self._failed(error, group, updates)
                except BaseException:
                    # The loop ends, or a mistake of ours: what is on the disk is not known.
                    self._unsaved = True
                    for waiting in (*(each.durable for each in group), *updates):
                        if waiting is not None:
                            waiting.cancel()
                    raise
                else:
                    self._failure = None
                    _answer([*(each.durable for each in group), *updates])
        finally:
            self._working = None

    async def _commit(self, group: list[_Waiting]) -> None:
        """Make the group durable, and the state where it has changes that no record tells.

        Raises:
            OSError: it may be on the disk in part, after what is durable.
        """
        loop = asyncio.get_running_loop()
        if self._unsaved or self._size > self._segment_bytes:
            # What is in the group is in the state already. An update may come meanwhile.
            self._unsaved = False
            try:
                await loop.run_in_executor(self._pool, self._write_checkpoint, self._state)
            except OSError:
                self._unsaved = True
                raise
            self._saved()
        else:
            line, tag = self._line(msgspec.json.encode([each.act for each in group]), self._tag)
            await loop.run_in_executor(self._pool, self._append, line)
            self._tag = tag
            self._size += len(line)

    def _failed(
        self, error: OSError, group: list[_Waiting], updates: list[asyncio.Future[None]]
    ) -> None:
        """Undo reservations; keep what was settled for the next commit."""
        self._failure = error
        assert self.blocked is not None
        for each in group:
            if isinstance(each.act, _Reserve):
                self._change(self._state.budgets.release(each.act.id))
                _refuse(each.durable, JournalBlocked(self.blocked))
            else:
                _answer([each.durable])
                self._owed.append(_Waiting(each.act, None))
        for update in updates:
            _refuse(update, JournalBlocked(self.blocked))

    def _saved(self) -> None:
        """After a checkpoint: the state in memory goes on from the new segment."""
        self._state = msgspec.structs.replace(self._state, journal=self._file.state.journal)

    # On the journal's thread.

    def _append(self, line: bytes) -> None:
        """Write a line after what is durable.

        Raises:
            OSError: nothing of it counts.
        """
        assert self._descriptor is not None
        if self._torn:
            os.ftruncate(self._descriptor, self._size)
        self._torn = True
        try:
            done = 0
            while done < len(line):
                done += self._pwrite(self._descriptor, line[done:], self._size + done)
            self._fsync(self._descriptor)
            self._torn = False
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, self._size)
            raise

    def _write_checkpoint(self, state: State) -> None:
        """Write the state with a new, empty segment.

        Raises:
            OSError: the old or the new state stands, each with its segment.
        """
        held = self._file.state.journal.segment
        segment = held + 1
        # A second attempt writes the same line: the first may have put the state in place.
        line, tag = self._line(msgspec.json.encode(_FirstLine(segment, self._nonce)), "")
        path = self._file.journal_path(segment)
        write_atomically(path, line)
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            head = Head(segment=segment, tag=tag)
            self._file.write(msgspec.structs.replace(state, journal=head))
        except BaseException:
            os.close(descriptor)
            raise
        if self._descriptor is not None:
            os.close(self._descriptor)
        self._descriptor, self._tag, self._size = descriptor, tag, len(line)
        self._torn = False
        self._nonce = secrets.token_hex(8)
        _remove(self._file, until=held)

    def _write_last_state(self, state: State) -> None:
        held = self._file.state.journal.segment
        self._file.write(msgspec.structs.replace(state, journal=Head(segment=held)))
        _remove(self._file, until=held)

    def _line(self, content: bytes, before: str) -> tuple[bytes, str]:
        tag = _tag(self._file, before, content)
        return b"%b %b\n" % (content, tag.encode()), tag


def _answer(waiting: list[asyncio.Future[None] | None]) -> None:
    for each in waiting:
        if each is not None and not each.done():
            each.set_result(None)


def _refuse(waiting: asyncio.Future[None] | None, error: RouterError) -> None:
    if waiting is not None and not waiting.done():
        waiting.set_exception(error)


def _tag(file: StateFile, before: str, content: bytes) -> str:
    return file.authenticate(_PURPOSE + before.encode() + b"\n" + content)


def _remove(file: StateFile, until: int) -> None:
    for segment in file.journal_segments():
        if segment <= until:
            with contextlib.suppress(OSError):
                file.journal_path(segment).unlink()


def _replay(file: StateFile) -> Budgets:
    """Return the budgets of the state with what its journal tells.

    Raises:
        StateInvalid: the journal was altered, or is not this state's.
    """
    head = file.state.journal
    for segment in file.journal_segments():
        if segment > head.segment and len(_lines(file, segment)) > 2:
            raise invalid(file.path, f"is older than its journal {segment}")
    budgets = file.state.budgets
    if head.tag is None:
        return budgets
    lines = _lines(file, head.segment)
    tag = ""
    # After the last line feed comes what a crash left of a commit nobody was told of.
    for number, line in enumerate(lines[:-1]):
        content, space, written = line[: -_TAG_BYTES - 1], line[-_TAG_BYTES - 1 :][:1], line[-64:]
        expected = _tag(file, tag, content)
        if space != b" " or not hmac.compare_digest(expected.encode(), written):
            if number == len(lines) - 2 and number > 0 and b"\0" in line:
                break  # A power loss may keep the end of a commit and lose its beginning.
            raise invalid(file.path, f"has a journal that was altered in line {number + 1}")
        tag = expected
        if number == 0:
            if tag != head.tag:
                raise invalid(file.path, f"does not go on with its journal {head.segment}")
            continue
        try:
            for act in msgspec.json.decode(content, type=list[_Act]):
                budgets = act.apply(budgets)
        except (msgspec.ValidationError, KeyError, ValueError) as error:
            raise invalid(file.path, f"has a journal that contradicts it ({error})") from error
    if not tag:
        raise invalid(file.path, "has a journal that lost its first line")
    return budgets


def _lines(file: StateFile, segment: int) -> list[bytes]:
    path = file.journal_path(segment)
    try:
        return path.read_bytes().split(b"\n")
    except FileNotFoundError:
        raise invalid(file.path, f"is here without its journal {path.name}") from None
    except OSError as error:
        raise invalid(file.path, f"has a journal that cannot be read ({error.strerror})") from error
