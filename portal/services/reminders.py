"""What time and use bring about, told in time: the worker looks every minute.

What is due, `portal.domain.notices` decides. Each license is looked at again in the unit of work
that writes its notice and queues the mails, so a license that was renewed meanwhile is left alone;
and before a mail goes out it is asked once more whether what it says still holds, since a mail may
wait for days for the mail server.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import exists, func, select
from sqlalchemy.orm import aliased

from licensing.license import License as LicensePayload
from portal.db.accounts import Account, Member
from portal.db.deployments import Deployment
from portal.db.emails import Email
from portal.db.entitlements import Entitlement
from portal.db.instances import Instance
from portal.db.licenses import License
from portal.db.notices import Notice, note_told
from portal.db.people import Person
from portal.db.requests import Request
from portal.domain.catalog import CATALOG
from portal.domain.entitlements import EntitlementState
from portal.domain.mails import is_reminder
from portal.domain.notices import (
    BUDGET_SHARES,
    ENDING_WITHIN,
    FIRST_NOTICE,
    NEWS_FOR,
    NoticeFacts,
    NoticeKind,
    due_notices,
    week_of_list,
)
from portal.domain.requests import RequestState
from portal.domain.standing import LicenseState
from portal.domain.terms import Mode
from portal.services.context import SYSTEM, Context, Transactions
from portal.services.emails import tell_staff
from portal.services.licenses import require_sane_clock, standings
from portal.services.notices import TEMPLATES, Step, tell

BUDGET_KINDS: Final = frozenset(kind for kind, _ in BUDGET_SHARES)
ISSUING_FOR: Final = timedelta(days=1)
"""How long a license that is being issued silences the one before."""


def tell_due(transactions: Transactions) -> int:
    """Tell everything that is due; return how many notices were written.

    Raises:
        Unavailable: the clock cannot be trusted, so nothing is told by it.
    """
    with transactions.reading(SYSTEM) as context:
        require_sane_clock(context)
        due = [
            license_id
            for license_id, facts in notice_facts(context, _candidates(context)).items()
            if due_notices(facts, context.at)
        ]
        week = week_of_list(context.at)
        lists_due = week is not None and not context.session.scalar(
            select(exists().where(Notice.subject_id == week))
        )
    told = 0
    for license_id in due:
        with transactions.writing(SYSTEM) as context:
            told += _tell_license(context, context.session.get_one(License, license_id))
    if lists_due:
        with transactions.writing(SYSTEM) as context:
            told += tell_contracts_ending(context)
    return told


def _candidates(context: Context) -> list[License]:
    """Return the licenses of which something may be due: a look at few columns, all in one."""
    used = select(Instance.deployment_id).where(Instance.usage_tokens > 0)
    to_install = (
        (License.mode == Mode.OFFLINE)
        & License.installed_marked_at.is_(None)
        & (License.released_at > context.at - context.policy.overlap - timedelta(days=1))
    )
    return list(
        context.session.scalars(
            select(License)
            .join(Deployment, Deployment.id == License.deployment_id)
            .join(Account, Account.id == License.account_id)
            .where(
                License.released_at.is_not(None),
                License.superseded_by.is_(None),
                License.revoked_at.is_(None),
                License.expires_at > context.at - NEWS_FOR,
                (License.expires_at <= context.at + FIRST_NOTICE)
                | License.deployment_id.in_(used)
                | to_install,
                Deployment.closed_at.is_(None),
                Account.closed_at.is_(None),
            )
            .order_by(License.expires_at, License.id)
        )
    )


def notice_facts(context: Context, licenses: Sequence[License]) -> dict[str, NoticeFacts]:
    """Return what the notices of released licenses depend on, in a fixed number of statements."""
    if not licenses:
        return {}
    documents = {each.id: document for each in licenses if (document := each.document) is not None}
    budgets = {
        license_id: document.budget
        for license_id, document in documents.items()
        if document.budget is not None
    }
    now = standings(context, licenses)
    told = _told(context, {*documents, *(each.budget_id for each in budgets.values())})
    used = _used(context, {each.deployment_id for each in licenses})
    ends = _predecessors_end(context, documents.values())
    issuing = _being_issued(context, {each.deployment_id for each in licenses})
    found = {}
    for each in licenses:
        if each.released_at is None or each.expires_at is None:
            continue
        budget = budgets.get(each.id)
        budget_told = set() if budget is None else told.get(budget.budget_id, set())
        found[each.id] = NoticeFacts(
            standing=now[each.id],
            sku=each.sku,
            mode=each.mode,
            released_at=each.released_at,
            expires_at=each.expires_at,
            is_being_replaced=each.deployment_id in issuing,
            is_installed=each.installed_marked_at is not None,
            predecessor_ends_at=ends.get(documents[each.id].supersedes or ""),
            tokens_total=None if budget is None else budget.tokens_total,
            tokens_used=0
            if budget is None
            else used.get((each.deployment_id, budget.budget_id), 0),
            told=frozenset(told.get(each.id, set()) | budget_told),
        )
    return found


def _told(context: Context, subject_ids: set[str]) -> dict[str, set[NoticeKind]]:
    told: dict[str, set[NoticeKind]] = {}
    rows = context.session.execute(
        select(Notice.subject_id, Notice.kind).where(Notice.subject_id.in_(subject_ids))
    )
    for subject_id, kind in rows:
        told.setdefault(subject_id, set()).add(NoticeKind(kind))
    return told


def _used(context: Context, deployment_ids: set[str]) -> dict[tuple[str, str], int]:
    """Return the tokens that routers reported, by deployment and budget."""
    rows = context.session.execute(
        select(Instance.deployment_id, Instance.usage_budget_id, func.sum(Instance.usage_tokens))
        .where(Instance.deployment_id.in_(deployment_ids), Instance.usage_budget_id.is_not(None))
        .group_by(Instance.deployment_id, Instance.usage_budget_id)
    )
    return {
        (deployment_id, budget_id): int(used)
        for deployment_id, budget_id, used in rows
        if budget_id is not None
    }


def _predecessors_end(context: Context, documents: Iterable[LicensePayload]) -> dict[str, datetime]:
    """Return when the licenses stop whose place these took, by their own ids."""
    ids = {each.supersedes for each in documents if each.supersedes is not None}
    rows = context.session.execute(
        select(License.id, License.superseded_at, License.expires_at).where(License.id.in_(ids))
    )
    return {
        license_id: min(superseded_at, expires_at)
        for license_id, superseded_at, expires_at in rows
        if superseded_at is not None and expires_at is not None
    }


def _being_issued(context: Context, deployment_ids: set[str]) -> set[str]:
    return set(
        context.session.scalars(
            select(License.deployment_id).where(
                License.deployment_id.in_(deployment_ids),
                License.released_at.is_(None),
                License.created_at > context.at - ISSUING_FOR,
            )
        )
    )


def _tell_license(context: Context, license_: License) -> int:
    """Write what is due of one license, and queue the mails."""
    facts = notice_facts(context, [license_]).get(license_.id)
    if facts is None:
        return 0
    told = 0
    for kind in due_notices(facts, context.at):
        more: dict[str, Any] = {}
        subject_id = None
        step = None
        document = license_.document
        if kind in BUDGET_KINDS and document is not None and document.budget is not None:
            subject_id = document.budget.budget_id
            more = {"tokens_total": facts.tokens_total, "tokens_used": facts.tokens_used}
        elif TEMPLATES[kind] == "license-install":
            ends_at = facts.predecessor_ends_at
            still_ahead = ends_at is not None and ends_at > context.at
            more = {"old_ends_at": ends_at.isoformat() if ends_at and still_ahead else None}
        if TEMPLATES[kind] != "license-install":
            step = _next_step(context, license_)
        told += tell(context, license_, kind, more, subject_id=subject_id, step=step)
    return told


def _next_step(context: Context, license_: License) -> Step | None:
    """Return what there is to do about a license that ends: what was asked already comes first."""
    asked = context.session.scalar(
        select(Request)
        .outerjoin(Entitlement, Entitlement.request_id == Request.id)
        .where(
            Request.deployment_id == license_.deployment_id,
            (Request.state == RequestState.OPEN)
            | (
                (Request.state == RequestState.APPROVED)
                & (Entitlement.state == EntitlementState.APPROVED)
                & (Entitlement.start_by_at > context.at)
            ),
        )
        .order_by(Request.created_at.desc())
        .limit(1)
    )
    if asked is None:
        return None
    path = f"/account/requests/{asked.id}"
    if asked.state is RequestState.OPEN:
        text = f"Your {asked.kind} request is open and we are on it. There is nothing else to do."
        return Step("See the request", path, text)
    return Step("Start it", path, f"Your {asked.kind} is granted. Start it before this one ends.")


def tell_contracts_ending(context: Context) -> int:
    """Send approvers the week's list of contracts that end soon; return 1 when it was made now.

    A week without such contracts is noted too, and nobody is mailed.
    """
    week = week_of_list(context.at)
    kind = NoticeKind.CONTRACTS_ENDING
    if week is None or not note_told(context.session, week, kind, context.at):
        return 0
    rows = contracts_ending(context)
    if rows:
        origin = context.policy.origin
        contracts = [
            {
                "account": account.name,
                "deployment": deployment.name,
                "sku": license_.sku,
                "expires_at": license_.expires_at.isoformat() if license_.expires_at else "",
                "url": f"{origin}/staff/licenses/{license_.id}",
                "has_asked": has_asked,
            }
            for license_, deployment, account, has_asked in rows
        ]
        facts = {"contracts": contracts, "days": ENDING_WITHIN.days, "url": f"{origin}/staff"}
        tell_staff(context, TEMPLATES[kind], facts, "approver")
    return 1


def contracts_ending(context: Context) -> list[tuple[License, Deployment, Account, bool]]:
    """Return contracts in force that end within 60 days, the first to end first.

    The last value says whether the customer has a request open for the deployment.
    """
    skus = [sku for sku, each in CATALOG.items() if each.source in ("contract", "marketplace")]
    request = aliased(Request)
    has_asked = exists().where(
        request.deployment_id == License.deployment_id, request.state == RequestState.OPEN
    )
    rows = context.session.execute(
        select(License, Deployment, Account, has_asked)
        .join(Deployment, Deployment.id == License.deployment_id)
        .join(Account, Account.id == License.account_id)
        .where(
            License.sku.in_(skus),
            License.released_at.is_not(None),
            License.superseded_by.is_(None),
            License.revoked_at.is_(None),
            License.expires_at > context.at,
            License.expires_at <= context.at + ENDING_WITHIN,
            Deployment.closed_at.is_(None),
            Account.closed_at.is_(None),
        )
        .order_by(License.expires_at, License.id)
    )
    return [(license_, deployment, account, asked) for license_, deployment, account, asked in rows]


def why_outdated(context: Context, email_id: str) -> str | None:
    """Say why a queued mail is not to be sent any more; None: what it says still holds."""
    email = context.session.get_one(Email, email_id)
    if is_reminder(email.template):
        if _declined(context, email):
            return "The recipient has left the account or declined its reminders."
        expected = LicenseState.ISSUED
    elif email.template == TEMPLATES[NoticeKind.EXPIRED]:
        expected = LicenseState.EXPIRED
    else:
        return None
    license_ = context.session.get_one(License, email.facts["license_id"])
    now = standings(context, [license_])[license_.id]
    if now.replaced_by is not None:
        return "The license was replaced meanwhile."
    if now.state is not expected:
        return f"The license is {now.state} meanwhile."
    is_installed = license_.installed_marked_at is not None
    if email.template == TEMPLATES[NoticeKind.INSTALL] and is_installed:
        return "The license was marked as installed meanwhile."
    return None


def _declined(context: Context, email: Email) -> bool:
    """Say whether whom a reminder is for no longer wants it, or may no longer have it."""
    wants = (
        select(Member.id)
        .join(Person, Person.id == Member.person_id)
        .where(
            Member.account_id == email.account_id,
            Member.person_id == email.person_id,
            Member.removed_at.is_(None),
            Member.reminders_off_at.is_(None),
            Person.disabled_at.is_(None),
        )
    )
    return context.session.scalar(wants) is None
