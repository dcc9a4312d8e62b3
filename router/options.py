"""What commands read: files, time, keys and grounds, as their options name them."""

import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from licensing.envelope import MAX_BUNDLE_BYTES, MAX_BYTES
from licensing.errors import LicensingError
from licensing.keys import PublicKey
from licensing.verify import KeysetTrust, SingleKeyTrust, Trust, verify_bundle, verify_keyset
from router.clock import unix_now
from router.errors import UsageError
from router.files import read_at_most, read_file
from router.report import instant, say
from router.trust import EMBEDDED, accept, is_release

if TYPE_CHECKING:
    from licensing.enrollment import Usage
    from licensing.keys import Keyset
    from licensing.verify import Verified
    from router.agent import Grounds
    from router.lease_store import LeaseState

KEYSET_VARIABLE: Final = "SMART_LLMROUTER_KEYSET"
CODE_VARIABLE: Final = "SMART_LLMROUTER_ENROLLMENT_CODE"


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
    """Say in a refusal which kind of file was refused, where it is no license."""
    try:
        yield
    except LicensingError as error:
        error.subject = subject
        raise


def parse_time(text: str) -> int:
    """Read `--as-of`: RFC 3339 or Unix seconds.

    Raises:
        argparse.ArgumentTypeError: another form.
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


def open_trust(options: argparse.Namespace, at: int) -> Trust:
    """Return what the command trusts: an approved key, or a verified keyset.

    Raises:
        UsageError: neither was named.
        LicensingError: the keyset does not verify under its own roots; the detail names the file.
    """
    path = options.public_key or options.keyset or os.environ.get(KEYSET_VARIABLE)
    if not path and is_release():
        path = str(EMBEDDED)
    if not path:
        raise UsageError(f"name the keyset with --keyset FILE or {KEYSET_VARIABLE}")
    what = "public key" if options.public_key else "keyset"
    data = read_file(Path(path), what)
    try:
        if options.public_key:
            return SingleKeyTrust(PublicKey.from_pem(data))
        verified = (
            accept(EMBEDDED.read_bytes(), data, at) if is_release() else verify_keyset(data, at)
        )
    except LicensingError as error:
        named = type(error)(f"the {what} {path}: {error.detail}")
        named.subject = what
        raise named from error
    if at >= verified.document.expires_at:
        say("warning: the keyset has expired; fetch the current one from the portal")
    return KeysetTrust(verified.document)


def names_trust(options: argparse.Namespace) -> bool:
    """Say whether there is something to verify with; a release always has."""
    named = options.public_key or options.keyset or os.environ.get(KEYSET_VARIABLE)
    return bool(named) or is_release()


def moment(options: argparse.Namespace) -> int:
    """Return the instant to judge at (Unix time)."""
    return unix_now() if options.as_of is None else int(options.as_of)


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


def remembered_grounds(options: argparse.Namespace, state: "LeaseState", at: int) -> "Grounds":
    """Read license and keyset where they were at the enrollment, unless they are named.

    Raises:
        UsageError: neither is known.
        LicensingError: the license does not verify here and now.
    """
    from router.agent import best_grounds
    from router.lease_store import BUNDLE_FILE, LICENSE_FILE

    options.keyset = options.keyset or os.environ.get(KEYSET_VARIABLE) or state.keyset_path
    license_path = options.license or state.license_path
    if license_path is None:
        raise UsageError("name the license with --license FILE")
    trust = lease_trust(options, at)
    fetched = read_at_most(options.state_dir / LICENSE_FILE, MAX_BYTES)
    file = read_input(license_path, "license")
    grounds = best_grounds(file, fetched, trust, at, state.fingerprint)
    bundle = read_at_most(options.state_dir / BUNDLE_FILE, MAX_BUNDLE_BYTES)
    return replace(
        grounds,
        bundle_version=0 if bundle is None else bundle_version(bundle, trust, at),
        usage=reported_usage(state, grounds),
    )


def lease_trust(options: argparse.Namespace, at: int) -> Trust:
    """Return what a lease is verified with: the keyset, or a later one the portal gave.

    Raises:
        UsageError, LicensingError: see `open_trust`.
    """
    trust = open_trust(options, at)
    held = later_keyset(options, at)
    if options.public_key or held is None or held.document.version <= (trust.version or 0):
        return trust
    return KeysetTrust(held.document)


def later_keyset(options: argparse.Namespace, at: int) -> "Verified[Keyset] | None":
    """Return the keyset with the later versions in the lease directory taken up."""
    from router.keysets import Keysets

    named = options.keyset or os.environ.get(KEYSET_VARIABLE)
    base = EMBEDDED if is_release() else Path(named) if named else None
    if base is None or options.public_key:
        return None
    offered = Path(named) if named and base == EMBEDDED else None
    keysets = Keysets(base, options.state_dir, say, offered)
    keysets.read(at)
    return keysets.held


def bundle_version(data: bytes, trust: Trust, at: int) -> int:
    """Return the version of the kept bundle; 0 where it does not verify any more."""
    try:
        return verify_bundle(data, trust, at, require_current=False).document.version
    except LicensingError as error:
        say(f"warning: the stored revocation bundle is ignored: {error.detail}")
        return 0


def reported_usage(state: "LeaseState", grounds: "Grounds") -> "Usage | None":
    """Return what the router beside the lease directory used; None where none says where it is."""
    if state.state_path is None:
        return None
    from router.agent import usage_of
    from router.state import StateFile, StateInvalid

    try:
        counted = StateFile(Path(state.state_path)).peek()
    except StateInvalid as error:
        say(f"warning: usage is not reported: {error.message}")
        return None
    return usage_of(counted, grounds.license, state.held())


def readable(facts: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """Return facts with instants as people read them, unless JSON is asked for."""
    known = {name: value for name, value in facts.items() if value is not None}
    if options.json:
        return known
    return {
        name: instant(value) if name.endswith("_at") else value for name, value in known.items()
    }
