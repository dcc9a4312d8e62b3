"""What commands print: the facts of a license as mappings, for people and for programs."""

import json
import re
import sys
from typing import Any, Final

import msgspec

from licensing.errors import LicensingError
from licensing.license import License
from licensing.names import CODES, next_step
from licensing.verify import Check
from router.clock import instant
from router.errors import FAILED, Refused, RouterError

_CONTROLS: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """Escape control characters: anybody may have written the text."""
    return _CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def safe_summary(
    license_: License, *, status: str, keyid: str | None, sha256: str
) -> dict[str, Any]:
    """Return the facts that may be pasted into a ticket."""
    summary = {
        "status": status,
        "license_id": license_.license_id,
        "customer_id": license_.customer_id,
        "deployment_id": license_.deployment_id,
        "revision": license_.revision,
        "sku": license_.sku,
        "mode": license_.mode,
        "issuer": license_.iss,
        "key_id": keyid,
        "payload_sha256": sha256,
        "issued_at": instant(license_.issued_at),
        "not_before": instant(license_.not_before_at),
        "expires_at": instant(license_.expires_at),
        "features": list(license_.features),
        "limits": msgspec.to_builtins(license_.limits),
        "budget_tokens": None if license_.budget is None else license_.budget.tokens_total,
    }
    return {name: value for name, value in summary.items() if value is not None}


def failure(error: LicensingError, also: tuple[Check, ...] = ()) -> dict[str, Any]:
    """Return why a document was refused, what to do, and what could still be read from it."""
    known = CODES.get(error.code)
    return {
        "result": "invalid",
        "code": error.code,
        "detail": error.detail,
        "router_code": known.router_code if known else None,
        "meaning": known.meaning if known else None,
        "next_step": next_step(error.code, error.subject) if known else None,
        "also": [
            {"check": check.name, "result": check.code or "ok"}
            | ({"detail": check.error.detail} if check.error else {})
            for check in also
        ],
    }


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


def refuse(error: LicensingError, *, as_json: bool, also: tuple[Check, ...] = ()) -> int:
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


def show(facts: dict[str, Any], *, as_json: bool) -> None:
    """Print facts on standard output: one JSON object, or a line each."""
    if as_json:
        print(json.dumps(facts, ensure_ascii=not _writes_unicode()))  # noqa: T201
        return
    for name, value in facts.items():
        if isinstance(value, list):
            shown = ", ".join(str(each) for each in value) or "none"
        elif isinstance(value, dict):
            shown = ", ".join(f"{key}={each}" for key, each in value.items()) or "none"
        elif isinstance(value, bool):
            shown = "yes" if value else "no"
        else:
            shown = str(value)
        line = printable(f"{name + ':':<17}{shown}")
        if not _writes_unicode():
            line = line.encode("ascii", "backslashreplace").decode()
        print(line)  # noqa: T201


def say(message: str) -> None:
    """Print a message on standard error."""
    print(f"router-license: {printable(message)}", file=sys.stderr)  # noqa: T201


def _writes_unicode() -> bool:
    return (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
