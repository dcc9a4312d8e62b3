"""Writing and reading the audit trail.

The row is part of the act: if it cannot be written, the act does not happen.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import select

from portal.db.audit import AuditRow
from portal.db.people import Person, people_of
from portal.services.context import Context

PAGE: Final = 100
"""Rows per page of the trail."""


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
    """Record in the current transaction that the actor did `action` to the subject.

    `action` is a noun and a past participle, such as `request.approved`. `detail` holds ids,
    numbers and names of terms, but no personal data and no secrets.
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


@dataclass(frozen=True)
class Act:
    """One line of an account's activity, for those who may read it."""

    at: datetime
    action: str
    actor_kind: str
    actor_name: str | None
    """None if nobody in particular acted."""
    reason: str | None


def activity_for_members(context: Context, account_id: str) -> tuple[Act, ...]:
    """Return the activity of an account that its members may see, newest first.

    Customers do not learn the names of staff, their internal notes or their reasons. What staff say
    to a customer is on the request.
    """
    return tuple(
        Act(
            row.at,
            row.action,
            row.actor_kind,
            actor.name if actor is not None and actor.kind == "customer" else None,
            row.reason if row.actor_kind == "person" else None,
        )
        for row, actor in _account_rows(context, account_id, 100)
        if row.detail.get("audience") != "staff"
    )


def activity_for_staff(context: Context, account_id: str) -> tuple[Act, ...]:
    """Return the latest activity of an account, newest first."""
    return tuple(
        Act(row.at, row.action, row.actor_kind, actor.name if actor else None, row.reason)
        for row, actor in _account_rows(context, account_id, 30)
    )


def _account_rows(
    context: Context, account_id: str, most: int
) -> list[tuple[AuditRow, Person | None]]:
    rows = context.session.scalars(
        select(AuditRow)
        .where(AuditRow.account_id == account_id)
        .order_by(AuditRow.id.desc())
        .limit(most)
    ).all()
    people = people_of(context.session, {row.actor_id for row in rows})
    return [(row, people.get(row.actor_id or "")) for row in rows]


def trail_of(context: Context, *subject_ids: str) -> list[AuditRow]:
    """Return what was done to these subjects, oldest first."""
    return list(
        context.session.scalars(
            select(AuditRow).where(AuditRow.subject_id.in_(subject_ids)).order_by(AuditRow.id)
        )
    )


@dataclass(frozen=True)
class TrailPage:
    """A page of the audit trail, newest first."""

    rows: tuple[AuditRow, ...]
    names: Mapping[str, str]
    """The names of the people who acted, by id."""


def search_trail(context: Context, text: str, *, before: int | None = None) -> TrailPage:
    """Return a page of the rows whose ids or action match `text`, below the number `before`."""
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
    rows = tuple(context.session.scalars(query))
    people = people_of(context.session, {row.actor_id for row in rows})
    return TrailPage(rows, {each.id: each.name for each in people.values()})
