"""Run a Model directly, without tokenizer or scheduler: tokens in, all logits out."""

from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt

from engine.config import read_config
from engine.gguf import open_gguf
from engine.kv_cache import KVCache
from engine.runner import Model
from engine.weights import Weights


class Runner:
    """A model with one sequence."""

    def __init__(
        self, path: Path, *, n_threads: int = 2, max_rows: int = 64, kv_type: str = "f16"
    ) -> None:
        self.file = open_gguf(path)
        self.config = read_config(self.file)
        self.max_rows = max_rows
        self.weights = Weights(self.file, self.config, n_threads, max_rows)
        self.model = Model(
            self.config,
            self.weights,
            max_rows=max_rows,
            max_outputs=max_rows,
            max_context=2048,
            n_threads=n_threads,
        )
        self.cache = KVCache(self.config, 2048, kv_type)

    def logits(self, tokens: list[int], *, chunk: int | None = None) -> npt.NDArray[np.float32]:
        """Logits after every token, (n_tokens, vocab_size), computed `chunk` tokens at a time."""
        self.cache.clear()
        sequence = self.cache.open(tokens[:1])
        parts = []
        chunk = chunk or self.max_rows
        for start in range(0, len(tokens), chunk):
            part = np.array(tokens[start : start + chunk], np.int32)
            sequence.reserve(start + len(part))
            parts.append(
                self.model.forward(
                    part,
                    np.arange(start, start + len(part), dtype=np.int32),
                    np.zeros(len(part), np.int32),
                    sequence.page_table[None],
                    np.arange(len(part), dtype=np.int32),
                    self.cache,
                ).copy()
            )
            sequence.extend(part.tolist())
        sequence.close()
        return np.concatenate(parts)

    def __enter__(self) -> "Runner":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.model.close()
        self.weights.close()
        self.file.close()
