"""`router-license explain`, and the codes that are not the license's own.

They are refusals of the portal, and failures of a command or of renewal. Each has its meaning and
what to do about it; `docs/router/errors.md` says more.
"""

import argparse
from dataclasses import dataclass
from typing import Final

from licensing.names import CODES as DOCUMENT_CODES
from licensing.names import ROUTER_CODES
from router.commands.report import show
from router.errors import OK, UsageError


@dataclass(frozen=True)
class Explained:
    """What a code means, and what to do about it."""

    meaning: str
    next_step: str


_AGAIN: Final = "The lease at hand stands and the router asks again by itself."

CODES: Final[dict[str, Explained]] = {
    "malformed-request": Explained(
        "The portal did not get one signed envelope.",
        f"{_AGAIN} Look for a proxy that changes bodies.",
    ),
    "too-large": Explained(
        "The portal got more than 40 KiB.", f"{_AGAIN} Look for a proxy that changes bodies."
    ),
    "unsupported-media-type": Explained(
        "The portal did not get application/json.",
        f"{_AGAIN} Look for a proxy that changes headers.",
    ),
    "unknown-instance": Explained(
        "The portal knows no instance with this router's key.",
        "Enroll again with a new code and a new lease directory; the lease at hand stays good.",
    ),
    "bad-signature": Explained(
        "The portal found that the signature does not fit the request.",
        "The lease directory may be damaged: enroll again with a new one.",
    ),
    "invalid-request": Explained(
        "The portal found a value in the request that cannot be.",
        "Report the detail to the vendor; the lease at hand stands.",
    ),
    "wrong-audience": Explained(
        "The request was made out to another portal than the one that got it.",
        "Compare server.license.lease.url with the license's own; the portal may have moved.",
    ),
    "license-mismatch": Explained(
        "The license is not one of the deployment this router was enrolled into.",
        "Install the license of that deployment, or enroll into the other one.",
    ),
    "instances-exhausted": Explained(
        "Every instance the license permits is in use.",
        "Retire one that is gone on the deployment's page, or ask for more.",
    ),
    "enrollment-refused": Explained(
        "The code, the key or the license does not permit enrolling.",
        "Make a new code on the deployment's page and enroll again.",
    ),
    "https-required": Explained(
        "The request came over plain http.", "Use the portal's https address."
    ),
    "previous-lease-required": Explained(
        "The portal was restored from a backup and needs the lease at hand.",
        "The router sends it along; by courier write the request with --with-lease.",
    ),
    "request-replayed": Explained(
        "The request's id was answered too long ago.", "The router takes a new id by itself."
    ),
    "rate-limited": Explained("The portal was asked too often.", "Wait; the router does."),
    "unavailable": Explained(
        "The portal cannot answer now.", f"{_AGAIN} Its operator finds more in the portal's log."
    ),
    "internal": Explained(
        "The portal made a mistake.", "Report the request id; the lease at hand stands."
    ),
    "not-found": Explained(
        "The portal has nothing at this address.", "Compare lease.url with the portal's origin."
    ),
    "method-not-allowed": Explained(
        "The portal has this address for another method.",
        "Compare lease.url with the portal's origin.",
    ),
    "unreachable": Explained(
        "No answer that counts came back: no connection, a redirect, somebody's page.",
        f"{_AGAIN} Check DNS, proxy and CA.",
    ),
    "lease-rejected": Explained(
        "A genuine lease is not the answer to this router's request.",
        "The lease at hand stands; ask again, and report the instance id if it stays so.",
    ),
    "not-an-answer": Explained(
        "The file is no answer to a courier request, or its codes are not whole.",
        "Download it again, or scan what is missing.",
    ),
    "keyset-step-missing": Explained(
        "The keyset cannot be reached from the one at hand in one step.",
        "Fetch the version that is named from /v1/keysets/ and install it first.",
    ),
    "state": Explained(
        "The lease directory is missing, damaged, in use, or of another instance.",
        "Do what the message says.",
    ),
    "io": Explained("A file cannot be read or written.", "Check path, permissions and space."),
    "usage": Explained("The command was called wrongly.", "router-license COMMAND --help"),
    "failed": Explained("Something that is needed is missing.", "Do what the message says."),
}


def run_explain(options: argparse.Namespace) -> int:
    """Say what a code means and what to do."""
    code = options.code
    if code in DOCUMENT_CODES:
        known = DOCUMENT_CODES[code]
        facts = {
            "code": code,
            "exit": known.exit,
            "router_code": known.router_code,
            "meaning": known.meaning,
            "next_step": known.next_step,
        }
    elif code in ROUTER_CODES or code in CODES:
        shown = ROUTER_CODES.get(code) or CODES[code]
        facts = {"code": code, "meaning": shown.meaning, "next_step": shown.next_step}
    else:
        known_codes = [*DOCUMENT_CODES, *ROUTER_CODES, *CODES]
        raise UsageError(f"no code {code!r}; known are {', '.join(known_codes)}")
    show(facts, as_json=options.json)
    return OK
