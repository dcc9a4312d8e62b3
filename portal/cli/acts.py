"""`portal license renew`, `amend`, `suspend` and the like, their previews, and `portal act`."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, NamedTuple

import click

from portal.cli.output import json_option
from portal.cli.wired import COMMAND, parse_duration, parse_limits, transactions
from portal.db.acts import Act
from portal.db.people import Person
from portal.domain.acts import ActState
from portal.domain.ports import SignerUnavailable
from portal.domain.standing import COMMERCE_CAUSES, HoldCause
from portal.domain.terms import Mode
from portal.services.acts import machinery
from portal.services.acts.kinds import Ask, Params
from portal.services.bundles import publish_bundle
from portal.services.context import Context, Transactions
from portal.services.licenses import find_license, issue_pending, standing
from portal.services.staff import find_staff, require_staff_permission

STATES: Final = {ActState.DONE: "approved"}
"""What the command calls a state otherwise than it is stored."""
SPEAKS_OF: Final = {
    "renew": ("entitlement_id", "status", "act_id", "license_id"),
    "amend": ("status", "act_id", "license_id"),
    "top-up": ("license_id", "status", "budget_id", "carry_over_from"),
    "replace": ("license_id", "status"),
    "replace-base": ("status", "act_id", "license_id"),
    "suspend": ("hold_id", "status"),
    "reinstate": ("status",),
    "revoke": ("status", "act_id"),
}
"""What each command prints, as far as it is known."""


class _Command(NamedTuple):
    """An act as a command: what it is called, how it is explained, and its own options."""

    name: str
    help: str
    options: tuple[Callable[[Any], Any], ...]
    read: Callable[..., dict[str, Any]]


_TERM = click.option("--term", help="Such as 365d; default: as long as before.")
_FINGERPRINT = click.option("--fingerprint", "fingerprints", multiple=True)
_COMMANDS: Final = (
    _Command(
        "renew",
        "Let the license's base go on from its end.",
        (_TERM,),
        lambda term: {"term_s": None if term is None else parse_duration(term)},
    ),
    _Command(
        "amend",
        "Change features, limits, fingerprints or mode of a live base.",
        (
            click.option("--feature", "features", multiple=True, help="All that are granted."),
            click.option("--limit", "limits", multiple=True, help="name=number; others stay."),
            _FINGERPRINT,
            click.option("--mode", type=click.Choice([each.value for each in Mode])),
        ),
        lambda features, limits, fingerprints, mode: {
            "features": features or None,
            "limits": parse_limits(limits) or None,
            "fingerprints": fingerprints or None,
            "mode": None if mode is None else Mode(mode),
        },
    ),
    _Command(
        "top-up",
        "Add a credit pack.",
        (click.option("--sku", required=True),),
        lambda sku: {"sku": sku},
    ),
    _Command(
        "replace",
        "Issue the license anew: a lost file, or another fingerprint.",
        (
            _FINGERPRINT,
            click.option("--at-once", is_flag=True, help="The old file stops counting now."),
        ),
        lambda fingerprints, at_once: {"fingerprints": fingerprints, "at_once": at_once},
    ),
    _Command(
        "replace-base",
        "Start an approved base in place of the live one.",
        (click.option("--entitlement", "entitlement_id", required=True),),
        lambda entitlement_id: {"entitlement_id": entitlement_id},
    ),
    _Command(
        "suspend",
        "Suspend the license and its whole line.",
        (
            click.option(
                "--cause",
                required=True,
                type=click.Choice([e.value for e in HoldCause if e not in COMMERCE_CAUSES]),
            ),
        ),
        lambda cause: {"cause": HoldCause(cause)},
    ),
    _Command(
        "reinstate",
        "Lift one hold; others stay.",
        (click.option("--hold", "hold_id", required=True),),
        lambda hold_id: {"hold_id": hold_id},
    ),
    _Command("revoke", "Revoke the license and its whole line, for good.", (), dict),
)


def add_acts(group: click.Group) -> None:
    """Give the group a command for each act on a license, and `preview` with the same ones."""
    previews = click.Group("preview", help="Show what an act would do; nothing is done.")
    group.add_command(previews)
    for command in _COMMANDS:
        group.add_command(_made(command, _do))
        previews.add_command(_made(command, _preview))


def _made(command: _Command, run: Callable[..., dict[str, Any]]) -> click.Command:
    def call(license_id: str, reason: str, by: str, **given: Any) -> dict[str, Any]:
        kind = machinery.kind_of(command.name)
        return run(kind, license_id, reason, by, kind.params(**command.read(**given)))

    decorated: Any = json_option(call)
    for option in reversed(
        (
            click.argument("license_id"),
            *command.options,
            click.option("--reason", required=True),
            click.option("--by", required=True, help="A staff person's id or e-mail address."),
        )
    ):
        decorated = option(decorated)
    made: click.Command = click.command(command.name, help=command.help)(decorated)
    return made


def _staff(context: Context, by: str, permission: str) -> Person:
    person = find_staff(context, by)
    require_staff_permission(context, person, permission)
    return person


def _ask(
    context: Context, kind: machinery.Kind, license_id: str, said: tuple[str, str], params: Params
) -> Ask:
    reason, by = said
    person = _staff(context, by, kind.permission)
    return Ask(subject_id=license_id, params=params, reason=reason, by=person.id)


def _preview(
    kind: machinery.Kind, license_id: str, reason: str, by: str, params: Params
) -> dict[str, Any]:
    with transactions().writing(COMMAND) as context:
        asked = _ask(context, kind, license_id, (reason, by), params)
        return {"preview": machinery.preview(context, kind, asked).to_json()}


def _do(
    kind: machinery.Kind, license_id: str, reason: str, by: str, params: Params
) -> dict[str, Any]:
    opened = transactions()
    with opened.writing(COMMAND) as context:
        asked = _ask(context, kind, license_id, (reason, by), params)
        act = machinery.submit(context, kind, asked)
    facts = _follow_up(opened, act)
    return {name: facts[name] for name in SPEAKS_OF[kind.name] if facts.get(name) is not None}


def _follow_up(opened: Transactions, act: Act) -> dict[str, Any]:
    """Sign and publish what an act asks for, where this process can; return what came of it."""
    if act.outcome is None:
        return {"act_id": act.id, "status": act.state.value}
    facts = {"act_id": act.id, **act.outcome}
    # Without the keys the worker signs and publishes.
    with suppress(SignerUnavailable):
        if act.deployment_id is not None:
            issue_pending(opened, act.deployment_id, COMMAND)
        publish_bundle(opened, COMMAND, only_if_due=True)
    if facts["status"] == "issuing":
        with opened.reading(COMMAND) as context:
            license_ = find_license(context, facts["license_id"])
            facts["status"] = standing(context, license_).state.value
    return facts


@click.group("act")
def act_() -> None:
    """Acts that wait for a second person."""


@act_.command("list")
@click.option("--all", "everything", is_flag=True, help="Also those that are decided.")
@json_option
def act_list(*, everything: bool) -> dict[str, Any]:
    """Show the acts that wait."""
    with transactions().reading(COMMAND) as context:
        waiting = (ActState.PENDING, ActState.RETURNED)
        found = machinery.list_acts(context, None)
        return {
            "acts": [_facts(each) for each in found if everything or each.state in waiting],
        }


def _facts(act: Act) -> dict[str, Any]:
    return {
        "act_id": act.id,
        "status": STATES.get(act.state, act.state.value),
        "kind": act.kind,
        "subject_id": act.subject_id,
        "reason": act.reason,
        "by": act.submitted_by,
        "submitted_at": act.submitted_at.isoformat().replace("+00:00", "Z"),
        "lapses_at": act.lapses_at and act.lapses_at.isoformat().replace("+00:00", "Z"),
    }


@act_.command("approve")
@click.argument("act_id")
@click.option("--by", required=True, help="A staff person's id or e-mail address.")
@json_option
def act_approve(act_id: str, by: str) -> dict[str, Any]:
    """Approve an act as its second person, and do it."""
    opened = transactions()
    with opened.writing(COMMAND) as context:
        kind = machinery.kind_of(machinery.find_act(context, act_id).kind)
        person = _staff(context, by, kind.permission)
        act = machinery.approve(context, act_id, by=person.id)
    machinery.require_fresh(act)
    facts = _follow_up(opened, act)
    done = {"act_id": act.id, "status": "approved"}
    return done | {name: facts[name] for name in ("license_id",) if facts.get(name)}


@act_.command("decline")
@click.argument("act_id")
@click.option("--reason", required=True)
@click.option("--by", required=True, help="A staff person's id or e-mail address.")
@json_option
def act_decline(act_id: str, reason: str, by: str) -> dict[str, Any]:
    """Decline an act; its first person takes it back so."""
    with transactions().writing(COMMAND) as context:
        kind = machinery.kind_of(machinery.find_act(context, act_id).kind)
        person = _staff(context, by, kind.permission)
        act = machinery.decline(context, act_id, by=person.id, reason=reason)
    return {"act_id": act.id, "status": act.state.value}
