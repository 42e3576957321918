"""Sampling against exact probabilities, computed in the plainest way."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import EngineError
from engine.sampler import Sampler, SamplingParams


def exact(logits: np.ndarray, p: SamplingParams) -> np.ndarray:
    """Probabilities after top-k, top-p, min-p and temperature, in double precision."""
    order = np.lexsort((np.arange(len(logits)), -logits))
    if p.top_k:
        order = order[: p.top_k]
    probabilities = np.exp(logits[order].astype(np.float64) - logits.max())
    probabilities /= probabilities.sum()
    keep = []
    mass = 0.0
    for i, probability in enumerate(probabilities):
        if i and (mass >= p.top_p or probability < p.min_p * probabilities[0]):
            break
        keep.append(i)
        mass += probability
    weights = np.exp(logits[order[keep]].astype(np.float64) / p.temperature)
    out = np.zeros(len(logits))
    out[order[keep]] = weights / weights.sum()
    return out


@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(temperature=1.0, top_k=0, top_p=1.0, min_p=0.0, seed=1),
        SamplingParams(temperature=0.7, top_k=5, top_p=1.0, min_p=0.0, seed=2),
        SamplingParams(temperature=1.5, top_k=0, top_p=0.8, min_p=0.0, seed=3),
        SamplingParams(temperature=1.0, top_k=0, top_p=1.0, min_p=0.2, seed=4),
        SamplingParams(temperature=0.9, top_k=12, top_p=0.9, min_p=0.05, seed=5),
    ],
)
def test_draws_follow_the_exact_distribution(params: SamplingParams) -> None:
    logits = np.random.default_rng(0).normal(0, 2, 30).astype(np.float32)
    expected = exact(logits, params)
    sampler = Sampler(params, 30, [])
    n = 20_000
    counts = np.bincount([sampler.sample(logits) for _ in range(n)], minlength=30)
    assert not counts[expected == 0].any()
    # five standard deviations of a binomial count
    bound = 5 * np.sqrt(n * expected * (1 - expected)) + 1
    assert (np.abs(counts - n * expected) <= bound).all()


def test_greedy_takes_the_best_and_the_first_of_equals() -> None:
    sampler = Sampler(SamplingParams(temperature=0), 4, [])
    assert sampler.sample(np.array([1, 3, 3, 2], np.float32)) == 1


def test_the_same_seed_draws_the_same() -> None:
    logits = np.random.default_rng(1).normal(0, 1, 1000).astype(np.float32)

    def draws(seed: int) -> list[int]:
        sampler = Sampler(SamplingParams(temperature=1.0, seed=seed), 1000, [])
        return [sampler.sample(logits) for _ in range(20)]

    assert draws(3) == draws(3) != draws(4)


def test_penalties() -> None:
    logits = np.array([2.0, 2.0, -2.0, -2.0, 1.9], np.float32)
    before = logits.copy()

    def best(params: SamplingParams, prompt: list[int]) -> int:
        return Sampler(params, 5, prompt).sample(logits)

    # 2 / 1.3 < 1.9; and for negative logits the penalty makes them smaller, not larger
    assert best(SamplingParams(temperature=0, repeat_penalty=1.3), [0, 1]) == 4
    assert best(SamplingParams(temperature=0, presence_penalty=0.2), [0]) == 1
    assert best(SamplingParams(temperature=0, frequency_penalty=0.06), [0, 0, 1]) == 1
    # out of the window, forgiven
    window = SamplingParams(temperature=0, repeat_penalty=2.0, penalty_window=2)
    assert best(window, [0, 3, 3]) == 0
    assert np.array_equal(logits, before)


def test_bias_bans_and_forces() -> None:
    logits = np.array([5.0, 1.0, 1.0], np.float32)
    banned = SamplingParams(temperature=1.0, logit_bias={0: -1000.0}, seed=0, min_p=0)
    assert 0 not in {Sampler(banned, 3, []).sample(logits) for _ in range(50)}
    forced = SamplingParams(temperature=0, logit_bias={2: 100.0, 99: 1.0})
    assert Sampler(forced, 3, []).sample(logits) == 2


def test_unusable_logits() -> None:
    with pytest.raises(EngineError, match="damaged"):
        Sampler(SamplingParams(), 3, []).sample(np.array([1, np.nan, 2], np.float32))


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.floats(-50, 50, width=32), min_size=1, max_size=40),
    st.floats(0.01, 5),
    st.integers(0, 50),
    st.floats(0.01, 1),
    st.floats(0, 1),
)
def test_what_is_drawn_was_allowed(
    values: list[float], temperature: float, top_k: int, top_p: float, min_p: float
) -> None:
    logits = np.array(values, np.float32)
    params = SamplingParams(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, seed=0)
    token = Sampler(params, len(values), []).sample(logits)
    best = float(logits.max())
    rank = int((logits > logits[token]).sum())
    assert not top_k or rank < top_k
    assert np.exp(float(logits[token]) - best) >= min_p * (1 - 1e-6)
