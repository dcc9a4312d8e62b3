"""Writing the audit trail. The row is part of the act: without it the act does not happen."""

from typing import Any

from sqlalchemy import select

from portal.db.audit import AuditRow
from portal.services.context import Context


def record(
    context: Context,
    action: str,
    subject_kind: str,
    subject_id: str,
    *,
    account_id: str | None = None,
    reason: str | None = None,
    **detail: Any,
) -> None:
    """Note in the current transaction that the actor did `action` to the subject.

    `action` is noun and verb in the past, such as `request.approved`. `detail` holds ids, numbers
    and names of terms: no personal data, no secret.
    """
    actor = context.actor
    context.session.add(
        AuditRow(
            at=context.at,
            action=action,
            actor_kind=actor.kind,
            actor_id=actor.id,
            account_id=account_id,
            subject_kind=subject_kind,
            subject_id=subject_id,
            reason=reason,
            detail=detail,
            address=actor.address,
            http_request_id=actor.http_request_id,
        )
    )


def account_activity(context: Context, account_id: str, most: int = 100) -> list[AuditRow]:
    """Return what happened in an account, newest first."""
    return list(
        context.session.scalars(
            select(AuditRow)
            .where(AuditRow.account_id == account_id)
            .order_by(AuditRow.id.desc())
            .limit(most)
        )
    )


def trail_of(context: Context, *subject_ids: str) -> list[AuditRow]:
    """Return what happened to these subjects, oldest first."""
    return list(
        context.session.scalars(
            select(AuditRow).where(AuditRow.subject_id.in_(subject_ids)).order_by(AuditRow.id)
        )
    )


PAGE = 100


def search_trail(context: Context, text: str, *, before: int | None = None) -> list[AuditRow]:
    """Return a page of audit rows, newest first, whose ids or action match `text`."""
    query = select(AuditRow).order_by(AuditRow.id.desc()).limit(PAGE)
    if before is not None and 0 < before < 2**63:
        query = query.where(AuditRow.id < before)
    if text:
        query = query.where(
            (AuditRow.subject_id == text)
            | (AuditRow.actor_id == text)
            | (AuditRow.account_id == text)
            | AuditRow.action.startswith(text, autoescape=True)
        )
    return list(context.session.scalars(query))
