"""Small networks that judge openWakeWord's speech embeddings, in numpy.

A network looks at the last WINDOW embeddings, 96 numbers each 80 ms: each one is squeezed by the
same small matrix, and all of them together are judged by a layer of hidden units. Several that were
trained alike are asked together, as each errs elsewhere; their mean counts. They are one .npz file
of some hundred kilobytes; benchmarks/wake_training makes them.
"""

from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Embeddings = npt.NDArray[np.floating[Any]]
"""(n, 96)."""
WIDTH: Final = 96
_ARRAYS: Final = ("squeeze", "squeeze_bias", "hidden", "hidden_bias", "out", "out_bias", "silence")


class SmallNetwork:
    """One word's n networks, and the embeddings that they heard last.

    Args:
        arrays: squeeze (n, 96, k), squeeze_bias (n, 1, k), hidden (n, window * k, h),
            hidden_bias (n, 1, h), out (n, h, 1), out_bias (n, 1, 1), silence (96,): the embedding
            of no sound.
    """

    def __init__(self, arrays: dict[str, npt.NDArray[np.float32]]) -> None:
        self._arrays = arrays
        self.window = arrays["hidden"].shape[1] // arrays["squeeze"].shape[2]
        self._silent = self._squeezed(arrays["silence"][None])
        self.reset()

    @classmethod
    def load(cls, path: Path) -> "SmallNetwork":
        """Read a file. Raises OSError, KeyError, ValueError: it cannot be read."""
        with np.load(path) as file:
            return cls({name: file[name].astype(np.float32) for name in _ARRAYS})

    def reset(self) -> None:
        """As after a long silence."""
        self._heard = np.repeat(self._silent, self.window, axis=1)

    def hear(self, embedding: Embeddings) -> float:
        """The probability that the word has just been said. embedding: (96,)."""
        self._heard[:, :-1] = self._heard[:, 1:]
        self._heard[:, -1:] = self._squeezed(embedding[None])
        arrays, n = self._arrays, len(self._heard)
        hidden = self._heard.reshape(n, 1, -1) @ arrays["hidden"] + arrays["hidden_bias"]
        logits = np.maximum(hidden, 0) @ arrays["out"] + arrays["out_bias"]
        return float(1 / (1 + np.exp(-np.clip(logits.mean(), -50, 50))))

    def _squeezed(self, embeddings: Embeddings) -> npt.NDArray[np.float32]:
        squeezed = embeddings @ self._arrays["squeeze"] + self._arrays["squeeze_bias"]
        return np.asarray(np.maximum(squeezed, 0), np.float32)
