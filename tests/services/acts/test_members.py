"""Members replace their own licenses, and nobody else's."""

import pytest

from portal.domain.errors import NotFound
from portal.services.acts.machinery import Stale
from portal.services.acts.members import (
    MemberAct,
    preview_replacement,
    replace_license,
    replacements_left_for,
)
from portal.services.acts.replace import Replace
from portal.services.context import Actor, Transactions
from portal.services.licenses import issue_pending
from tests.factories.accounts import COMMAND, make_customer
from tests.factories.acts import newest
from tests.factories.licenses import issue, make_budgeted_pilot
from tests.services.acts.conftest import Site


def test_a_member_replaces_a_license_as_the_preview_showed(
    transactions: Transactions, site: Site
) -> None:
    pilot = issue(transactions, make_budgeted_pilot(transactions, site.deployment))
    wanted = MemberAct(site.account.id, pilot.id, site.owner, "lost file")
    params = Replace(fingerprints=("fp_12345678",))
    person = Actor("person", site.owner)
    with transactions.writing(person) as context:
        shown = preview_replacement(context, wanted, params)
        assert replacements_left_for(context, pilot) == 3
    assert [each["term"] for each in shown.to_json()["changes"]] == ["Bound to"]
    with pytest.raises(Stale), transactions.writing(person) as context:
        replace_license(context, wanted, Replace(), seen=shown.fingerprint)
    with transactions.writing(person) as context:
        replace_license(context, wanted, params, seen=shown.fingerprint)
        assert replacements_left_for(context, pilot) == 2
    issue_pending(transactions, site.deployment.id, COMMAND)
    replaced = newest(transactions, site.deployment.id).document
    assert replaced is not None
    assert replaced.binding.fingerprints == ("fp_12345678",)


def test_a_license_of_another_account_is_not_there(transactions: Transactions, site: Site) -> None:
    pilot = issue(transactions, make_budgeted_pilot(transactions, site.deployment))
    other, stranger = make_customer(transactions, "eve@other.example", "Other")
    wanted = MemberAct(other.id, pilot.id, stranger.id, "mine now")
    with pytest.raises(NotFound), transactions.writing(COMMAND) as context:
        preview_replacement(context, wanted, Replace())
    with pytest.raises(NotFound), transactions.writing(COMMAND) as context:
        replace_license(context, wanted, Replace(), seen="")
