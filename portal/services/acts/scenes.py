"""What acts on a line are done in, and what a preview shows of them.

What is shown is read before and after the act ran, from the rows that it changed: licenses issued
and ended, what routers do and when, budgets and mails.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec import structs
from sqlalchemy import select

from licensing.license import License as LicensePayload
from portal.db.deployments import Deployment
from portal.db.emails import Email
from portal.db.entitlements import Entitlement
from portal.db.keys import latest_keyset
from portal.db.licenses import License, licenses_of, open_holds
from portal.domain.catalog import CATALOG
from portal.domain.entitlements import Grant, Line, check_terms
from portal.domain.errors import NotFound
from portal.domain.standing import LicenseState
from portal.domain.terms import differences, granted_terms
from portal.services.acts.kinds import Ask, Outcome, Scene
from portal.services.causes import ask_for_proof, before_change
from portal.services.context import Context
from portal.services.instances import instances_of
from portal.services.licenses import find_license, fix_payload, standings, supersede
from portal.services.lines import lock_line, newest_license


def license_scene(context: Context, ask: Ask) -> Scene:
    """Hold the line of the license that an act is done to.

    Raises:
        NotFound: there is no such license.
    """
    return _scene(context, find_license(context, ask.subject_id).deployment_id)


def entitlement_scene(context: Context, ask: Ask) -> Scene:
    """Hold the line of the entitlement that an act is done to.

    Raises:
        NotFound: there is no such entitlement.
    """
    entitlement = context.session.get(Entitlement, ask.subject_id)
    if entitlement is None:
        raise NotFound(f"There is no entitlement {ask.subject_id}.")
    return _scene(context, entitlement.deployment_id)


def line_of(context: Context, ask: Ask) -> tuple[License, Line]:
    """Hold the line of the license that an act is done to; return both.

    Raises:
        NotFound: there is no such license.
    """
    license_ = find_license(context, ask.subject_id)
    line = lock_line(context, license_.deployment_id)
    # It was read before its line was held.
    context.session.refresh(license_)
    return license_, line


def has_contract(line: Line) -> bool:
    """Say whether a contract is live or coming: acts on it need two people."""
    grants = (*line.live, *((line.coming,) if line.coming else ()))
    return any(CATALOG[grant.terms.sku].two_person for grant in grants)


def is_of_contract(context: Context, ask: Ask) -> bool:
    """Say whether an act is done to a line with a contract, and so needs two people."""
    return has_contract(line_of(context, ask)[1])


def change_terms(context: Context, grant: Grant | None, **changes: Any) -> None:
    """Change the terms of a grant.

    Raises:
        Invalid: the catalog does not permit them.
        Unproved: the command would change what somebody altered in the database.
    """
    if grant is None:
        return
    row = context.session.get_one(Entitlement, grant.id)
    terms = structs.replace(row.terms, **changes)
    check_terms(terms)
    before_change(context, row)
    row.terms = terms
    context.session.flush()
    ask_for_proof(context, row)


def asked_for(license_: License | None) -> Outcome:
    """Return that a license was asked for, or that the newest one says it all already."""
    if license_ is None:
        return Outcome("unchanged")
    return Outcome("issuing", {"license_id": license_.id})


def _scene(context: Context, deployment_id: str) -> Scene:
    line = lock_line(context, deployment_id)
    rows = _entitlements(context, deployment_id)
    keyset = latest_keyset(context.session)
    facts = {
        "entitlements": [[*_facts(row), msgspec.to_builtins(row.terms)] for row in rows],
        "holds": [
            [hold.id, hold.cause, hold.entitlement_id]
            for hold in open_holds(context.session, deployment_id)
        ],
        "licenses": [
            [row.id, _text(row.revoked_at)] for row in licenses_of(context.session, deployment_id)
        ],
        "keyset": None if keyset is None else keyset.payload_sha256,
        "catalog": hashlib.sha256(repr(CATALOG).encode()).hexdigest(),
        "live": [each.id for each in line.live],
    }
    account_id = rows[0].account_id if rows else None
    return Scene(account_id, deployment_id, facts)


def _entitlements(context: Context, deployment_id: str) -> list[Entitlement]:
    return list(
        context.session.scalars(
            select(Entitlement)
            .where(Entitlement.deployment_id == deployment_id)
            .order_by(Entitlement.id)
        )
    )


def _facts(row: Entitlement) -> list[Any]:
    moments = (row.approved_at, row.starts_at, row.ends_at, row.ended_at)
    return [row.id, *map(_text, moments), row.end_reason, row.renews, row.taken_tokens]


def _text(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat().replace("+00:00", "Z")


def show_line(context: Context, ask: Ask, run: Callable[[], Outcome]) -> dict[str, Any]:
    """Run an act on a license's line and say what changed."""
    return _show(context, find_license(context, ask.subject_id).deployment_id, run)


def show_entitlement(context: Context, ask: Ask, run: Callable[[], Outcome]) -> dict[str, Any]:
    """Run an act on an entitlement's line and say what changed."""
    deployment_id = context.session.get_one(Entitlement, ask.subject_id).deployment_id
    return _show(context, deployment_id, run)


def _show(context: Context, deployment_id: str, run: Callable[[], Outcome]) -> dict[str, Any]:
    before = _look(context, deployment_id)
    outcome = run()
    issued = _draft(context, deployment_id)
    after = _look(context, deployment_id)
    ended = [_ended(now) for key, now in after.licenses.items() if now != before.licenses.get(key)]
    was = before.current
    return {
        "status": outcome.status,
        "changes": [] if was is None or issued is None else _changes(was, issued),
        "licenses": {
            "issued": [] if issued is None else [_terms(issued)],
            "ended": [each for each in ended if each is not None],
        },
        "routers": _routers(context, deployment_id),
        "budget": _budgets(was, issued or was),
        "mails": sorted(
            {
                *(template for key, template in after.mails.items() if key not in before.mails),
                *(["license-issued"] if issued is not None else []),
            }
        ),
    }


@dataclass(frozen=True)
class _License:
    """A released license, as far as an act can change it."""

    id: str
    state: LicenseState
    superseded_at: datetime | None
    revoked_at: datetime | None
    expires_at: datetime | None


@dataclass(frozen=True)
class _Look:
    """A line as an act finds or leaves it."""

    licenses: dict[str, _License]
    current: LicensePayload | None
    """What the newest released license says."""
    mails: dict[str, str]
    """Templates, by the mail's id."""


def _look(context: Context, deployment_id: str) -> _Look:
    rows = [e for e in licenses_of(context.session, deployment_id) if e.released_at is not None]
    now = standings(context, rows)
    account_id = context.session.get_one(Deployment, deployment_id).account_id
    mails = context.session.scalars(
        select(Email).where(Email.account_id == account_id, Email.created_at == context.at)
    )
    return _Look(
        {
            row.id: _License(
                row.id, now[row.id].state, row.superseded_at, row.revoked_at, row.expires_at
            )
            for row in rows
        },
        rows[0].document if rows else None,
        {mail.id: mail.template for mail in mails},
    )


def _draft(context: Context, deployment_id: str) -> LicensePayload | None:
    """Compute the license that waits to be issued, and let it take its predecessor's place."""
    newest = newest_license(context, deployment_id)
    if newest is None or newest.payload is not None or newest.revoked_at is not None:
        return None
    payload = fix_payload(context, newest)
    supersede(context, newest, payload)
    context.session.flush()
    return payload


def _terms(payload: LicensePayload) -> dict[str, Any]:
    return {
        "sku": payload.sku,
        "mode": payload.mode,
        "revision": payload.revision,
        "not_before": _time(payload.not_before_at),
        "expires_at": _time(payload.expires_at),
        "features": list(payload.features),
        "limits": msgspec.to_builtins(payload.limits),
        "fingerprints": list(payload.binding.fingerprints),
        "support_tier": payload.support_tier,
    }


def _time(seconds: int) -> str | None:
    return _text(datetime.fromtimestamp(seconds, UTC))


def _budget(payload: LicensePayload | None) -> dict[str, Any] | None:
    if payload is None or payload.budget is None:
        return None
    return dict(msgspec.to_builtins(payload.budget))


def _budgets(was: LicensePayload | None, now: LicensePayload | None) -> dict[str, Any]:
    """Return the budgets before and after; a new one gets its id only when the act is done."""
    before, after = _budget(was), _budget(now)
    if after is not None and (before is None or after["budget_id"] != before["budget_id"]):
        del after["budget_id"]
    return {"before": before, "after": after}


def _changes(was: LicensePayload, now: LicensePayload) -> list[dict[str, str]]:
    """Say what the license says otherwise than the one before it."""
    changes = [
        {"term": each.title, "before": each.asked, "after": each.granted}
        for each in differences(granted_terms(was), granted_terms(now))
    ]
    if was.expires_at != now.expires_at:
        before, after = _time(was.expires_at) or "", _time(now.expires_at) or ""
        changes.append({"term": "Expiry", "before": before, "after": after})
    return changes


def _ended(now: _License) -> dict[str, Any] | None:
    """Say what becomes of a license; None when it counts on as before."""
    if now.revoked_at is not None:
        said, at = "revoked", now.revoked_at
    elif now.state is LicenseState.SUSPENDED:
        said, at = "suspended", None
    elif now.superseded_at is not None:
        said, at = "superseded", now.superseded_at
    else:
        return None
    return {"license_id": now.id, "becomes": said, "at": _text(at)}


def _routers(context: Context, deployment_id: str) -> dict[str, Any]:
    """Say when the deployment's routers hear of it: leased ones one by one, the others in words."""
    leased = [
        {
            "instance_id": row.id,
            "label": row.label,
            "asks_by": _text(row.renew_latest_at),
            "serves_unasked_until": _text(row.lease_grace_until_at),
        }
        for row in instances_of(context, deployment_id)
        if row.retired_at is None and row.lease_grace_until_at > context.at
    ]
    return {
        "leased": leased,
        "offline": "when they get the next bundle; one that gets none serves until its license"
        " expires",
    }
