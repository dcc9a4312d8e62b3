"""What a router reports of its usage, in lease requests."""

from licensing.enrollment import Usage
from licensing.license import License
from router.decision import Decision
from router.state import State


def usage_of(state: State | None, decision: Decision | None, license_: License) -> Usage | None:
    """Return what this instance used of the budget that counts, in tokens."""
    budget = license_.budget
    if decision is not None and decision.terms is not None and decision.terms.budget is not None:
        budget = decision.terms.budget
    tally = None if state is None or budget is None else state.budgets.tallies.get(budget.budget_id)
    if budget is None or tally is None:
        return None
    return Usage(budget_id=budget.budget_id, tokens_total=tally.used, requests_total=tally.requests)
