"""`router-license courier`: requests and answers as files and QR codes."""

import argparse
import sys
from pathlib import Path

from licensing.courier import to_parts
from router.commands.grounds import (
    later_keyset,
    named_enrollment,
    named_grounds,
    remembered_grounds,
)
from router.commands.options import KEYSET_VARIABLE, moment, readable
from router.commands.report import say, show
from router.errors import OK, RouterError, UsageError
from router.files import read_file, write_atomically
from router.lease.store import LeaseStore, describe
from router.network.agent import Enrollment
from router.network.courier import MAX_ANSWER_BYTES, install_answer, read_answer, write_request


def run_courier_request(options: argparse.Namespace) -> int:
    """Write a request to carry to the portal, where there is no network."""
    at = moment(options)
    with LeaseStore(options.state_dir).locked(create=True) as store:
        state = store.load()
        enrollment: Enrollment | None = None
        if state.lease is None:
            enrollment = named_enrollment(options)
            grounds = named_grounds(options, at)
        else:
            grounds = remembered_grounds(options, state, at)
        request = write_request(store, grounds, enrollment, with_lease=options.with_lease)
    if options.out == "-":
        sys.stdout.write(request.decode())
    elif options.out:
        write_atomically(Path(options.out), request)
        say(f"wrote {options.out}: upload it to the portal")
    if options.qr or not options.out:
        show_codes(request)
    return OK


def show_codes(data: bytes) -> None:
    """Show bytes as QR codes in a terminal, one after another.

    Raises:
        RouterError: the QR library is not installed.
    """
    try:
        import segno  # noqa: PLC0415 -- only the extra `router` brings it; files do without
    except ModuleNotFoundError as error:
        raise RouterError(
            "QR codes need the package segno: install smart-router-licenses[router], "
            "or write a file with --out FILE"
        ) from error
    parts = to_parts(data)
    for number, part in enumerate(parts, 1):
        say(f"part {number} of {len(parts)}")
        segno.make(part, error="l", micro=False).terminal(out=sys.stderr, compact=True)
        print(part)  # noqa: T201


def run_courier_install(options: argparse.Namespace) -> int:
    """Install the portal's answer to a courier request."""
    at = moment(options)
    if options.file == "-":
        data = sys.stdin.buffer.read(MAX_ANSWER_BYTES + 1)
    else:
        data = read_file(Path(options.file), "answer")
    answer = read_answer(data)
    with LeaseStore(options.state_dir).locked() as store:
        state = store.load()
        grounds = remembered_grounds(options, state, at)
        held = later_keyset(options, at)
        if held is None:
            raise UsageError(f"name the keyset with --keyset FILE or {KEYSET_VARIABLE}")
        _, taken = install_answer(store, grounds, held, answer)
        facts = describe(store.load(), at)
    show(readable({**facts, "installed": ["lease", *taken]}, options), as_json=options.json)
    return OK
