"""Which keys the router trusts: the keyset it was given, and later versions from the portal.

The base is the keyset built into a distribution, or the file that a source checkout is told to
trust. Later versions come from the portal and are kept in the lease directory, one file per
version:

    keyset-<version>.json

Invariants: a version counts only if the one before it trusts it: it is signed by the threshold of
roots of both, which is verified again at each start. A file that fails this is skipped with a
warning. An expired keyset does not stop service. If the base cannot be read, the last one read
stays in use.

Source: "Payloads", keyset.v1, of the signed documents.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from licensing.envelope import MAX_KEYSET_BYTES
from licensing.errors import LicensingError, MalformedEnvelope, NotYetValid
from licensing.keys import Keyset
from licensing.verify import KeysetTrust, Verified, verify_keyset, verify_keyset_update
from router.documents.trust import is_distribution, refuse_test_keys
from router.files import read_at_most, write_atomically

_NAME: Final = re.compile(r"keyset-([1-9][0-9]{0,15})\.json")
MAX_STEPS: Final = 64
"""The most versions that one update may step through."""

Log = Callable[[str], None]


@dataclass
class Keysets:
    """The trusted keyset, read again when its files change."""

    base: Path
    directory: Path
    """Where later versions are kept; the directory need not exist."""
    log: Log
    offered: Path | None = None
    """A later version that a distribution is told to use, signed by the built-in roots."""
    readable: bool = field(default=False, init=False)
    """Whether the base could be read last time."""
    error: LicensingError | None = field(default=None, init=False)
    """Why the base does not verify, if it can be read."""
    held: Verified[Keyset] | None = field(default=None, init=False)
    """The highest version that counts; None if none has in this process."""
    _seen: tuple[bytes, ...] = field(default=(), init=False)
    """The files as last judged; none if the same files may be judged differently later."""

    @property
    def trust(self) -> KeysetTrust | None:
        """The trust to verify documents with."""
        return None if self.held is None else KeysetTrust(self.held.document)

    def read(self, now: int) -> None:
        """Read the base and the later versions again."""
        data = read_at_most(self.base, MAX_KEYSET_BYTES)
        if data is None:
            self.readable, self.error = False, None
            return
        later = sorted([*self._later(), *self._offered(now)])
        seen = (data, *(each for _, each in later))
        if seen == self._seen and self.readable:
            return
        try:
            held = verify_keyset(data, now)
            _check(held.document)
        except MalformedEnvelope:
            # Half written, or no keyset at all: treat it as unreadable.
            self.readable, self.error = False, None
            return
        except LicensingError as error:
            self.log(f"the keyset {self.base}: {error.detail} [{error.code}]")
            self.readable, self.error = True, error
            self._seen = () if isinstance(error, NotYetValid) else seen
            return
        for version, each in later:
            if version <= held.document.version:
                continue
            try:
                after = verify_keyset_update(each, held, now, require_current=False)
                _check(after.document)
                held = after
            except LicensingError as error:
                self.log(f"warning: keyset version {version} is ignored: {error.detail}")
                if isinstance(error, NotYetValid):
                    seen = ()
        if now >= held.document.expires_at:
            self.log("warning: the keyset has expired; fetch the current one")
        self.readable, self.error, self.held, self._seen = True, None, held, seen

    def _offered(self, now: int) -> Iterator[tuple[int, bytes]]:
        data = None if self.offered is None else read_at_most(self.offered, MAX_KEYSET_BYTES)
        if data is None:
            return
        try:
            yield verify_keyset(data, now).document.version, data
        except LicensingError as error:
            self.log(f"warning: the keyset {self.offered} is ignored: {error.detail}")

    def _later(self) -> Iterator[tuple[int, bytes]]:
        """Yield the stored versions."""
        try:
            names = [each.name for each in self.directory.iterdir()]
        except OSError:
            return
        for version in (int(found[1]) for name in names if (found := _NAME.fullmatch(name))):
            data = read_at_most(self.directory / keyset_file(version), MAX_KEYSET_BYTES)
            if data is not None:
                yield version, data


def _check(keyset: Keyset) -> None:
    if is_distribution():
        refuse_test_keys(keyset)


def keyset_file(version: int) -> str:
    """Return the file name of a version."""
    return f"keyset-{version}.json"


def take_update(
    directory: Path,
    data: bytes,
    held: Verified[Keyset],
    at: int,
    fetch_version: Callable[[int], bytes],
) -> Verified[Keyset] | None:
    """Verify and store a keyset that the portal offers; None if it is not newer than the held one.

    `fetch_version` returns the versions in between, which are needed only if the roots changed.

    Raises:
        LicensingError: it cannot be trusted; the held one stays in use.
        OSError: it cannot be written.
    """
    offered = verify_keyset(data, at).document.version
    if offered <= held.document.version:
        return None
    steps: list[bytes] = []
    try:
        taken = verify_keyset_update(data, held, at)
    except LicensingError:
        between = range(held.document.version + 1, offered)
        if not between or len(between) > MAX_STEPS:
            raise
        steps = [fetch_version(version) for version in between]
        taken = verify_keyset_update(data, held, at, steps=steps)
    _check(taken.document)
    for number, step in enumerate(steps, held.document.version + 1):
        write_atomically(directory / keyset_file(number), step)
    write_atomically(directory / keyset_file(offered), data)
    return taken
