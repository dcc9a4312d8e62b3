"""`portal staff`, `portal account` and `portal deployment`."""

from typing import Any

import click

from portal.cli.output import json_option
from portal.cli.wired import COMMAND, transactions
from portal.services.accounts import create_account
from portal.services.deployments import create_deployment
from portal.services.passwords import check_new_password
from portal.services.staff import create_staff, list_staff


@click.group()
def staff() -> None:
    """Manage the vendor's people."""


@staff.command("create")
@click.option("--email", required=True)
@click.option("--role", "roles", required=True, help="One or more roles, separated by commas.")
@click.option("--name")
@click.option(
    "--password-file",
    type=click.File("r"),
    help="File with the password on its first line. Without it, a link to set one is e-mailed.",
)
@json_option
def staff_create(
    email: str, roles: str, name: str | None, password_file: Any | None
) -> dict[str, Any]:
    """Create a staff person, who sets up a second factor at the first sign-in."""
    opened = transactions()
    password_hash = None
    if password_file is not None:
        password = password_file.readline().rstrip("\r\n")
        check_new_password(password, email)
        password_hash = opened.ports.passwords.hash(password)
    chosen = frozenset(part.strip() for part in roles.split(",") if part.strip())
    with opened.writing(COMMAND) as context:
        person = create_staff(
            context, email=email, roles=chosen, name=name, password_hash=password_hash
        )
    return {"staff_id": person.id, "email": person.email, "roles": sorted(chosen)}


@staff.command("list")
@json_option
def staff_list() -> dict[str, Any]:
    """List all staff and their roles."""
    with transactions().reading(COMMAND) as context:
        return {
            "staff": [
                {"staff_id": person.id, "email": person.email, "roles": ",".join(sorted(roles))}
                for person, roles in list_staff(context)
            ]
        }


@click.group()
def account() -> None:
    """Manage customer organizations."""


@account.command("create")
@click.option("--name", required=True)
@click.option("--owner-email", required=True)
@click.option("--owner-name")
@json_option
def account_create(name: str, owner_email: str, owner_name: str | None) -> dict[str, Any]:
    """Create an account; a new owner is e-mailed a link to set a password."""
    with transactions().writing(COMMAND) as context:
        made = create_account(context, name=name, owner_email=owner_email, owner_name=owner_name)
    return {"account_id": made.id}


@click.group()
def deployment() -> None:
    """Manage the installations customers run."""


@deployment.command("create")
@click.option("--account", "account_id", required=True)
@click.option("--name", required=True)
@json_option
def deployment_create(account_id: str, name: str) -> dict[str, Any]:
    """Create a deployment in an account."""
    with transactions().writing(COMMAND) as context:
        made = create_deployment(context, account_id=account_id, name=name)
    return {"deployment_id": made.id}
