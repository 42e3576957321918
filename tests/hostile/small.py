"""Sound models of a few kilobytes, to be damaged: written by parts.py alone."""

import random

import numpy as np

from engine.formats import TensorType
from engine.tokenizer.bpe import BYTE_CHARS
from tests.hostile.parts import (
    ARRAY,
    STRING,
    Array,
    Entry,
    Parts,
    TensorEntry,
    numbers,
    scalar,
    strings,
    text,
)

U32, I32, F32, BOOL = 4, 5, 6, 7
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def bpe_keys(*, pre: str = "smollm") -> list[Entry]:
    """A byte-level vocabulary: all bytes, a few merges, two markers."""
    letters = [BYTE_CHARS[byte] for byte in range(256)]
    merges = ["t h", "th e", "Ġ the", "a a", "aa aa", "aaaa aaaa", "e r", "1 2", "í ķ"]
    tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *letters]
    tokens += [merge.replace(" ", "") for merge in merges] + ["hello", "   "]
    types = [3, 3, 3, *[1] * (len(tokens) - 4), 4]
    return [
        Entry(b"tokenizer.ggml.model", STRING, text(b"gpt2")),
        Entry(b"tokenizer.ggml.pre", STRING, text(pre.encode())),
        Entry(b"tokenizer.ggml.tokens", ARRAY, strings(tokens)),
        Entry(b"tokenizer.ggml.token_type", ARRAY, numbers(I32, types)),
        Entry(b"tokenizer.ggml.merges", ARRAY, strings(merges)),
        Entry(b"tokenizer.ggml.bos_token_id", U32, scalar(U32, 1)),
        Entry(b"tokenizer.ggml.eos_token_id", U32, scalar(U32, 2)),
        Entry(b"tokenizer.ggml.add_bos_token", BOOL, b"\0"),
        Entry(b"tokenizer.chat_template", STRING, text(TEMPLATE.encode())),
    ]


def spm_keys() -> list[Entry]:
    """A SentencePiece vocabulary."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256))]
    pieces += ["▁", "e", "t", "▁t", "h", "▁th", "▁the", "a", "▁a", "aa", "<|x|>", "<|im_end|>"]
    types = [2, 3, 3, *[6] * 256, *[1] * 10, 4, 3]
    scores = [-float(i) for i in range(len(pieces))]
    return [
        Entry(b"tokenizer.ggml.model", STRING, text(b"llama")),
        Entry(b"tokenizer.ggml.tokens", ARRAY, strings(pieces)),
        Entry(b"tokenizer.ggml.scores", ARRAY, numbers(F32, scores)),
        Entry(b"tokenizer.ggml.token_type", ARRAY, numbers(I32, types)),
        Entry(b"tokenizer.ggml.bos_token_id", U32, scalar(U32, 1)),
        Entry(b"tokenizer.ggml.eos_token_id", U32, scalar(U32, 2)),
        Entry(b"tokenizer.ggml.unknown_token_id", U32, scalar(U32, 0)),
    ]


def model(
    vocabulary: list[Entry],
    kind: TensorType = TensorType.F32,
    *,
    dim: int = 4,
    n_heads: int = 1,
    n_kv_heads: int = 1,
    n_layers: int = 1,
    hidden_dim: int = 0,
    seed: int = 0,
) -> Parts:
    """A model that can be run, with small random weights."""
    tokens = next(e for e in vocabulary if e.key == b"tokenizer.ggml.tokens").value
    assert not isinstance(tokens, bytes)
    hidden_dim = hidden_dim or dim
    entries = [
        Entry(b"general.architecture", STRING, text(b"llama")),
        Entry(b"general.name", STRING, text(b"small")),
        *(
            Entry(f"llama.{key}".encode(), U32, scalar(U32, value))
            for key, value in {
                "block_count": n_layers,
                "context_length": 512,
                "embedding_length": dim,
                "feed_forward_length": hidden_dim,
                "attention.head_count": n_heads,
                "attention.head_count_kv": n_kv_heads,
                "rope.dimension_count": dim // n_heads,
            }.items()
        ),
        Entry(b"llama.attention.layer_norm_rms_epsilon", F32, scalar(F32, 1e-5)),
        Entry(b"llama.rope.freq_base", F32, scalar(F32, 10000.0)),
        *vocabulary,
    ]
    kv_dim = dim // n_heads * n_kv_heads
    matrices = {
        "attn_q": (dim, dim),
        "attn_k": (kv_dim, dim),
        "attn_v": (kv_dim, dim),
        "attn_output": (dim, dim),
        "ffn_gate": (hidden_dim, dim),
        "ffn_up": (hidden_dim, dim),
        "ffn_down": (dim, hidden_dim),
    }
    wanted = [("token_embd.weight", (len(tokens.items), dim), kind)]
    for layer in range(n_layers):
        for norm in ("attn_norm", "ffn_norm"):
            wanted.append((f"blk.{layer}.{norm}.weight", (dim,), TensorType.F32))
        for name, shape in matrices.items():
            wanted.append((f"blk.{layer}.{name}.weight", shape, kind))
    wanted.append(("output_norm.weight", (dim,), TensorType.F32))
    rng, data, tensors = random.Random(seed), bytearray(), []
    for name, shape, of in wanted:
        data += bytes(-len(data) % 32)
        tensors.append(TensorEntry(name.encode(), list(reversed(shape)), int(of), len(data)))
        data += _weights(rng, of, int(np.prod(shape)))
    return Parts(entries, tensors, bytes(data))


def _weights(rng: random.Random, kind: TensorType, n: int) -> bytes:
    if kind == TensorType.F32:
        return np.array([rng.gauss(0, 0.5) for _ in range(n)], np.float32).tobytes()
    if kind == TensorType.F16:
        return np.array([rng.gauss(0, 0.5) for _ in range(n)], np.float16).tobytes()
    n_blocks = n // kind.block_size
    scale = np.float16(0.05).tobytes()  # comes first in the blocks used here
    rest = kind.block_bytes - len(scale)
    return b"".join(scale + rng.randbytes(rest) for _ in range(n_blocks))


def seeds() -> dict[str, bytes]:
    """What is damaged."""
    return {
        "bpe-f32": model(bpe_keys()).build(),
        "bpe-llama3": model(bpe_keys(pre="llama-bpe"), TensorType.F16, n_layers=2).build(),
        "spm-f32": model(spm_keys()).build(),
        "spm-q4_0": model(spm_keys(), TensorType.Q4_0, dim=32, n_heads=2, n_kv_heads=1).build(),
        "bpe-q8_0": model(bpe_keys(), TensorType.Q8_0, dim=32, n_heads=2).build(),
        "bare": Parts([], [], b"").build(),
    }


def parts_of_zeros(n: int) -> Array:
    """An array of n bytes, in one piece."""
    return Array(0, [bytes(n)], n)
