"""The pages of acts on licenses: those that wait for a second person, and what one does now.

Changes of keys have pages of their own.
"""

from dataclasses import dataclass

from sqlalchemy import select

from portal.db.accounts import Account
from portal.db.acts import Act
from portal.db.deployments import Deployment
from portal.db.licenses import License
from portal.db.people import Person, people_of
from portal.domain.acts import ActState
from portal.domain.errors import NotFound, PortalError
from portal.services.acts.machinery import Preview, find_act, preview_again
from portal.services.context import Context

WAITING = (ActState.PENDING, ActState.RETURNED)
MOST_LISTED = 200


@dataclass(frozen=True)
class ActRow:
    """An act in a list."""

    act: Act
    account: Account | None
    deployment: Deployment | None
    first: Person | None
    """Who submitted it; None for the portal itself."""


@dataclass(frozen=True, kw_only=True)
class ActPage:
    """One act: what its first person saw, and what it would do now."""

    row: ActRow
    second: Person | None
    """Who decided on it."""
    license_id: str | None
    """The newest license of the line it is done to."""
    now: Preview | None
    """None once it is decided, or when it would be refused."""
    refusal: str | None
    """Why it would be refused now."""

    @property
    def is_waiting(self) -> bool:
        """Whether somebody still has to decide on it."""
        return self.row.act.state in WAITING

    @property
    def has_changed(self) -> bool:
        """Whether it would do something else than its first person saw."""
        return self.now is not None and self.now.fingerprint != self.row.act.fingerprint


def acts_list(context: Context, *, waiting: bool) -> list[ActRow]:
    """Return the acts that wait, or those that are decided, the newest first."""
    chosen = Act.state.in_(WAITING)
    rows = context.session.execute(
        select(Act, Account, Deployment, Person)
        .outerjoin(Account, Account.id == Act.account_id)
        .outerjoin(Deployment, Deployment.id == Act.deployment_id)
        .outerjoin(Person, Person.id == Act.submitted_by)
        .where(Act.deployment_id.is_not(None), chosen if waiting else ~chosen)
        .order_by(Act.submitted_at.desc(), Act.id)
        .limit(MOST_LISTED)
    )
    return [ActRow(*row) for row in rows]


def act_page(context: Context, act_id: str) -> ActPage:
    """Return what the page of an act shows. Needs a writing unit: it previews what waits.

    Raises:
        NotFound: there is none on a license.
    """
    act = find_act(context, act_id)
    if act.deployment_id is None:
        raise NotFound(f"There is no act {act_id} on a license.")
    now, refusal = None, None
    if act.state in WAITING:
        try:
            now = preview_again(context, act)
        except PortalError as error:
            refusal = error.message
    context.session.refresh(act)
    people = people_of(context.session, {act.submitted_by, act.decided_by})
    return ActPage(
        row=ActRow(
            act,
            context.session.get(Account, act.account_id) if act.account_id else None,
            context.session.get(Deployment, act.deployment_id),
            people.get(act.submitted_by or ""),
        ),
        second=people.get(act.decided_by or ""),
        license_id=context.session.scalar(
            select(License.id)
            .where(License.deployment_id == act.deployment_id)
            .order_by(License.created_at.desc())
            .limit(1)
        ),
        now=now,
        refusal=refusal,
    )
