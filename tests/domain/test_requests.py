"""Requests: what they must say."""

from datetime import date, timedelta

import pytest
from msgspec import structs

from portal.domain.errors import Invalid
from portal.domain.requests import (
    Background,
    RequestKind,
    clean_background,
    clean_text,
    offered_features,
)

TODAY = date(2026, 11, 23)
PILOT = Background(purpose="Support desk", goals="Half the cost", expected_tokens=2_000_000)


def test_features_are_sorted_and_complete() -> None:
    assert offered_features("pilot-30d", ["routing"]) == ("routing", "usage_reporting")
    with pytest.raises(Invalid, match="private_upstreams"):
        offered_features("eval-72h", ["private_upstreams"])
    with pytest.raises(Invalid, match="at least one"):
        offered_features("eval-72h", [])


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"purpose": " "}, "purpose"),
        ({"goals": " "}, "goals"),
        ({"expected_tokens": None}, "expected_tokens"),
        ({"expected_tokens": 0}, "expected_tokens"),
        ({"expected_tokens": 10**12 + 1}, "expected_tokens"),
        ({"contacts": "x" * 4001}, "contacts"),
        ({"starts_on": TODAY - timedelta(days=1)}, "starts_on"),
        ({"starts_on": TODAY + timedelta(days=181)}, "starts_on"),
    ],
)
def test_what_a_pilot_must_say_is_told_at_its_field(changes: dict[str, object], field: str) -> None:
    with pytest.raises(Invalid) as refused:
        clean_background(structs.replace(PILOT, **changes), RequestKind.PILOT, TODAY)
    assert refused.value.field == field


@pytest.mark.parametrize("starts_on", [None, TODAY, TODAY + timedelta(days=180)])
def test_a_start_can_still_be_arranged(starts_on: date | None) -> None:
    said = structs.replace(PILOT, starts_on=starts_on, contacts=" Kim ")
    cleaned = clean_background(said, RequestKind.PILOT, TODAY)
    assert cleaned == structs.replace(said, contacts="Kim")


def test_an_evaluation_needs_a_purpose_alone() -> None:
    said = Background(purpose=" a test ")
    assert clean_background(said, RequestKind.EVALUATION, TODAY) == Background(purpose="a test")


def test_a_text_may_be_as_long_as_is_said() -> None:
    assert clean_text("x" * 4000, "note") == "x" * 4000
    with pytest.raises(Invalid, match="4,000"):
        clean_text("x" * 4001, "note")
