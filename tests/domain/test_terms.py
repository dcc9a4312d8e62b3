"""Terms: one shape, one way to write it down, one comparison."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from licensing.encoding import parse_canonical
from licensing.license import Limits
from licensing.names import FEATURES
from portal.domain.catalog import CATALOG, fill_terms
from portal.domain.terms import Mode, Terms, canonical_terms, compare, differences

COUNTS = st.none() | st.integers(1, 2**53 - 1)
WINDOWS = st.just((None, None)) | st.tuples(st.integers(1, 10**12), st.integers(1, 365 * 86400))
TERMS = st.builds(
    lambda window, most, **terms: Terms(
        **terms,
        limits=Limits(tokens_per_window=window[0], window_s=window[1], max_instances=most),
    ),
    window=WINDOWS,
    most=COUNTS,
    sku=st.sampled_from(list(CATALOG)),
    mode=st.sampled_from(Mode),
    term_s=COUNTS,
    features=st.lists(st.sampled_from(FEATURES)).map(tuple),
    tokens_total=COUNTS,
    fingerprints=st.lists(st.from_regex(r"[A-Za-z0-9._:-]{8,20}", fullmatch=True)).map(tuple),
    support_tier=st.none() | st.sampled_from(["gold", "silver"]),
)


@given(TERMS)
def test_terms_are_written_down_in_one_way_and_read_back(terms: Terms) -> None:
    written = canonical_terms(terms)
    assert msgspec.convert(parse_canonical(written), Terms) == terms
    assert msgspec.convert(json.loads(json.dumps(msgspec.to_builtins(terms))), Terms) == terms


def test_the_canonical_form_is_this_one() -> None:
    """It is sealed: whoever changes it breaks the seals there are."""
    terms = fill_terms(
        "eval-72h", mode=Mode.LEASE, features=("routing",), fingerprints=("fp_1234567",)
    )
    assert canonical_terms(terms) == (
        b'{"features":["routing"],"fingerprints":["fp_1234567"],'
        b'"limits":{"max_concurrency":4,"max_instances":1},"mode":"lease","sku":"eval-72h",'
        b'"term_s":259200,"tokens_total":1000000}'
    )


def test_the_order_in_which_features_are_named_means_nothing() -> None:
    one = fill_terms("pilot-30d", features=("routing", "audit_export", "routing"))
    other = fill_terms("pilot-30d", features=("audit_export", "routing"))
    assert one == other
    assert one.features == ("audit_export", "routing")
    assert structs.replace(one, fingerprints=("b" * 8, "a" * 8)).fingerprints[0] == "a" * 8


@given(TERMS, TERMS)
def test_terms_differ_exactly_where_they_are_not_equal(one: Terms, other: Terms) -> None:
    assert differences(one, one) == ()
    assert bool(differences(one, other)) == (one != other)
    assert {each.term for each in differences(one, other)} == {
        each.term for each in differences(other, one)
    }


def test_what_was_changed_is_said_in_words() -> None:
    asked = fill_terms("pilot-30d", features=("routing",), fingerprints=("fp_12345678",))
    granted = structs.replace(
        asked,
        mode=Mode.LEASE,
        term_s=14 * 86400,
        features=("routing", "pii_filtering"),
        fingerprints=(),
        limits=structs.replace(asked.limits, tokens_per_window=2_000_000, max_concurrency=8),
    )
    assert [
        (each.term, each.title, each.asked, each.granted) for each in differences(asked, granted)
    ] == [
        ("mode", "How it runs", "Offline", "Leased"),
        ("term_s", "Length", "30 days", "14 days"),
        ("volume", "Volume", "10,000,000 tokens in any 7 days", "2,000,000 tokens in any 7 days"),
        ("max_concurrency", "Concurrent requests", "no limit", "8"),
        ("features", "Features", "Routing", "PII filtering, Routing"),
        ("fingerprints", "Bound to", "fp_12345678", "any instance"),
    ]


def test_a_comparison_leaves_out_what_neither_mentions() -> None:
    terms = fill_terms("eval-72h")
    told = {each.term: each.granted for each in compare(terms, terms)}
    assert set(told) == {
        "sku",
        "mode",
        "term_s",
        "tokens_total",
        "max_instances",
        "max_concurrency",
        "features",
        "fingerprints",
    }
    assert told["term_s"] == "72 hours"
    assert told["tokens_total"] == "1,000,000 tokens"


def test_terms_never_change() -> None:
    with pytest.raises(AttributeError):
        fill_terms("eval-72h").mode = Mode.LEASE  # type: ignore[misc]
