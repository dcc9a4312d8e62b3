"""Pages that show several nouns; one function reads all facts of a page."""

from dataclasses import dataclass

from portal.db.accounts import Account, Member
from portal.db.audit import AuditRow
from portal.db.deployments import Deployment
from portal.db.entitlements import Entitlement
from portal.db.instances import Instance
from portal.db.licenses import License
from portal.db.people import Person, people_of
from portal.db.requests import Request
from portal.db.sign_ins import SignIn
from portal.domain.requests import RequestState
from portal.domain.standing import Standing
from portal.services.accounts import find_account, members_of
from portal.services.audit import Act, activity_for_staff, trail_of
from portal.services.context import Context
from portal.services.deployments import DeploymentFacts, deployment_list
from portal.services.entitlements import waiting_to_start
from portal.services.instances import instances_of
from portal.services.licenses import find_license, standing
from portal.services.requests import account_requests
from portal.services.second_factors import unused_recovery_codes
from portal.services.sign_ins import open_sign_ins


@dataclass(frozen=True)
class AccountOverview:
    """The facts of an account's first page: its state, and what to do next."""

    deployments: tuple[DeploymentFacts, ...]
    open_requests: tuple[Request, ...]
    grants: tuple[Entitlement, ...]
    """Those waiting for *Start now*, the most urgent first."""


@dataclass(frozen=True)
class StaffAccountPage:
    """An account as staff see it."""

    account: Account
    deployments: tuple[DeploymentFacts, ...]
    requests: tuple[Request, ...]
    members: tuple[tuple[Member, Person], ...]
    activity: tuple[Act, ...]


@dataclass(frozen=True)
class SecurityPage:
    """The facts of a person's own security page."""

    sign_ins: tuple[SignIn, ...]
    """The person's sign-ins, last used first."""
    recovery_codes_left: int


@dataclass(frozen=True)
class LicenseHistory:
    """The facts of a license's page for staff: from the request to the routers that use it."""

    license: License
    now: Standing
    account: Account
    deployment: Deployment
    entitlement: Entitlement
    asked: Request | None
    instances: list[Instance]
    trail: list[AuditRow]
    """What was done to the request, the entitlement and the license, oldest first."""
    people: dict[str, Person]
    """The people who acted, by id."""

    def actor_name(self, act: AuditRow) -> str:
        """Return who acted: a person's name, or the kind of actor."""
        person = self.people.get(act.actor_id or "")
        return act.actor_kind if person is None else person.name


def account_overview(context: Context, account_id: str) -> AccountOverview:
    """Return the facts of an account's first page."""
    return AccountOverview(
        deployment_list(context, account_id),
        tuple(
            each
            for each in account_requests(context, account_id)
            if each.state is RequestState.OPEN
        ),
        tuple(waiting_to_start(context, account_id)),
    )


def staff_account_page(context: Context, account_id: str) -> StaffAccountPage:
    """Return the facts of an account's page for staff.

    Raises:
        NotFound: there is no such account.
    """
    account = find_account(context, account_id)
    return StaffAccountPage(
        account,
        deployment_list(context, account_id),
        tuple(account_requests(context, account_id)),
        tuple(members_of(context, account_id)),
        activity_for_staff(context, account_id),
    )


def security_page(context: Context, person_id: str) -> SecurityPage:
    """Return the facts of a person's own security page."""
    return SecurityPage(
        tuple(open_sign_ins(context, person_id)), unused_recovery_codes(context, person_id)
    )


def license_history(context: Context, license_id: str) -> LicenseHistory:
    """Return the facts of a license's page for staff.

    Raises:
        NotFound: there is none.
    """
    license_ = find_license(context, license_id)
    entitlement = context.session.get_one(Entitlement, license_.entitlement_id)
    subjects = [license_.id, entitlement.id]
    asked = None
    if entitlement.request_id is not None:
        asked = context.session.get_one(Request, entitlement.request_id)
        subjects.append(asked.id)
    trail = trail_of(context, *subjects)
    return LicenseHistory(
        license=license_,
        now=standing(context, license_),
        account=context.session.get_one(Account, license_.account_id),
        deployment=context.session.get_one(Deployment, license_.deployment_id),
        entitlement=entitlement,
        asked=asked,
        instances=instances_of(context, license_.deployment_id),
        trail=trail,
        people=people_of(context.session, {each.actor_id for each in trail}),
    )
