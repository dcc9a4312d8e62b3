"""`router-license explain`, and the codes that are not about the license itself.

They are refusals of the portal, and problems of commands and renewals. Each has its meaning and
what to do; `docs/router/errors.md` says more.
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


_AGAIN: Final = "The current lease stays valid and the router tries again by itself."

CODES: Final[dict[str, Explained]] = {
    "malformed-request": Explained(
        "The portal did not receive exactly one signed envelope.",
        f"{_AGAIN} Look for a proxy that changes bodies.",
    ),
    "too-large": Explained(
        "The portal received more than 40 KiB.", f"{_AGAIN} Look for a proxy that changes bodies."
    ),
    "unsupported-media-type": Explained(
        "The portal did not receive application/json.",
        f"{_AGAIN} Look for a proxy that changes headers.",
    ),
    "unknown-instance": Explained(
        "The portal knows no instance with this router's key.",
        "Enroll again with a new code and a new lease directory; the current lease stays valid.",
    ),
    "bad-signature": Explained(
        "The portal found that the signature does not match the request.",
        "The lease directory may be damaged: enroll again with a new one.",
    ),
    "invalid-request": Explained(
        "The portal found a value in the request that is not allowed.",
        "Report the detail to the vendor; the current lease stays valid.",
    ),
    "wrong-audience": Explained(
        "The request is addressed to another portal than the one that received it.",
        "Compare server.license.lease.url with the license's own; the portal may have moved.",
    ),
    "license-mismatch": Explained(
        "The license does not belong to the deployment this router was enrolled into.",
        "Install the license of that deployment, or enroll into the other one.",
    ),
    "instances-exhausted": Explained(
        "All instances of the license are in use.",
        "Retire an unused one on the deployment's page, or ask for more.",
    ),
    "enrollment-refused": Explained(
        "The code, the key or the license does not allow enrolling.",
        "Create a new code on the deployment's page and enroll again.",
    ),
    "https-required": Explained(
        "The request came over plain http.", "Use the portal's https address."
    ),
    "previous-lease-required": Explained(
        "The portal was restored from a backup and needs the current lease.",
        "The router sends it by itself; by courier, write the request with --with-lease.",
    ),
    "request-replayed": Explained(
        "The request's id was answered too long ago.", "The router uses a new id by itself."
    ),
    "rate-limited": Explained(
        "There were too many requests.", "Wait; the router does so by itself."
    ),
    "unavailable": Explained(
        "The portal cannot answer now.", f"{_AGAIN} The portal's log says more."
    ),
    "internal": Explained(
        "There was a fault in the portal.", "Report the request id; the current lease stays valid."
    ),
    "not-found": Explained(
        "The portal has nothing at this address.", "Compare lease.url with the portal's origin."
    ),
    "method-not-allowed": Explained(
        "The portal does not accept this method at this address.",
        "Compare lease.url with the portal's origin.",
    ),
    "unreachable": Explained(
        "There was no usable answer: no connection, a redirect or a proxy's page.",
        f"{_AGAIN} Check DNS, proxy and CA.",
    ),
    "lease-rejected": Explained(
        "The lease is genuine, but does not answer this router's request, or grants more than its "
        "license.",
        "The current lease stays valid; try again, and report the instance id if it happens again.",
    ),
    "not-an-answer": Explained(
        "The file is not an answer to a courier request, or some of its codes are missing.",
        "Download it again, or scan the missing codes.",
    ),
    "keyset-step-missing": Explained(
        "The new keyset cannot be reached from the current one in one step.",
        "Fetch the named version from /v1/keysets/ and install it first.",
    ),
    "state": Explained(
        "The lease directory is missing, damaged, in use, or belongs to another instance.",
        "Do what the message says.",
    ),
    "io": Explained("A file cannot be read or written.", "Check path, permissions and space."),
    "usage": Explained("The command was called incorrectly.", "router-license COMMAND --help"),
    "failed": Explained("Something is missing.", "Do what the message says."),
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
        raise UsageError(f"there is no code {code!r}; known are {', '.join(known_codes)}")
    show(facts, as_json=options.json)
    return OK
