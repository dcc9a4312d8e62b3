"""Staff's page of a license: what it is, its line, and which acts are possible now."""

from dataclasses import dataclass, replace

from sqlalchemy import select

from portal.db.accounts import Account
from portal.db.acts import Act
from portal.db.deployments import Deployment
from portal.db.entitlements import Entitlement
from portal.db.instances import Instance
from portal.db.licenses import Hold, License, licenses_of, open_holds
from portal.db.people import Person, people_of
from portal.domain.acts import ActState
from portal.domain.catalog import CATALOG
from portal.domain.entitlements import EntitlementState, Line
from portal.domain.errors import Conflict
from portal.domain.standing import COMMERCE_CAUSES, LicenseState, Standing
from portal.services.acts.machinery import acts_of
from portal.services.acts.renew import renewable
from portal.services.context import Context
from portal.services.instances import instances_of
from portal.services.licenses import find_license, standings
from portal.services.lines import load_line

OVER = frozenset({LicenseState.REVOKED, LicenseState.EXPIRED})


@dataclass(frozen=True, kw_only=True)
class LicenseDesk:
    """All that staff see of a license, and can do to it."""

    license: License
    now: Standing
    account: Account
    deployment: Deployment
    licenses: tuple[tuple[License, Standing], ...]
    """Every license of the line, the newest first."""
    entitlements: tuple[Entitlement, ...]
    """Everything the deployment was granted, the newest first."""
    holds: tuple[Hold, ...]
    """The open ones, the oldest first."""
    acts: tuple[Act, ...]
    """What was done to the line or waits for a second person, the newest first."""
    instances: tuple[Instance, ...]
    line: Line
    possible: tuple[str, ...]
    """Names of the acts that are possible now."""
    people: dict[str, Person]

    @property
    def waiting(self) -> tuple[Act, ...]:
        """The acts that somebody still has to decide on."""
        states = (ActState.PENDING, ActState.RETURNED)
        return tuple(each for each in self.acts if each.state in states)

    @property
    def liftable(self) -> tuple[Hold, ...]:
        """The holds that a person may lift."""
        return tuple(each for each in self.holds if each.cause not in COMMERCE_CAUSES)

    @property
    def endable(self) -> tuple[Entitlement, ...]:
        """The entitlements that can be ended."""
        return tuple(each for each in self.entitlements if each.state is EntitlementState.LIVE)

    @property
    def startable(self) -> tuple[Entitlement, ...]:
        """The approved bases that could take the live one's place."""
        return tuple(
            each
            for each in self.entitlements
            if each.state is EntitlementState.APPROVED and not CATALOG[each.terms.sku].is_pack
        )

    def name_of(self, person_id: str | None) -> str:
        """Return a person's name; the portal's own for what nobody did."""
        person = self.people.get(person_id or "")
        return "the portal" if person is None else person.name


def license_desk(context: Context, license_id: str) -> LicenseDesk:
    """Return what staff's page of a license shows.

    Raises:
        NotFound: there is none.
    """
    license_ = find_license(context, license_id)
    deployment_id = license_.deployment_id
    rows = licenses_of(context.session, deployment_id)
    now = standings(context, rows)
    entitlements = context.session.scalars(
        select(Entitlement)
        .where(Entitlement.deployment_id == deployment_id)
        .order_by(Entitlement.created_at.desc(), Entitlement.id)
    ).all()
    holds = open_holds(context.session, deployment_id)
    acts = acts_of(context, deployment_id)
    line = load_line(context, deployment_id)
    known = {each.opened_by for each in holds} | {each.submitted_by for each in acts}
    desk = LicenseDesk(
        license=license_,
        now=now[license_.id],
        account=context.session.get_one(Account, license_.account_id),
        deployment=context.session.get_one(Deployment, deployment_id),
        licenses=tuple((row, now[row.id]) for row in rows),
        entitlements=tuple(entitlements),
        holds=tuple(holds),
        acts=tuple(acts),
        instances=tuple(instances_of(context, deployment_id)),
        line=line,
        possible=(),
        people=people_of(context.session, known),
    )
    return replace(desk, possible=_possible(desk))


def _possible(desk: LicenseDesk) -> tuple[str, ...]:
    """Name the acts that the line permits; the act itself still judges what is asked of it."""
    line = desk.line
    base = line.base
    begun = bool(line.live) or line.coming is not None
    counts = any(now.state not in OVER for _, now in desk.licenses)
    permits_pack = base is None or base.terms.tokens_total is not None
    evaluates = base is not None and CATALOG[base.terms.sku].source == "evaluation"
    revoked = desk.license.revoked_at is not None
    permitted = {
        "renew": _is_renewable(line),
        "amend": base is not None,
        "top-up": not revoked and (permits_pack or evaluates),
        "replace": bool(line.live),
        "replace-base": base is not None and bool(desk.startable),
        "suspend": begun and len(desk.liftable) < 2,
        "reinstate": bool(desk.liftable),
        "end": bool(desk.endable),
        "revoke": counts or bool(desk.endable) or bool(desk.startable),
    }
    return tuple(name for name, is_possible in permitted.items() if is_possible)


def _is_renewable(line: Line) -> bool:
    try:
        renewable(line)
    except Conflict:
        return False
    return True
