"""Every option of the command, defined once, and what commands read from them.

Nothing of the network side is loaded here, so that verifying a file starts fast.
"""

import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Final, NoReturn

from licensing.envelope import MAX_BUNDLE_BYTES
from licensing.errors import LicensingError
from licensing.keys import Keyset, PublicKey
from licensing.verify import KeysetTrust, SingleKeyTrust, Trust, Verified, verify_keyset
from router.clock import dated, unix_now
from router.commands.report import say
from router.documents.trust import EMBEDDED, accept, is_distribution
from router.errors import UsageError
from router.files import read_file

KEYSET_VARIABLE: Final = "SMART_LLMROUTER_KEYSET"
CODE_VARIABLE: Final = "SMART_LLMROUTER_ENROLLMENT_CODE"


class Parser(argparse.ArgumentParser):
    """Accepts only full option names, and leaves the report of a wrong call to `main`."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{"allow_abbrev": False, **settings})

    def error(self, message: str) -> NoReturn:
        """Refuse the call.

        Raises:
            UsageError: always.
        """
        raise UsageError(f"{message}; try {self.prog} --help")


def parse_time(text: str) -> int:
    """Read `--as-of`: RFC 3339 or Unix seconds.

    Raises:
        argparse.ArgumentTypeError: it has another form.
    """
    if text.isascii() and text.isdigit() and len(text) < 16:
        return int(text)
    try:
        at = datetime.fromisoformat(text)
        if at.tzinfo is not None:
            return int(at.timestamp())
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a time; write it like 2026-11-23T18:00:00Z or in Unix seconds"
        ) from None
    raise argparse.ArgumentTypeError(f"{text!r} has no time zone; end it with Z")


_FLAG: Final = {"action": "store_true"}
_FILE: Final = {"metavar": "FILE"}
_OPTIONS: Final[dict[str, dict[str, Any]]] = {
    "--json": {**_FLAG, "help": "print one JSON object"},
    "--as-of": {"type": parse_time, "metavar": "TIME", "help": "verify as of this time"},
    "--keyset": {**_FILE, "help": f"default: {KEYSET_VARIABLE}"},
    "--public-key": {**_FILE, "help": "an approved key in PEM, not a keyset"},
    "--fingerprint": {"help": "this instance's fingerprint"},
    "--bundle": {**_FILE, "help": "a revocation bundle"},
    "--require-current-bundle": _FLAG,
    "--floor": {"type": int, "default": 0, "help": "highest version seen before"},
    "--state-dir": {"type": Path, "required": True, "metavar": "DIR"},
    "--url": {"help": "send requests here instead of to the license's lease.url"},
    "--ca-file": {"type": Path, "help": "trust this CA instead of the system's"},
    "--license": _FILE,
    "--code-file": {
        **_FILE,
        "help": f"the enrollment code; - for standard input; default: {CODE_VARIABLE}",
    },
    "--label": {"help": "a name for this router"},
    "--again": {**_FLAG, "help": "take a released lease up again"},
    "--out": {**_FILE, "help": "a file, or - for standard output"},
    "--qr": {**_FLAG, "help": "show QR codes; the default without --out"},
    "--with-lease": {**_FLAG, "help": "if the portal asks for it"},
    "--config": {**_FILE, "type": Path, "required": True},
    "file": {**_FILE, "help": "a file, or - for standard input"},
    "config": {**_FILE, "type": Path, "help": "the router's YAML configuration"},
    "code": {"metavar": "CODE"},
}


def take(parser: argparse.ArgumentParser, *names: str, **changes: Any) -> None:
    """Let a command take these options; `changes` override their definitions."""
    for name in names:
        parser.add_argument(name, **{**_OPTIONS[name], **changes})


def moment(options: argparse.Namespace) -> int:
    """Return the instant to judge at (Unix time)."""
    return unix_now() if options.as_of is None else int(options.as_of)


def read_input(name: str, what: str) -> bytes:
    """Read a named file, or standard input for `-`.

    Raises:
        RouterError: it cannot be read.
    """
    if name == "-":
        return sys.stdin.buffer.read(MAX_BUNDLE_BYTES + 1)
    return read_file(Path(name), what)


@contextmanager
def reading(subject: str) -> Iterator[None]:
    """Record in a refusal which kind of file was refused, if it is not a license."""
    try:
        yield
    except LicensingError as error:
        error.subject = subject
        raise


def named_keyset(options: argparse.Namespace) -> Path | None:
    """Return the keyset that the call or the environment names."""
    named = options.keyset or os.environ.get(KEYSET_VARIABLE)
    return Path(named) if named else None


def keyset_paths(options: argparse.Namespace) -> tuple[Path, Path | None]:
    """Return the keyset to start from, and a later one that a distribution is told to use.

    Raises:
        UsageError: this is a source checkout, and no keyset is named.
    """
    named = named_keyset(options)
    if is_distribution():
        return EMBEDDED, named
    if named is None:
        raise UsageError(f"name the keyset with --keyset FILE or {KEYSET_VARIABLE}")
    return named, None


def read_keyset(path: Path, at: int) -> Verified[Keyset]:
    """Read a keyset and verify it under its own roots; a distribution also uses its embedded ones.

    Raises:
        RouterError: it cannot be read.
        LicensingError: it does not verify; the detail names the file.
    """
    data = read_file(path, "keyset")
    with _naming("keyset", path):
        return (
            accept(EMBEDDED.read_bytes(), data, at)
            if is_distribution()
            else verify_keyset(data, at)
        )


def names_trust(options: argparse.Namespace) -> bool:
    """Say whether there is something to verify with; a distribution always has its keyset."""
    return bool(options.public_key or named_keyset(options)) or is_distribution()


def open_trust(options: argparse.Namespace, at: int) -> Trust:
    """Return what the command trusts: an approved key or a verified keyset.

    Raises:
        UsageError: neither is named.
        LicensingError: the named file does not verify; the detail names it.
    """
    if options.public_key:
        path = Path(options.public_key)
        pem = read_file(path, "public key")
        with _naming("public key", path):
            return SingleKeyTrust(PublicKey.from_pem(pem))
    base, offered = keyset_paths(options)
    verified = read_keyset(offered or base, at)
    if at >= verified.document.expires_at:
        say("warning: the keyset has expired; fetch the current one from the portal")
    return KeysetTrust(verified.document)


@contextmanager
def _naming(what: str, path: Path) -> Iterator[None]:
    """Add the file's name to a refusal of its content."""
    try:
        yield
    except LicensingError as error:
        named = type(error)(f"the {what} {path}: {error.detail}")
        named.subject = what
        raise named from error


def read_code(options: argparse.Namespace) -> str:
    """Read the enrollment code from a file, standard input or the environment.

    Raises:
        UsageError: there is none.
    """
    if options.code_file:
        text = read_input(options.code_file, "enrollment code").decode("ascii", "replace")
    else:
        text = os.environ.get(CODE_VARIABLE, "")
    lines = text.strip().splitlines()
    if not lines:
        raise UsageError(
            f"name the code with --code-file FILE (- for standard input) or {CODE_VARIABLE}"
        )
    return lines[0].strip()


def readable(facts: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """Return the facts, with instants as people read them unless JSON is asked for."""
    known = {name: value for name, value in facts.items() if value is not None}
    return known if options.json else dated(known)
