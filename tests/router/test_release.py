"""Giving a lease up over a bad network: the slot is free, and nothing takes it back unasked."""

import json

import pytest

from portal.db.instances import Instance
from router.errors import Refused, StateError, Unreachable
from router.lease.identity import KEY_FILE
from router.lease.store import LOCK_FILE, STATE_FILE
from router.network.agent import release, renew
from router.network.fetch import HttpFetch
from tests.fakes import FakeClock
from tests.router.network import Fault, instead, lost_answer, lost_request
from tests.router.site import COMMAND, Site, request_id_of
from tests.router.test_agent_crash import killed_at, names
from tests.spread import KillPoints

pytestmark = pytest.mark.slow

PROBLEM = "application/problem+json"


def give_up(site: Site) -> str:
    """Release once; return the id of the lease that was given up."""
    with site.store.locked() as store:
        return release(store, site.grounds(), HttpFetch(site.network.url)).lease_id


def is_released(site: Site) -> bool:
    """Say whether the portal knows of it."""
    with site.transactions.reading(COMMAND) as context:
        return context.session.query(Instance).one().released_at is not None


def test_a_release_frees_the_slot_once(site: Site) -> None:
    held = site.enroll()
    assert give_up(site) == held.lease_id
    assert is_released(site)
    assert (site.state.released, site.state.releasing) == (held.lease_id, None)
    assert site.held == held, "the chain goes on from it"
    assert give_up(site) == held.lease_id
    assert len(site.network.seen) == 2, "it asked again for what was done"


@pytest.mark.parametrize("fault", [lost_request, lost_answer])
def test_a_release_whose_answer_is_lost_is_asked_again(
    site: Site, clock: FakeClock, fault: Fault
) -> None:
    site.enroll()
    for _ in range(3):
        site.network.faults.append(fault)
        with pytest.raises(Unreachable):
            give_up(site)
        assert site.state.released is None
        with pytest.raises(StateError, match="release"):
            site.renew()
        clock.advance(hours=1)
    give_up(site)
    assert is_released(site)
    asked = [each for each in site.network.seen if each.path == "/v1/releases"]
    assert len({request_id_of(each.body) for each in asked}) == 1
    assert site.portal_holds() == ([1], 0)


def test_a_lease_that_never_arrived_is_fetched_before_it_is_given_up(site: Site) -> None:
    site.enroll()
    site.network.faults.append(lost_answer)
    with pytest.raises(Unreachable):
        site.renew()
    give_up(site)
    assert (site.held.seq, site.state.released) == (2, site.held.lease_id)
    assert is_released(site)
    assert site.portal_holds() == ([1, 2], 0)


def test_a_renewal_that_is_refused_does_not_keep_the_lease(site: Site) -> None:
    site.enroll()
    site.network.faults.append(lost_request)
    with pytest.raises(Unreachable):
        site.renew()
    site.network.faults.append(refusal(403, "license-mismatch"))
    give_up(site)
    assert is_released(site)
    assert site.held.seq == 1


def refusal(status: int, code: str) -> Fault:
    """Refuse with a problem document."""
    body = {"status": status, "code": code, "detail": "No.", "next_action": "Nothing.", "title": ""}
    return instead(json.dumps(body), status, PROBLEM)


def test_a_release_that_is_refused_leaves_the_lease(site: Site) -> None:
    site.enroll()
    site.network.faults.append(refusal(401, "unknown-instance"))
    with pytest.raises(Refused):
        give_up(site)
    assert (site.state.released, site.state.releasing) == (None, None)
    assert site.renew().seq == 2


@pytest.mark.parametrize(
    "fault",
    [
        instead("<html>Welcome to our hotel</html>", 200, "text/html"),
        instead("{}", 200, "application/json"),
        instead("", 302, "text/html", Location="/login"),
        refusal(503, "unavailable"),
    ],
)
def test_only_the_portals_answer_counts(site: Site, fault: Fault) -> None:
    site.enroll()
    site.network.faults.append(fault)
    with pytest.raises(Unreachable):
        give_up(site)
    assert site.state.released is None
    give_up(site)
    assert is_released(site)


def test_a_released_lease_is_taken_up_again_when_it_is_asked_for(site: Site) -> None:
    site.enroll()
    give_up(site)
    with pytest.raises(StateError, match="renew --again"):
        site.renew()
    with site.store.locked() as store:
        lease = renew(store, site.grounds(), HttpFetch(site.network.url), again=True)
    assert (lease.seq, lease.clone_warning) == (2, None)
    assert not is_released(site)
    assert site.state.released is None
    assert site.renew().seq == 3


@pytest.mark.asvs("2.3.3")
def test_an_agent_killed_while_it_releases_has_released(site: Site) -> None:
    site.enroll()
    points = KillPoints(every=4)
    for point in points:
        points.died = killed_at(point, lambda: give_up(site))
        assert site.state.held() is not None
        give_up(site)
        assert is_released(site)
        assert site.state.released == site.held.lease_id
        assert names(site.directory) == {KEY_FILE, STATE_FILE, LOCK_FILE}
        with site.store.locked() as store:
            renew(store, site.grounds(), HttpFetch(site.network.url), again=True)
    assert points.last > 15, "the writes were not reached"
    given, forks = site.portal_holds()
    assert given == list(range(1, len(given) + 1))
    assert forks == 0
