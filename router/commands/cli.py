"""The `router-license` command.

Data on standard output, messages on standard error. Exit codes: 0 valid or done; 1 internal or I/O;
2 usage; 3 malformed or bad signature; 4 refused by the portal; 5 genuine but not for this time,
instance, issuer or product; 6 revoked, suspended or superseded; 7 cannot decide.

Each command's module is loaded when it is called, so that verifying a file starts fast: it needs
neither the network nor a private key.
"""

import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from licensing.errors import LicensingError
from router.commands.options import Parser, take
from router.commands.report import refuse, tell
from router.errors import FAILED, RouterError


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command and exit with its code."""
    given = sys.argv[1:] if arguments is None else arguments
    try:
        status = run(given)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader of the output has stopped reading; the command did nothing wrong.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = FAILED
    sys.exit(status)


def run(arguments: Sequence[str]) -> int:
    """Run the command, report what goes wrong, and return its exit code."""
    as_json = "--json" in arguments
    try:
        options = _parser().parse_args(arguments)
        module = importlib.import_module(f"router.commands.{options.module}")
        status: int = getattr(module, options.function)(options)
    except LicensingError as error:
        status = refuse(error, as_json=as_json)
    except RouterError as error:
        status = error.exit
        tell(error, as_json=as_json)
    except ModuleNotFoundError as error:
        status = FAILED
        tell(without_extra(error), as_json=as_json)
    except BrokenPipeError:
        raise
    except OSError as error:
        status = FAILED
        tell(RouterError(f"{error.filename or ''} {error.strerror}", code="io"), as_json=as_json)
    return status


def without_extra(error: ModuleNotFoundError) -> RouterError:
    """Return the message about a missing package that only the extra `router` installs.

    Raises:
        ModuleNotFoundError: the module is one of ours, so no extra brings it.
    """
    package = (error.name or "").partition(".")[0]
    if package in ("licensing", "router"):
        raise error
    return RouterError(f"{package} is not installed: pip install 'smart-router-licenses[router]'")


def _parser() -> Parser:
    parser = Parser(prog="router-license", description="Verify licenses; hold and renew leases.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)
    common = ("--json", "--as-of")
    keys = (*common, "--keyset", "--public-key")
    network = (*keys, "--state-dir", "--url", "--ca-file")

    verify = _add(commands, "verify", "documents.run_verify", "Verify a license completely.")
    take(verify, *keys, "--fingerprint", "--bundle", "--require-current-bundle")
    take(verify, "file", help="license.json, or - for standard input")
    inspect = _add(
        commands,
        "inspect",
        "documents.run_inspect",
        "Print everything a signed file contains, marked UNVERIFIED until it is verified.",
    )
    take(inspect, *keys, "file")
    summarize = _add(
        commands,
        "summarize",
        "documents.run_summarize",
        "Print the facts of a license that are safe to share; verify it if a keyset is named.",
    )
    take(summarize, *keys, "file")
    bundle = _group(commands, "bundle", "Verify a revocation bundle.")
    act = _add(bundle, "verify", "documents.run_bundle_verify", "Verify a revocation bundle.")
    take(act, *keys, "--floor", "file")
    keyset = _group(commands, "keyset", "Verify a keyset under its own roots.")
    act = _add(
        keyset, "verify", "documents.run_keyset_verify", "Verify a keyset under its own roots."
    )
    take(act, *common, "file")
    explain = _add(
        commands, "explain", "codes.run_explain", "Say what a code means and what to do."
    )
    take(explain, *common, "code")

    enroll = _add(
        commands,
        "enroll",
        "lease.run_enroll",
        "Enroll this router with a code and install its first lease.",
    )
    take(enroll, *network, "--code-file", "--fingerprint", "--label")
    take(enroll, "--license", required=True)
    renew = _add(commands, "renew", "lease.run_renew", "Renew the lease now.")
    take(renew, *network, "--license", "--again")
    release = _add(
        commands,
        "release",
        "lease.run_release",
        "Give up the lease and its slot; this router stops serving.",
    )
    take(release, *network, "--license")
    status = _add(
        commands,
        "status",
        "lease.run_status",
        "Show the current lease; exit 0 while it serves, 7 if there is none, 6 if it was ended.",
    )
    take(status, *common, "--state-dir")
    courier = _group(commands, "courier", "Carry requests and answers as files.")
    act = _add(
        courier,
        "request",
        "courier.run_courier_request",
        "Write a request to carry to the portal, where there is no network.",
    )
    take(act, *keys, "--state-dir", "--license", "--code-file", "--fingerprint", "--label")
    take(act, "--out", "--qr", "--with-lease")
    act = _add(
        courier,
        "install",
        "courier.run_courier_install",
        "Install the portal's answer to a courier request.",
    )
    take(act, *keys, "--state-dir", "--license")
    take(act, "file", help="the answer or the text of its QR codes; - for standard input")

    check = _add(
        commands,
        "check-config",
        "check_config.run_check_config",
        "Check a router's configuration; exit 0 if it can be used, 2 with a list of all problems.",
    )
    take(check, *common, "config")
    serve = _add(
        commands,
        "serve",
        "serve.run_serve",
        "Run the router: enforce the license, forward requests to the upstream and meter usage.",
    )
    take(serve, "--json", "--keyset", "--config")
    return parser


def _add(commands: Any, name: str, runs: str, summary: str) -> Parser:
    """Add a command; `runs` names its function as `module.function` in this package."""
    command: Parser = commands.add_parser(name, help=summary, description=summary)
    module, _, function = runs.partition(".")
    command.set_defaults(module=module, function=function)
    return command


def _group(commands: Any, name: str, summary: str) -> Any:
    """Add a group of commands."""
    group = commands.add_parser(name, help=summary)
    return group.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)


if __name__ == "__main__":
    main()
