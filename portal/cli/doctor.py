"""`portal doctor`: checks everything a portal needs and says how to fix what is wrong."""

import sys
from typing import Any

import click
from sqlalchemy.exc import OperationalError

from portal.cli.output import show
from portal.cli.wired import COMMAND, wired
from portal.config import PROCESSES, BadSetting, load_settings
from portal.db.session import Database, make_engine
from portal.services.health import Finding, check_issued, check_schema, findings

ALL_KEYS = ("license", "lease", "revocation", "seal")
KEYS_OF_WEB = ("lease",)
NOT_WELL = 7


def _examine(process: str | None, *, licenses: bool) -> list[Finding]:
    try:
        settings = load_settings()
        settings.read_secrets(process)
    except BadSetting as error:
        return [Finding("settings", False, str(error))]
    found = [Finding("settings", True, f"origin {settings.origin}")]
    database = Database(make_engine(settings.database_url))
    try:
        schema = check_schema(database)
    except OperationalError as error:
        text = str(error.orig).strip().splitlines()[0]
        return [*found, Finding("database", False, f"{text}; check PORTAL_DATABASE_URL")]
    finally:
        database.dispose()
    found.append(schema)
    if schema.well:
        with wired().transactions.reading(COMMAND) as context:
            found += findings(context, KEYS_OF_WEB if process == "web" else ALL_KEYS)
            if licenses:
                found = [each for each in found if each.name != "licenses"]
                found.append(check_issued(context))
    return found


@click.command()
@click.option(
    "--role",
    type=click.Choice(PROCESSES),
    help="Expect only the secrets and keys of this process. Default: all of them.",
)
@click.option(
    "--licenses", is_flag=True, help="Verify and compute anew every license and bundle, too."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def doctor(role: str | None, licenses: bool, as_json: bool) -> None:
    """Check settings, secrets, database, keys, clock, worker, audit, custody and mail."""
    found = _examine(role, licenses=licenses)
    well = all(finding.well for finding in found)
    result: dict[str, Any] = {
        "status": "healthy" if well else "unhealthy",
        "checks": [
            {
                "result": "ok" if finding.well else "FAILED",
                "name": finding.name,
                "detail": finding.detail,
            }
            for finding in found
        ],
    }
    show(as_json, result)
    sys.exit(0 if well else NOT_WELL)
