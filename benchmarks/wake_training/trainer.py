"""Trains a small network (clients/voice/small_network.py) on clips, in numpy.

A call counts as heard if any embedding in its time is judged to be one, so that of each call the
window that the network finds best is what it learns from (multiple instances). Of everything else
it learns mostly from what it takes for the word.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from benchmarks.wake_training.clips import Clip
from clients.voice.small_network import WIDTH, Embeddings

Floats = npt.NDArray[np.float32]
Weights = dict[str, Floats]

WINDOW: Final = 16
"""Embeddings: 2 s of sound."""
SQUEEZED: Final = 32
HIDDEN: Final = 48
_BATCH_CALLS, _BATCH_OTHERS = 128, 384
_RATE, _DECAY = 1.5e-3, 3e-2
_SILENCED: Final = 0.25
"""So many windows begin with silence, as after SmallNetwork.reset()."""
_NOISE: Final = 0.5
"""Of an embedding's spread, added to it. With less of this, of what is dropped and of decay, or
with more steps, what was learnt held for the voices of the training and less for others."""
_DROPPED: Final = 0.5
_LAYERS: Final = ("squeeze", "squeeze_bias", "hidden", "hidden_bias", "out", "out_bias")


@dataclass
class _Windows:
    """Windows of one long array of embeddings, each by its last one."""

    embeddings: Floats
    calls: list[npt.NDArray[np.intp]]  # the candidates of each call
    call_before: npt.NDArray[np.intp]  # up to where each call's embeddings are before it
    others: npt.NDArray[np.intp]


def _windows(calls: list[Clip], others: list[Clip], silence: Floats) -> _Windows:
    parts: list[Embeddings] = []
    at, found, before, rest = 0, [], [], []
    pad = np.repeat(silence[None], WINDOW - 1, axis=0)
    for clip in (*calls, *others):
        parts += [pad, clip.embeddings.astype(np.float32)]
        first = at + WINDOW - 1
        at += WINDOW - 1 + len(clip.embeddings)
        if clip.call is None:
            rest.append(np.arange(first, at))
        else:
            found.append(np.arange(first + clip.call[0], first + clip.call[1] + 1))
            before.append(first + clip.before)
    return _Windows(np.concatenate(parts), found, np.array(before, np.intp), np.concatenate(rest))


class Trainer:
    """One network. Args: silence: (96,), the embedding of no sound."""

    def __init__(
        self, calls: list[Clip], others: list[Clip], silence: Floats, seed: int = 0
    ) -> None:
        self._rng = np.random.default_rng(seed)
        self._data = _windows(calls, others, silence)
        sample = self._data.embeddings[:: max(1, len(self._data.embeddings) // 50_000)]
        self._mean, self._spread = sample.mean(0), sample.std(0) + 1e-3
        self._silence = silence
        self._normal = (self._data.embeddings - self._mean) / self._spread
        self._quiet = (silence - self._mean) / self._spread
        rng = self._rng
        # a table to take from: drawing anew would cost more than the rest of a step
        self._noise = _NOISE * rng.standard_normal(4_000_000, np.float32)
        self._weights: Weights = {
            "squeeze": rng.normal(0, WIDTH**-0.5, (WIDTH, SQUEEZED)),
            "squeeze_bias": np.zeros(SQUEEZED),
            "hidden": rng.normal(0, (2 / WINDOW / SQUEEZED) ** 0.5, (WINDOW * SQUEEZED, HIDDEN)),
            "hidden_bias": np.zeros(HIDDEN),
            "out": rng.normal(0, HIDDEN**-0.5, HIDDEN),
            "out_bias": np.full(1, -3.0),
        }
        self._weights = {k: v.astype(np.float32) for k, v in self._weights.items()}
        self._moments = {k: (np.zeros_like(v), np.zeros_like(v)) for k, v in self._weights.items()}
        self._steps = 0

    def train(self, rounds: int, steps: int) -> None:
        """A round looks at everything, then takes steps with what was found to be hard."""
        data, rng = self._data, self._rng
        for number in range(rounds):
            rate = _RATE * 0.5 * (1 + np.cos(np.pi * number / rounds))
            if number:
                scores = self.scores()
                likely = [scores[candidates] for candidates in data.calls]
                hard = scores[data.others]
                weight = 1 / (1 + np.exp(-hard)) + 2e-4
                missed = np.mean([one.max() < 0 for one in likely])
                print(
                    f"round {number}: {100 * missed:.2f} % of the calls below 0, "
                    f"{(hard > 0).sum()} of {hard.size} others above",
                    flush=True,
                )
            else:
                likely = [np.zeros(len(candidates)) for candidates in data.calls]
                weight = np.ones(data.others.size)
            call_weight = np.array([1.2 - 1 / (1 + np.exp(-one.max())) for one in likely])
            call_weight /= call_weight.sum()
            weight /= weight.sum()
            calls = rng.choice(len(data.calls), (steps, _BATCH_CALLS), p=call_weight)
            others = rng.choice(data.others, (steps, _BATCH_OTHERS), p=weight)
            for step in range(steps):
                best = np.array([self._one_of(data.calls[c], likely[c]) for c in calls[step]])
                self._step(best, data.call_before[calls[step]], others[step], rate)

    def _one_of(self, candidates: npt.NDArray[np.intp], scores: Any) -> int:
        # the best one most often, and those near to it
        share = np.exp(scores - scores.max())
        return int(self._rng.choice(candidates, p=share / share.sum()))

    def _step(
        self,
        calls: npt.NDArray[np.intp],
        before: npt.NDArray[np.intp],
        others: npt.NDArray[np.intp],
        rate: float,
    ) -> None:
        rng, w = self._rng, self._weights
        last = np.concatenate([calls, others])
        at = last[:, None] + np.arange(1 - WINDOW, 1)
        given = self._normal[at]
        # silence instead of what came before
        allowed = np.full(last.size, 10)
        allowed[: calls.size] = before - (calls - WINDOW)
        n = rng.integers(0, np.clip(allowed, 0, WINDOW - 1) + 1)
        n[rng.random(last.size) > _SILENCED] = 0
        given[np.arange(WINDOW) < n[:, None]] = self._quiet
        first = rng.integers(0, self._noise.size - given.size)
        given += self._noise[first : first + given.size].reshape(given.shape)
        wanted = np.zeros(last.size, np.float32)
        wanted[: calls.size] = 1

        squeezed = np.maximum(given @ w["squeeze"] + w["squeeze_bias"], 0)
        flat = squeezed.reshape(last.size, -1)
        kept = (rng.random(flat.shape, np.float32) > _DROPPED) / np.float32(1 - _DROPPED)
        flat = flat * kept
        hidden = np.maximum(flat @ w["hidden"] + w["hidden_bias"], 0)
        logits = hidden @ w["out"] + w["out_bias"]
        error = (1 / (1 + np.exp(-logits)) - wanted) / last.size
        to_hidden = np.outer(error, w["out"]) * (hidden > 0)
        to_squeezed = ((to_hidden @ w["hidden"].T) * kept).reshape(squeezed.shape) * (squeezed > 0)
        flat_given = given.reshape(-1, WIDTH)
        flat_back = to_squeezed.reshape(-1, SQUEEZED)
        self._adam(
            {
                "squeeze": flat_given.T @ flat_back,
                "squeeze_bias": flat_back.sum(0),
                "hidden": flat.T @ to_hidden,
                "hidden_bias": to_hidden.sum(0),
                "out": hidden.T @ error,
                "out_bias": error.sum(keepdims=True),
            },
            rate,
        )

    def _adam(self, slopes: Weights, rate: float) -> None:
        self._steps += 1
        for name, slope in slopes.items():
            mean, square = self._moments[name]
            mean += 0.1 * (slope - mean)
            square += 0.001 * (slope**2 - square)
            step = (mean / (1 - 0.9**self._steps)) / (
                np.sqrt(square / (1 - 0.999**self._steps)) + 1e-8
            )
            decay = _DECAY * self._weights[name] if self._weights[name].ndim == 2 else 0
            self._weights[name] -= (rate * (step + decay)).astype(np.float32)

    def scores(self) -> Floats:
        """The logit of every embedding as the last of a window."""
        return scores(self.arrays(), self._data.embeddings)

    def arrays(self) -> Weights:
        """The network: the embeddings' spread goes into the first layer."""
        found = {name: self._weights[name].copy() for name in _LAYERS}
        found["squeeze"] = self._weights["squeeze"] / self._spread[:, None]
        found["squeeze_bias"] = self._weights["squeeze_bias"] - self._mean @ found["squeeze"]
        found["silence"] = self._silence
        return {name: value.astype(np.float32) for name, value in found.items()}


def scores(arrays: Weights, embeddings: Embeddings) -> Floats:
    """The logit of each embedding as the last of a window; (n,) as (n, 96)."""
    squeezed = np.maximum(embeddings @ arrays["squeeze"] + arrays["squeeze_bias"], 0)
    quiet = np.maximum(arrays["silence"] @ arrays["squeeze"] + arrays["squeeze_bias"], 0)
    squeezed = np.concatenate([np.repeat(quiet[None], WINDOW - 1, axis=0), squeezed])
    windows = np.lib.stride_tricks.sliding_window_view(squeezed, WINDOW, axis=0)
    found = np.empty(len(windows), np.float32)
    for first in range(0, len(windows), 20_000):
        some = windows[first : first + 20_000].transpose(0, 2, 1).reshape(-1, WINDOW * SQUEEZED)
        hidden = np.maximum(some @ arrays["hidden"] + arrays["hidden_bias"], 0)
        found[first : first + 20_000] = hidden @ arrays["out"] + arrays["out_bias"]
    return found
