"""Each pair of bases, live or over, in both modes: what the services do with the second."""

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func, select

from portal.db.audit import AuditRow
from portal.db.entitlements import Entitlement
from portal.db.licenses import License
from portal.domain.catalog import fill_terms
from portal.domain.entitlements import EndCause
from portal.domain.errors import Conflict
from portal.domain.terms import Mode
from portal.services.context import Transactions
from portal.services.entitlements import approve_entitlement, find_entitlement, propose_entitlement
from portal.services.licenses import request_issue
from portal.services.lines import load_line
from tests.factories.accounts import COMMAND
from tests.factories.acts import newest, state_of
from tests.factories.licenses import issue
from tests.services.acts.conftest import Site

BASES: dict[str, dict[str, Any]] = {
    "eval-72h": {},
    "pilot-30d": {},
    "lease-monthly": {"term_s": 30 * 86400},
    "marketplace-seat": {"term_s": 365 * 86400, "features": ["routing"]},
    "enterprise-annual": {"features": ["routing"]},
}
"""From the lowest rank to the highest."""


def grant(transactions: Transactions, site: Site, sku: str, mode: str) -> Entitlement:
    """Make an approved base."""
    terms = fill_terms(sku, mode=Mode("lease" if sku == "lease-monthly" else mode), **BASES[sku])
    with transactions.writing(COMMAND) as context:
        made = propose_entitlement(
            context,
            deployment_id=site.deployment.id,
            terms=terms,
            reason="a test",
            created_by=site.ann,
        )
        return approve_entitlement(context, made.id, approved_by=site.ben)


def end(transactions: Transactions, entitlement_id: str) -> None:
    """Let a base's term be over."""
    with transactions.writing(COMMAND) as context:
        row = find_entitlement(context, entitlement_id)
        assert row.starts_at is not None
        row.starts_at -= timedelta(days=400)
        row.ends_at = context.at - timedelta(seconds=1)


@pytest.mark.parametrize("mode", ["offline", "lease"])
@pytest.mark.parametrize("there", BASES)
def test_on_a_live_base_only_a_higher_one_starts(
    transactions: Transactions, site: Site, there: str, mode: str
) -> None:
    ranks = list(BASES)
    first = issue(transactions, grant(transactions, site, there, mode))
    lower, higher = ranks[: ranks.index(there) + 1], ranks[ranks.index(there) + 1 :]
    for sku in lower:
        second = grant(transactions, site, sku, mode)
        with pytest.raises(Conflict, match=there), transactions.writing(COMMAND) as context:
            request_issue(context, second.id, cause="start")
    assert state_of(transactions, first.id) == "issued"
    assert newest(transactions, site.deployment.id).id == first.id
    for sku in higher:
        issued = issue(transactions, grant(transactions, site, sku, mode))
        assert issued.sku == sku
        with transactions.reading(COMMAND) as context:
            line = load_line(context, site.deployment.id)
            assert [each.terms.sku for each in line.live] == [sku]
    if higher:
        with transactions.reading(COMMAND) as context:
            assert find_entitlement(context, first.entitlement_id).end_reason == EndCause.REPLACED


@pytest.mark.parametrize("mode", ["offline", "lease"])
@pytest.mark.parametrize("there", BASES)
@pytest.mark.parametrize("new", BASES)
def test_on_a_base_that_is_over_any_starts(
    transactions: Transactions, site: Site, there: str, new: str, mode: str
) -> None:
    first = issue(transactions, grant(transactions, site, there, mode))
    end(transactions, first.entitlement_id)
    second = issue(transactions, grant(transactions, site, new, mode))
    assert (second.sku, second.revision) == (new, 2)
    with transactions.reading(COMMAND) as context:
        assert find_entitlement(context, first.entitlement_id).end_reason == EndCause.TERM_OVER
        ended = select(func.count()).where(
            AuditRow.action == "entitlement.ended", AuditRow.subject_id == first.entitlement_id
        )
        assert context.session.scalar(ended) == 1
        assert context.session.scalar(select(func.count()).select_from(License)) == 2
