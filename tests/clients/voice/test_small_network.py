"""clients.voice.small_network, and the networks that come along."""

from pathlib import Path

import numpy as np
import pytest

from clients.voice.small_network import WIDTH, SmallNetwork
from clients.voice.trained_wake import OWN, least_probability, own_file

N, WINDOW, SQUEEZED, HIDDEN = 3, 3, 2, 4


def arrays(seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    shapes = {
        "squeeze": (N, WIDTH, SQUEEZED), "squeeze_bias": (N, 1, SQUEEZED),
        "hidden": (N, WINDOW * SQUEEZED, HIDDEN), "hidden_bias": (N, 1, HIDDEN),
        "out": (N, HIDDEN, 1), "out_bias": (N, 1, 1), "silence": (WIDTH,),
    }  # fmt: skip
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def by_hand(found: dict[str, np.ndarray], window: np.ndarray) -> float:
    """One judgement about (WINDOW, WIDTH), one number after another."""
    logits = []
    for n in range(N):
        flat = []
        for embedding in window:
            for unit in range(SQUEEZED):
                total = found["squeeze_bias"][n, 0, unit]
                total += sum(embedding[i] * found["squeeze"][n, i, unit] for i in range(WIDTH))
                flat.append(max(total, 0.0))
        logits.append(found["out_bias"][n, 0, 0])
        for unit in range(HIDDEN):
            total = found["hidden_bias"][n, 0, unit]
            total += sum(value * found["hidden"][n, i, unit] for i, value in enumerate(flat))
            logits[-1] += max(total, 0.0) * found["out"][n, unit, 0]
    return float(1 / (1 + np.exp(-sum(logits) / N)))


def test_it_judges_the_last_window() -> None:
    found = arrays()
    network = SmallNetwork(found)
    assert network.window == WINDOW
    heard = np.random.default_rng(1).normal(size=(7, WIDTH)).astype(np.float32)
    before = np.concatenate([np.repeat(found["silence"][None], WINDOW, axis=0), heard])
    for number, embedding in enumerate(heard):
        window = before[number + 1 : number + 1 + WINDOW]
        assert network.hear(embedding) == pytest.approx(by_hand(found, window), rel=1e-4)


def test_reset_is_a_long_silence() -> None:
    network, fresh = SmallNetwork(arrays()), SmallNetwork(arrays())
    heard = np.random.default_rng(2).normal(size=(5, WIDTH)).astype(np.float32)
    first = [network.hear(embedding) for embedding in heard]
    assert network.hear(heard[0]) != first[0]
    network.reset()
    assert [network.hear(embedding) for embedding in heard] == first
    assert [fresh.hear(embedding) for embedding in heard] == first


def test_a_file(tmp_path: Path) -> None:
    found = arrays()
    path = tmp_path / "word.npz"
    np.savez_compressed(path, **{name: value.astype(np.float16) for name, value in found.items()})
    embedding = np.ones(WIDTH, np.float32)
    rounded = {name: value.astype(np.float16).astype(np.float32) for name, value in found.items()}
    assert SmallNetwork.load(path).hear(embedding) == SmallNetwork(rounded).hear(embedding)
    with pytest.raises(OSError):
        SmallNetwork.load(tmp_path / "none.npz")


@pytest.mark.parametrize("word", OWN)
def test_what_comes_along(word: str) -> None:
    """A file each, small enough to be shipped, that silence does not wake."""
    path = own_file(word)
    assert path.stat().st_size < 250_000
    network = SmallNetwork.load(path)
    with np.load(path) as file:
        quiet = file["silence"].astype(np.float32)
    for _step in range(2 * network.window):
        assert network.hear(quiet) < least_probability(1.0)
