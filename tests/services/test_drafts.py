"""Drafts: for one person and one page, sealed, for a while."""

from datetime import timedelta

from portal.db.drafts import FormDraft
from portal.services.context import Transactions
from portal.services.drafts import read_draft, save_draft
from tests.factories.accounts import COMMAND, make_customer, make_staff
from tests.fakes import FakeClock


def test_a_draft_comes_back_to_whoever_typed_it_where_they_typed_it(
    transactions: Transactions, clock: FakeClock
) -> None:
    _, owner = make_customer(transactions)
    staff = make_staff(transactions)
    with transactions.writing(COMMAND) as context:
        token = save_draft(
            context, person_id=owner.id, path="/a", text="typed", keep=timedelta(hours=1)
        )
    with transactions.reading(COMMAND) as context:
        row = context.session.query(FormDraft).one()
        assert token not in str(vars(row))
        assert b"typed" not in row.sealed_fields
        assert read_draft(context, token, person_id=owner.id, path="/a") == "typed"
        assert read_draft(context, token, person_id=staff.id, path="/a") is None
        assert read_draft(context, token, person_id=owner.id, path="/b") is None
        assert read_draft(context, "never was", person_id=owner.id, path="/a") is None
    clock.advance(hours=1)
    with transactions.reading(COMMAND) as context:
        assert read_draft(context, token, person_id=owner.id, path="/a") is None
