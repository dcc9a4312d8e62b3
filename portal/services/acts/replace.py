"""Replace: the same entitlements in a new file, for a lost one or for a new fingerprint.

A customer may do so three times in 365 days for each deployment; an approver beyond that.
"""

from datetime import timedelta
from typing import Final

from sqlalchemy import func, select

from portal.db.acts import Act
from portal.db.people import Person
from portal.domain.acts import ActState
from portal.domain.errors import Conflict, LimitReached
from portal.domain.roles import ENTITLEMENTS_APPROVE
from portal.domain.succession import Hurry
from portal.services.acts.kinds import Ask, Kind, Outcome, Params
from portal.services.acts.scenes import (
    asked_for,
    change_terms,
    license_scene,
    line_of,
    show_line,
)
from portal.services.context import Context
from portal.services.lines import follow

BY_CUSTOMERS: Final = 3
SPAN: Final = timedelta(days=365)


class Replace(Params, frozen=True, kw_only=True):
    """What is new, and how soon the old file stops counting."""

    fingerprints: tuple[str, ...] = ()
    """Empty: as they are."""
    at_once: bool = False
    """Whether the old file stops counting at once, not at the end of the overlap."""


def run(context: Context, ask: Ask) -> Outcome:
    """Issue a license anew.

    Raises:
        NotFound: no such license.
        Conflict: nothing is live.
        LimitReached: a customer did so often enough.
        Invalid: a fingerprint is unfit.
    """
    assert isinstance(ask.params, Replace)
    license_, line = line_of(context, ask)
    if not line.live:
        raise Conflict("Nothing of this license is live any more; there is nothing to replace.")
    if _left_to(context, ask, license_.deployment_id) == 0:
        raise LimitReached(
            f"This deployment's license was replaced {BY_CUSTOMERS} times in {SPAN.days} days."
            " Ask us for another."
        )
    if ask.params.fingerprints:
        bound = (line.base, line.coming) if line.base is not None else line.packs
        for grant in bound:
            change_terms(context, grant, fingerprints=ask.params.fingerprints)
        context.session.flush()
    hurry = Hurry.AT_ONCE if ask.params.at_once else Hurry.NONE
    key = f"act:{ask.act_id}"
    return asked_for(follow(context, license_.deployment_id, hurry=hurry, key=key))


def _left_to(context: Context, ask: Ask, deployment_id: str) -> int | None:
    """Return how often the person may still replace; None: staff and commerce, as they see fit."""
    person = None if ask.by is None else context.session.get_one(Person, ask.by)
    if person is None or person.kind != "customer":
        return None
    return replacements_left(context, deployment_id)


def replacements_left(context: Context, deployment_id: str) -> int:
    """Return how often customers may still replace a deployment's license by themselves."""
    made = context.session.scalar(
        select(func.count())
        .select_from(Act)
        .join(Person, Person.id == Act.submitted_by)
        .where(
            Act.kind == "replace",
            Act.deployment_id == deployment_id,
            Act.state == ActState.DONE,
            Act.decided_at > context.at - SPAN,
            Person.kind == "customer",
        )
    )
    return max(0, BY_CUSTOMERS - (made or 0))


REPLACE: Final = Kind(
    name="replace",
    params=Replace,
    permission=ENTITLEMENTS_APPROVE,
    scene=license_scene,
    run=run,
    shows=show_line,
)
