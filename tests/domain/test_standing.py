"""What is true of a license at an instant: one precedence."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portal.domain.standing import LicenseFacts, LicenseState, standing_of

AT = datetime(2026, 11, 23, 12, tzinfo=UTC)
BEFORE, AFTER = AT - timedelta(seconds=1), AT + timedelta(seconds=1)
PLAIN = LicenseFacts(released_at=BEFORE, not_before_at=BEFORE, expires_at=AT + timedelta(days=3))
CAUSES: list[tuple[LicenseState, dict[str, Any]]] = [
    (LicenseState.REVOKED, {"revoked_at": AT}),
    (LicenseState.SUPERSEDED, {"superseded_at": AT}),
    (LicenseState.SUSPENDED, {"is_held": True}),
    (LicenseState.EXPIRED, {"expires_at": AT}),
    (LicenseState.NOT_YET_VALID, {"not_before_at": AFTER}),
    (LicenseState.ISSUING, {"released_at": None}),
    (LicenseState.ISSUED, {}),
]
"""What makes each state true, in the order in which they win."""


@pytest.mark.parametrize("first", range(len(CAUSES)))
@pytest.mark.parametrize("second", range(len(CAUSES)))
def test_of_two_causes_the_earlier_in_the_precedence_decides(first: int, second: int) -> None:
    facts = replace(PLAIN, **{**CAUSES[first][1], **CAUSES[second][1]})
    assert standing_of(facts, AT).state is CAUSES[min(first, second)][0]


@pytest.mark.parametrize(
    ("change", "state"),
    [
        ({"revoked_at": AFTER}, "issued"),
        ({"superseded_at": AFTER}, "issued"),
        ({"expires_at": AFTER}, "issued"),
        ({"not_before_at": AT}, "issued"),
        ({"released_at": None, "not_before_at": None, "expires_at": None}, "issuing"),
        (
            {"released_at": None, "not_before_at": None, "expires_at": None, "is_held": True},
            "suspended",
        ),
    ],
)
def test_an_instant_counts_from_itself_on(change: dict[str, Any], state: str) -> None:
    assert standing_of(replace(PLAIN, **change), AT).state == state


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        ("revoked", "withdrawn"),
        ("superseded", "replaced"),
        ("suspended", "on-hold"),
        ("expired", "expired"),
        ("not-yet-valid", None),
        ("issuing", None),
        ("issued", None),
    ],
)
def test_what_may_not_serve_has_a_reason(state: str, reason: str | None) -> None:
    facts = replace(PLAIN, **dict(CAUSES)[LicenseState(state)])
    assert standing_of(facts, AT).reason == reason


def test_the_successor_is_named_while_the_overlap_lasts() -> None:
    facts = replace(PLAIN, superseded_at=AFTER, superseded_by="lic_2")
    assert standing_of(facts, AT).replaced_by == "lic_2"
    assert standing_of(facts, AFTER).replaced_by == "lic_2"
    assert standing_of(PLAIN, AT).replaced_by is None


MOMENTS = st.none() | st.integers(-100, 100).map(lambda seconds: AT + timedelta(seconds=seconds))
FACTS = st.builds(
    LicenseFacts,
    released_at=MOMENTS,
    not_before_at=MOMENTS,
    expires_at=MOMENTS,
    superseded_at=MOMENTS,
    superseded_by=st.none(),
    revoked_at=MOMENTS,
    is_held=st.booleans(),
)
FINAL = [LicenseState.REVOKED, LicenseState.SUPERSEDED]


@given(FACTS, st.integers(-200, 200), st.integers(0, 200))
def test_time_alone_never_brings_a_license_back(
    facts: LicenseFacts, seconds: int, later: int
) -> None:
    order = list(LicenseState)
    now = AT + timedelta(seconds=seconds)
    before = standing_of(facts, now).state
    after = standing_of(facts, now + timedelta(seconds=later)).state
    # But for the one state that is waiting for its time to come.
    assert before is LicenseState.NOT_YET_VALID or order.index(after) <= order.index(before)


@given(FACTS)
def test_lifting_a_hold_changes_a_suspended_license_alone(facts: LicenseFacts) -> None:
    held, lifted = (standing_of(replace(facts, is_held=on), AT).state for on in (True, False))
    assert held == lifted or held is LicenseState.SUSPENDED
    assert (held in FINAL) == (lifted in FINAL)
