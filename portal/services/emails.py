"""Queuing mail. A message is a row and a job of the transaction that caused it."""

from typing import Any

from portal.db.emails import Email
from portal.domain.identifiers import EMAIL, new_id
from portal.services.context import Context
from portal.services.jobs import enqueue

SEND_EMAIL = "send-email"


def queue_email(
    context: Context,
    template: str,
    to_address: str,
    facts: dict[str, Any],
    *,
    account_id: str | None = None,
    person_id: str | None = None,
    secret: str | None = None,
) -> Email:
    """Queue `templates/email/<template>/` to one address.

    `facts` are JSON values of this customer only. `secret` (a token or code, reaching the template
    as `secret`) is kept encrypted and erased after sending.
    """
    email_id = new_id(EMAIL, context.ports.randomness)
    email = Email(
        id=email_id,
        account_id=account_id,
        person_id=person_id,
        to_address=to_address,
        template=template,
        facts=facts,
        sealed_secret=(
            None if secret is None else context.ports.secrets.seal(secret.encode(), email_id)
        ),
        state="queued",
        created_at=context.at,
    )
    context.session.add(email)
    enqueue(context, SEND_EMAIL, email_id, {"email_id": email_id})
    return email
