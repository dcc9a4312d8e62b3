"""The `router-license` command.

Data on standard output, messages on standard error. Exit codes: 0 valid or done; 1 internal or I/O;
2 usage; 3 malformed or bad signature; 4 refused by the portal; 5 genuine but not for this time,
instance, issuer or product; 6 revoked, suspended or superseded; 7 cannot decide.

What needs the network or a private key is imported by the commands that use it, so that verifying a
file starts fast.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from licensing.encoding import parse_json, sha256_hex
from licensing.envelope import MAX_BUNDLE_BYTES, Envelope
from licensing.errors import LicensingError, MalformedPayload
from licensing.license import License
from licensing.names import CODES, ROUTER_CODES
from licensing.verify import (
    examine_license,
    verify_bundle,
    verify_keyset,
)
from router import codes
from router.courier_commands import add_courier
from router.errors import FAILED, OK, Refused, RouterError, UsageError
from router.files import read_file
from router.options import (
    CODE_VARIABLE,
    KEYSET_VARIABLE,
    moment,
    names_trust,
    open_trust,
    parse_time,
    read_code,
    read_input,
    readable,
    reading,
    remembered_grounds,
)
from router.report import failure, instant, safe_summary, say, show
from router.trust import is_release


class _Parser(argparse.ArgumentParser):
    """Accepts only full option names, and leaves it to `main` to report a wrong call."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{"allow_abbrev": False, **settings})

    def error(self, message: str) -> NoReturn:
        """Refuse the call.

        Raises:
            UsageError: always.
        """
        raise UsageError(f"{message}; try {self.prog} --help")


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command and exit with its code."""
    given = sys.argv[1:] if arguments is None else arguments
    try:
        status = run(given)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read the output has stopped reading; nothing is wrong with the command.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = FAILED
    sys.exit(status)


def run(arguments: Sequence[str]) -> int:
    """Run the command, report what goes wrong, and return its exit code."""
    as_json = "--json" in arguments
    try:
        options = _parser().parse_args(arguments)
        status: int = options.run(options)
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


def tell(error: RouterError, *, as_json: bool) -> None:
    """Report an error of the command itself."""
    known: dict[str, Any] = {"code": error.code, "message": error.message}
    if isinstance(error, Refused):
        known |= {"status": error.status, "next_action": error.next_action}
    if as_json:
        show({"error": known}, as_json=True)
    say(f"{error.message} [{error.code}]")
    if isinstance(error, Refused):
        say(error.next_action)


def without_extra(error: ModuleNotFoundError) -> RouterError:
    """Return what to say of a package that only the extra `router` installs.

    Raises:
        ModuleNotFoundError: the module is one of ours, so no extra brings it.
    """
    package = (error.name or "").partition(".")[0]
    if package in ("licensing", "router"):
        raise error
    return RouterError(f"{package} is not installed: pip install 'smart-router-licenses[router]'")


def refuse(error: LicensingError, *, as_json: bool, also: tuple[Any, ...] = ()) -> int:
    """Report a document that does not verify; return its exit code."""
    facts = failure(error, also)
    if as_json:
        show(facts, as_json=True)
    else:
        show({"result": "invalid", "code": error.code, "detail": error.detail}, as_json=False)
    known = CODES.get(error.code)
    say(f"{error.code}: {facts['meaning']}")
    say(f"next: {facts['next_step']}")
    return known.exit if known else FAILED


def run_verify(options: argparse.Namespace) -> int:
    """Verify a license completely."""
    at = moment(options)
    data = read_input(options.file, "license")
    bundle = read_file(Path(options.bundle), "revocation bundle") if options.bundle else None
    report = examine_license(
        data,
        open_trust(options, at),
        at,
        fingerprint=options.fingerprint,
        bundle=bundle,
        require_current_bundle=options.require_current_bundle,
    )
    if report.error is not None or report.verified is None:
        error = report.error
        assert error is not None
        return refuse(error, as_json=options.json, also=report.also)
    verified = report.verified
    summary = safe_summary(
        verified.document, status="valid", keyid=verified.keyid, sha256=verified.payload_sha256
    )
    if options.json:
        show({"result": "valid", **summary}, as_json=True)
    else:
        show(
            {"result": "valid"} | {key: summary[key] for key in summary if key != "status"},
            as_json=False,
        )
        if verified.document.binding.fingerprints and options.fingerprint is None:
            say("the license is bound; check this instance's fingerprint with --fingerprint")
    return OK


def run_summarize(options: argparse.Namespace) -> int:
    """Print the facts of a license that are safe to share; verify it if a keyset is named."""
    at = moment(options)
    data = read_input(options.file, "license")
    envelope = Envelope.parse(data)
    license_ = License.parse(envelope.payload)
    status, keyid = "UNVERIFIED", envelope.signatures[0].keyid
    if names_trust(options):
        report = examine_license(data, open_trust(options, at), at)
        status = report.error.code if report.error else "valid"
        keyid = report.verified.keyid if report.verified else keyid
    sha256 = sha256_hex(envelope.payload)
    show(safe_summary(license_, status=status, keyid=keyid, sha256=sha256), as_json=options.json)
    return OK


def run_inspect(options: argparse.Namespace) -> int:
    """Print everything a signed file contains, marked UNVERIFIED until it is verified."""
    at = moment(options)
    data = read_input(options.file, "file")
    with reading("file"):
        envelope = Envelope.parse(data, max_bytes=MAX_BUNDLE_BYTES)
    status = "UNVERIFIED"
    if envelope.payload_type == License.PAYLOAD_TYPE and names_trust(options):
        report = examine_license(data, open_trust(options, at), at)
        status = f"INVALID: {report.error.code}" if report.error else "verified"
    with reading("file"):
        try:
            payload = parse_json(envelope.payload, max_bytes=MAX_BUNDLE_BYTES)
        except LicensingError as error:
            raise MalformedPayload(error.detail) from error
    facts = {
        "status": status,
        "payload_type": envelope.payload_type,
        "keyids": [signature.keyid for signature in envelope.signatures],
        "file_sha256": sha256_hex(data),
        "payload_sha256": sha256_hex(envelope.payload),
        "payload": payload,
    }
    if options.json:
        show(facts, as_json=True)
        return OK
    show({key: value for key, value in facts.items() if key != "payload"}, as_json=False)
    for name, value in payload.items() if isinstance(payload, dict) else ():
        is_time = name.endswith("_at") and isinstance(value, int)
        show({f"  {name}": f"{value} ({instant(value)})" if is_time else value}, as_json=False)
    if status == "UNVERIFIED":
        say("UNVERIFIED: anybody could have written this; run router-license verify")
    return OK


def run_bundle_verify(options: argparse.Namespace) -> int:
    """Verify a revocation bundle."""
    at = moment(options)
    trust = open_trust(options, at)
    data = read_input(options.file, "bundle")
    with reading("revocation bundle"):
        verified = verify_bundle(data, trust, at, floor=options.floor)
    bundle = verified.document
    facts = {
        "result": "valid",
        "version": bundle.version,
        "issued_at": instant(bundle.issued_at),
        "expires_at": instant(bundle.expires_at),
        "entries": len(bundle.entries),
        "key_id": verified.keyid,
    }
    show(facts, as_json=options.json)
    return OK


def run_keyset_verify(options: argparse.Namespace) -> int:
    """Verify a keyset under its own roots."""
    at = moment(options)
    data = read_input(options.file, "keyset")
    with reading("keyset"):
        verified = verify_keyset(data, at)
    keyset = verified.document
    expired = at >= keyset.expires_at
    facts: dict[str, Any] = {
        "result": "valid",
        "version": keyset.version,
        "issuer": keyset.iss,
        "expires_at": instant(keyset.expires_at),
        "expired": expired,
        "roots": [root.keyid for root in keyset.roots],
        "root_threshold": keyset.root_threshold,
        "keys": [f"{key.role} {key.status} {key.keyid}" for key in keyset.keys],
    }
    show(facts, as_json=options.json)
    if expired:
        say("warning: the keyset has expired; it still verifies licenses, but cannot be updated")
    return OK


def run_explain(options: argparse.Namespace) -> int:
    """Say what a code means and what to do."""
    code = options.code
    if code in CODES:
        known = CODES[code]
        facts = {
            "code": code,
            "exit": known.exit,
            "router_code": known.router_code,
            "meaning": known.meaning,
            "next_step": known.next_step,
        }
    elif code in ROUTER_CODES:
        shown = ROUTER_CODES[code]
        facts = {"code": code, "meaning": shown.meaning, "next_step": shown.next_step}
    elif code in codes.CODES:
        other = codes.CODES[code]
        facts = {"code": code, "meaning": other.meaning, "next_step": other.next_step}
    else:
        known_codes = [*CODES, *ROUTER_CODES, *codes.CODES]
        raise UsageError(f"there is no code {code!r}; known are {', '.join(known_codes)}")
    show(facts, as_json=options.json)
    return OK


def run_enroll(options: argparse.Namespace) -> int:
    """Enroll this router with a code and install its first lease."""
    from router.agent import enroll, read_grounds
    from router.fetch import HttpFetch
    from router.lease_store import LeaseStore, describe

    at = moment(options)
    code = read_code(options)
    trust = open_trust(options, at)
    grounds = read_grounds(read_input(options.license, "license"), trust, at, options.fingerprint)
    fetch = HttpFetch(options.url or grounds.origin, options.ca_file)
    with LeaseStore(options.state_dir).locked(create=True) as store:
        enroll(
            store,
            grounds,
            code,
            fetch,
            fingerprint=options.fingerprint,
            label=options.label,
            license_path=None if options.license == "-" else Path(options.license),
            keyset_path=Path(keyset)
            if (keyset := options.keyset or os.environ.get(KEYSET_VARIABLE))
            else None,
        )
        show(readable(describe(store.load(), at), options), as_json=options.json)
    return OK


def run_renew(options: argparse.Namespace) -> int:
    """Renew the lease now."""
    from router.agent import renew
    from router.fetch import HttpFetch
    from router.lease_store import LeaseStore, describe

    at = moment(options)
    with LeaseStore(options.state_dir).locked() as store:
        grounds = remembered_grounds(options, store.load(), at)
        fetch = HttpFetch(options.url or grounds.origin, options.ca_file)
        renew(store, grounds, fetch, again=options.again)
        show(readable(describe(store.load(), at), options), as_json=options.json)
    return OK


def run_release(options: argparse.Namespace) -> int:
    """Give up the lease and its slot; this router stops serving."""
    from router.agent import release
    from router.fetch import HttpFetch
    from router.lease_store import LeaseStore, describe

    at = moment(options)
    with LeaseStore(options.state_dir).locked() as store:
        if store.load().released is None:
            grounds = remembered_grounds(options, store.load(), at)
            release(store, grounds, HttpFetch(options.url or grounds.origin, options.ca_file))
        show(readable(describe(store.load(), at), options), as_json=options.json)
    say("the lease is given up; stop what renews it, or take it up again with renew --again")
    return OK


def run_status(options: argparse.Namespace) -> int:
    """Show the current lease; exit 0 while it serves, 7 if there is none, 6 if it was ended."""
    from router.lease_store import LeaseStore, describe

    at = moment(options)
    if not options.state_dir.is_dir():
        raise UsageError(f"there is no lease directory {options.state_dir}")
    facts = describe(LeaseStore(options.state_dir).load(), at)
    show(readable(facts, options), as_json=options.json)
    if facts.get("serves"):
        return OK
    return {"not-enrolled": 7, "expired": 5}.get(str(facts["status"]), 6)


def run_check_config(options: argparse.Namespace) -> int:
    """Check a router's configuration; exit 0 if it can be used, 2 with a list of all problems."""
    from router.config import ConfigError, describe, load_config

    try:
        config = load_config(options.config, release=is_release())
    except ConfigError as error:
        problems = [
            {"line": problem.line, "path": problem.path, "message": problem.message}
            for problem in error.problems
        ]
        if options.json:
            show({"result": "invalid", "problems": problems}, as_json=True)
        for problem in error.problems:
            say(f"{options.config}: {problem}")
        return error.exit
    show({"result": "valid", **describe(config)}, as_json=options.json)
    return OK


def run_serve(options: argparse.Namespace) -> int:
    """Run the router: enforce the license, forward requests to the upstream and meter usage."""
    from router.serve import serve

    return serve(options.config, options.keyset or os.environ.get(KEYSET_VARIABLE))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="router-license", description="Verify licenses; hold and renew leases.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=_Parser)

    common = _Parser(add_help=False)
    common.add_argument("--json", action="store_true", help="print one JSON object")
    common.add_argument("--as-of", type=parse_time, metavar="TIME", help="verify as of this time")
    keys = _Parser(add_help=False)
    keys.add_argument("--keyset", metavar="FILE", help=f"default: {KEYSET_VARIABLE}")
    keys.add_argument("--public-key", metavar="FILE", help="an approved key in PEM, not a keyset")

    def add(name: str, run: Any, *parents: _Parser) -> _Parser:
        summary = (run.__doc__ or "").splitlines()[0]
        command = commands.add_parser(
            name, parents=[common, *parents], help=summary, description=summary
        )
        command.set_defaults(run=run)
        return command

    verify = add("verify", run_verify, keys)
    verify.add_argument("file", metavar="FILE", help="license.json, or - for standard input")
    verify.add_argument("--fingerprint", help="this instance's fingerprint")
    verify.add_argument("--bundle", metavar="FILE", help="a revocation bundle")
    verify.add_argument("--require-current-bundle", action="store_true")
    for name, run in (("inspect", run_inspect), ("summarize", run_summarize)):
        add(name, run, keys).add_argument(
            "file", metavar="FILE", help="a file, or - for standard input"
        )

    nouns: tuple[tuple[str, Any, tuple[_Parser, ...]], ...] = (
        ("bundle", run_bundle_verify, (keys,)),
        ("keyset", run_keyset_verify, ()),
    )
    for noun, run, parents in nouns:
        group = commands.add_parser(noun, help=(run.__doc__ or "").splitlines()[0])
        acts = group.add_subparsers(required=True, metavar="verify", parser_class=_Parser)
        act = acts.add_parser("verify", parents=[common, *parents])
        act.add_argument("file", metavar="FILE", help="a file, or - for standard input")
        act.set_defaults(run=run)
        if noun == "bundle":
            act.add_argument("--floor", type=int, default=0, help="highest version seen before")

    add("explain", run_explain).add_argument("code", metavar="CODE")

    network = _Parser(add_help=False)
    network.add_argument("--state-dir", type=Path, required=True, metavar="DIR")
    network.add_argument("--url", help="send requests here instead of to the license's lease.url")
    network.add_argument("--ca-file", type=Path, help="trust this CA instead of the system's")
    enroll = add("enroll", run_enroll, keys, network)
    enroll.add_argument("--license", required=True, metavar="FILE")
    enroll.add_argument(
        "--code-file", metavar="FILE", help=f"- for standard input; default: {CODE_VARIABLE}"
    )
    enroll.add_argument("--fingerprint")
    enroll.add_argument("--label", help="a name for this router")
    renew = add("renew", run_renew, keys, network)
    renew.add_argument("--license", metavar="FILE")
    renew.add_argument("--again", action="store_true", help="take a released lease up again")
    add("release", run_release, keys, network).add_argument("--license", metavar="FILE")
    add_courier(commands, _Parser, [common, keys])
    status = add("status", run_status)
    status.add_argument("--state-dir", type=Path, required=True, metavar="DIR")

    check = add("check-config", run_check_config)
    check.add_argument("config", type=Path, metavar="FILE", help="the router's YAML configuration")
    serve = commands.add_parser("serve", help=(run_serve.__doc__ or "").splitlines()[0])
    serve.add_argument("--config", type=Path, required=True, metavar="FILE")
    serve.add_argument("--keyset", metavar="FILE", help=f"default: {KEYSET_VARIABLE}")
    serve.add_argument("--json", action="store_true", help="print errors as one JSON object")
    serve.set_defaults(run=run_serve)
    return parser


if __name__ == "__main__":
    main()
