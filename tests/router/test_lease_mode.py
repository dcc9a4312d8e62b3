"""A router in lease mode as its operator meets it: a process, its surfaces, and a portal."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from licensing.license import Budget
from tests.router.leasing import Leased, leased
from tests.router.papers import DAY_S, identifier
from tests.router.shown import Mode, require_shown

pytestmark = pytest.mark.slow


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Leased]:
    """A license in lease mode, not enrolled."""
    with leased(tmp_path) as made:
        yield made


def ended(change: Callable[[Leased], None]) -> Callable[[Leased], None]:
    """Enroll, and let the portal say the next time that it is over."""

    def arrange(site: Leased) -> None:
        site.enroll()
        change(site)
        site.renew()

    return arrange


def released(site: Leased) -> None:
    """Give the lease up."""
    site.enroll()
    site.store.save(replace(site.state, released=site.lease.lease_id))


def without_key(site: Leased) -> None:
    """Take the instance's key away."""
    site.enroll()
    (site.store.directory / "instance-key.pem").unlink()


def damaged(site: Leased) -> None:
    """Write over the lease state."""
    site.enroll()
    (site.store.directory / "lease-state.json").write_text("{")


def damaged_lease(site: Leased) -> None:
    """Write over the lease inside the lease state."""
    site.enroll()
    site.store.save(replace(site.state, lease="{}"))


def copied_lease(site: Leased) -> None:
    """Bring the lease of another instance."""
    site.enroll()
    lease = site.state.lease
    for file in site.store.directory.iterdir():
        file.unlink()
    site.enroll()
    site.store.save(replace(site.state, lease=lease))


Arrange = Callable[[Leased], None]
REQUIRED, SUSPENDED = "license-lease-required", "license-suspended"
MODES: dict[str, tuple[str, str, Arrange]] = {
    "not enrolled": (REQUIRED, "no-lease", lambda site: None),
    "lease given up": (REQUIRED, "lease-released", released),
    "key gone": (REQUIRED, "instance-key-missing", without_key),
    "lease state damaged": (REQUIRED, "lease-unreadable", damaged),
    "lease damaged": (REQUIRED, "lease-unreadable", damaged_lease),
    "lease of another": (REQUIRED, "wrong-instance", copied_lease),
    "on hold": (SUSPENDED, "lease-suspended", ended(lambda site: site.portal.hold())),
    "revoked": (
        "license-revoked",
        "lease-revoked",
        ended(lambda site: setattr(site.portal.db, "revoked", True)),
    ),
    "superseded": (
        "license-superseded",
        "lease-superseded",
        ended(
            lambda site: site.portal.db.superseded_at.update({site.lease.license_id: 0}),
        ),
    ),
    "retired": (
        "license-lease-ended",
        "lease-ended",
        ended(lambda site: site.portal.retire(site.lease.instance_id)),
    ),
}


@pytest.mark.parametrize("name", MODES)
def test_a_lease_that_does_not_permit_serving(name: str, site: Leased) -> None:
    code, cause, arrange = MODES[name]
    arrange(site)
    site.start()
    require_shown(Mode(name, code, lambda house: None, cause), site.house)


def test_a_lease_that_ran_out(tmp_path: Path) -> None:
    with leased(tmp_path, ahead_s=-5 * DAY_S) as site:
        site.enroll()
        site.cut_off()
        site.start()
        code = "license-lease-expired"
        require_shown(Mode("lease run out", code, lambda house: None, "lease-active"), site.house)


def test_a_router_enrolls_itself_and_serves(site: Leased) -> None:
    site.start(with_code=True)
    site.house.wait_for(None)
    assert site.house.chat().status == 200
    shown = site.house.status().json["lease"]
    assert (shown["status"], shown["seq"], shown["trouble"]) == ("serving", 1, None)
    assert "license_lease_seconds_left 3" in site.house.metrics().body.decode()
    site.house.stop()
    site.start()
    assert site.house.chat().status == 200, "a restart needs no portal"
    assert [act for act, _ in site.portal.log] == ["enrolled"]


def test_a_command_enrolls_a_router_that_runs(site: Leased) -> None:
    site.start()
    site.house.wait_for(REQUIRED)
    site.enroll()
    site.house.wait_for(None)


@pytest.fixture
def lonely(tmp_path: Path) -> Iterator[Leased]:
    """A router that enrolled two days ago; nothing answered since."""
    with leased(tmp_path, ahead_s=-2 * DAY_S) as made:
        made.enroll()
        made.cut_off()
        yield made


def test_a_lease_serves_through_an_outage_and_says_so(lonely: Leased) -> None:
    site = lonely
    site.start()
    assert site.house.chat().status == 200
    site.wait_until("unreachable", lambda facts: facts["lease"]["trouble"] == "unreachable")
    shown = site.house.status().json["lease"]
    assert (shown["status"], shown["failed_attempts"]) == ("in-grace", 1)
    assert "license_lease_failed_attempts 1" in site.house.metrics().body.decode()
    site.house.stop()
    assert "the lease was not renewed" in site.house.said
    first = site.state.next_try_at
    site.start()
    site.house.stop()
    assert site.state.next_try_at == first, "a restart asks no earlier"


def test_a_hold_stops_service_at_the_next_renewal_and_heals(site: Leased) -> None:
    site.start_enrolled()
    site.portal.hold()
    site.house.hang_up()
    site.house.wait_for(SUSPENDED)
    assert site.house.chat().code == SUSPENDED
    site.portal.hold(held=False)
    site.house.hang_up()
    site.house.wait_for(None)
    assert site.house.chat().status == 200


def test_a_top_up_reaches_a_leased_router_without_a_file_or_a_restart(site: Leased) -> None:
    site.start_enrolled()
    license_ = site.portal.issue(
        budget=Budget(budget_id=identifier("bud", 77), tokens_total=5_000_000)
    )
    site.house.hang_up()
    site.wait_until(
        "topped up", lambda facts: facts["license"]["license_id"] == license_.license_id
    )
    # The lease follows: it is renewed at once for the license in use.
    site.wait_until("renewed", lambda facts: facts["lease"]["license_id"] == license_.license_id)
    assert site.house.status().json["usage"]["budget_tokens_total"] == 2_500_000
    assert site.portal.db.licenses[0][0] == site.house.license_file.read_bytes()


def test_a_revocation_reaches_a_leased_router_by_the_bundle_it_fetches(site: Leased) -> None:
    site.start_enrolled()
    site.portal.revoke("suspended")
    site.house.hang_up()
    site.house.wait_for(SUSPENDED)
    assert site.house.status().json["cause"] == "suspended"
    # The bundle blocks, whatever the lease says.
    assert site.house.status().json["lease"]["status"] == "serving"


@pytest.mark.parametrize("roots", [False, True])
def test_rotated_keys_reach_a_leased_router(site: Leased, roots: bool) -> None:
    site.start_enrolled()
    site.portal.rotate()
    site.portal.rotate(roots=roots)
    site.house.hang_up()
    site.wait_until("renewed", lambda facts: facts["lease"]["seq"] == 2)
    site.house.wait_for(None)
    site.house.stop()
    site.start()
    site.house.wait_for(None)
    assert site.house.chat().status == 200
    assert site.portal.db.keysets[-1] in [
        path.read_bytes() for path in site.store.directory.glob("keyset-*.json")
    ]


def test_a_router_with_an_old_keyset_enrolls_with_the_keys_of_today(site: Leased) -> None:
    site.portal.rotate()
    site.start(with_code=True)
    site.house.wait_for(None)
    assert site.house.status().json["lease"]["status"] == "serving"


@pytest.mark.parametrize(
    "fault",
    [
        "lost-request",
        "lost-answer",
        "cut-answer",
        "unavailable",
        "limited",
        "conflict",
        "page",
        "forbidden-page",
        "redirect",
        "forged-refusal",
        "wide-lease",
    ],
)
def test_no_answer_but_a_signed_one_ends_service(site: Leased, fault: str) -> None:
    site.start_enrolled()
    site.server.faults.queue.append(fault)
    site.house.hang_up()
    site.wait_until("in trouble", lambda facts: facts["lease"]["trouble"])
    assert site.house.chat().status == 200
    site.house.hang_up()
    site.wait_until("renewed", lambda facts: facts["lease"]["seq"] == 2)
    assert site.house.status().json["lease"]["trouble"] is None
    assert [act for act, _ in site.portal.log] == ["enrolled", "renewed"], "one chain, no fork"


def test_an_operator_is_told_of_a_copy(site: Leased) -> None:
    site.enroll()
    copy = site.state
    site.renew()
    site.store.save(copy)
    site.renew()
    assert site.lease.clone_warning
    site.start()
    warnings = site.house.status().json["warnings"]
    assert [each for each in warnings if "two routers use this lease" in each]
    assert site.house.chat().status == 200, "nothing is revoked because of a fork"


def test_usage_rides_along_and_shares_shrink(site: Leased) -> None:
    site.start_enrolled()
    for _ in range(3):
        assert site.house.chat().status == 200
    site.house.hang_up()
    site.wait_until("renewed", lambda facts: facts["lease"]["seq"] == 2)
    (instance,) = site.portal.db.instances.values()
    assert site.lease.budget is not None
    assert instance.usage == (site.lease.budget.budget_id, 36)


def test_the_portal_sets_a_clock_that_runs_behind(site: Leased) -> None:
    """The wall clock is two days behind the portal's; the license is not valid yet by it."""
    site.server.ahead_s = 2 * DAY_S
    site.install(not_before_at=site.portal.now)
    site.start(with_code=True)
    site.house.wait_for(None)
    facts = site.house.status().json
    assert any("wall clock" in each for each in facts["warnings"])
    site.house.stop()
    site.start()
    assert site.house.chat().status == 200, "the anchor outlives the process"
