"""Deciding on requests: once, recorded, and told to those who asked.

Both staff's decision and the acts that grant a request come here.
"""

from typing import Any

from sqlalchemy import update

from portal.db.requests import Request
from portal.domain.errors import Conflict
from portal.domain.requests import RequestState, clean_text, wished_terms
from portal.domain.terms import Comparison, Terms, differences
from portal.services.audit import record
from portal.services.context import Context
from portal.services.emails import tell_members


def changes(request: Request) -> tuple[Comparison, ...]:
    """Say what was granted otherwise than asked and wished for."""
    if request.granted is None:
        return ()
    return differences(wished_terms(request.asked, request.background), request.granted)


def require_open(request: Request) -> None:
    """Require that nobody decided yet.

    Raises:
        Conflict: somebody did.
    """
    if request.state is not RequestState.OPEN:
        raise Conflict(f"The request has already been {request.state}.")


def decide(
    context: Context,
    request: Request,
    state: RequestState,
    *,
    staff_id: str | None = None,
    note: str | None = None,
    granted: Terms | None = None,
) -> None:
    """Decide on a request, unless somebody did.

    Raises:
        Conflict: somebody did.
    """
    moved = context.session.execute(
        update(Request)
        .where(Request.id == request.id, Request.state == RequestState.OPEN)
        .values(
            state=state,
            decided_at=context.at,
            decided_by=staff_id,
            decision_note=clean_text(note or "", "note") or None,
            granted=granted,
        )
        .returning(Request.id)
    ).first()
    context.session.refresh(request)
    if moved is None:
        require_open(request)


def tell_decision(context: Context, request: Request, template: str, **more: str) -> None:
    """Mail a decision, or a question, to the account's owners and operators."""
    tell_members(
        context,
        request.account_id,
        template,
        {
            "kind": request.kind.value,
            "request_id": request.id,
            "note": request.decision_note or "",
            "changes": [
                {"term": each.title, "asked": each.asked, "granted": each.granted}
                for each in changes(request)
            ],
            "url": f"{context.policy.origin}/account/requests/{request.id}",
            **more,
        },
        "owner",
        "operator",
    )


def record_request(context: Context, action: str, request: Request, **detail: Any) -> None:
    """Write what was done to a request into the audit trail."""
    record(context, action, "request", request.id, account_id=request.account_id, **detail)
