"""What a queued mail carries."""

from portal.db.emails import Email
from portal.services.context import Context
from portal.services.email_tokens import CONFIRM_EMAIL, live_token
from portal.services.emails import open_letter


def mailed_token(context: Context, purpose: str) -> tuple[str, str]:
    """Return the live token that a queued mail of this purpose carries, and its code, if any."""
    for email in context.session.query(Email).filter_by(template=purpose, state="queued"):
        letter = open_letter(context, email.id)
        assert letter is not None
        link, _, code = str(letter.facts["secret"]).partition("\n")
        token = link.rpartition("token=" if purpose == CONFIRM_EMAIL else "/")[2]
        if live_token(context, token, purpose) is not None:
            return token, code
    raise AssertionError(f"no mail carries a live {purpose} token")
