"""openWakeWord's front end over whole clips at once, ten times as fast as block by block.

Both of its networks are convolutions in time, so a longer input gives the outputs of all places:
the same numbers as the stream does, to 1e-4.
"""

import ctypes
from typing import Any, Final

import numpy as np

from clients.voice.small_network import Embeddings
from clients.voice.sound import Samples

WINDOW_S = 0.782
"""The first embedding ends so long after the beginning of a clip,"""
STEP_S = 0.08
"""and each following one so much later."""
_MELS = 32


class Features:
    """The two networks, with inputs of any length."""

    def __init__(self) -> None:
        from pyopen_wakeword import OpenWakeWordFeatures

        self._networks: Any = OpenWakeWordFeatures.from_builtin()
        self._lib = self._networks.lib
        self._shapes: dict[int, tuple[int, ...]] = {}

    def of(self, samples: Samples) -> Embeddings:
        """The embeddings of a clip, (n, 96)."""
        mels = self._run(self._networks.mel_interpreter, samples[None].astype(np.float32))
        mels = mels.reshape(1, -1, _MELS, 1) / 10 + 2
        return self._run(self._networks.emb_interpreter, mels).reshape(-1, 96)

    def _run(self, network: Any, given: Any) -> Any:
        lib, given = self._lib, np.ascontiguousarray(given, np.float32)
        if self._shapes.get(network) != given.shape:
            shape = (ctypes.c_int32 * given.ndim)(*given.shape)
            zero = ctypes.c_int32(0)
            _check(lib.TfLiteInterpreterResizeInputTensor(network, zero, shape, given.ndim))
            _check(lib.TfLiteInterpreterAllocateTensors(network))
            self._shapes[network] = given.shape
        entry = lib.TfLiteInterpreterGetInputTensor(network, ctypes.c_int32(0))
        size = ctypes.c_size_t(given.nbytes)
        _check(lib.TfLiteTensorCopyFromBuffer(entry, given.ctypes.data_as(ctypes.c_void_p), size))
        _check(lib.TfLiteInterpreterInvoke(network))
        out = lib.TfLiteInterpreterGetOutputTensor(network, ctypes.c_int32(0))
        found = np.empty(lib.TfLiteTensorByteSize(out) // 4, np.float32)
        size = ctypes.c_size_t(found.nbytes)
        _check(lib.TfLiteTensorCopyToBuffer(out, found.ctypes.data_as(ctypes.c_void_p), size))
        return found


_CHUNK: Final = 1280
_BEFORE: Final = 10
"""Chunks that an embedding is about."""
_PIECE: Final = 500
"""Chunks at once."""


def streamed(chunks: list[Samples]) -> Embeddings:
    """The embedding that the stream gives with each chunk of 80 ms, after seconds of silence."""
    features = Features()
    silence = np.zeros(_BEFORE * _CHUNK, np.int16)
    sound = np.concatenate([silence, *chunks])
    found = []
    for first in range(0, len(chunks), _PIECE):
        n = min(_PIECE, len(chunks) - first)
        begin = first * _CHUNK  # the stream is a tenth of a second late
        found.append(features.of(sound[begin : begin + (n + _BEFORE) * _CHUNK])[:n])
    return np.concatenate(found) if found else np.zeros((0, 96), np.float32)


def _check(status: int) -> None:
    if status:
        raise RuntimeError(f"TensorFlow Lite says {status}")
