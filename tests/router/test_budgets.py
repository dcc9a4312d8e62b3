"""Counting: budgets, carry-over, windows. Property: a window never counts less than was used."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from licensing.encoding import MAX_INTEGER
from licensing.license import Budget
from router.state.budgets import BUCKETS, Budgets, LimitExceeded, Tally, Terms, Window
from tests.router.papers import AT, identifier

DEPLOYMENT = identifier("dep", 1)
FIRST, SECOND, THIRD = (identifier("bud", number) for number in (1, 2, 3))


def terms(budget_id: str = FIRST, tokens: int = 100, source: str | None = None) -> Terms:
    """Return terms with a budget and no window."""
    return Terms(
        DEPLOYMENT, Budget(budget_id=budget_id, tokens_total=tokens, carry_over_from=source)
    )


def windowed(tokens: int = 100, window_s: int = 3600) -> Terms:
    """Return terms with a window and no budget."""
    return Terms(DEPLOYMENT, tokens_per_window=tokens, window_s=window_s)


def used(budgets: Budgets, terms: Terms, *amounts: int) -> Budgets:
    """Reserve and settle at once."""
    for amount in amounts:
        budgets = budgets.reserve("now", terms, amount, AT).settle("now", amount, AT)
    return budgets


def test_a_reservation_counts_until_it_is_settled() -> None:
    budgets = Budgets().serving(terms()).reserve("a", terms(), 60, AT)
    assert budgets.left(terms(), AT) == 40
    with pytest.raises(LimitExceeded) as refused:
        budgets.reserve("b", terms(), 41, AT)
    assert (refused.value.limit, refused.value.left, refused.value.asked) == ("budget", 40, 41)
    assert refused.value.code == "license-limit-exceeded"
    assert budgets.reserve("b", terms(), 40, AT).left(terms(), AT) == 0
    assert budgets.settle("a", 10, AT).left(terms(), AT) == 90
    assert budgets.settle("a", None, AT).left(terms(), AT) == 40
    assert budgets.settle("a", 500, AT).left(terms(), AT) == 0
    released = budgets.release("a")
    assert released.left(terms(), AT) == 100
    assert released.tallies[FIRST].requests == 0


def test_requests_are_counted_when_they_are_settled() -> None:
    tally = used(Budgets().serving(terms()), terms(), 5, 6).tallies[FIRST]
    assert (tally.used, tally.requests, tally.reserved) == (11, 2, 0)


def test_after_a_crash_what_is_open_is_spent() -> None:
    both = Terms(DEPLOYMENT, terms().budget, 1000, 3600)
    budgets = Budgets().serving(both).reserve("a", both, 30, AT).reserve("b", both, 20, AT)
    spent = budgets.spend_open(AT + 60)
    assert spent.reservations == {}
    assert (spent.tallies[FIRST].used, spent.tallies[FIRST].reserved) == (50, 0)
    assert spent.windows[DEPLOYMENT].used(AT + 60) == 50


def test_no_limit_leaves_no_number() -> None:
    assert Budgets().left(Terms(DEPLOYMENT), AT) is None
    assert not Terms(DEPLOYMENT).limited


def test_what_would_be_left_before_anything_served() -> None:
    both = Terms(DEPLOYMENT, terms(tokens=70).budget, 50, 3600)
    assert Budgets().left(both, AT) == 50


def test_the_same_budget_id_refills_nothing() -> None:
    budgets = used(Budgets().serving(terms()), terms(), 80)
    assert budgets.serving(terms()) == budgets
    assert budgets.serving(terms(tokens=120)).left(terms(tokens=120), AT) == 40
    assert budgets.serving(terms(tokens=50)).left(terms(tokens=50), AT) == 0


def test_a_top_up_adds_what_was_left_once() -> None:
    budgets = used(Budgets().serving(terms()), terms(), 40)
    after = terms(SECOND, 200, source=FIRST)
    budgets = budgets.serving(after)
    assert budgets.left(after, AT) == 260
    assert budgets.tallies[FIRST] == Tally(
        limit=100, used=40, requests=1, saw_serving=True, spent=True
    )
    assert budgets.tallies[SECOND].carried_over_from == FIRST
    assert budgets.tallies[SECOND].carried_tokens == 60
    assert budgets.serving(after) == budgets
    # The old license again: its rest is gone.
    old = budgets.serving(terms())
    assert old.left(terms(), AT) == 0
    with pytest.raises(LimitExceeded):
        old.reserve("a", terms(), 1, AT)
    assert old.serving(after).left(after, AT) == 260


def test_open_reservations_are_not_carried() -> None:
    budgets = Budgets().serving(terms()).reserve("a", terms(), 30, AT)
    after = terms(SECOND, 200, source=FIRST)
    budgets = budgets.serving(after)
    assert budgets.left(after, AT) == 270
    budgets = budgets.settle("a", 1, AT)
    assert budgets.left(after, AT) == 270
    assert budgets.tallies[FIRST].used == 1
    assert budgets.serving(terms()).left(terms(), AT) == 0


def test_a_chain_carries_what_was_carried() -> None:
    budgets = used(Budgets().serving(terms()), terms(), 40)
    second = terms(SECOND, 200, source=FIRST)
    budgets = used(budgets.serving(second), second, 210)
    third = terms(THIRD, 10, source=SECOND)
    assert budgets.serving(third).left(third, AT) == 60


def test_two_successors_share_nothing() -> None:
    budgets = Budgets().serving(terms()).serving(terms(SECOND, 1, source=FIRST))
    third = terms(THIRD, 1, source=FIRST)
    assert budgets.serving(third).left(third, AT) == 1


def test_what_was_carried_counts_while_it_is_named() -> None:
    budgets = Budgets().serving(terms()).serving(terms(SECOND, 1, source=FIRST))
    plain = terms(SECOND, 1)
    other = terms(SECOND, 1, source=THIRD)
    again = terms(SECOND, 1, source=FIRST)
    assert budgets.serving(plain).left(plain, AT) == 1
    assert budgets.serving(other).left(other, AT) == 1
    assert budgets.serving(plain).serving(again).left(again, AT) == 101
    third = terms(THIRD, 5, source=SECOND)
    assert budgets.serving(plain).serving(third).left(third, AT) == 6


def test_a_source_that_never_served_here_gives_nothing() -> None:
    after = terms(SECOND, 10, source=FIRST)
    budgets = Budgets().serving(after)
    assert budgets.left(after, AT) == 10
    imported = Budgets(tallies={FIRST: Tally(limit=100, used=3)}).serving(after)
    assert imported.left(after, AT) == 10
    assert not imported.tallies[FIRST].spent


def test_the_first_serving_is_the_only_chance() -> None:
    budgets = Budgets().serving(terms(SECOND, 10)).serving(terms())
    late = terms(SECOND, 10, source=FIRST)
    assert budgets.serving(late).left(late, AT) == 10
    assert not budgets.serving(late).tallies[FIRST].spent


def test_an_overdrawn_budget_carries_nothing_below_zero() -> None:
    budgets = Budgets().serving(terms()).reserve("a", terms(), 100, AT).settle("a", 150, AT)
    after = terms(SECOND, 10, source=FIRST)
    assert budgets.serving(after).left(after, AT) == 10


def test_a_lease_may_take_a_budget_below_its_use() -> None:
    budgets = used(Budgets().serving(terms()), terms(), 60)
    share = terms(tokens=50)
    assert budgets.serving(share).left(share, AT) == 0
    assert budgets.serving(share).serving(terms()).left(terms(), AT) == 40


def test_a_window_refuses_and_says_when_to_come_back() -> None:
    limits = windowed(100, 1680)
    budgets = used(Budgets().serving(limits), limits, 90)
    with pytest.raises(LimitExceeded) as refused:
        budgets.reserve("a", limits, 20, AT + 5)
    wait = refused.value.retry_after_s
    assert refused.value.limit == "window"
    assert wait is not None
    assert 1680 - 5 <= wait <= 1680 + 10
    budgets.reserve("a", limits, 20, AT + 5 + wait)
    with pytest.raises(LimitExceeded) as hopeless:
        budgets.reserve("a", limits, 101, AT)
    assert hopeless.value.retry_after_s is None


def test_open_reservations_do_not_leave_a_window() -> None:
    limits = windowed(100, 60)
    budgets = Budgets().serving(limits).reserve("a", limits, 80, AT)
    assert budgets.left(limits, AT + 600) == 20
    budgets = budgets.settle("a", 50, AT + 600)
    assert budgets.left(limits, AT + 601) == 50
    assert budgets.left(limits, AT + 700) == 100


def test_a_window_that_begins_later_counts_what_is_open() -> None:
    budgets = Budgets().serving(terms()).reserve("a", terms(), 30, AT)
    both = Terms(DEPLOYMENT, terms().budget, 100, 60)
    budgets = budgets.serving(both)
    assert budgets.left(both, AT) == 70
    assert budgets.settle("a", 10, AT).windows[DEPLOYMENT].used(AT) == 10


def test_a_window_of_another_deployment_is_another_window() -> None:
    here, there = windowed(), Terms(identifier("dep", 2), tokens_per_window=100, window_s=3600)
    budgets = used(Budgets().serving(here).serving(there), here, 70)
    assert (budgets.left(here, AT), budgets.left(there, AT)) == (30, 100)


def test_a_clock_that_goes_back_keeps_the_count() -> None:
    limits = windowed(100, 3600)
    budgets = used(Budgets().serving(limits), limits, 70)
    assert budgets.left(limits, AT - 100_000) == 30


def test_a_jumping_clock_makes_no_window_grow() -> None:
    window = Window(window_s=BUCKETS)
    for step in range(3 * BUCKETS):
        window = window.add(1, AT + (3 * BUCKETS - step))
    assert window.used(AT) == 3 * BUCKETS
    assert len(window.buckets) <= BUCKETS + 8


def test_a_bucket_counts_until_its_last_second_has_left() -> None:
    window = Window(window_s=10 * BUCKETS).add(5, AT + 9)
    assert AT % window.width_s == 0
    assert window.used(AT + 9 + window.window_s - 1) == 5
    assert window.used(AT + 10 + window.window_s) == 0


def test_a_bucket_moves_with_its_last_second() -> None:
    window = Window(window_s=10 * BUCKETS).add(5, AT + 9).resized(BUCKETS)
    assert window.used(AT + 9 + BUCKETS - 1) == 5
    assert window.used(AT + 10 + BUCKETS) == 0


def test_what_is_open_is_not_spent_before_it_was_reserved() -> None:
    limits = windowed(100, BUCKETS)
    budgets = Budgets().serving(limits).reserve("a", limits, 30, AT + 100).spend_open(AT)
    assert budgets.windows[DEPLOYMENT].used(AT + 100 + BUCKETS - 1) == 30


uses = st.lists(st.tuples(st.integers(0, 400), st.integers(0, 50)), max_size=60)


@given(uses, st.integers(1, 1000), st.integers(1, 1000))
def test_a_window_never_counts_too_little(
    steps: list[tuple[int, int]], window_s: int, other_s: int
) -> None:
    window, at, told = Window(window_s=window_s), AT, []
    for gap, tokens in steps:
        at += gap
        window = window.add(tokens, at)
        told.append((at, tokens))
        truth = sum(each for when, each in told if when > at - window_s)
        slack = sum(each for when, each in told if when > at - window_s - 2 * window.width_s)
        assert truth <= window.used(at) <= slack
        assert len(window.buckets) <= BUCKETS + 8
    shorter = window.resized(min(window_s, other_s))
    truth = sum(each for when, each in told if when > at - shorter.window_s)
    assert shorter.used(at) >= truth
    again = shorter.resized(window_s)
    assert again.used(at) >= truth


@given(uses, st.integers(1, 1000), st.integers(0, 200))
def test_room_comes_when_it_was_promised(
    steps: list[tuple[int, int]], window_s: int, tokens: int
) -> None:
    window, at, limit = Window(window_s=window_s), AT, 150
    for gap, amount in steps:
        at += gap
        window = window.add(amount, at)
    wait = window.room_in_s(tokens, limit, at)
    if wait is None:
        assert tokens > limit
    else:
        assert window.used(at + wait) + tokens <= limit
        assert wait == 0 or window.used(at) + tokens > limit


@pytest.mark.parametrize("tokens", [-1, MAX_INTEGER + 1, True, 1.5, None])
def test_what_is_no_number_of_tokens(tokens: Any) -> None:
    budgets = Budgets().serving(terms())
    with pytest.raises(ValueError):
        budgets.reserve("a", terms(), tokens, AT)
    with pytest.raises(ValueError):
        budgets.reserve("a", terms(), 1, tokens)
    if tokens is not None:
        with pytest.raises(ValueError):
            budgets.reserve("a", terms(), 1, AT).settle("a", tokens, AT)


def test_counters_stop_at_the_largest_number() -> None:
    budgets = Budgets().serving(terms(tokens=MAX_INTEGER))
    for _ in range(2):
        budgets = budgets.reserve("a", terms(), 0, AT).settle("a", MAX_INTEGER, AT)
    assert budgets.tallies[FIRST].used == MAX_INTEGER


def test_mistakes_of_the_caller() -> None:
    budgets = Budgets()
    with pytest.raises(ValueError, match="never served"):
        budgets.reserve("a", terms(), 1, AT)
    with pytest.raises(ValueError, match="never served"):
        budgets.reserve("a", windowed(), 1, AT)
    budgets = budgets.serving(terms()).reserve("a", terms(), 1, AT)
    with pytest.raises(ValueError, match="open already"):
        budgets.reserve("a", terms(), 1, AT)
    for act in (lambda: budgets.settle("b", 1, AT), lambda: budgets.release("b")):
        with pytest.raises(KeyError):
            act()


def test_counters_are_stored_and_read_back() -> None:
    both = Terms(DEPLOYMENT, terms().budget, 1000, 3600)
    budgets = used(Budgets().serving(both), both, 7).reserve("a", both, 3, AT)
    stored = msgspec.json.encode(budgets)
    assert msgspec.json.decode(stored, type=Budgets) == budgets
