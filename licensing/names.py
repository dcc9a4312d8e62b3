"""Names that both sides share, as frozen data: types, features, SKUs, codes and their meaning.

Sources: the design of the signed documents and of the lease protocol; for the router's codes the
vendor's table of failure modes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

PRODUCT: Final = "genai-smart-router"
DEFAULT_ISSUER: Final = "metrum.ai"
INSTANCE_ISSUER: Final = "instance"

PAYLOAD_TYPE_PREFIX: Final = "application/vnd.metrum."
LICENSE_TYPE: Final = f"{PAYLOAD_TYPE_PREFIX}license.v1+json"
LEASE_TYPE: Final = f"{PAYLOAD_TYPE_PREFIX}lease.v1+json"
BUNDLE_TYPE: Final = f"{PAYLOAD_TYPE_PREFIX}revocation-bundle.v1+json"
KEYSET_TYPE: Final = f"{PAYLOAD_TYPE_PREFIX}keyset.v1+json"
ENROLLMENT_REQUEST_TYPE: Final = f"{PAYLOAD_TYPE_PREFIX}enrollment-request.v1+json"
LEASE_REQUEST_TYPE: Final = f"{PAYLOAD_TYPE_PREFIX}lease-request.v1+json"
RELEASE_REQUEST_TYPE: Final = f"{PAYLOAD_TYPE_PREFIX}release-request.v1+json"

PAYLOAD_TYPES: Final = (
    LICENSE_TYPE,
    LEASE_TYPE,
    BUNDLE_TYPE,
    KEYSET_TYPE,
    ENROLLMENT_REQUEST_TYPE,
    LEASE_REQUEST_TYPE,
    RELEASE_REQUEST_TYPE,
)

ROLES: Final = ("license", "lease", "revocation")
"""Roles of keyset keys; roots are in a list of their own."""

FEATURES: Final = (
    "admin_reports",
    "audit_export",
    "dynamic_routing",
    "external_policy_routing",
    "model_group_contracts",
    "pii_filtering",
    "private_upstreams",
    "retention_rollups",
    "routing",
    "usage_export",
    "usage_reporting",
)

SKUS: Final = (
    "eval-72h",
    "pilot-30d",
    "enterprise-annual",
    "credit-pack-5m",
    "credit-pack-25m",
    "marketplace-seat",
    "lease-monthly",
)

LIMITS: Final = (
    "max_concurrency",
    "max_instances",
    "max_seats",
    "tokens_per_window",
    "window_s",
)


@dataclass(frozen=True)
class Code:
    """What a verifier's code means and what to do about it."""

    code: str
    exit: int
    """Exit code of `router-license`."""
    router_code: str
    """The code a router shows its callers."""
    meaning: str
    next_step: str


def _codes() -> Mapping[str, Code]:
    invalid = "license-invalid"
    listed = (
        Code(
            "malformed-envelope",
            3,
            invalid,
            "The file is not a signed envelope: incomplete, edited, re-encoded or another file.",
            "Download license.json again and compare its SHA-256 with the one on its page.",
        ),
        Code(
            "wrong-type",
            3,
            invalid,
            "The envelope holds another kind of document than the one expected.",
            "Check that you named the license, not a summary, keyset, lease or bundle.",
        ),
        Code(
            "untrusted-key",
            7,
            invalid,
            "The keyset has no key with the named key id that may sign this kind of document.",
            "Fetch the current keyset from the portal; if that does not help, report the key id.",
        ),
        Code(
            "bad-signature",
            3,
            invalid,
            "The signature does not match the content: at least one byte was changed.",
            "Download the file again; never edit it.",
        ),
        Code(
            "malformed-payload",
            3,
            invalid,
            "The signed content breaks the rules of its format.",
            "Update the router or the command; if it is current, report the license id to support.",
        ),
        Code(
            "wrong-issuer",
            5,
            invalid,
            "The document and the keyset have different issuers.",
            "Use a keyset and a license from the same issuer.",
        ),
        Code(
            "wrong-product",
            5,
            "license-product-mismatch",
            "The document is for another product.",
            "Install a license that was issued for the GenAI Smart Router.",
        ),
        Code(
            "key-not-valid",
            3,
            invalid,
            "The signing key was withdrawn as compromised, or was not valid when this was issued.",
            "Get the replacement license from its page in the portal.",
        ),
        Code(
            "keyset-too-old",
            7,
            invalid,
            "The license needs a newer keyset than this one.",
            "Fetch the current keyset from the portal, or install the newer distribution.",
        ),
        Code(
            "not-yet-valid",
            5,
            "license-not-yet-valid",
            "The document is not valid yet, or this machine's clock is behind.",
            "Compare the machine's clock with UTC, then the not-before time of the license.",
        ),
        Code(
            "expired",
            5,
            "license-expired",
            "The document has expired.",
            "Renew the license in the portal and install the new file.",
        ),
        Code(
            "wrong-instance",
            5,
            "license-instance-mismatch",
            "The license is bound to another instance fingerprint.",
            "Set instance_fingerprint to the licensed value, or ask for a replacement license.",
        ),
        Code(
            "rolled-back",
            6,
            "license-superseded",
            "Something newer was already in use here: a revision, or a keyset.",
            "Install the newest license of the deployment, or fetch the current keyset.",
        ),
        Code(
            "revoked",
            6,
            "license-revoked",
            "The vendor revoked this license.",
            "Install a replacement license, or contact support if this is unexpected.",
        ),
        Code(
            "suspended",
            6,
            "license-suspended",
            "The license is on hold.",
            "Open the license's page in the portal: it names the hold and how to lift it.",
        ),
        Code(
            "superseded",
            6,
            "license-superseded",
            "Another license has replaced this one.",
            "Install the newer license; the license's page in the portal links to it.",
        ),
        Code(
            "revocation-required",
            7,
            "license-revocation-required",
            "A signed revocation bundle is required, but none was given.",
            "Fetch the current bundle from the portal and put it where the router looks for it.",
        ),
        Code(
            "revocation-unusable",
            7,
            "license-revocation-check-failed",
            "The revocation bundle is missing, older than one already seen, expired or not valid.",
            "Fetch the current bundle from the portal.",
        ),
        Code(
            "clock-rollback",
            7,
            "license-clock-rollback",
            "This machine's clock is behind a time that has certainly passed.",
            "Correct the system time (NTP), then check again.",
        ),
    )
    return MappingProxyType({code.code: code for code in listed})


CODES: Final = _codes()
"""Every code of the verify table, with the next step for a license."""

_KEYSET_AGAIN: Final = "Fetch keyset.json again from the portal (/v1/keyset.json); never edit it."
_BUNDLE_AGAIN: Final = (
    "Fetch the current bundle from the portal (/v1/revocations/bundle.json); never edit it."
)
_CLOCK: Final = "Compare the machine's clock with UTC."

_OTHER_STEPS: Final[Mapping[str, Mapping[str, str]]] = MappingProxyType(
    {
        "keyset": {
            "malformed-envelope": _KEYSET_AGAIN,
            "wrong-type": "Check that you named the keyset, not a license, lease or bundle.",
            "untrusted-key": _KEYSET_AGAIN,
            "bad-signature": _KEYSET_AGAIN,
            "malformed-payload": (
                "Update the router or the command; if it is current, report the keyset's SHA-256 "
                "to support."
            ),
            "wrong-product": "Use the keyset of the portal that issued the license.",
            "key-not-valid": _KEYSET_AGAIN,
            "not-yet-valid": _CLOCK,
            "expired": _KEYSET_AGAIN,
            "rolled-back": _KEYSET_AGAIN,
        },
        "revocation bundle": {
            "malformed-envelope": _BUNDLE_AGAIN,
            "wrong-type": "Check that you named the bundle, not a license, lease or keyset.",
            "bad-signature": _BUNDLE_AGAIN,
            "malformed-payload": (
                "Update the router or the command; if it is current, report the bundle's SHA-256 "
                "to support."
            ),
            "wrong-issuer": "Use a keyset and a bundle from the same issuer.",
            "wrong-product": "Use the bundle of the portal that issued the license.",
            "key-not-valid": _BUNDLE_AGAIN,
            "not-yet-valid": _CLOCK,
            "expired": _BUNDLE_AGAIN,
            "rolled-back": _BUNDLE_AGAIN,
        },
        "public key": {
            "malformed-payload": "Name a PEM file with one Ed25519 public key (BEGIN PUBLIC KEY).",
        },
        "file": {
            "malformed-envelope": (
                "Get the file again from its source, unchanged; summary.json is not signed."
            ),
            "malformed-payload": (
                "Get the file again from its source; if that does not help, report it."
            ),
        },
    }
)


def next_step(code: str, subject: str = "license") -> str:
    """Return what to do about a code, for this kind of file.

    `subject` is `license`, `keyset`, `revocation bundle`, `public key`, or `file` for any.
    """
    return _OTHER_STEPS.get(subject, {}).get(code, CODES[code].next_step)


@dataclass(frozen=True)
class RouterCode:
    """A code that callers and operators of a router see."""

    code: str
    meaning: str
    next_step: str


def _router_codes() -> Mapping[str, RouterCode]:
    listed = (
        RouterCode(
            "license-missing",
            "There is no readable file where the license should be.",
            "Mount license.json at server.license.path and check its permissions.",
        ),
        RouterCode(
            "license-invalid",
            "The license file does not verify.",
            "Run router-license verify on it: the code it prints says why.",
        ),
        RouterCode(
            "license-expired",
            "The license has expired.",
            "Install a renewed license.",
        ),
        RouterCode(
            "license-not-yet-valid",
            "The license is not valid yet, or the clock is behind.",
            "Check the system clock and the license's not-before time.",
        ),
        RouterCode(
            "license-product-mismatch",
            "The license is for another product.",
            "Install a license issued for the GenAI Smart Router.",
        ),
        RouterCode(
            "license-feature-forbidden",
            "The license does not include a feature that is used or configured.",
            "Switch the feature off, or ask for a license that includes it.",
        ),
        RouterCode(
            "license-limit-exceeded",
            "A limit or the token budget of the license is used up.",
            "Wait for the window, reduce usage, or buy a credit pack.",
        ),
        RouterCode(
            "license-revoked",
            "The vendor revoked the license.",
            "Install a replacement license, or contact support.",
        ),
        RouterCode(
            "license-suspended",
            "The license is on hold.",
            "Resolve the hold named on the license's page, then update license and bundle.",
        ),
        RouterCode(
            "license-superseded",
            "A newer license has replaced this one.",
            "Install the deployment's newest license.",
        ),
        RouterCode(
            "license-revocation-required",
            "A signed revocation bundle is required, but there is none.",
            "Mount the current bundle at server.license.revocation.path.",
        ),
        RouterCode(
            "license-revocation-check-failed",
            "The revocation bundle is malformed, expired, untrusted or older than one seen.",
            "Replace the bundle with the current one.",
        ),
        RouterCode(
            "license-clock-rollback",
            "The system clock is behind a time that has certainly passed.",
            "Correct the system time; if the code stays, check the license state file.",
        ),
        RouterCode(
            "license-instance-mismatch",
            "The license is bound to another instance fingerprint.",
            "Correct instance_fingerprint, or ask for a replacement license.",
        ),
        RouterCode(
            "license-lease-required",
            "The license needs a lease, and this router has none.",
            "Enroll the router with a code from its deployment's page.",
        ),
        RouterCode(
            "license-lease-expired",
            "The last lease and its grace period are over.",
            "Restore the connection to the portal, or renew by courier.",
        ),
        RouterCode(
            "license-lease-ended",
            "The plan behind the lease has ended.",
            "Renew the plan in the portal.",
        ),
        RouterCode(
            "license-state-invalid",
            "The license state was altered, or copied without its key.",
            "Restore a trusted backup of the state file and its key, both together.",
        ),
    )
    return MappingProxyType({code.code: code for code in listed})


ROUTER_CODES: Final = _router_codes()
"""The codes a router shows: thirteen of the vendor's table and five more."""
