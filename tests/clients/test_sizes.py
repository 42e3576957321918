"""Sizes on the command line are read as the daemon reads those of its configuration."""

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from assistantd.sizes import MAX_BYTES, parse_size
from clients.cli.sizes import enough, memory_size, size


def both(text: str) -> tuple[int | None, int | None]:
    try:
        ours: int | None = size(text)
    except click.BadParameter:
        ours = None
    try:
        daemons: int | None = parse_size(text)
    except ValueError:
        daemons = None
    return ours, daemons


@pytest.mark.parametrize(
    ("text", "n_bytes"),
    [
        ("0", 0),
        ("512", 512),
        ("1k", 1024),
        ("400M", 400 << 20),
        (" 400 mb ", 400 << 20),
        ("512MiB", 512 << 20),
        ("1.5G", 3 << 29),
        ("2T", 2 << 40),
        ("1048576T", MAX_BYTES),
        ("1048577T", None),
        ("-1", None),
        ("", None),
        ("M", None),
        ("1e3", None),
        ("1.M", None),
        ("4OOM", None),
        ("\u0664M", None),
        ("10P", None),
        ("1 0M", None),
    ],
)
def test_both_readers_agree(text: str, n_bytes: int | None) -> None:
    assert both(text) == (n_bytes, n_bytes)


@given(
    st.from_regex(r"\s?[0-9]{1,20}(\.[0-9]{1,10})?\s?[kKmMgGtTpP]?(i?[bB])?\s?", fullmatch=True)
    | st.text(alphabet="0123456789.kMGTiB -", max_size=12)
)
def test_both_readers_agree_on_anything(text: str) -> None:
    ours, daemons = both(text)
    assert ours == daemons


def test_none_is_no_budget() -> None:
    assert size("none") == size(" None ") == 0


@pytest.mark.parametrize(
    ("n_bytes", "text"),
    [
        (0, "0 bytes"),
        (1 << 19, "512K"),
        (8 << 20, "8.0M"),
        (300 << 20, "300M"),
        (1536 << 20, "1536M"),
        (12 << 30, "12.0G"),
    ],
)
def test_how_sizes_are_written(n_bytes: int, text: str) -> None:
    assert memory_size(n_bytes) == text


@given(st.integers(1, 1 << 50))
def test_a_size_to_type_is_enough(n_bytes: int) -> None:
    assert n_bytes <= size(enough(n_bytes)) < n_bytes + (1 << 20)
