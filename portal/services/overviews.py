"""The pages that gather several nouns, each read by one function."""

from dataclasses import dataclass

from portal.db.accounts import Account, Member
from portal.db.entitlements import Entitlement
from portal.db.people import Person
from portal.db.requests import Request
from portal.db.sign_ins import SignIn
from portal.services.accounts import find_account, members_of
from portal.services.audit import Act, activity_for_staff
from portal.services.context import Context
from portal.services.deployments import DeploymentFacts, deployment_list
from portal.services.entitlements import waiting_to_start
from portal.services.requests import account_requests
from portal.services.second_factors import unused_recovery_codes
from portal.services.sign_ins import open_sign_ins


@dataclass(frozen=True)
class AccountOverview:
    """An account's first page: is it fine, and what is to do?"""

    deployments: tuple[DeploymentFacts, ...]
    open_requests: tuple[Request, ...]
    grants: tuple[Entitlement, ...]
    """Those that wait for *Start now*, the most urgent first."""


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
    """A person's own security."""

    sign_ins: tuple[SignIn, ...]
    """Where they are signed in, the latest use first."""
    recovery_codes_left: int


def account_overview(context: Context, account_id: str) -> AccountOverview:
    """Return what an account's first page shows."""
    return AccountOverview(
        deployment_list(context, account_id),
        tuple(each for each in account_requests(context, account_id) if each.state == "open"),
        tuple(waiting_to_start(context, account_id)),
    )


def staff_account_page(context: Context, account_id: str) -> StaffAccountPage:
    """Return what staff's page of an account shows.

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
    """Return what a person's own security page shows."""
    return SecurityPage(
        tuple(open_sign_ins(context, person_id)), unused_recovery_codes(context, person_id)
    )
