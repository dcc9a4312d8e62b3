"""Key changes as acts: two people, and what the first one's word does already."""

from dataclasses import dataclass

import pytest

from portal.db.acts import Act
from portal.domain.acts import ActState
from portal.domain.errors import Conflict, Forbidden, Invalid, NotFound
from portal.domain.ports import SignerUnavailable
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
from portal.services.context import Actor, Transactions
from portal.services.key_changes import KeyOutcome, run_order
from portal.services.keys import current_keyset, role_signers
from tests.factories.accounts import make_staff
from tests.factories.licenses import make_license
from tests.fakes import FakeClock, MemorySigners

COMMAND = Actor("command")


@dataclass
class Office:
    """Two people who may change keys, and the operator."""

    opened: Transactions
    signers: MemorySigners
    ann: str
    ben: str

    def propose(
        self, kind: Kind, subject: str, params: Params | None = None, by: str | None = None
    ) -> str:
        with self.opened.writing(COMMAND) as context:
            ask = Ask(
                subject_id=subject,
                params=params or kind.params(),
                reason="a drill",
                by=by or self.ann,
            )
            return machinery.submit(context, kind, ask).id

    def approve(self, act_id: str, by: str | None = None) -> Act:
        with self.opened.writing(COMMAND) as context:
            act = machinery.approve(context, act_id, by=by or self.ben)
        return machinery.require_fresh(act)

    def decline(self, act_id: str) -> None:
        with self.opened.writing(COMMAND) as context:
            machinery.decline(context, act_id, by=self.ben, reason="it was found again")

    def run(self, act_id: str) -> KeyOutcome:
        with self.opened.reading(COMMAND) as context:
            order = order_of(machinery.find_act(context, act_id))
        return run_order(self.opened, self.signers, order, COMMAND)

    def signing(self, role: str) -> list[str]:
        with self.opened.reading(COMMAND) as context:
            return [signer.keyid for signer in role_signers(context, role)]

    def version(self) -> int:
        with self.opened.reading(COMMAND) as context:
            return current_keyset(context).document.version


@pytest.fixture
def office(transactions: Transactions, signers: MemorySigners) -> Office:
    return Office(
        transactions,
        signers,
        make_staff(transactions, "ann@vendor.test", "keys").id,
        make_staff(transactions, "ben@vendor.test", "keys").id,
    )


def test_a_rotation_is_proposed_approved_and_run(office: Office) -> None:
    act_id = office.propose(ROTATE_KEY, "license", RotateKey(activate_in_s=0))
    with pytest.raises(Conflict, match="a second person has to approve it first"):
        office.run(act_id)
    with pytest.raises(Forbidden):
        office.approve(act_id, by=office.ann)
    assert office.version() == 1
    assert office.approve(act_id).state is ActState.DONE
    assert office.version() == 1, "approving publishes nothing"
    old = office.signing("license")[0]
    outcome = office.run(act_id)
    assert outcome.keyset_version == office.version() == 2
    assert office.signing("license") == [outcome.keyid, old]
    retire = office.propose(RETIRE_KEY, old, RetireKey(anyway=True))
    office.approve(retire)
    assert office.run(retire).keyset_version == 3
    assert office.signing("license") == [outcome.keyid]


def test_an_act_that_cannot_be_done_is_not_stored(office: Office) -> None:
    for kind, subject, error in (
        (ROTATE_KEY, "seal", Invalid),
        (RETIRE_KEY, office.signing("lease")[0], Conflict),
        (COMPROMISE_KEY, "0" * 64, NotFound),
    ):
        with pytest.raises(error):
            office.propose(kind, subject)


def test_the_first_word_of_a_compromise_stops_the_key(office: Office) -> None:
    old = office.signing("lease")[0]
    act_id = office.propose(COMPROMISE_KEY, old)
    with pytest.raises(SignerUnavailable, match="no active lease key"):
        office.signing("lease")
    office.decline(act_id)
    assert office.signing("lease") == [old]


def test_a_compromise_that_nobody_decides_on_lapses(office: Office, clock: FakeClock) -> None:
    old = office.signing("lease")[0]
    office.propose(COMPROMISE_KEY, old)
    clock.advance(hours=73)
    with office.opened.writing(COMMAND) as context:
        assert machinery.lapse_acts(context) == 1
    assert office.signing("lease") == [old]


def test_a_key_that_two_people_speak_of_stays_stopped_when_one_takes_it_back(
    office: Office,
) -> None:
    old = office.signing("lease")[0]
    first = office.propose(COMPROMISE_KEY, old)
    office.propose(COMPROMISE_KEY, old, by=office.ben)
    office.decline(first)
    with pytest.raises(SignerUnavailable, match="no active lease key"):
        office.signing("lease")


def test_a_compromise_is_approved_although_its_key_was_stopped_meanwhile(office: Office) -> None:
    make_license(office.opened, sku="pilot-30d")
    old = office.signing("license")[0]
    act_id = office.propose(COMPROMISE_KEY, old, CompromiseKey())
    with office.opened.reading(COMMAND) as context:
        shown = machinery.find_act(context, act_id).preview
    assert (shown["licenses"], shown["offline"], shown["keyset_version"]) == (1, 1, 2)
    office.approve(act_id)
    outcome = office.run(act_id)
    assert len(outcome.licenses) == 1
    assert office.signing("license") == [outcome.keyid]


def test_an_act_that_another_keyset_overtook_goes_back_to_its_first_person(office: Office) -> None:
    waiting = office.propose(ROTATE_KEY, "license")
    other = office.propose(ROTATE_KEY, "lease")
    office.approve(other)
    office.run(other)
    with pytest.raises(machinery.Stale):
        office.approve(waiting)


def test_only_key_acts_change_keys(office: Office) -> None:
    act = Act(id="act_x", kind="revoke", state=ActState.DONE)
    with pytest.raises(Invalid, match="changes no key"):
        order_of(act)
