"""Pages, prefix reuse and eviction, checked on what a page would hold: the tokens themselves."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.config import ModelConfig
from engine.errors import OutOfCacheError
from engine.kernels import PAGE
from engine.kv_cache import KVCache, SequenceCache

CONFIG = ModelConfig(
    n_layers=1,
    dim=8,
    hidden_dim=8,
    n_heads=1,
    n_kv_heads=1,
    head_dim=4,
    vocab_size=1000,
    max_context=1024,
    norm_eps=1e-5,
    rope_dim=4,
    rope_theta=1e4,
    rope_scale=1.0,
)


def slots(sequence: SequenceCache) -> np.ndarray:
    """(n_pages, PAGE): a number for each position, in memory of its page."""
    return sequence._cache.pool[:, 0, 0].view(np.uint16)[:, :PAGE]


def write(sequence: SequenceCache, tokens: list[int]) -> None:
    """Stand in for a forward pass: put each token's number where its key would be."""
    pool = slots(sequence)
    start = sequence.length
    sequence.reserve(start + len(tokens))
    for position, token in enumerate(tokens, start):
        page = sequence.page_table[position // PAGE]
        pool[page, position % PAGE] = token
    sequence.extend(tokens)


def read(sequence: SequenceCache) -> list[int]:
    """The tokens whose keys and values the sequence would attend to."""
    pool = slots(sequence)
    return [int(pool[sequence.page_table[p // PAGE], p % PAGE]) for p in range(sequence.length)]


def test_second_turn_finds_the_first() -> None:
    cache = KVCache(CONFIG, 256)
    first = list(range(100, 145))
    turn = cache.open(first)
    assert turn.length == 0
    write(turn, first)
    turn.close()
    again = cache.open([*first, 7, 8, 9])
    assert again.length == len(first)  # to the token, not only to the page
    assert read(again) == first


def test_the_last_token_is_always_computed() -> None:
    cache = KVCache(CONFIG, 256)
    turn = cache.open([1, 2, 3])
    write(turn, [1, 2, 3])
    turn.close()
    assert cache.open([1, 2, 3]).length == 2


def test_sequences_that_diverge_do_not_disturb_each_other() -> None:
    cache = KVCache(CONFIG, 512)
    common = list(range(40))
    a = cache.open([*common, 500])
    write(a, [*common, 500])
    a.close()
    b = cache.open([*common, 600, 601])
    c = cache.open([*common, 500, 700])
    write(b, [600, 601])
    write(c, [700])
    assert read(b) == [*common, 600, 601]
    assert read(c) == [*common, 500, 700]


def test_pages_are_shared_and_counted() -> None:
    cache = KVCache(CONFIG, 10 * PAGE)
    prompt = list(range(4 * PAGE + 1))
    a = cache.open(prompt)
    write(a, prompt)
    used = cache.pages_used
    b = cache.open([*prompt[: 4 * PAGE], 999])
    assert cache.pages_used == used
    a.close()
    b.close()
    assert cache.pages_available == cache.n_pages


def test_the_oldest_gives_way_and_users_keep_theirs() -> None:
    cache = KVCache(CONFIG, 4 * PAGE)
    old, new = [1] * PAGE, [2] * PAGE
    for tokens in (old, new):
        sequence = cache.open(tokens)
        write(sequence, tokens)
        sequence.close()
    live = cache.open([3])
    write(live, [3] * (3 * PAGE))  # takes the two free pages and the oldest cached one
    assert cache.open([*old, 0]).length == 0
    kept = cache.open([*new, 0])
    assert kept.length == PAGE
    with pytest.raises(OutOfCacheError):
        live.reserve(4 * PAGE)
    assert read(live) == [3] * (3 * PAGE)


def test_clear_forgets_and_gives_back() -> None:
    cache = KVCache(CONFIG, 8 * PAGE)
    sequence = cache.open([1])
    write(sequence, list(range(3 * PAGE + 5)))
    sequence.close()
    assert cache.pages_used == 4
    cache.clear()
    assert cache.pages_used == 0
    assert cache.open(list(range(40))).length == 0


tokens_strategy = st.lists(st.integers(0, 2), min_size=1, max_size=50)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(tokens_strategy, tokens_strategy, st.booleans()), max_size=12))
def test_whatever_is_reused_is_right(turns: list[tuple[list[int], list[int], bool]]) -> None:
    """Random prompts over three tokens share much: a cache must never hand out a wrong key."""
    cache = KVCache(CONFIG, 20 * PAGE)
    live: list[tuple[SequenceCache, list[int]]] = []
    for prompt, answer, keep in turns:
        try:
            sequence = cache.open(prompt)
        except OutOfCacheError:
            continue
        expected = [*prompt, *answer]
        assert sequence.length < len(prompt)
        assert read(sequence) == prompt[: sequence.length]
        try:
            write(sequence, expected[sequence.length :])
        except OutOfCacheError:
            sequence.close()
            continue
        assert read(sequence) == expected
        if keep:
            live.append((sequence, expected))
        else:
            sequence.close()
    for sequence, expected in live:
        assert read(sequence) == expected
        sequence.close()
    assert cache.pages_available == cache.n_pages
    assert np.array_equal(sorted(cache._free), np.unique(cache._free))
