"""Evaluations: the policy, what it says to staff, and when an answer is promised."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portal.domain.evaluations import Applicant, decide_evaluation, promised_answer

AT = datetime(2026, 11, 23, 12, tzinfo=UTC)
INTERVAL = timedelta(days=180)
FINE = Applicant(
    email_confirmed=True,
    domain="newco.example",
    registrable_domain="newco.example",
    is_free_mail=False,
    is_denied=False,
    last_of_account=None,
    last_of_domain=None,
)


def test_a_confirmed_work_address_is_granted() -> None:
    assert decide_evaluation(FINE, AT, INTERVAL).granted
    assert decide_evaluation(FINE, AT, INTERVAL).reasons == ()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"email_confirmed": False}, "not confirmed"),
        ({"registrable_domain": None}, "no registrable domain"),
        ({"is_free_mail": True}, "free mailboxes"),
        ({"is_denied": True}, "deny list"),
        ({"last_of_account": AT - INTERVAL + timedelta(seconds=1)}, "This account had"),
        ({"last_of_domain": AT - INTERVAL + timedelta(seconds=1)}, "Somebody at newco.example"),
    ],
)
def test_each_reason_leaves_it_to_staff_and_is_told(change: dict[str, object], words: str) -> None:
    decision = decide_evaluation(replace(FINE, **change), AT, INTERVAL)  # type: ignore[arg-type]
    assert not decision.granted
    (reason,) = decision.reasons
    assert words in reason


def test_the_interval_ends_to_the_second() -> None:
    for field in ("last_of_account", "last_of_domain"):
        over = replace(FINE, **{field: AT - INTERVAL})  # type: ignore[arg-type]
        assert decide_evaluation(over, AT, INTERVAL).granted


@given(
    st.integers(0, 4 * 365 * 86400).map(lambda seconds: AT + timedelta(seconds=seconds)),
    st.integers(1, 72),
)
def test_promised_answers_lie_on_working_days_and_not_too_far(at: datetime, hours: int) -> None:
    promised = promised_answer(at, timedelta(hours=hours))
    assert promised.weekday() < 5
    assert 8 <= promised.hour <= 18
    assert promised > at
    assert promised - at <= timedelta(hours=hours, days=4)
