"""Deployments: making them and finding them within their account."""

import unicodedata

from sqlalchemy import func, select

from portal.db.accounts import lock_account
from portal.db.deployments import Deployment, deployments_of
from portal.domain.errors import Conflict, Invalid, LimitReached, NotFound
from portal.domain.identifiers import DEPLOYMENT, new_id
from portal.services.audit import record
from portal.services.context import Context

MAX_DEPLOYMENTS = 50
MAX_NAME_BYTES = 200


def clean_name(text: str, field: str) -> str:
    """Return a name fit for pages, mails and signed documents.

    Raises:
        Invalid: empty, longer than 200 bytes of UTF-8, or with control characters.
    """
    name = unicodedata.normalize("NFC", " ".join(text.split()))
    if not name:
        raise Invalid("Enter a name.", field=field)
    if len(name.encode("utf-8", "surrogatepass")) > MAX_NAME_BYTES:
        raise Invalid(f"A name has at most {MAX_NAME_BYTES} bytes.", field=field)
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in name):
        raise Invalid("A name has no control characters.", field=field)
    return name


def create_deployment(context: Context, *, account_id: str, name: str) -> Deployment:
    """Make a deployment in an account.

    Raises:
        NotFound: no such open account.
        Invalid: the name is unfit.
        Conflict: the account has a deployment of this name.
        LimitReached: the account has as many as it may.
    """
    name = clean_name(name, "name")
    account = lock_account(context.session, account_id)
    if account is None or account.closed_at is not None:
        raise NotFound(f"There is no account {account_id}.")
    open_ones = select(Deployment).where(
        Deployment.account_id == account_id, Deployment.closed_at.is_(None)
    )
    if context.session.scalar(open_ones.where(Deployment.name == name)) is not None:
        raise Conflict(f"There is a deployment named {name} already.")
    count = context.session.scalar(select(func.count()).select_from(open_ones.subquery())) or 0
    if count >= MAX_DEPLOYMENTS:
        raise LimitReached(f"An account has at most {MAX_DEPLOYMENTS} deployments.")
    deployment = Deployment(
        id=new_id(DEPLOYMENT, context.ports.randomness),
        account_id=account_id,
        name=name,
        created_at=context.at,
    )
    context.session.add(deployment)
    record(context, "deployment.created", "deployment", deployment.id, account_id=account_id)
    context.session.flush()
    return deployment


def account_deployment(context: Context, account_id: str, deployment_id: str) -> Deployment:
    """Return a deployment of this account.

    Raises:
        NotFound: there is none, or it is another account's (the two answer alike).
    """
    deployment = context.session.get(Deployment, deployment_id)
    if deployment is None or deployment.account_id != account_id:
        raise NotFound("There is no such deployment in this account.")
    return deployment


def deployment_names(context: Context, account_id: str) -> list[tuple[str, str]]:
    """Return ids and names of an account's open deployments, oldest first."""
    return [(each.id, each.name) for each in deployments_of(context.session, account_id)]
