"""llama.cpp, by the C functions of llama-cpp-python: what this engine is measured beside."""

import ctypes
from pathlib import Path

import numpy as np
import numpy.typing as npt


class Theirs:
    """A model of llama.cpp's, with the settings that the comparisons need.

    Raises:
        SystemExit: llama.cpp cannot open the file, or decode.
    """

    def __init__(self, path: Path, n_threads: int, n_context: int, *, repack: bool = True) -> None:
        import llama_cpp

        self.api = llama_cpp
        self._silence = llama_cpp.llama_log_callback(lambda level, text, data: None)
        llama_cpp.llama_log_set(self._silence, ctypes.c_void_p(0))
        settings = llama_cpp.llama_model_default_params()
        settings.use_extra_bufts = repack
        model = llama_cpp.llama_model_load_from_file(str(path).encode(), settings)
        params = llama_cpp.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch = n_context, 512, 512
        params.n_threads = params.n_threads_batch = n_threads
        self.context = llama_cpp.llama_init_from_model(model, params)
        if not self.context:
            raise SystemExit(f"llama.cpp cannot open {path}")
        self.vocab_size = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))

    def reset(self) -> None:
        """Forget all tokens."""
        self.api.llama_memory_clear(self.api.llama_get_memory(self.context), True)

    def eval(self, tokens: list[int]) -> None:
        """Compute tokens, with the last one's logits."""
        for start in range(0, len(tokens), 512):
            part = tokens[start : start + 512]
            array = (self.api.llama_token * len(part))(*part)
            self._decode(self.api.llama_batch_get_one(array, len(part)))

    def logits(self, tokens: list[int]) -> npt.NDArray[np.float32]:
        """(T, vocab_size) f32 of at most 512 tokens from the start."""
        self.reset()
        batch = self.api.llama_batch_init(len(tokens), 0, 1)
        batch.n_tokens = len(tokens)
        for i, token in enumerate(tokens):
            batch.token[i], batch.pos[i] = token, i
            batch.n_seq_id[i], batch.seq_id[i][0], batch.logits[i] = 1, 0, 1
        self._decode(batch)
        pointer = self.api.llama_get_logits(self.context)
        logits = np.ctypeslib.as_array(pointer, (len(tokens), self.vocab_size)).copy()
        self.api.llama_batch_free(batch)
        return logits

    def _decode(self, batch: object) -> None:
        if self.api.llama_decode(self.context, batch):
            raise SystemExit("llama.cpp failed to decode")
        self.api.llama_synchronize(self.context)
