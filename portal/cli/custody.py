"""`portal custody`: what an operator decides where the keys are."""

from typing import Any

import click

from portal.cli.output import json_option
from portal.cli.wired import COMMAND, transactions
from portal.db.entitlements import Entitlement
from portal.domain.roles import ENTITLEMENTS_APPROVE, KEYS_MANAGE
from portal.domain.terms import canonical_terms
from portal.services.adoption import adopt, unadopted
from portal.services.refusals import review_alarms, unreviewed_alarms
from portal.services.staff import find_staff, require_staff_permission


@click.group()
def custody() -> None:
    """What the signer has proved, and what it refused."""


@custody.command("adopt")
@click.option(
    "--entitlement",
    "entitlement_ids",
    multiple=True,
    help="One you have reviewed; without any, those that wait are listed.",
)
@click.option("--reason", help="Why they are right; needed with --entitlement.")
@click.option("--by", help="A staff person's id or e-mail address; needed with --entitlement.")
@json_option
def custody_adopt(
    entitlement_ids: tuple[str, ...], reason: str | None, by: str | None
) -> dict[str, Any]:
    """List entitlements from before custody, or seal those that you reviewed."""
    if not entitlement_ids:
        with transactions().reading(COMMAND) as context:
            return {
                "entitlements": [
                    {
                        **entitlement_facts(each.entitlement),
                        "licenses": [license_.id for license_ in each.licenses],
                    }
                    for each in unadopted(context)
                ]
            }
    if not reason or not by:
        raise click.UsageError("--entitlement needs --reason and --by")
    with transactions().writing(COMMAND) as context:
        person = find_staff(context, by)
        require_staff_permission(context, person, ENTITLEMENTS_APPROVE)
        sealed = adopt(context, entitlement_ids, reason=reason, by=person.id)
    return {
        "adopted": [
            {
                "entitlement_id": each.statement.entitlement_id,
                "licenses": len(each.statement.licenses or ()),
            }
            for each in sealed
        ]
    }


def entitlement_facts(row: Entitlement) -> dict[str, Any]:
    """Return what an operator has to look at before sealing an entitlement."""
    return {
        "entitlement_id": row.id,
        "status": row.state.value,
        "account_id": row.account_id,
        "deployment_id": row.deployment_id,
        "approved_by": row.approved_by,
        "starts_at": None if row.starts_at is None else row.starts_at.isoformat(),
        "ends_at": None if row.ends_at is None else row.ends_at.isoformat(),
        "terms": canonical_terms(row.terms).decode(),
    }


@custody.command("review")
@click.option("--reason", help="What was found; without it, what was refused is listed.")
@click.option("--by", help="A staff person's id or e-mail address; needed with --reason.")
@json_option
def custody_review(reason: str | None, by: str | None) -> dict[str, Any]:
    """List what was refused since the last review, or note that you looked into it."""
    if not reason:
        with transactions().reading(COMMAND) as context:
            return {
                "refused": [
                    {
                        "at": row.at.isoformat(),
                        "act": row.action,
                        "subject": row.subject_id,
                        "why": row.reason,
                    }
                    for row in unreviewed_alarms(context, holds_seal=True)
                ]
            }
    if not by:
        raise click.UsageError("--reason needs --by")
    with transactions().writing(COMMAND) as context:
        person = find_staff(context, by)
        require_staff_permission(context, person, KEYS_MANAGE)
        return {"reviewed": review_alarms(context, reason=reason, by=person.id)}
