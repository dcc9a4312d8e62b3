"""`portal keys`, `portal bundle` and `portal audit`."""

import sys
from pathlib import Path
from typing import Any

import click

from licensing.errors import MalformedPayload
from licensing.keys import PublicKey
from portal.cli.output import json_option
from portal.cli.wired import COMMAND, parse_duration, transactions, wired
from portal.domain.errors import Conflict, Invalid
from portal.domain.ports import NewKey
from portal.services.acts import machinery
from portal.services.acts.keys import (
    COMPROMISE_KEY,
    RETIRE_KEY,
    ROTATE_KEY,
    CompromiseKey,
    RetireKey,
    RotateKey,
    order_of,
)
from portal.services.acts.kinds import Ask, Kind, Params
from portal.services.audit_seals import check_anchors, verify_chain
from portal.services.bundles import bundle_facts, publish_bundle, published_bundle
from portal.services.key_changes import run_order
from portal.services.key_readiness import readiness
from portal.services.keys import add_key, init_keys, list_keys, published_keyset
from portal.services.seals import init_seal
from portal.services.staff import find_staff, require_staff_permission


@click.group()
def keys() -> None:
    """Manage signing keys and the keyset that publishes them."""


@keys.command("init")
@click.option(
    "--new-seal-key", is_flag=True, help="The seal key is lost for good: begin with another."
)
@json_option
def keys_init(new_seal_key: bool) -> dict[str, Any]:
    """Create what is missing: root, one key of each role, first keyset and seal key."""
    wiring = wired()
    with wiring.transactions.writing(COMMAND) as context:
        keyset = init_keys(context, wiring.signers)
        init_seal(context, wiring.custody, anew=new_seal_key)
    return {"keyset_version": keyset.version}


@keys.command("add")
@click.option("--role", required=True, help="root, license, lease or revocation.")
@click.option("--uri", required=True, help="Where the key is, for example vault:transit/NAME/1.")
@click.option(
    "--public-key",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Its public half in PEM, if this machine cannot reach the keeper.",
)
@json_option
def keys_add(role: str, uri: str, public_key: Path | None) -> dict[str, Any]:
    """Add a key that a keeper holds, as the next one of its role; publish nothing."""
    wiring = wired()
    try:
        if public_key is None:
            key = wiring.signers.find(role, uri)
        else:
            key = NewKey(PublicKey.from_pem(public_key.read_bytes()).raw, uri)
    except MalformedPayload as error:
        raise Invalid(f"{public_key}: {error.detail}.", field="public_key") from error
    with wiring.transactions.writing(COMMAND) as context:
        added = add_key(context, role, key)
        return {"keyid": added.keyid, "role": added.role, "uri": added.uri}


@keys.command("list")
@json_option
def keys_list() -> dict[str, Any]:
    """List the roots and keys in the current keyset."""
    with transactions().reading(COMMAND) as context:
        return {
            "keys": [
                {
                    "role": key.role,
                    "status": key.status,
                    "keyid": key.keyid,
                    "not_before_at": key.not_before_at,
                    "not_after_at": key.not_after_at,
                    "uri": key.uri,
                }
                for key in list_keys(context).keys
            ]
        }


_BY = click.option("--by", required=True, help="A staff person's id or e-mail address.")


@keys.command("rotate")
@click.option("--role", required=True, help="license, lease, revocation or root.")
@click.option("--activate-in", default="14d", show_default=True, help="Such as 14d; 0s: at once.")
@click.option("--reason", default="Rotation.", show_default=True)
@_BY
@json_option
def keys_rotate(role: str, activate_in: str, reason: str, by: str) -> dict[str, Any]:
    """Propose the next key of a role; a second person approves it."""
    seconds = 0 if activate_in == "0s" else parse_duration(activate_in)
    return _propose(ROTATE_KEY, role, RotateKey(activate_in_s=seconds), reason, by)


@keys.command("retire")
@click.argument("keyid")
@click.option("--anyway", is_flag=True, help="Although known routers lack the keyset.")
@click.option("--reason", help="Needed with --anyway.")
@_BY
@json_option
def keys_retire(keyid: str, reason: str | None, by: str, *, anyway: bool) -> dict[str, Any]:
    """Propose that a key signs no more; a second person approves it."""
    if anyway and not reason:
        raise Invalid("Say why the key is retired anyway.", field="reason")
    reason = reason or "Its successor signs."
    return _propose(RETIRE_KEY, keyid, RetireKey(anyway=anyway), reason, by)


@keys.command("compromise")
@click.argument("keyid")
@click.option("--reason", required=True)
@_BY
@json_option
def keys_compromise(keyid: str, reason: str, by: str) -> dict[str, Any]:
    """Say that a key is compromised: it signs nothing from now on, until that is decided."""
    return _propose(COMPROMISE_KEY, keyid, CompromiseKey(), reason, by)


def _propose(kind: Kind, subject: str, params: Params, reason: str, by: str) -> dict[str, Any]:
    with transactions().writing(COMMAND) as context:
        person = find_staff(context, by)
        require_staff_permission(context, person, kind.permission)
        ask = Ask(subject_id=subject, params=params, reason=reason, by=person.id)
        act = machinery.submit(context, kind, ask)
        return {"act_id": act.id, "status": act.state.value}


@keys.command("run")
@click.argument("act_id")
@json_option
def keys_run(act_id: str) -> dict[str, Any]:
    """Run an approved key change; an interrupted one goes on. Needs the root."""
    wiring = wired()
    with wiring.transactions.reading(COMMAND) as context:
        order = order_of(machinery.find_act(context, act_id))
    outcome = run_order(wiring.transactions, wiring.signers, order, COMMAND)
    facts: dict[str, Any] = {"keyset_version": outcome.keyset_version, "keyid": outcome.keyid}
    if order.kind == "compromise-key":
        facts["licenses"] = [
            {
                "license_id": each.license_id,
                "replaces": each.replaces,
                "deployment_id": each.deployment_id,
                "mode": each.mode,
            }
            for each in outcome.licenses
        ]
    return facts


@keys.command("readiness")
@json_option
def keys_readiness() -> dict[str, Any]:
    """Say which routers have the newest keyset, and which deployments do not."""
    with transactions().reading(COMMAND) as context:
        found = readiness(context)
    return {
        "keyset_version": found.keyset_version,
        "known": found.known,
        "ready": found.ready,
        "deployments": [
            {
                "deployment_id": each.deployment_id,
                "name": each.name,
                "mode": each.mode,
                "known": each.known,
                "ready": each.ready,
            }
            for each in found.lagging
        ],
    }


@keys.command("keyset")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    help="File to write, or - for standard output.",
)
@json_option
def keys_keyset(out: Path) -> dict[str, Any] | None:
    """Write the current signed keyset."""
    with transactions().reading(COMMAND) as context:
        stored = published_keyset(context)
    return write_file(out, stored.envelope, {"keyset_version": stored.version})


@click.group()
def bundle() -> None:
    """Manage the revocation bundle."""


@bundle.command("publish")
@json_option
def bundle_publish() -> dict[str, Any]:
    """Sign and publish a new bundle now."""
    stored = publish_bundle(transactions(), COMMAND)
    if stored is None:
        raise Conflict("Nothing was published.")
    return bundle_facts(stored)


@bundle.command("export")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    help="File to write, or - for standard output.",
)
@json_option
def bundle_export(out: Path) -> dict[str, Any] | None:
    """Write the current bundle."""
    with transactions().reading(COMMAND) as context:
        stored = published_bundle(context)
    return write_file(out, stored.envelope, {"version": stored.version})


@click.group()
def audit() -> None:
    """Check the audit trail."""


@audit.command("check")
@click.option(
    "--bundle",
    "bundles",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A bundle published earlier, kept outside the database.",
)
@json_option
def audit_check(bundles: tuple[Path, ...]) -> dict[str, Any]:
    """Check every seal against its rows, and the chain against earlier bundles."""
    with transactions().reading(COMMAND) as context:
        broken = verify_chain(context) or check_anchors(
            context, [path.read_bytes() for path in bundles]
        )
    if broken is not None:
        raise Conflict(f"Seal {broken.seal_number} is broken: {broken.why}.")
    return {"chain": "holds"}


def write_file(path: Path, data: bytes, facts: dict[str, Any]) -> dict[str, Any] | None:
    """Write a document to a file; for `-`, write it to standard output and print nothing else."""
    if path == Path("-"):
        sys.stdout.buffer.write(data)
        return None
    path.write_bytes(data)
    return {**facts, "file": str(path), "bytes": len(data)}
