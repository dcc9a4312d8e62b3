"""Rotate, retire, compromise: key changes, approved by two people and run by the command.

Approving one changes nothing yet: only the command holds the root, and `portal keys run` does the
rest (`portal.services.key_changes`). But from the first person's word that a key is compromised
until that is declined or lapses, the key signs nothing.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import select

from portal.db.acts import Act
from portal.db.keys import KeyChange
from portal.db.people import Person
from portal.domain.acts import ActState
from portal.domain.errors import Conflict, Invalid, NotFound
from portal.domain.keys import ACTIVATE_IN_S
from portal.domain.roles import KEYS_MANAGE
from portal.services.acts.kinds import Ask, Kind, Outcome, Params, Scene
from portal.services.context import Context
from portal.services.key_changes import (
    KeyAct,
    KeyOrder,
    affected_licenses,
    check_order,
    resume_signing,
    stop_signing,
)
from portal.services.key_readiness import readiness
from portal.services.keys import published_keyset

KEY_ACTS: Final[Mapping[str, KeyAct]] = {
    "rotate-key": "rotate-key",
    "retire-key": "retire-key",
    "compromise-key": "compromise-key",
}


class RotateKey(Params, frozen=True, kw_only=True):
    """When the next key is activated."""

    activate_in_s: int = ACTIVATE_IN_S


class RetireKey(Params, frozen=True, kw_only=True):
    """Whether routers that lack the keyset are waited for."""

    anyway: bool = False


class CompromiseKey(Params, frozen=True, kw_only=True):
    """Nothing more is to say."""


def order_of(act: Act) -> KeyOrder:
    """Return the key change of an approved act.

    Raises:
        Invalid: it is an act on something else.
        Conflict: it was not approved.
    """
    if act.kind not in KEY_ACTS:
        raise Invalid(f"The act {act.id} changes no key.")
    if act.state is not ActState.DONE:
        raise Conflict(f"The act is {act.state}; a second person has to approve it first.")
    return KeyOrder(act.id, KEY_ACTS[act.kind], act.subject_id, reason=act.reason, **act.params)


@dataclass(frozen=True)
class WaitingChange:
    """A key change that waits: for a second person, or to be run."""

    act_id: str
    kind: str
    subject: str
    reason: str
    proposer: str
    submitted_by: str | None
    submitted_at: datetime
    lapses_at: datetime | None
    is_pending: bool
    """Whether it wants a second person; else the operator has to run it."""
    fingerprint: str
    shown: dict[str, Any]


def waiting_changes(context: Context) -> list[WaitingChange]:
    """Return the key changes that wait, the oldest first."""
    return _waiting(context)


def waiting_change(context: Context, act_id: str) -> WaitingChange:
    """Return a key change that waits for a second person.

    Raises:
        NotFound: there is none.
    """
    for each in _waiting(context, act_id):
        if each.is_pending:
            return each
    raise NotFound("There is no such key change that waits.")


def _waiting(context: Context, act_id: str | None = None) -> list[WaitingChange]:
    finished = select(KeyChange.act_id).where(KeyChange.finished_at.is_not(None))
    query = (
        select(Act, Person.name)
        .outerjoin(Person, Person.id == Act.submitted_by)
        .where(
            Act.kind.in_(KEY_ACTS),
            Act.state.in_((ActState.PENDING, ActState.RETURNED, ActState.DONE)),
            Act.id.not_in(finished),
        )
        .order_by(Act.submitted_at, Act.id)
    )
    if act_id is not None:
        query = query.where(Act.id == act_id)
    return [
        WaitingChange(
            act_id=act.id,
            kind=act.kind,
            subject=act.subject_id,
            reason=act.reason,
            proposer=name or "the command",
            submitted_by=act.submitted_by,
            submitted_at=act.submitted_at,
            lapses_at=act.lapses_at,
            is_pending=act.state is not ActState.DONE,
            fingerprint=act.fingerprint,
            shown=act.preview,
        )
        for act, name in context.session.execute(query)
    ]


def _order(kind: KeyAct, ask: Ask) -> KeyOrder:
    said: dict[str, Any] = {}
    if isinstance(ask.params, RotateKey):
        said = {"activate_in_s": ask.params.activate_in_s}
    elif isinstance(ask.params, RetireKey):
        said = {"anyway": ask.params.anyway}
    return KeyOrder(ask.act_id, kind, ask.subject_id, reason=ask.reason, **said)


def _scene(context: Context, _ask: Ask) -> Scene:
    return Scene(None, None, {"keyset": published_keyset(context).payload_sha256})


def _shown(context: Context, ask: Ask) -> dict[str, Any]:
    now = readiness(context)
    shown: dict[str, Any] = {
        "subject": ask.subject_id,
        "keyset_version": now.keyset_version + 1,
        "known": now.known,
        "ready": now.ready,
    }
    if isinstance(ask.params, RotateKey):
        shown["activate_in_s"] = ask.params.activate_in_s
    elif isinstance(ask.params, CompromiseKey):
        licenses = affected_licenses(context, ask.subject_id)
        shown["licenses"] = len(licenses)
        shown["offline"] = sum(each.mode == "offline" for each in licenses)
    return shown


def _kind(name: KeyAct, params: type[Params], **hooks: Callable[[Context, Ask], None]) -> Kind:
    def run(context: Context, ask: Ask) -> Outcome:
        check_order(context, _order(name, ask))
        return Outcome("approved")

    def shows(context: Context, ask: Ask, act: Callable[[], Outcome]) -> dict[str, Any]:
        act()
        return _shown(context, ask)

    return Kind(
        name=name,
        params=params,
        permission=KEYS_MANAGE,
        scene=_scene,
        run=run,
        shows=shows,
        needs_two=lambda _context, _ask: True,
        needs_proof=False,
        **hooks,
    )


def _stop(context: Context, ask: Ask) -> None:
    stop_signing(context, ask.subject_id, reason=ask.reason)


def _resume(context: Context, ask: Ask) -> None:
    """Have the key sign again, unless somebody else says the same of it."""
    also = context.session.scalar(
        select(Act.id)
        .where(
            Act.kind == "compromise-key",
            Act.subject_id == ask.subject_id,
            Act.id != ask.act_id,
            Act.state.in_((ActState.PENDING, ActState.RETURNED, ActState.DONE)),
        )
        .limit(1)
    )
    if also is None:
        resume_signing(context, ask.subject_id, reason=ask.reason)


ROTATE_KEY: Final = _kind("rotate-key", RotateKey)
RETIRE_KEY: Final = _kind("retire-key", RetireKey)
COMPROMISE_KEY: Final = _kind("compromise-key", CompromiseKey, waits=_stop, dropped=_resume)
