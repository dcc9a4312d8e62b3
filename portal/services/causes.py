"""Proving causes: why the signer takes an entitlement, or the lifting of a hold, to be granted.

Invariants: an entitlement is proved before it starts and after each change, or nothing is signed
from it. The command's own acts are sealed at once; what staff approve in a browser counts only
where the settings say so; an evaluation is decided by the policy once more, with caps counted from
what was sealed. What cannot be proved is recorded.

Source: "Custody".
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import ColumnElement, select

from licensing.encoding import sha256_hex
from portal.db.acts import Act
from portal.db.audit import AuditRow
from portal.db.deployments import lock_deployment
from portal.db.entitlements import Entitlement
from portal.db.licenses import Hold, open_holds
from portal.db.people import Person, staff_roles
from portal.db.requests import Request
from portal.db.sign_ins import SignIn
from portal.db.turns import take_turn
from portal.domain.acts import LAPSES_AFTER, ActState
from portal.domain.catalog import CATALOG
from portal.domain.causes import (
    DAY,
    Approvals,
    Cause,
    CauseKind,
    EntitlementSeal,
    LicenseSeal,
    SealedGrant,
    beyond_template,
)
from portal.domain.email_addresses import EmailAddress, parse_email
from portal.domain.entitlements import EndCause
from portal.domain.errors import Invalid, NotFound, Unproved
from portal.domain.evaluations import Applicant, decide_evaluation
from portal.domain.requests import RequestKind, RequestState
from portal.domain.roles import ENTITLEMENTS_APPROVE, HOLDS_MANAGE, staff_permissions
from portal.domain.standing import COMMERCE_CAUSES, HoldCause
from portal.domain.terms import differences
from portal.services.context import Actor, Context, Transactions
from portal.services.jobs import enqueue
from portal.services.keys import unix
from portal.services.lines import set_term
from portal.services.refusals import refuse
from portal.services.seals import (
    CAUSE_SEALED,
    LICENSE_ISSUED,
    Sealed,
    latest_cause,
    lifted_holds,
    misfits,
    require_fit,
    seal_entitlement,
    seal_lift,
    sealed_statements,
)
from portal.services.sign_ins import FRESH

PROVE_CAUSE: Final = "prove-cause"

PROVE_LIFT: Final = "prove-lift"
MOST_REBOUND: Final = 3
"""How often customers bind an entitlement to other fingerprints by themselves,"""
REBIND_SPAN: Final = timedelta(days=365)
"""in this time."""


@dataclass(frozen=True)
class Approval:
    """What a staff person approved, and when: a claim, until it is proved."""

    person_id: str
    at: datetime


def ask_for_proof(context: Context, entitlement: Entitlement, *approvals: Approval) -> None:
    """Have an entitlement proved that was approved or changed in this unit.

    The command seals at once, as its own act, and names who it acted for. Elsewhere the worker
    proves the approvals; without any, what it can prove by itself.
    """
    if context.actor.kind == "command":
        _require_dates(context, entitlement)
        by = tuple(dict.fromkeys(each.person_id for each in approvals)) or None
        seal_entitlement(context, entitlement, Cause(kind=CauseKind.COMMAND, by=by))
        return
    at = max((each.at for each in approvals), default=context.at)
    enqueue(
        context,
        PROVE_CAUSE,
        f"{entitlement.id}:{at.isoformat()}",
        {"entitlement_id": entitlement.id, "approvals": _claims(approvals)},
    )


def before_change(context: Context, entitlement: Entitlement) -> None:
    """Refuse to let the command change, and so seal, what somebody altered in the database.

    Raises:
        Unproved: the row is not what was sealed, or nothing was.
    """
    if context.actor.kind != "command":
        return
    sealed = latest_cause(context, entitlement)
    if sealed is None:
        raise Unproved(
            f"{entitlement.id} was never proved; review it with `portal custody adopt` first."
        )
    wrong = set(misfits(entitlement, sealed.statement))
    if sealed.statement.starts_at is None and not wrong & {"terms", "budget", "renews"}:
        # It was started since, and the signer has not sealed that yet.
        return
    require_fit(entitlement, sealed.statement)


def _claims(approvals: Sequence[Approval]) -> list[list[str]]:
    return [[each.person_id, each.at.isoformat()] for each in approvals]


def claimed_approvals(claims: Iterable[Sequence[str]]) -> tuple[Approval, ...]:
    """Read approvals back from a job's payload."""
    return tuple(Approval(person_id, datetime.fromisoformat(at)) for person_id, at in claims)


def prove_entitlement(
    context: Context, entitlement: Entitlement, approvals: Sequence[Approval] = ()
) -> Sealed[EntitlementSeal]:
    """Prove an entitlement and seal it; sealed as it stands, change nothing.

    Raises:
        Unproved: no cause can be proved for what its row says.
        SignerUnavailable: this process does not hold the seal key.
    """
    before = latest_cause(context, entitlement)
    if before is None:
        _require_dates(context, entitlement)
        return seal_entitlement(context, entitlement, _first_cause(context, entitlement, approvals))
    wrong = misfits(entitlement, before.statement)
    if not wrong:
        return before
    started = {"start", "end"} if before.statement.starts_at is None else set()
    if not set(wrong) <= {"terms", *started}:
        require_fit(entitlement, before.statement)
    cause = before.statement.cause
    if "terms" in wrong:
        cause = _cause_of_change(context, entitlement, before.statement, approvals)
    if started:
        _require_dates(context, entitlement)
    return seal_entitlement(context, entitlement, cause)


def _first_cause(
    context: Context, entitlement: Entitlement, approvals: Sequence[Approval]
) -> Cause:
    claimed = tuple(approvals) or (
        *approvals_of(entitlement),
        *_approvals_of_act(context, entitlement, entitlement.created_at),
    )
    if entitlement.approved_by is None and not approvals:
        return _prove_evaluation(context, entitlement)
    cause = _prove_staff(context, claimed, ENTITLEMENTS_APPROVE)
    _require_two(entitlement, claimed)
    return cause


def _cause_of_change(
    context: Context,
    entitlement: Entitlement,
    before: EntitlementSeal,
    approvals: Sequence[Approval],
) -> Cause:
    """Prove why the terms of an entitlement changed since they were sealed."""
    changed = {each.term for each in differences(before.terms, entitlement.terms)}
    if changed == {"fingerprints"} and _may_rebind(context, entitlement):
        return Cause(kind=CauseKind.CUSTOMER)
    since = datetime.fromtimestamp(before.sealed_at, context.at.tzinfo)
    claimed = tuple(approvals) or _approvals_of_act(context, entitlement, since)
    if not claimed:
        require_fit(entitlement, before)
    cause = _prove_staff(context, claimed, ENTITLEMENTS_APPROVE)
    _require_two(entitlement, claimed)
    return cause


def _may_rebind(context: Context, entitlement: Entitlement) -> bool:
    """Whether the customer may bind to other fingerprints by themselves: three times a year."""
    made = sealed_statements(
        context,
        CAUSE_SEALED,
        EntitlementSeal,
        AuditRow.subject_id == entitlement.id,
        AuditRow.at > context.at - REBIND_SPAN,
    )
    rebound = {each.sha256 for each in made if each.statement.cause.kind is CauseKind.CUSTOMER}
    return bool(entitlement.terms.fingerprints) and len(rebound) < MOST_REBOUND


def _approvals_of_act(
    context: Context, entitlement: Entitlement, since: datetime
) -> tuple[Approval, ...]:
    """Return who did the newest act on an entitlement's line: claims, until they are proved."""
    act = context.session.scalar(
        select(Act)
        .where(
            Act.deployment_id == entitlement.deployment_id,
            Act.state == ActState.DONE,
            Act.submitted_by.is_not(None),
            Act.submitted_at >= since.replace(microsecond=0) - LAPSES_AFTER,
            Act.decided_at >= since.replace(microsecond=0),
        )
        .order_by(Act.decided_at.desc())
        .limit(1)
    )
    if act is None or act.submitted_by is None:
        return ()
    approvals = [Approval(act.submitted_by, act.submitted_at)]
    if act.decided_by is not None and act.decided_at is not None:
        approvals.append(Approval(act.decided_by, act.decided_at))
    return tuple(approvals)


def _require_dates(context: Context, entitlement: Entitlement) -> None:
    """Require that an entitlement runs for its term, from now or earlier.

    A renewal may begin at the end of the base that it renews.
    """
    start, end, term_s = entitlement.starts_at, entitlement.ends_at, entitlement.terms.term_s
    if start is None:
        if end is not None:
            raise Unproved(f"{entitlement.id} has an end and no start.")
        return
    begins_later = start > context.at
    if begins_later and start != _end_of_renewed(context, entitlement):
        raise Unproved(f"{entitlement.id} begins at an instant of its own, {start.isoformat()}.")
    if end != (None if term_s is None else start + timedelta(seconds=term_s)):
        raise Unproved(f"{entitlement.id} ends otherwise than its term says.")


def _end_of_renewed(context: Context, entitlement: Entitlement) -> datetime | None:
    renewed = context.session.get(Entitlement, entitlement.renews or "")
    sealed = None if renewed is None else latest_cause(context, renewed)
    if sealed is None or sealed.statement.deployment_id != entitlement.deployment_id:
        return None
    end = sealed.statement.ends_at
    return None if end is None else datetime.fromtimestamp(end, context.at.tzinfo)


def date_anew(context: Context, entitlement: Entitlement) -> None:
    """Let an evaluation's hours run from now, as long as no license was issued from it.

    Raises:
        Unproved: it cannot be proved.
    """
    issued = sealed_statements(
        context, LICENSE_ISSUED, LicenseSeal, AuditRow.account_id == entitlement.account_id
    )
    if any(each.statement.entitlement_id == entitlement.id for each in issued):
        return
    before = latest_cause(context, entitlement)
    was_started = before is not None and before.statement.starts_at is not None
    if before is not None and was_started:
        require_fit(entitlement, before.statement)
    set_term(entitlement, context.at)
    context.session.flush()
    if before is not None and was_started:
        seal_entitlement(context, entitlement, before.statement.cause)


# The whole line


def prove_line(context: Context, account_id: str, deployment_id: str) -> tuple[SealedGrant, ...]:
    """Prove all that a deployment's next license is computed from; return it, in order.

    What is over and was never proved is left out.

    Raises:
        Unproved: something live cannot be proved, or a restriction was undone in the database.
        SignerUnavailable: this process does not hold the seal key.
    """
    rows = context.session.scalars(
        select(Entitlement)
        .where(Entitlement.deployment_id == deployment_id, Entitlement.starts_at.is_not(None))
        .order_by(Entitlement.place, Entitlement.created_at, Entitlement.id)
        .execution_options(populate_existing=True)
    ).all()
    held = _held(context, account_id, deployment_id)
    grants = []
    for row in rows:
        if row.account_id != account_id:
            raise Unproved(f"The entitlement {row.id} is another account's.")
        _require_restrictions(context, row)
        over = row.ended_at or row.ends_at
        is_over = over is not None and over <= context.at
        sealed = latest_cause(context, row) if is_over else _prove_live(context, row)
        if sealed is None or sealed.statement.starts_at is None:
            continue
        grants.append(
            SealedGrant(
                cause=sealed.sha256,
                ended_at=_seconds(row.ended_at),
                end_cause=None if row.end_reason is None else EndCause(row.end_reason),
                held_since=_seconds(held.get(row.id)),
                taken_tokens=row.taken_tokens,
                taken_at=_seconds(row.taken_at),
            )
        )
    return tuple(grants)


def _prove_live(context: Context, row: Entitlement) -> Sealed[EntitlementSeal]:
    try:
        return prove_entitlement(context, row)
    except Unproved as error:
        if latest_cause(context, row) is not None:
            raise
        raise Unproved(
            f"{error.message} {row.id} was never proved; if it is older than custody, review it "
            "with `portal custody adopt`."
        ) from error


def _require_restrictions(context: Context, row: Entitlement) -> None:
    """Require that what the audit trail says was taken back still is."""
    told = context.session.scalars(
        select(AuditRow).where(
            AuditRow.subject_id == row.id,
            AuditRow.action.in_(("entitlement.ended", "entitlement.taken-back")),
        )
    )
    for each in told:
        if each.action == "entitlement.ended":
            kept = row.ended_at is not None and row.ended_at <= each.at
            if not kept or row.end_reason != each.reason:
                raise Unproved(f"The entitlement {row.id} has ended, by the audit trail.")
    # The newest amount counts, however often it is told.
    amounts = context.session.scalars(
        select(AuditRow)
        .where(AuditRow.subject_id == row.id, AuditRow.action == "entitlement.taken-back")
        .order_by(AuditRow.at.desc())
        .limit(1)
    )
    for each in amounts:
        if row.taken_tokens < int(each.detail.get("tokens", 0)):
            raise Unproved(f"Tokens of {row.id} were taken back, by the audit trail.")


def _held(context: Context, account_id: str, deployment_id: str) -> dict[str, datetime]:
    """Return since when what was paid is on hold, by entitlement; a lift counts by its seal."""
    held: dict[str, datetime] = {}
    for hold in open_holds(context.session, deployment_id):
        if hold.cause in COMMERCE_CAUSES:
            held.setdefault(hold.entitlement_id, hold.opened_at)
    lifts = lifted_holds(context, AuditRow.account_id == account_id)
    opened = context.session.scalars(
        select(AuditRow)
        .where(AuditRow.action == "hold.opened", AuditRow.account_id == account_id)
        .order_by(AuditRow.at)
    )
    for row in opened:
        of_commerce = row.detail.get("cause") in COMMERCE_CAUSES
        entitlement_id = str(row.detail.get("entitlement_id"))
        if of_commerce and row.subject_id not in lifts:
            held.setdefault(entitlement_id, row.at)
    return held


def _seconds(instant: datetime | None) -> int | None:
    return None if instant is None else unix(instant)


def approvals_of(entitlement: Entitlement) -> tuple[Approval, ...]:
    """Return who approved an entitlement, by its row: claims, until they are proved.

    None where the policy did.
    """
    if entitlement.approved_by is None or entitlement.approved_at is None:
        return ()
    approvals = [Approval(entitlement.approved_by, entitlement.approved_at)]
    if CATALOG[entitlement.terms.sku].two_person and entitlement.created_by is not None:
        approvals.append(Approval(entitlement.created_by, entitlement.created_at))
    return tuple(approvals)


def _require_two(entitlement: Entitlement, approvals: Sequence[Approval]) -> None:
    sku = entitlement.terms.sku
    if CATALOG[sku].two_person and len({each.person_id for each in approvals}) < 2:
        raise Unproved(f"{sku} needs the approval of two people.")


def _prove_staff(context: Context, approvals: Sequence[Approval], permission: str) -> Cause:
    """Prove that staff approved in signed-in browsers whose second factor was fresh."""
    if context.policy.approvals is Approvals.COMMAND:
        raise Unproved(
            "Here staff approve by the `portal` command; an approval in a browser counts not."
        )
    for each in approvals:
        _require_approver(context, each, permission)
    by = tuple(dict.fromkeys(each.person_id for each in approvals))
    return Cause(kind=CauseKind.STAFF, by=by)


def _require_approver(context: Context, approval: Approval, permission: str) -> None:
    person = context.session.get(Person, approval.person_id)
    if person is None or person.kind != "staff" or person.disabled_at is not None:
        raise Unproved(f"{approval.person_id} is nobody of staff.")
    if permission not in staff_permissions(staff_roles(context.session, person.id)):
        raise Unproved(f"{person.id} may not approve this.")
    fresh = context.session.scalar(
        select(SignIn.public_id)
        .where(
            SignIn.person_id == person.id,
            SignIn.created_at <= approval.at,
            SignIn.factor_passed_at <= approval.at,
            SignIn.reauthenticated_at >= approval.at - FRESH,
            SignIn.expires_at > approval.at,
            SignIn.ended_at.is_(None) | (SignIn.ended_at >= approval.at),
        )
        .limit(1)
    )
    if fresh is None or approval.at > context.at:
        raise Unproved(
            f"{person.id} had no browser with a fresh second factor at {approval.at.isoformat()}."
        )


def _prove_evaluation(context: Context, entitlement: Entitlement) -> Cause:
    """Decide by the policy, anew: whatever the web decided, these are the signer's own caps."""
    request = None
    if entitlement.request_id is not None:
        request = context.session.get(Request, entitlement.request_id)
    if (
        request is None
        or request.kind is not RequestKind.EVALUATION
        or request.state is not RequestState.APPROVED
        or request.account_id != entitlement.account_id
        or request.deployment_id != entitlement.deployment_id
    ):
        raise Unproved(f"Nobody approved the entitlement {entitlement.id}.")
    sku = entitlement.terms.sku
    template = CATALOG[sku]
    beyond = beyond_template(entitlement.terms, template)
    if template.source != "evaluation" or beyond:
        raise Unproved(f"The policy grants no {sku} with these terms ({', '.join(beyond)}).")
    take_turn(context.session, "evaluations")
    person = context.session.get_one(Person, request.person_id)
    try:
        address = parse_email(person.email)
    except Invalid as error:
        raise Unproved(f"The address of {person.id} is none.") from error
    _require_below_cap(context)
    domain_sha256 = _domain_sha256(address)
    decision = decide_evaluation(
        Applicant(
            email_confirmed=person.email_confirmed_at is not None,
            domain=address.domain,
            registrable_domain=address.registrable_domain,
            is_free_mail=address.is_free_mail,
            is_denied=bool(
                {address.domain, address.registrable_domain} & context.policy.denied_domains
            ),
            last_of_account=_last_evaluation(
                context, AuditRow.account_id == entitlement.account_id
            ),
            last_of_domain=_last_evaluation(
                context, AuditRow.detail["domain_sha256"].as_string() == domain_sha256
            ),
        ),
        context.at,
        context.policy.evaluation_interval,
    )
    if not decision.granted:
        raise Unproved(f"The policy does not grant this: {' '.join(decision.reasons)}")
    return Cause(kind=CauseKind.EVALUATION, domain_sha256=domain_sha256)


def _domain_sha256(address: EmailAddress) -> str:
    return sha256_hex((address.registrable_domain or address.domain).encode())


def _evaluations(
    context: Context, since: datetime, *where: ColumnElement[bool]
) -> Iterator[EntitlementSeal]:
    """Return the first statement of each evaluation that the signer granted since an instant."""
    for each in sealed_statements(
        context, CAUSE_SEALED, EntitlementSeal, AuditRow.at >= since, *where
    ):
        is_grant = each.statement.number == 1
        if is_grant and each.statement.cause.kind is CauseKind.EVALUATION:
            yield each.statement


def _require_below_cap(context: Context) -> None:
    most = context.policy.evaluations_a_day
    granted = {each.entitlement_id for each in _evaluations(context, context.at - DAY)}
    if len(granted) >= most:
        raise Unproved(f"{most} evaluations were granted in 24 hours; staff decide on more.")


def _last_evaluation(context: Context, whose: ColumnElement[bool]) -> datetime | None:
    since = context.at - context.policy.evaluation_interval
    times = [each.sealed_at for each in _evaluations(context, since, whose)]
    return datetime.fromtimestamp(max(times), context.at.tzinfo) if times else None


def ask_for_lift(context: Context, hold: Hold, *approvals: Approval) -> None:
    """Have the lifting of a hold proved, like `ask_for_proof`."""
    if context.actor.kind == "command":
        by = tuple(dict.fromkeys(each.person_id for each in approvals)) or None
        seal_lift(context, hold, Cause(kind=CauseKind.COMMAND, by=by))
        return
    enqueue(context, PROVE_LIFT, hold.id, {"hold_id": hold.id, "approvals": _claims(approvals)})


def prove_lift(context: Context, hold: Hold, approvals: Sequence[Approval]) -> None:
    """Prove that staff lifted one of their own holds, and seal it.

    Raises:
        Unproved: the hold is not lifted, is another cause's, or nobody may have lifted it.
    """
    if hold.lifted_at is None:
        raise Unproved(f"The hold {hold.id} is not lifted.")
    if hold.cause not in (HoldCause.STAFF, HoldCause.ABUSE):
        raise Unproved(f"Staff do not lift a hold for {hold.cause}.")
    if not approvals:
        raise Unproved(f"Nobody lifted the hold {hold.id}.")
    seal_lift(context, hold, _prove_staff(context, approvals, HOLDS_MANAGE))


def prove_cause_job(
    transactions: Transactions, entitlement_id: str, approvals: Sequence[Approval], actor: Actor
) -> None:
    """Prove an entitlement in a unit of its own; what cannot be proved is recorded.

    Raises:
        Unproved: no cause can be proved.
    """
    try:
        with transactions.writing(actor) as context:
            entitlement = locked_entitlement(context, entitlement_id)
            prove_entitlement(context, entitlement, approvals)
    except Unproved as error:
        with transactions.writing(actor) as context:
            subject = ("entitlement", entitlement_id)
            account_id = context.session.get_one(Entitlement, entitlement_id).account_id
            refuse(context, "cause.refused", subject, account_id, error.message)
        raise


def locked_entitlement(context: Context, entitlement_id: str) -> Entitlement:
    """Return an entitlement while nobody else changes its deployment.

    Raises:
        NotFound: there is none.
    """
    entitlement = context.session.get(Entitlement, entitlement_id)
    if entitlement is None:
        raise NotFound(f"There is no entitlement {entitlement_id}.")
    lock_deployment(context.session, entitlement.deployment_id)
    context.session.refresh(entitlement)
    return entitlement


def prove_lift_job(
    transactions: Transactions, hold_id: str, approvals: Sequence[Approval], actor: Actor
) -> None:
    """Prove the lifting of a hold in a unit of its own; what cannot be proved is recorded.

    Raises:
        NotFound: there is no such hold.
        Unproved: it cannot be proved.
    """
    try:
        with transactions.writing(actor) as context:
            hold = context.session.get(Hold, hold_id)
            if hold is None:
                raise NotFound(f"There is no hold {hold_id}.")
            prove_lift(context, hold, approvals)
    except Unproved as error:
        with transactions.writing(actor) as context:
            refuse(context, "hold.lift-refused", ("hold", hold_id), None, error.message)
        raise


def staff_approve_here(context: Context) -> bool:
    """Say whether an approval by a staff person counts in this process."""
    return context.policy.approvals is Approvals.SESSION or context.actor.kind == "command"
