"""What operators see: safe facts of the license, grace, the state of renewal, usage."""

from typing import Any

from licensing.names import ROUTER_CODES
from router.clock import dated, instant
from router.documents.decision import Decision
from router.lease.store import describe
from router.serve.guard import Guard
from router.state.store import State


def status_facts(guard: Guard, now: int) -> dict[str, Any]:
    """Return what an administrator is shown; nothing from payload, signature or key."""
    decision, state, journal = guard.decision, guard.state, guard.journal
    facts: dict[str, Any] = {
        "serving": decision.serving,
        "status": decision.status,
        "reason": decision.reason,
        "cause": decision.cause,
        "grace_active": decision.grace is not None,
        "license": dated(decision.facts) or None,
        "grace": None,
        "lease": _lease(guard, decision, now),
        "usage": used_tokens(state, decision, now),
        "warnings": list(decision.warnings),
        "checked_at": instant(decision.decided_at),
        "next_check_at": instant(guard.next_check_at),
    }
    if decision.reason is not None:
        facts["next_step"] = ROUTER_CODES[decision.reason].next_step
    if decision.grace is not None:
        grace = decision.grace
        facts["grace"] = dated(
            {"began_at": grace.began_at, "ends_at": grace.ends_at, "reason": grace.reason}
        )
    if journal is not None and journal.blocked is not None:
        facts["warnings"].append("the license state cannot be written: nothing can be spent")
    return facts


def used_tokens(state: State | None, decision: Decision, now: int) -> dict[str, int] | None:
    """Return the use of budget and window, in tokens; None if neither is limited."""
    terms = decision.terms
    if state is None or terms is None or not terms.limited:
        return None
    found: dict[str, int] = {}
    if terms.budget is not None:
        tally = state.budgets.tallies.get(terms.budget.budget_id)
        if tally is not None:
            found |= {
                "budget_tokens_total": tally.total,
                "budget_tokens_used": tally.used,
                "budget_tokens_reserved": tally.reserved,
                "budget_tokens_left": tally.left,
            }
    if terms.tokens_per_window is not None and terms.window_s is not None:
        window = state.budgets.windows.get(terms.deployment_id)
        used = 0 if window is None else window.used(now)
        found |= {
            "window_tokens_total": terms.tokens_per_window,
            "window_tokens_used": used,
            "window_tokens_left": max(0, terms.tokens_per_window - used),
        }
    return found


def _lease(guard: Guard, decision: Decision, now: int) -> dict[str, Any] | None:
    """Return the state of the lease and its renewal; None offline."""
    state = guard.lease_state
    if decision.facts.get("mode") != "lease":
        return None
    return dated({"status": "unreadable"} if state is None else describe(state, now))
