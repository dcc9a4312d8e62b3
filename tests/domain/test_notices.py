"""Notices: each once, of each countdown the last step alone, none for what was replaced."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from licensing.license import Binding, Budget, License, Limits, RevocationTerms
from portal.domain.mails import MAILS
from portal.domain.notices import (
    NoticeFacts,
    NoticeKind,
    due_notices,
    kind_of_release,
    week_of_list,
)
from portal.domain.standing import LicenseState, Standing
from portal.domain.terms import Mode
from portal.resources import TEMPLATES

AT = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
K = NoticeKind
COUNTDOWN = (K.EXPIRES_30D, K.EXPIRES_14D, K.EXPIRES_7D, K.EXPIRES_1D)


def facts(at: datetime, **changes: Any) -> NoticeFacts:
    """Return the facts of a contract that runs for a year from `AT`, as they are at `at`."""
    made = NoticeFacts(
        standing=Standing(LicenseState.ISSUED),
        sku="enterprise-annual",
        mode=Mode.LEASE,
        released_at=AT,
        expires_at=AT + timedelta(days=365),
    )
    made = replace(made, **changes)
    over = at >= made.expires_at and made.standing == Standing(LicenseState.ISSUED)
    return replace(made, standing=Standing(LicenseState.EXPIRED)) if over else made


def due(at: datetime, **changes: Any) -> tuple[NoticeKind, ...]:
    return due_notices(facts(at, **changes), at)


@pytest.mark.parametrize(
    ("left", "kind"),
    [
        (timedelta(days=30, seconds=1), None),
        (timedelta(days=30), K.EXPIRES_30D),
        (timedelta(days=14, seconds=1), K.EXPIRES_30D),
        (timedelta(days=14), K.EXPIRES_14D),
        (timedelta(days=7), K.EXPIRES_7D),
        (timedelta(days=1), K.EXPIRES_1D),
        (timedelta(seconds=1), K.EXPIRES_1D),
        (timedelta(0), K.EXPIRED),
        (timedelta(days=-3, seconds=1), K.EXPIRED),
        (timedelta(days=-3), None),
    ],
)
def test_a_contract_is_counted_down_in_days(left: timedelta, kind: NoticeKind | None) -> None:
    at = AT + timedelta(days=365) - left
    assert due(at) == (() if kind is None else (kind,))
    if kind is not None:
        assert due(at, told=frozenset({kind})) == ()


@pytest.mark.parametrize(
    ("hours", "kind"),
    [(25, None), (24, K.EXPIRES_24H), (5, K.EXPIRES_24H), (4, K.EXPIRES_4H), (0, K.EXPIRED)],
)
def test_an_evaluation_is_counted_down_in_hours(hours: int, kind: NoticeKind | None) -> None:
    ends = AT + timedelta(hours=72)
    found = due(ends - timedelta(hours=hours), sku="eval-72h", expires_at=ends)
    assert found == (() if kind is None else (kind,))


def test_a_step_that_was_reached_before_the_release_is_never_told() -> None:
    """A pilot of 30 days is not told on its first day that it has 30 days left."""
    ends = AT + timedelta(days=30)
    assert due(AT, sku="pilot-30d", expires_at=ends) == ()
    assert due(AT + timedelta(days=10), sku="pilot-30d", expires_at=ends) == ()
    assert due(AT + timedelta(days=16), sku="pilot-30d", expires_at=ends) == (K.EXPIRES_14D,)


@pytest.mark.parametrize("at_day", [335, 351, 358, 364, 365])
@pytest.mark.parametrize(
    "changes",
    [
        {"standing": Standing(LicenseState.ISSUED, "lic_newer")},
        {"standing": Standing(LicenseState.EXPIRED, "lic_newer")},
        {"standing": Standing(LicenseState.SUPERSEDED, "lic_newer")},
        {"standing": Standing(LicenseState.REVOKED)},
        {"standing": Standing(LicenseState.SUSPENDED)},
        {"is_being_replaced": True},
    ],
)
def test_nothing_is_due_of_what_was_replaced_ended_or_held(
    at_day: int, changes: dict[str, Any]
) -> None:
    budget = {"tokens_total": 10, "tokens_used": 10, "mode": Mode.OFFLINE}
    assert due(AT + timedelta(days=at_day), **budget, **changes) == ()


@pytest.mark.parametrize(
    ("used", "told", "found"),
    [
        (79, (), ()),
        (80, (), (K.BUDGET_80,)),
        (99, (K.BUDGET_80,), ()),
        (100, (K.BUDGET_80,), (K.BUDGET_100,)),
        (140, (), (K.BUDGET_100,)),
        (90, (K.BUDGET_100,), ()),
    ],
)
def test_a_budget_is_told_at_80_and_100_percent(
    used: int, told: tuple[NoticeKind, ...], found: tuple[NoticeKind, ...]
) -> None:
    at = AT + timedelta(days=5)
    assert due(at, tokens_total=100, tokens_used=used, told=frozenset(told)) == found
    assert due(at, tokens_used=used) == (), "without a budget there is nothing to use up"


def test_an_offline_site_is_reminded_to_install_until_it_is_marked() -> None:
    offline = {"mode": Mode.OFFLINE}
    assert due(AT + timedelta(days=2), **offline) == ()
    assert due(AT + timedelta(days=3), **offline) == (K.INSTALL,)
    assert due(AT + timedelta(days=3), **offline, is_installed=True) == ()
    assert due(AT + timedelta(days=3), mode=Mode.LEASE) == ()
    assert due(AT + timedelta(days=10), **offline) == (), "by then it is no news"


def test_a_successor_is_to_be_installed_before_the_one_before_ends() -> None:
    changes: dict[str, Any] = {
        "mode": Mode.OFFLINE,
        "predecessor_ends_at": AT + timedelta(days=30),
    }
    assert due(AT + timedelta(days=4), **changes) == ()
    assert due(AT + timedelta(days=23), **changes) == (K.INSTALL_7D,)
    assert due(AT + timedelta(days=29), **changes) == (K.INSTALL_1D,)
    assert due(AT + timedelta(days=30), **changes) == ()
    changes["predecessor_ends_at"] = AT + timedelta(hours=72)
    assert due(AT + timedelta(hours=1), **changes) == ()
    assert due(AT + timedelta(hours=49), **changes) == (K.INSTALL_1D,)


@given(st.lists(st.integers(-50 * 24, 20 * 24), min_size=1, max_size=60))
def test_whatever_the_clock_does_each_is_told_once_and_none_after_a_later_one(
    hours: list[int],
) -> None:
    told: list[NoticeKind] = []
    for hour in hours:
        at = AT + timedelta(days=365, hours=hour)
        found = due(at, told=frozenset(told))
        assert len(found) <= 1, "one mail at a time, however late the worker comes"
        told += found
    assert len(told) == len(set(told))
    order = [*COUNTDOWN, K.EXPIRED]
    places = [order.index(kind) for kind in told]
    assert places == sorted(places)


def payload(**changes: Any) -> License:
    values: dict[str, Any] = {
        "typ": License.TYP,
        "iss": "metrum.ai",
        "product": "smart-router",
        "issued_at": 1,
        "license_id": "lic_" + "0" * 26,
        "deployment_id": "dep_" + "0" * 26,
        "revision": 1,
        "customer_id": "cus_" + "0" * 26,
        "sku": "enterprise-annual",
        "mode": "lease",
        "not_before_at": 1,
        "expires_at": 1000,
        "features": ("routing",),
        "limits": Limits(),
        "binding": Binding(fingerprints=()),
        "revocation": RevocationTerms(require_current_bundle=False, min_version=0),
        "min_keyset_version": 0,
    }
    return License(**{**values, **changes})


def test_a_new_budget_of_a_pack_is_a_top_up_and_anything_else_a_replacement() -> None:
    old = Budget(budget_id="bud_" + "0" * 26, tokens_total=5)
    new = Budget(budget_id="bud_" + "1" * 26, tokens_total=5, carry_over_from=old.budget_id)
    pack = {"sku": "credit-pack-5m"}
    assert kind_of_release(None, payload()) is K.ISSUED
    assert kind_of_release(payload(), payload()) is K.REPLACED
    assert kind_of_release(payload(), payload(budget=new, **pack)) is K.TOPPED_UP
    assert kind_of_release(payload(budget=old, **pack), payload(budget=old, **pack)) is K.REPLACED
    assert kind_of_release(payload(budget=old), payload(budget=new)) is K.REPLACED


def test_the_weekly_list_is_due_from_monday_morning_on() -> None:
    assert week_of_list(datetime(2026, 11, 23, 5, 59, tzinfo=UTC)) is None
    assert week_of_list(datetime(2026, 11, 23, 6, 0, tzinfo=UTC)) == "2026-W48"
    assert week_of_list(datetime(2026, 11, 29, 23, 59, tzinfo=UTC)) == "2026-W48"
    assert week_of_list(datetime(2027, 1, 1, 0, 0, tzinfo=UTC)) == "2026-W53"


def test_every_template_has_its_entry_and_those_with_secrets_say_so() -> None:
    folders = {path.name: path for path in (TEMPLATES / "email").iterdir() if path.is_dir()}
    assert set(folders) == set(MAILS)
    secret = {
        name
        for name, path in folders.items()
        if any("secret" in each.read_text() for each in path.iterdir())
    }
    assert secret == {name for name, kind in MAILS.items() if kind.carries_secret}
