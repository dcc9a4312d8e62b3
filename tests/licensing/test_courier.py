"""Text in parts: whatever is cut comes together again, and nothing else does."""

import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from licensing.courier import PartsError, from_parts, is_parts, to_parts

DATA = bytes(range(256)) * 9


@given(data=st.binary(min_size=1, max_size=5000), size=st.integers(20, 2000), seed=st.integers())
def test_parts_come_together_in_any_order_and_twice(data: bytes, size: int, seed: int) -> None:
    parts = to_parts(data, size)
    mixed = [*parts, *parts[:3], ""]
    random.Random(seed).shuffle(mixed)
    assert from_parts(f"  {part}\r\n" for part in mixed) == data
    assert is_parts(parts[0])


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda parts: parts[:-1], "of 3 parts, these are missing: 3"),
        (lambda parts: parts[1:], "these are missing: 1"),
        (lambda parts: [], "there are no parts"),
        (lambda parts: [*parts, "hello"], "line 4 is not a part"),
        (lambda parts: [*parts, to_parts(b"another")[0]], "belongs to another file"),
        (lambda parts: [*parts, parts[0][:-4] + "AAAA"], "is there twice and differs"),
        (lambda parts: [parts[0][:-4] + "AAAA", *parts[1:]], "do not make the file"),
        (lambda parts: [parts[0][:-1], *parts[1:]], "line 1 is not a part|do not make the file"),
        (lambda parts: [*parts, parts[0].replace("/1/3/", "/4/3/")], "part 4 of 3"),
    ],
)
def test_what_is_wrong_is_said(spoil: Callable[[list[str]], list[str]], said: str) -> None:
    parts = to_parts(DATA, 900)
    assert len(parts) == 3
    with pytest.raises(PartsError, match=said):
        from_parts(spoil(parts))


@given(text=st.text(max_size=300))
def test_any_text_is_refused_in_words(text: str) -> None:
    with pytest.raises(PartsError):
        from_parts([text])


@pytest.mark.parametrize("data", [b"", b"x" * 2000])
def test_nothing_and_too_much_cannot_be_cut(data: bytes) -> None:
    with pytest.raises(PartsError):
        to_parts(data, 1)
