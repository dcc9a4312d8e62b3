"""`router-license courier`: requests and answers as files and QR codes."""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from router.errors import OK, RouterError, UsageError
from router.files import read_file, write_atomically
from router.options import (
    CODE_VARIABLE,
    KEYSET_VARIABLE,
    later_keyset,
    moment,
    open_trust,
    read_code,
    read_input,
    readable,
    remembered_grounds,
)
from router.report import say, show


def run_courier_request(options: argparse.Namespace) -> int:
    """Write a request to carry to the portal, where there is no network."""
    from router.agent import Grounds, read_grounds
    from router.courier import write_request
    from router.lease_store import LeaseStore

    at = moment(options)
    with LeaseStore(options.state_dir).locked(create=True) as store:
        state = store.load()
        grounds: Grounds
        code: str | None = None
        if state.lease is None:
            code = read_code(options)
            if options.license is None:
                raise UsageError("name the license with --license FILE")
            trust = open_trust(options, at)
            data = read_input(options.license, "license")
            grounds = read_grounds(data, trust, at, options.fingerprint)
        else:
            grounds = remembered_grounds(options, state, at)
        request = write_request(
            store,
            grounds,
            code=code,
            label=options.label,
            fingerprint=options.fingerprint,
            with_lease=options.with_lease,
            license_path=None if options.license in (None, "-") else Path(options.license),
            keyset_path=Path(named)
            if (named := options.keyset or os.environ.get(KEYSET_VARIABLE))
            else None,
        )
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
    from licensing.courier import to_parts

    try:
        import segno
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
    from router.courier import MAX_ANSWER_BYTES, install_answer, read_answer
    from router.lease_store import LeaseStore, describe

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


def add_courier(
    commands: Any, parser_class: type[argparse.ArgumentParser], parents: list[Any]
) -> None:
    """Add the courier's commands."""
    courier = commands.add_parser("courier", help="Carry requests and answers as files.")
    acts = courier.add_subparsers(required=True, metavar="ACT", parser_class=parser_class)
    request = acts.add_parser(
        "request", parents=parents, help=(run_courier_request.__doc__ or "").rstrip(".")
    )
    request.add_argument("--state-dir", type=Path, required=True, metavar="DIR")
    request.add_argument("--out", metavar="FILE", help="a file, or - for standard output")
    request.add_argument(
        "--qr", action="store_true", help="show QR codes; the default without --out"
    )
    request.add_argument("--with-lease", action="store_true", help="if the portal asks for it")
    request.add_argument("--license", metavar="FILE")
    request.add_argument(
        "--code-file",
        metavar="FILE",
        help=f"to enroll; - for standard input; default: {CODE_VARIABLE}",
    )
    request.add_argument("--fingerprint")
    request.add_argument("--label", help="a name for this router")
    request.set_defaults(run=run_courier_request)
    install = acts.add_parser(
        "install", parents=parents, help=(run_courier_install.__doc__ or "").rstrip(".")
    )
    install.add_argument(
        "file", metavar="FILE", help="the answer or the text of its QR codes; - for standard input"
    )
    install.add_argument("--state-dir", type=Path, required=True, metavar="DIR")
    install.add_argument("--license", metavar="FILE")
    install.set_defaults(run=run_courier_install)
