"""Files that survive crashes: write beside the file, sync, then rename over it."""

import contextlib
import os
import secrets
from pathlib import Path

from router.errors import RouterError

_PARTIAL = ".partial"


def read_file(path: Path, what: str) -> bytes:
    """Read a file that was named on the command line.

    Raises:
        RouterError: it cannot be read; the message names it.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise RouterError(f"cannot read the {what} {path}: {error.strerror}", code="io") from error


def read_at_most(path: Path, max_bytes: int) -> bytes | None:
    """Return at most `max_bytes` + 1 bytes of a file; None if it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(max_bytes + 1)
    except OSError:
        return None


def write_atomically(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Replace a file atomically: after a crash it holds the old or the new content, complete.

    Raises:
        OSError: the disk is full or the directory cannot be written; the old content stays.
    """
    partial = path.with_name(f".{path.name}.{secrets.token_hex(6)}{_PARTIAL}")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            partial.unlink()
        raise
    sync_directory(path.parent)


def remove_partials(directory: Path, name: str = "") -> None:
    """Remove what a crash left half written, for files whose names start with `name`.

    No other process may be writing these files.
    """
    for each in list(directory.iterdir()):
        if each.name.startswith(f".{name}") and each.name.endswith(_PARTIAL):
            with contextlib.suppress(OSError):
                each.unlink()


def make_private_directory(directory: Path) -> None:
    """Create a directory with mode 0700, durably; leave an existing one as it is.

    Raises:
        OSError: it cannot be created.
    """
    if directory.is_dir():
        return
    make_private_directory(directory.parent)
    directory.mkdir(mode=0o700, exist_ok=True)
    sync_directory(directory.parent)


def sync_directory(directory: Path) -> None:
    """Make renames in a directory durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
