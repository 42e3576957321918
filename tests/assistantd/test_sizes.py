"""Sizes as people write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assistantd.sizes import MAX_BYTES, parse_size


@pytest.mark.parametrize(
    ("text", "n_bytes"),
    [
        ("0", 0),
        (0, 0),
        (4096, 4096),
        ("4096", 4096),
        ("400M", 400 << 20),
        ("1.5G", 3 << 29),
        ("512MiB", 512 << 20),
        ("512 mb", 512 << 20),
        (" 2k ", 2048),
        ("7B", 7),
        ("1T", 1 << 40),
        ("9007199254740993", 9007199254740993),  # which a float cannot hold
    ],
)
def test_sizes(text: str | int, n_bytes: int) -> None:
    assert parse_size(text) == n_bytes


@pytest.mark.parametrize(
    "text", ["", "G", "much", "-1", -1, "1.G", "1e9", "1 0M", "5X", "9999999T"]
)
def test_what_is_no_size(text: str | int) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_size(text)


@given(st.text(max_size=12) | st.integers())
def test_any_text_is_a_size_or_refused(text: str | int) -> None:
    try:
        assert 0 <= parse_size(text) <= MAX_BYTES
    except ValueError as problem:
        assert repr(text) in str(problem)
