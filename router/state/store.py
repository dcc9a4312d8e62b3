"""What a router must not forget: one JSON file with an HMAC, and who may write it.

    file = StateFile(Path("/app/state/license-state.json"))
    state = file.open()                  # locks, verifies; a fresh state on first boot
    file.save(state.license_valid(...))  # only while no Journal is open on the file
    file.close()

While the router serves, a `Journal` owns the state: read `journal.state`, change it with
`await journal.update(lambda state: state.document_seen(...))`. Budgets change through the journal
alone.

`State` is frozen; every transition returns a new one, and the same one where nothing changes. Times
are Unix seconds and always given.

    license-state.json             the state, 0600, in a directory that is made 0700
    license-state.json.key         32 random bytes in hex, 0600
    license-state.json.key.new     the key during the first boot; becomes .key when the state stands
    license-state.json.lock        held while a process works here
    license-state.json.journal-N   see `router/state/journal.py`

Invariants: a file is replaced whole or not at all. The key takes its name only after the state it
authenticates is durable, hence each of the two without the other means that somebody took one away,
and a crash in the first boot leaves something that loads. Whatever does not load raises
`StateInvalid`, which says how to go on.

What the HMAC gives: accidents, edits, and a state brought here without its key are noticed. What it
does not give: protection from whoever may read the key, from an older copy of state, key and
journal together, or from removing all of them.

Source: "State" of the router's design; "Time" of the lease protocol; "Budgets" of the documents.
"""

import contextlib
import fcntl
import hashlib
import hmac
import json
import os
import secrets
import stat
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import msgspec

from licensing.bounds import periods_with
from licensing.document import BudgetId, Count, Sha256, UnixTime
from licensing.encoding import b64decode, b64encode, parse_json
from licensing.errors import LicensingError
from licensing.license import License
from licensing.revocation import NO_BUNDLE, BundleMemory
from licensing.verify import Floors
from router.errors import RouterError, StateError
from router.files import make_private_directory, remove_partials, sync_directory, write_atomically
from router.state.budgets import Budgets, Fact, Tally, Terms
from router.state.legacy import FLAG, LegacyState, read_legacy

SCHEMA: Final = 1
MAX_BYTES: Final = 64 * 1024 * 1024
_KEY_BYTES: Final = 32
_PURPOSE: Final = b"license-state.v1\n"
T = TypeVar("T")


class StateInvalid(RouterError):
    """The state cannot be trusted: it was altered, is unreadable, or not all of it is here."""

    code = "license-state-invalid"


class StateInUse(StateError):
    """Another process holds the state."""


class Anchor(Fact, frozen=True, kw_only=True):
    """An instant the portal vouched for, tied to the kernel's clock since boot."""

    boot_id: str
    """The kernel's."""
    boottime: Count
    """`CLOCK_BOOTTIME` in whole seconds when it was set."""
    now: UnixTime


class Time(Fact, frozen=True, kw_only=True):
    """What is known to have passed already."""

    doc_floor: UnixTime = 0
    """Largest `issued_at` of fully verified documents."""
    wall_floor: UnixTime = 0
    """Largest `now` while serving."""
    anchor: Anchor | None = None

    @property
    def floor(self) -> int:
        """The larger floor: it is certainly not earlier than this."""
        return max(self.doc_floor, self.wall_floor)


class Grace(Fact, frozen=True, kw_only=True):
    """Validation grace under way."""

    began_at: UnixTime
    reason: str
    """The code of the error it began with."""


class LastValid(Fact, frozen=True, kw_only=True):
    """The license that was last found valid."""

    envelope: str
    """Base64 of the file."""
    at: UnixTime

    @property
    def data(self) -> bytes:
        """The file's bytes."""
        return b64decode(self.envelope)


class Head(Fact, frozen=True, kw_only=True):
    """Where the journal goes on from this state."""

    segment: Count = 0
    tag: Sha256 | None = None
    """Of the segment's first line; None: nothing was written after this state."""


class Vouched(Fact, frozen=True, kw_only=True):
    """What each key vouched for, so that what only a compromised one did can be forgotten."""

    revisions: dict[str, dict[str, int]] = msgspec.field(default_factory=dict)
    """Highest revision that served, by deployment id and key id."""
    bundles: dict[str, dict[str, BundleMemory]] = msgspec.field(default_factory=dict)
    """What a bundle said, by issuer and key id."""


class State(Fact, frozen=True, kw_only=True):
    """Everything durable but the journal's latest records."""

    revisions: dict[str, int] = msgspec.field(default_factory=dict)
    """Highest revision that served, by deployment id."""
    keysets: dict[str, int] = msgspec.field(default_factory=dict)
    """Highest keyset version, by issuer."""
    bundles: dict[str, BundleMemory] = msgspec.field(default_factory=dict)
    """By issuer."""
    vouched: Vouched = Vouched()
    """Which keys these rest on; a state from before keys were noted has none."""
    time: Time = Time()
    grace: Grace | None = None
    last_valid: LastValid | None = None
    budgets: Budgets = Budgets()
    periods: dict[str, dict[BudgetId, UnixTime]] = msgspec.field(default_factory=dict)
    """Since when each period budget of a lease has been in use, by deployment id."""
    journal: Head = Head()

    def floors(self, deployment_id: str, issuer: str) -> Floors:
        """Return the floors a license of this deployment is verified with."""
        return Floors(
            revision=self.revisions.get(deployment_id, 0),
            keyset_version=self.keysets.get(issuer, 0),
            bundle=self.bundles.get(issuer, NO_BUNDLE),
        )

    def document_seen(self, issued_at: int) -> "State":
        """A document was fully verified: it cannot be earlier than its issue."""
        return self._at_time(doc_floor=max(self.time.doc_floor, issued_at))

    def license_verified(self, license_: License) -> "State":
        """A license was fully verified; one of higher revision than served resets `wall_floor`."""
        doc_floor, wall_floor = max(self.time.doc_floor, license_.issued_at), self.time.wall_floor
        if license_.revision > self.revisions.get(license_.deployment_id, 0):
            wall_floor = license_.issued_at
        return self._at_time(doc_floor=doc_floor, wall_floor=wall_floor)

    def license_valid(self, data: bytes, at: int) -> "State":
        """A license file was found valid: it is kept, and grace is over."""
        return self._with(last_valid=LastValid(envelope=b64encode(data), at=at), grace=None)

    def serving(
        self, terms: Terms, revision: int, now: int, *, vouched_by: Sequence[str] = ()
    ) -> "State":
        """A license serves: its revision and `now` become floors, its budget counts.

        `vouched_by` are the keys whose signatures of it count.

        Carries over what was left of the budget before, once. Make it durable with
        `await journal.update(...)` before the first request is served.
        """
        ours = terms.deployment_id
        by = self.vouched.revisions.get(ours, {})
        by = {**by, **{each: max(by.get(each, 0), revision) for each in vouched_by}}
        vouched = {**self.vouched.revisions, **({ours: by} if by else {})}
        return self._with(
            revisions={**self.revisions, ours: max(self.revisions.get(ours, 0), revision)},
            vouched=msgspec.structs.replace(self.vouched, revisions=vouched),
            budgets=self.budgets.serving(terms),
        ).now_seen(now)

    def budget_serves(self, license_: License, budget_id: str, now: int) -> "State":
        """A budget serves under a license; where it is a period's, it is known since when."""
        held = self.periods.get(license_.deployment_id, {})
        known = periods_with(held, license_, budget_id, now)
        if known == held:
            return self
        return self._with(periods={**self.periods, license_.deployment_id: dict(known)})

    def now_seen(self, now: int) -> "State":
        """The router serves at this instant."""
        return self._at_time(wall_floor=max(self.time.wall_floor, now))

    def anchored(self, anchor: Anchor) -> "State":
        """The portal vouched for an instant: both floors become it, downward too."""
        return self._at_time(anchor=anchor, doc_floor=anchor.now, wall_floor=anchor.now)

    def grace_begun(self, at: int, reason: str) -> "State":
        """A validation error was met; grace that is under way goes on from where it began."""
        if self.grace is not None:
            return self
        return self._with(grace=Grace(began_at=at, reason=reason))

    def keyset_seen(self, issuer: str, version: int) -> "State":
        """A keyset is in use."""
        held = self.keysets.get(issuer, 0)
        return self._with(keysets={**self.keysets, issuer: max(held, version)})

    def bundle_seen(
        self, issuer: str, memory: BundleMemory, *, vouched_by: Sequence[str] = ()
    ) -> "State":
        """A bundle was fully verified: `memory` is what is known since.

        `vouched_by` are the keys whose signatures of it count.
        """
        by = {**self.vouched.bundles.get(issuer, {}), **dict.fromkeys(vouched_by, memory)}
        vouched = {**self.vouched.bundles, **({issuer: by} if by else {})}
        return self._with(
            bundles={**self.bundles, issuer: memory},
            vouched=msgspec.structs.replace(self.vouched, bundles=vouched),
        )

    def forgetting(self, compromised: frozenset[str]) -> "State":
        """Forget the revisions, bundle versions and entries that only these keys vouched for."""
        revisions, bundles = dict(self.revisions), dict(self.bundles)
        by_revision, by_bundle = dict(self.vouched.revisions), dict(self.vouched.bundles)
        for deployment_id, by in self.vouched.revisions.items():
            kept = {each: value for each, value in by.items() if each not in compromised}
            if len(kept) < len(by):
                _keep(by_revision, deployment_id, kept)
                _keep(revisions, deployment_id, max(kept.values(), default=0))
        for issuer, known in self.vouched.bundles.items():
            good = {each: value for each, value in known.items() if each not in compromised}
            if len(good) < len(known):
                _keep(by_bundle, issuer, good)
                best = max(good.values(), key=lambda memory: memory.version, default=None)
                _keep(bundles, issuer, best)
        return self._with(
            revisions=revisions,
            bundles=bundles,
            vouched=Vouched(revisions=by_revision, bundles=by_bundle),
        )

    def _at_time(self, **changes: Any) -> "State":
        return self._with(time=msgspec.structs.replace(self.time, **changes))

    def _with(self, **changes: Any) -> "State":
        changed = msgspec.structs.replace(self, **changes)
        return self if changed == self else changed


def _keep(facts: dict[str, T], name: str, value: T | None) -> None:
    """Put a fact in the place of the one before; without anything to say, leave none."""
    facts.pop(name, None)
    if value:
        facts[name] = value


def fresh_state(legacy: LegacyState | None = None) -> State:
    """Return the state of a first boot, with what an unsigned state had counted."""
    if legacy is None:
        return State()
    tallies = {each: Tally(limit=0, used=quota.used) for each, quota in legacy.quota.items()}
    return State(budgets=Budgets(tallies=tallies), time=Time(wall_floor=legacy.last_seen_at))


class StateFile:
    """One state file, locked for this process."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._key_path = _beside(path, ".key")
        self._new_key_path = _beside(path, ".key.new")
        self._lock: int | None = None
        self._key = b""
        self._state: State | None = None

    @property
    def state(self) -> State:
        """The state that was last loaded or saved."""
        assert self._state is not None, "the state file is not open"
        return self._state

    def open(self, *, migrate: bool = False) -> State:
        """Lock and load; on first boot, make key and state.

        `migrate` allows to import unsigned state once (see `legacy.py`).

        Raises:
            StateInUse: another process holds it.
            StateInvalid: it cannot be trusted; the message says the way back.
            StateError: the directory or the disk does not permit it.
        """
        assert self._lock is None, "the state file is open"
        try:
            make_private_directory(self.path.parent)
            self._refuse_shared_directory()
            self._lock = self._take_lock()
            remove_partials(self.path.parent, self.path.name + ".")
            self._state = self._load(migrate=migrate)
        except OSError as error:
            self.close()
            raise StateError(
                f"cannot use the license state {self.path}: {error.strerror}"
            ) from error
        except BaseException:
            self.close()
            raise
        return self._state

    def peek(self) -> State:
        """Return the state as it was written last, while another process may hold it.

        What that process counted since is not in it; it writes it out once a minute.

        Raises:
            StateInvalid: there is none here, or it cannot be trusted.
        """
        data, key = _read(self.path), _read_key(self._key_path)
        if data is None or key is None:
            raise self._invalid("is not here with its key")
        self._key = key
        return self._unseal(data)

    def save(self, state: State) -> None:
        """Replace the state in one step.

        Raises:
            StateError: it cannot be written. The old state stands, or the new one, whole.
            ValueError: the budgets differ, which change through the journal alone; or the state
                could not be loaded again.
        """
        if (state.budgets, state.journal) != (self.state.budgets, self.state.journal):
            raise ValueError("budgets change through the journal; use Journal.update")
        try:
            self.write(state)
        except OSError as error:
            raise StateError(f"cannot write {self.path}: {error.strerror}") from error

    def write(self, state: State) -> None:
        """Replace the state, budgets and all. For the journal.

        Raises:
            OSError: after it, the old or the new state stands, whole.
        """
        assert self._lock is not None, "the state file is not open"
        write_atomically(self.path, self._seal(state))
        self._state = state

    def close(self) -> None:
        """Let another process have it. Safe to repeat."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
        self._state = None

    def authenticate(self, message: bytes) -> str:
        """Return the HMAC of a message as 64 hex digits. For the journal."""
        return hmac.digest(self._key, message, hashlib.sha256).hex()

    def journal_path(self, segment: int) -> Path:
        """Return where a segment of the journal is."""
        return _beside(self.path, f".journal-{segment}")

    def journal_segments(self) -> list[int]:
        """Return the numbers of the segments that are there, ascending."""
        prefix = self.path.name + ".journal-"
        rests = [
            each.name.removeprefix(prefix)
            for each in self.path.parent.iterdir()
            if each.name.startswith(prefix)
        ]
        return sorted(int(rest) for rest in rests if rest.isascii() and rest.isdigit())

    def __enter__(self) -> Self:
        """Return itself; `open` is called by whoever knows whether to migrate."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close."""
        self.close()

    def _refuse_shared_directory(self) -> None:
        directory = self.path.parent
        if stat.S_IMODE(directory.stat().st_mode) & stat.S_IWOTH:
            raise StateError(f"everybody can write in {directory}: chmod 700 it")

    def _take_lock(self) -> int:
        path = _beside(self.path, ".lock")
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            raise StateInUse(
                f"another process uses the license state {self.path}: "
                "stop it, or give this router a state_path of its own"
            ) from error
        return descriptor

    def _load(self, *, migrate: bool) -> State:
        """Tell apart what the files here can mean, first boot and its crashes included."""
        data = _read(self.path)
        key = _read_key(self._key_path)
        if data is None:
            if key is not None:
                raise self._invalid("is missing, while its key is here")
            if self.journal_segments():
                raise self._invalid("and its key are missing, while their journal is here")
            if migrate:
                raise StateInvalid(
                    f"{FLAG} is set and there is no unsigned state at {self.path} to import: "
                    "put it there, or start without the flag"
                )
            return self._begin(fresh_state())
        if key is not None:
            self._key = key
            state = self._unseal(data)
            self._refuse_migration(migrate=migrate)
            return state
        new_key = _read_key(self._new_key_path)
        legacy = read_legacy(data)
        if legacy is not None:
            if not migrate:
                raise StateInvalid(
                    f"the license state {self.path} is unsigned: start once with {FLAG}=1 to "
                    "import it, then without"
                )
            return self._begin(fresh_state(legacy))
        if new_key is None:
            raise self._invalid(f"is here without its key {self._key_path}")
        self._key = new_key
        state = self._unseal(data)
        self._refuse_migration(migrate=migrate)
        self._keep_key()
        return state

    def _begin(self, state: State) -> State:
        """First boot: the key under its provisional name, the state, then the key's own name."""
        self._key = secrets.token_bytes(_KEY_BYTES)
        write_atomically(self._new_key_path, self._key.hex().encode())
        write_atomically(self.path, self._seal(state))
        self._keep_key()
        return state

    def _keep_key(self) -> None:
        self._new_key_path.replace(self._key_path)
        sync_directory(self.path.parent)

    def _refuse_migration(self, *, migrate: bool) -> None:
        if migrate:
            raise StateInvalid(
                f"{FLAG} is set and {self.path} is signed already: restart without the flag"
            )

    def _seal(self, state: State) -> bytes:
        content = {"schema": SCHEMA, **require_storable(state)}
        sealed = {"hmac": self.authenticate(_canonical(content)), "state": content}
        return json.dumps(sealed, indent=1, sort_keys=True).encode() + b"\n"

    def _unseal(self, data: bytes) -> State:
        try:
            sealed = parse_json(data, max_bytes=MAX_BYTES)
        except LicensingError as error:
            raise self._invalid(f"cannot be read ({error.detail})") from error
        if (
            not isinstance(sealed, dict)
            or sealed.keys() != {"hmac", "state"}
            or not isinstance(sealed["state"], dict)
            or not isinstance(sealed["hmac"], str)
        ):
            raise self._invalid("is not a signed state")
        content = sealed["state"]
        tag = self.authenticate(_canonical(content))
        schema = content.pop("schema", None)
        if schema != SCHEMA or isinstance(schema, bool):
            raise self._invalid(
                f"has schema {schema!r}, while this router knows {SCHEMA}: it was written by "
                "another release, which can still read it"
            )
        if not hmac.compare_digest(tag.encode(), sealed["hmac"].encode()):
            raise self._invalid("was altered, or belongs to another key")
        try:
            return msgspec.convert(content, State)
        except msgspec.ValidationError as error:
            raise self._invalid(f"has a content this router does not know ({error})") from error

    def _invalid(self, what: str) -> StateInvalid:
        return invalid(self.path, what)


def require_storable(state: State) -> dict[str, Any]:
    """Return the state as it is stored.

    Raises:
        ValueError: it could not be loaded again.
    """
    content: dict[str, Any] = msgspec.to_builtins(state)
    if msgspec.convert(content, State) != state:
        raise ValueError("the state would not be the same when it is loaded")
    return content


def invalid(path: Path, what: str) -> StateInvalid:
    """Return the error with its way back."""
    return StateInvalid(
        f"the license state {path} {what}. Restore a trusted backup of {path.name}, "
        f"{path.name}.key and every {path.name}.journal-*, all of the same moment; where the "
        "backup has no journal, remove the journal files here"
    )


def _canonical(content: dict[str, Any]) -> bytes:
    text = json.dumps(content, ensure_ascii=True, sort_keys=True, separators=(",", ":"))
    return _PURPOSE + text.encode()


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise invalid(path, f"cannot be read ({error.strerror})") from error


def _read_key(path: Path) -> bytes | None:
    """Return the key; None where there is none.

    Raises:
        StateInvalid: others can read it, or it is no key.
    """
    data = _read(path)
    if data is None:
        return None
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise StateInvalid(f"others can read {path}: chmod 600 it")
    with contextlib.suppress(ValueError):
        key = bytes.fromhex(data.decode("ascii").strip())
        if len(key) == _KEY_BYTES:
            return key
    raise StateInvalid(f"{path} is no key: restore it from the backup of the license state")
