"""Drafts of forms: encrypted, for one person and one page, deleted after a while."""

from datetime import timedelta

from portal.db.drafts import FormDraft
from portal.services.context import Context
from portal.services.email_tokens import new_token, token_hash


def save_draft(context: Context, *, person_id: str, path: str, text: str, keep: timedelta) -> str:
    """Keep what somebody typed; return the token that brings it back."""
    token = new_token(context)
    row_id = token_hash(token)
    context.session.add(
        FormDraft(
            token_sha256=row_id,
            person_id=person_id,
            path=path,
            sealed_fields=context.ports.secrets.seal(text.encode(), row_id),
            created_at=context.at,
            expires_at=context.at + keep,
        )
    )
    return token


def read_draft(context: Context, token: str, *, person_id: str, path: str) -> str | None:
    """Return a draft; None if it has expired or is for another person or page."""
    row = context.session.get(FormDraft, token_hash(token))
    if row is None or context.at >= row.expires_at:
        return None
    if row.person_id != person_id or row.path != path:
        return None
    return context.ports.secrets.open(row.sealed_fields, row.token_sha256).decode()
