"""The web tier's collaborators, and the facts every request carries."""

from dataclasses import dataclass
from typing import cast

from flask import current_app, g

from portal.config import Settings
from portal.domain.ports import MailTemplates
from portal.services.context import Actor, Transactions
from portal.services.sign_ins import SignedIn


@dataclass(frozen=True)
class WebPortal:
    """The web tier's collaborators, assembled by the wiring."""

    settings: Settings
    transactions: Transactions
    session_key: bytes
    mail_templates: MailTemplates
    """Shows staff what a mail says; nothing is sent from here."""


def portal() -> WebPortal:
    """Return the collaborators of the current application."""
    return cast(WebPortal, current_app.extensions["portal"])


def request_actor() -> Actor:
    """Return who acts in this request: the person signed in, or nobody in particular."""
    who: SignedIn | None = g.get("signed_in")
    if who is None:
        return Actor("anonymous", None, g.address, g.request_id)
    return Actor(
        "staff" if who.kind == "staff" else "person", who.person_id, g.address, g.request_id
    )


def signed_in() -> SignedIn:
    """Return who is signed in. Only for routes whose access rule requires it."""
    return cast(SignedIn, g.signed_in)


def account_id() -> str:
    """Return the account a customer is looking at."""
    place = signed_in().place
    if place is None:
        raise LookupError("the access rule admitted a person without an account")
    return place.account_id
