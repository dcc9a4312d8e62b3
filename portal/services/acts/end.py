"""End: take back one entitlement, wholly or in part; what remains is computed anew.

When nothing remains, the line's licenses are revoked.
"""

from typing import Final

from portal.db.entitlements import Entitlement
from portal.domain.catalog import CATALOG
from portal.domain.entitlements import EndCause, EntitlementState
from portal.domain.errors import Conflict, Forbidden, Invalid
from portal.domain.roles import ENTITLEMENTS_APPROVE
from portal.domain.standing import RevokedReason
from portal.domain.succession import Hurry
from portal.services.acts.kinds import Ask, Kind, Outcome, Params
from portal.services.acts.revoke import has_revoked_much, revoke_licenses
from portal.services.acts.scenes import asked_for, entitlement_scene, show_entitlement
from portal.services.audit import record
from portal.services.context import Context
from portal.services.lines import end_grant, follow, lock_line

OF_COMMERCE: Final = frozenset({EndCause.REFUND, EndCause.DISPUTE, EndCause.CANCELED})
AT_ONCE: Final = frozenset({EndCause.REFUND, EndCause.DISPUTE})
"""Causes for which the old license stops counting at once."""


class End(Params, frozen=True, kw_only=True):
    """Why, and how much of it."""

    cause: EndCause = EndCause.WITHDRAWN
    tokens: int | None = None
    """Of a partial refund: the tokens of a pack that are taken back; None: all, and it ends."""


def run(context: Context, ask: Ask) -> Outcome:
    """End an entitlement, or take part of a pack back.

    Raises:
        NotFound: no such entitlement.
        Forbidden: a person ends for a cause that lies in the payment, or commerce for another.
        Conflict: it is not live.
        Invalid: part of something that is no pack, or more than it brought.
    """
    assert isinstance(ask.params, End)
    cause = ask.params.cause
    if (cause in OF_COMMERCE) != (ask.by is None):
        raise Forbidden(f"An end for {cause} is not made this way.")
    row = context.session.get_one(Entitlement, ask.subject_id)
    lock_line(context, row.deployment_id)
    if row.state is not EntitlementState.LIVE:
        raise Conflict(f"The entitlement is {row.state}; there is nothing to end.")
    if ask.params.tokens is not None:
        _take(context, row, ask.params.tokens)
    else:
        end_grant(context, row.id, cause)
    context.session.flush()
    hurry = Hurry.AT_ONCE if cause in AT_ONCE else Hurry.NONE
    license_ = follow(context, row.deployment_id, hurry=hurry)
    line = lock_line(context, row.deployment_id)
    if not line.live and line.coming is None:
        revoke_licenses(context, row.deployment_id, RevokedReason.WITHDRAWN, ask.reason)
        return Outcome("revoked")
    return asked_for(license_)


def _take(context: Context, row: Entitlement, tokens: int) -> None:
    """Take tokens of a pack back; the newest amount counts, however often it is told."""
    brought = row.terms.tokens_total or 0
    if not CATALOG[row.terms.sku].is_pack or not 1 <= tokens < brought:
        raise Invalid(f"Of this entitlement 1 to {brought - 1} tokens can be taken back.")
    if tokens != row.taken_tokens:
        row.taken_tokens, row.taken_at = tokens, context.at
    record(
        context,
        "entitlement.taken-back",
        "entitlement",
        row.id,
        account_id=row.account_id,
        tokens=tokens,
    )


def needs_two(context: Context, ask: Ask) -> bool:
    """Whether a second person is needed: to end a contract, or for the tenth end in a day."""
    if ask.by is None:
        return False
    row = context.session.get_one(Entitlement, ask.subject_id)
    return CATALOG[row.terms.sku].two_person or has_revoked_much(context, ask.by)


END: Final = Kind(
    name="end",
    needs_proof=False,
    params=End,
    permission=ENTITLEMENTS_APPROVE,
    scene=entitlement_scene,
    run=run,
    shows=show_entitlement,
    needs_two=needs_two,
)
