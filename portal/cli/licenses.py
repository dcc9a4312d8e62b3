"""`portal entitlement`, `portal license`, `portal enrollment-code` and `portal instance`."""

from pathlib import Path
from typing import Any

import click

from portal.cli.acts import add_acts
from portal.cli.keys import write_file
from portal.cli.output import json_option
from portal.cli.wired import COMMAND, parse_duration, parse_limits, transactions
from portal.domain.catalog import fill_terms
from portal.domain.errors import Conflict
from portal.domain.roles import ENTITLEMENTS_APPROVE
from portal.domain.terms import Mode, Terms, canonical_terms
from portal.services.downloads import LICENSE_JSON, license_summary, record_download
from portal.services.enrollments import create_enrollment_code
from portal.services.entitlements import approve_entitlement, propose_entitlement
from portal.services.instances import find_instance, instances_of, retire_instance
from portal.services.licenses import (
    find_license,
    issue_license,
    license_holds,
    request_issue,
    standing,
)
from portal.services.requests import announce_approval
from portal.services.staff import find_staff, require_staff_permission


@click.group()
def entitlement() -> None:
    """Manage entitlements: the approved records that licenses are issued from."""


@entitlement.command("create")
@click.option("--deployment", "deployment_id", required=True)
@click.option("--sku", required=True)
@click.option(
    "--mode", type=click.Choice([each.value for each in Mode]), default=Mode.OFFLINE.value
)
@click.option("--term", help="For example 72h or 30d. Default: the SKU's term.")
@click.option(
    "--limit",
    "limits",
    multiple=True,
    help="NAME=NUMBER; tokens_total is the token budget. May be repeated.",
)
@click.option(
    "--feature", "features", multiple=True, help="May be repeated. Default: the SKU's features."
)
@click.option("--fingerprint", "fingerprints", multiple=True)
@click.option("--reason", required=True)
@click.option("--by", required=True, help="A staff person's id or e-mail address.")
@json_option
def entitlement_create(deployment_id: str, reason: str, by: str, **given: Any) -> dict[str, Any]:
    """Propose an entitlement for a deployment."""
    with transactions().writing(COMMAND) as context:
        person = find_staff(context, by)
        require_staff_permission(context, person, ENTITLEMENTS_APPROVE)
        made = propose_entitlement(
            context,
            deployment_id=deployment_id,
            terms=_terms(**given),
            reason=reason,
            created_by=person.id,
        )
    return {"entitlement_id": made.id, "status": made.state}


def _terms(
    *,
    sku: str,
    mode: str,
    term: str | None,
    limits: tuple[str, ...],
    features: tuple[str, ...],
    fingerprints: tuple[str, ...],
) -> Terms:
    """Return the terms that options say; what they leave out is as the SKU's template says."""
    return fill_terms(
        sku,
        mode=Mode(mode),
        term_s=None if term is None else parse_duration(term),
        limits=parse_limits(limits),
        features=features or None,
        fingerprints=fingerprints,
    )


@entitlement.command("approve")
@click.argument("entitlement_id")
@click.option("--by", required=True, help="A staff person's id or e-mail address.")
@json_option
def entitlement_approve(entitlement_id: str, by: str) -> dict[str, Any]:
    """Approve a proposed entitlement."""
    with transactions().writing(COMMAND) as context:
        person = find_staff(context, by)
        require_staff_permission(context, person, ENTITLEMENTS_APPROVE)
        approved = approve_entitlement(context, entitlement_id, approved_by=person.id)
        announce_approval(context, approved)
    # What was sealed, for whoever approves to read; standard output holds the object alone.
    click.echo(f"approved terms: {canonical_terms(approved.terms).decode()}", err=True)
    return {"entitlement_id": approved.id, "status": approved.state}


@click.group("license")
def license_() -> None:
    """Issue, show and export licenses."""


@license_.command("issue")
@click.option("--entitlement", "entitlement_id", required=True)
@json_option
def license_issue(entitlement_id: str) -> dict[str, Any]:
    """Issue the license of an approved entitlement and sign it immediately."""
    opened = transactions()
    with opened.writing(COMMAND) as context:
        asked = request_issue(context, entitlement_id, cause="start")
    issue_license(opened, asked.id, COMMAND)
    with opened.reading(COMMAND) as context:
        issued = find_license(context, asked.id)
        return {
            "license_id": issued.id,
            "status": standing(context, issued).state,
            "key_id": issued.key_id,
            "sha256": issued.file_sha256,
        }


@license_.command("show")
@click.argument("license_id")
@json_option
def license_show(license_id: str) -> dict[str, Any]:
    """Show the facts of a license that are safe to share, and the holds on its line."""
    with transactions().reading(COMMAND) as context:
        shown = find_license(context, license_id)
        holds = [
            {"hold_id": each.id, "cause": each.cause.value}
            for each in license_holds(context, shown)
        ]
        return {**license_summary(shown, standing(context, shown)), "holds": holds}


@license_.command("export")
@click.argument("license_id")
@click.option("--out", type=click.Path(path_type=Path), default=Path("license.json"))
@json_option
def license_export(license_id: str, out: Path) -> dict[str, Any] | None:
    """Write the signed license file."""
    with transactions().writing(COMMAND) as context:
        shown = find_license(context, license_id)
        if shown.envelope is None:
            raise Conflict("The license is still being issued; try again in a moment.")
        record_download(context, shown, LICENSE_JSON)
        envelope = shown.envelope
    return write_file(out, envelope, {"license_id": shown.id, "sha256": shown.file_sha256})


add_acts(license_)


@click.group("enrollment-code")
def enrollment_code() -> None:
    """Create codes that let routers enroll."""


@enrollment_code.command("create")
@click.option("--deployment", "deployment_id", required=True)
@click.option("--uses", type=click.IntRange(1, 100), default=1, show_default=True)
@json_option
def enrollment_code_create(deployment_id: str, uses: int) -> dict[str, Any]:
    """Create a code that works for 24 hours; it is shown only once."""
    with transactions().writing(COMMAND) as context:
        code, row = create_enrollment_code(
            context, deployment_id=deployment_id, uses=uses, created_by=None
        )
    return {"code": code, "expires_at": row.expires_at.isoformat().replace("+00:00", "Z")}


@click.group()
def instance() -> None:
    """Manage enrolled routers."""


@instance.command("list")
@click.option("--deployment", "deployment_id", required=True)
@json_option
def instance_list(deployment_id: str) -> dict[str, Any]:
    """List a deployment's instances."""
    with transactions().reading(COMMAND) as context:
        return {"instances": [_facts(row) for row in instances_of(context, deployment_id)]}


@instance.command("show")
@click.argument("instance_id")
@json_option
def instance_show(instance_id: str) -> dict[str, Any]:
    """Show one instance."""
    with transactions().reading(COMMAND) as context:
        return _facts(find_instance(context, instance_id))


@instance.command("retire")
@click.argument("instance_id")
@click.option("--reason", required=True)
@json_option
def instance_retire(instance_id: str, reason: str) -> dict[str, Any]:
    """Retire an instance, so that it gets no more leases."""
    with transactions().writing(COMMAND) as context:
        return _facts(retire_instance(context, instance_id, reason=reason))


def _facts(row: Any) -> dict[str, Any]:
    return {
        "instance_id": row.id,
        "label": row.label,
        "lease_status": row.lease_status,
        "epoch": row.epoch,
        "seq": row.seq,
        "last_seen_at": row.last_seen_at.isoformat(),
        "lease_expires_at": row.lease_expires_at.isoformat(),
        "retired_at": None if row.retired_at is None else row.retired_at.isoformat(),
    }
