"""The mails there are: what each is called, and how it may be handled.

Invariants: every folder of `templates/email/` has its entry here. A reminder speaks of what lies
ahead and may be declined; what has happened is told to everybody it concerns.
"""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class MailKind:
    """How staff read a template's name, and what is peculiar to its mails."""

    title: str
    is_reminder: bool = False
    """Whether people can decline it for an account."""
    carries_secret: bool = False
    """Whether it holds a link or code that works once. Such a mail is never shown or sent again."""


MAILS: Final[dict[str, MailKind]] = {
    "confirm-email": MailKind("Confirm an address", carries_secret=True),
    "contracts-ending": MailKind("Contracts that end soon"),
    "factor-removed": MailKind("Second factor removed"),
    "factor-set-up": MailKind("Second factor set up"),
    "license-budget-low": MailKind("Budget nearly used", is_reminder=True),
    "license-budget-used": MailKind("Budget used up"),
    "license-expired": MailKind("License expired"),
    "license-expiring": MailKind("License expires soon", is_reminder=True),
    "license-install": MailKind("License to install", is_reminder=True),
    "license-issued": MailKind("License ready"),
    "license-reinstated": MailKind("License reinstated"),
    "license-replaced": MailKind("License replaced"),
    "license-revoked": MailKind("License revoked"),
    "license-suspended": MailKind("License suspended"),
    "license-topped-up": MailKind("License topped up"),
    "password-changed": MailKind("Password changed"),
    "recovery-code-used": MailKind("Recovery code used"),
    "refused-to-sign": MailKind("Refused to sign"),
    "request-answered": MailKind("Customer replied"),
    "request-approved": MailKind("Request granted"),
    "request-arrived": MailKind("Request arrived"),
    "request-declined": MailKind("Request declined"),
    "request-question": MailKind("Question on a request"),
    "request-received": MailKind("Request received"),
    "reset-password": MailKind("Reset a password", carries_secret=True),
    "set-password": MailKind("Set a first password", carries_secret=True),
    "sign-up-again": MailKind("Sign-up with a known address"),
}


def is_reminder(template: str) -> bool:
    """Say whether people can decline the mails of a template."""
    return template in MAILS and MAILS[template].is_reminder
