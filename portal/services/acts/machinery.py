"""How any act is previewed, submitted, approved, declined and recorded.

Invariants: the preview is made by the code that acts, in a savepoint that is rolled back. Its
fingerprint covers entitlements, holds, licenses, keys, catalog and terms: never usage, last seen or
the clock. Whoever decides on a preview that no longer holds is refused and shown the new one. An
act of two is run by a person other than its first, within 72 hours. Every act is a row, and an
audit row, of the transaction that does it.
"""

import hashlib
import json
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Final

import msgspec
from sqlalchemy import select, update

from portal.db.acts import Act
from portal.db.people import Person
from portal.domain.acts import LAPSES_AFTER, ActState
from portal.domain.errors import Conflict, Forbidden, Invalid, NotFound
from portal.domain.identifiers import ACT, new_id
from portal.domain.requests import clean_text
from portal.services.acts.kinds import Ask, Kind, Outcome, Scene
from portal.services.acts.registry import KINDS
from portal.services.audit import record
from portal.services.causes import staff_approve_here
from portal.services.context import Context
from portal.services.staff import require_staff_permission

MOST_LISTED: Final = 200


@dataclass(frozen=True)
class Preview:
    """What an act would do, and the fingerprint of all that this depends on."""

    kind: str
    needs_two: bool
    shown: dict[str, Any]
    fingerprint: str

    def to_json(self) -> dict[str, Any]:
        """Return it as it is stored and printed."""
        return {
            "act": self.kind,
            "needs_second_person": self.needs_two,
            **self.shown,
            "fingerprint": self.fingerprint,
        }


class Stale(Conflict):
    """What the act was shown to do changed meanwhile; `preview` is what it would do now."""

    code = "stale-preview"

    def __init__(self, preview: dict[str, Any]) -> None:
        super().__init__("Something changed meanwhile. Look at what the act does now.")
        self.preview = preview


def kind_of(name: str) -> Kind:
    """Return a kind of act.

    Raises:
        Invalid: there is none of this name.
    """
    kind = KINDS.get(name)
    if kind is None:
        raise Invalid(f"There is no act {name!r}; choose one of {', '.join(KINDS)}.", field="act")
    return kind


def preview(context: Context, kind: Kind, ask: Ask) -> Preview:
    """Say what an act would do, by doing it and undoing it. Needs a writing unit.

    Raises:
        PortalError: the act would be refused.
    """
    _clean_reason(ask)
    return _preview(context, kind, ask, kind.scene(context, ask))


class _Undone(Exception):
    """Leaves a savepoint."""


def _preview(context: Context, kind: Kind, ask: Ask, scene: Scene) -> Preview:
    needs_two = kind.needs_two(context, ask)
    shown: dict[str, Any] = {}
    with suppress(_Undone), context.session.begin_nested():
        shown = kind.shows(context, ask, lambda: kind.run(context, ask))
        raise _Undone
    # What the savepoint made is gone; what it read of rows is read anew.
    context.session.expire_all()
    return Preview(kind.name, needs_two, shown, _fingerprint(kind, ask, scene))


def _fingerprint(kind: Kind, ask: Ask, scene: Scene) -> str:
    whole = [kind.name, ask.subject_id, msgspec.to_builtins(ask.params), scene.facts]
    text = json.dumps(whole, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def submit(context: Context, kind: Kind, ask: Ask, *, seen: str | None = None) -> Act:
    """Do an act now, or store it as `pending` where two people are needed.

    `seen` is the fingerprint of the preview that the person decided on; None where no person sees
    one first (commerce, the command).

    Raises:
        Stale: what they saw no longer holds.
        PortalError: the act is refused.
    """
    ask = replace(ask, reason=_clean_reason(ask), act_id=new_id(ACT, context.ports.randomness))
    scene = kind.scene(context, ask)
    now = _preview(context, kind, ask, scene)
    if seen is not None and seen != now.fingerprint:
        raise Stale(now.to_json())
    act = Act(
        id=ask.act_id,
        kind=kind.name,
        subject_id=ask.subject_id,
        account_id=scene.account_id,
        deployment_id=scene.deployment_id,
        params=msgspec.to_builtins(ask.params),
        reason=ask.reason,
        state=ActState.PENDING,
        preview=now.to_json(),
        fingerprint=now.fingerprint,
        submitted_at=context.at,
        submitted_by=ask.by,
        lapses_at=context.at + LAPSES_AFTER,
    )
    context.session.add(act)
    context.session.flush()
    if now.needs_two or _waits_for_command(context, kind):
        if now.needs_two:
            kind.waits(context, ask)
        _record(context, "act.submitted", act)
        return act
    _do(context, kind, ask, act)
    return act


def _waits_for_command(context: Context, kind: Kind) -> bool:
    """Whether staff do this act in a browser, and only the command's approval would count."""
    in_browser = context.actor.kind == "staff" and not staff_approve_here(context)
    return in_browser and kind.needs_proof


def _do(context: Context, kind: Kind, ask: Ask, act: Act) -> None:
    outcome = kind.run(context, ask)
    act.state = ActState.DONE
    act.decided_at = context.at
    act.lapses_at = None
    act.outcome = {"status": outcome.status, **outcome.facts}
    _record(context, "act.done", act, **act.outcome)
    context.session.flush()


def approve(context: Context, act_id: str, *, by: str, seen: str | None = None) -> Act:
    """Approve and do an act of two.

    When what its first person saw no longer holds, it goes back to them: it is stored as
    `returned` with the new preview, and `require_fresh` says so once that is committed.

    Raises:
        NotFound: there is none.
        Forbidden: the person is its first, or one of the two may not do this, or no longer.
        Conflict: it does not wait any more.
        Stale: what this person saw no longer holds.
    """
    act = _pending(context, act_id)
    kind, ask = _of(act)
    if _waits_for_command(context, kind):
        raise Forbidden(
            f"Acts are approved by the command here: portal act approve {act.id} --by STAFF"
        )
    # One that waits only for the command may be approved by its first person there.
    if act.submitted_by == by and act.preview.get("needs_second_person", True):
        raise Forbidden("A second, different person has to approve this act.")
    for person_id in (by, act.submitted_by):
        _require_permitted(context, person_id, kind.permission)
    now = _preview(context, kind, ask, kind.scene(context, ask))
    _move(context, act, ActState.DONE, by)
    if now.fingerprint != act.fingerprint:
        act.state = ActState.RETURNED
        act.preview, act.fingerprint = now.to_json(), now.fingerprint
        _record(context, "act.returned", act)
        context.session.flush()
        return act
    if seen is not None and seen != act.fingerprint:
        raise Stale(act.preview)
    _do(context, kind, ask, act)
    return act


def _require_permitted(context: Context, person_id: str | None, permission: str) -> None:
    """Require that a person may still do this; commerce, which is nobody, always may.

    Raises:
        Forbidden: they were dismissed, or no role of theirs permits it any more.
    """
    if person_id is None:
        return
    person = context.session.get_one(Person, person_id, populate_existing=True)
    if person.disabled_at is not None:
        raise Forbidden(f"{person.name} may no longer do this.")
    require_staff_permission(context, person, permission)


def require_fresh(act: Act) -> Act:
    """Require that an act was not returned; to be asked after its unit is committed.

    Raises:
        Stale: it was; the error carries what it would do now.
    """
    if act.state is ActState.RETURNED:
        raise Stale(act.preview)
    return act


def confirm(context: Context, act_id: str, *, by: str, seen: str) -> Act:
    """Submit a returned act anew, by its first person, who saw the new preview.

    Raises:
        NotFound, Forbidden, Conflict: there is none, it is another's, or it was not returned.
        Stale: what they saw no longer holds.
    """
    act = _lock(context, act_id)
    if act.submitted_by != by:
        raise Forbidden("Only its first person can confirm an act that was returned.")
    if act.state is not ActState.RETURNED:
        raise Conflict(f"The act is {act.state}.")
    kind, ask = _of(act)
    now = _preview(context, kind, ask, kind.scene(context, ask))
    if seen != now.fingerprint:
        raise Stale(now.to_json())
    act.state, act.decided_at, act.decided_by = ActState.PENDING, None, None
    act.preview, act.fingerprint = now.to_json(), now.fingerprint
    act.lapses_at = context.at + LAPSES_AFTER
    _record(context, "act.submitted", act)
    context.session.flush()
    return act


def decline(context: Context, act_id: str, *, by: str, reason: str) -> Act:
    """Decline an act of two; its first person may take it back so.

    Raises:
        NotFound: there is none.
        Conflict: it does not wait any more.
        Invalid: there is no reason.
    """
    act = _lock(context, act_id)
    if act.state not in (ActState.PENDING, ActState.RETURNED):
        raise Conflict(f"The act is {act.state} already.")
    if not reason.strip():
        raise Invalid("Say why.", field="reason")
    _move(context, act, ActState.DECLINED, by)
    act.decision_note = clean_text(reason, "reason")
    kind, ask = _of(act)
    kind.dropped(context, ask)
    _record(context, "act.declined", act, why=act.decision_note)
    context.session.flush()
    return act


def lapse_acts(context: Context) -> int:
    """End the acts that waited too long for a second person; return how many."""
    waiting = (ActState.PENDING, ActState.RETURNED)
    ids = context.session.scalars(
        select(Act.id).where(Act.state.in_(waiting), Act.lapses_at <= context.at)
    ).all()
    for act_id in ids:
        act = _lock(context, act_id)
        if act.state in waiting:
            act.state, act.decided_at = ActState.LAPSED, context.at
            kind, ask = _of(act)
            kind.dropped(context, ask)
            _record(context, "act.lapsed", act)
    return len(ids)


def find_act(context: Context, act_id: str) -> Act:
    """Return an act.

    Raises:
        NotFound: there is none.
    """
    act = context.session.get(Act, act_id)
    if act is None:
        raise NotFound(f"There is no act {act_id}.")
    return act


def list_acts(context: Context, state: ActState | None = ActState.PENDING) -> list[Act]:
    """Return acts of a state, or all, the newest first."""
    query = select(Act).order_by(Act.submitted_at.desc(), Act.id).limit(MOST_LISTED)
    if state is not None:
        query = query.where(Act.state == state)
    return list(context.session.scalars(query))


def acts_of(context: Context, deployment_id: str) -> list[Act]:
    """Return the acts on a deployment's line, the newest first."""
    return list(
        context.session.scalars(
            select(Act)
            .where(Act.deployment_id == deployment_id)
            .order_by(Act.submitted_at.desc(), Act.id)
        )
    )


def _clean_reason(ask: Ask) -> str:
    reason = clean_text(ask.reason, "reason")
    if not reason:
        raise Invalid("Say why.", field="reason")
    return reason


def _lock(context: Context, act_id: str) -> Act:
    act = context.session.scalar(
        select(Act)
        .where(Act.id == act_id)
        .with_for_update(key_share=True)
        .execution_options(populate_existing=True)
    )
    if act is None:
        raise NotFound(f"There is no act {act_id}.")
    return act


def _pending(context: Context, act_id: str) -> Act:
    act = _lock(context, act_id)
    if act.state is not ActState.PENDING:
        raise Conflict(f"The act is {act.state} already.")
    if act.lapses_at is not None and act.lapses_at <= context.at:
        raise Conflict("The act waited too long for a second person; submit it anew.")
    return act


def _of(act: Act) -> tuple[Kind, Ask]:
    kind = kind_of(act.kind)
    ask = Ask(
        subject_id=act.subject_id,
        params=msgspec.convert(act.params, kind.params),
        reason=act.reason,
        by=act.submitted_by,
        act_id=act.id,
    )
    return kind, ask


def _move(context: Context, act: Act, state: ActState, by: str) -> None:
    """Decide on an act, unless somebody else did meanwhile.

    Raises:
        Conflict: somebody did.
    """
    was = act.state
    moved = context.session.execute(
        update(Act)
        .where(Act.id == act.id, Act.state == was)
        .values(state=state, decided_at=context.at, decided_by=by, lapses_at=None)
        .returning(Act.id)
    ).first()
    if moved is None:
        raise Conflict("Somebody else decided on this act meanwhile.")
    context.session.refresh(act)


def _record(context: Context, action: str, act: Act, **detail: Any) -> None:
    record(
        context,
        action,
        "act",
        act.id,
        account_id=act.account_id,
        reason=act.reason,
        kind=act.kind,
        on=act.subject_id,
        fingerprint=act.fingerprint,
        **detail,
    )


__all__ = [
    "Ask",
    "Kind",
    "Outcome",
    "Preview",
    "Stale",
    "acts_of",
    "approve",
    "confirm",
    "decline",
    "find_act",
    "kind_of",
    "lapse_acts",
    "list_acts",
    "preview",
    "require_fresh",
    "submit",
]
