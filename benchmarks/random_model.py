"""Write a model of a known shape with random weights: speed and memory need no others.

    python -m benchmarks.random_model 1.1B Q4_0 FILE.gguf

Needs the `gguf` package (extra [dev]). Weights are random codes under scales that keep the
activations finite; the vocabulary is of invented words, so that any GGUF program opens the file.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from gguf import GGMLQuantizationType, GGUFWriter
from gguf.constants import GGML_QUANT_SIZES

SHAPES = {  # n_layers, dim, hidden_dim, n_heads, n_kv_heads, vocab_size
    "1.1B": (22, 2048, 5632, 32, 4, 32000),  # TinyLlama
    "7B": (32, 4096, 11008, 32, 32, 32000),  # LLaMA 2
    "13B": (40, 5120, 13824, 40, 40, 32000),
}
TYPES = ("Q4_0", "Q4_1", "Q8_0")


def random_blocks(
    rng: np.random.Generator, kind: GGMLQuantizationType, rows: int, cols: int
) -> npt.NDArray[np.uint8]:
    """(rows, row_bytes) u8 of blocks whose weights have a deviation of about cols ** -0.5."""
    size, n_bytes = GGML_QUANT_SIZES[kind]
    raw = rng.integers(0, 256, (rows * cols // size, n_bytes), dtype=np.uint8)
    deviation = 74.0 if kind.name == "Q8_0" else 4.6  # of uniform codes
    d = np.float16(cols**-0.5 / deviation)
    raw[:, 0:2] = np.array([d]).view(np.uint8)
    if kind.name == "Q4_1":
        raw[:, 2:4] = np.array([np.float16(-7.5) * d]).view(np.uint8)
    return raw.reshape(rows, -1)


def tensors(shape: tuple[int, ...]) -> Iterator[tuple[str, int, int]]:
    """Name, rows and columns of every matrix, in file order."""
    n_layers, dim, hidden_dim, n_heads, n_kv_heads, vocab_size = shape
    kv_dim = dim // n_heads * n_kv_heads
    yield "token_embd", vocab_size, dim
    for i in range(n_layers):
        yield f"blk.{i}.attn_q", dim, dim
        yield f"blk.{i}.attn_k", kv_dim, dim
        yield f"blk.{i}.attn_v", kv_dim, dim
        yield f"blk.{i}.attn_output", dim, dim
        yield f"blk.{i}.ffn_gate", hidden_dim, dim
        yield f"blk.{i}.ffn_up", hidden_dim, dim
        yield f"blk.{i}.ffn_down", dim, hidden_dim
    yield "output", vocab_size, dim


def write(path: Path, name: str, kind: GGMLQuantizationType, context: int = 8192) -> None:
    """Write the model; tensors are held in memory one at a time."""
    shape = SHAPES[name]
    n_layers, dim, hidden_dim, n_heads, n_kv_heads, vocab_size = shape
    rng = np.random.default_rng(0)
    part = path.with_suffix(".part")
    writer = GGUFWriter(part, "llama")
    writer.add_name(f"random-{name}")
    writer.add_block_count(n_layers)
    writer.add_context_length(context)
    writer.add_embedding_length(dim)
    writer.add_feed_forward_length(hidden_dim)
    writer.add_head_count(n_heads)
    writer.add_head_count_kv(n_kv_heads)
    writer.add_rope_dimension_count(dim // n_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("llama")
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256))]
    pieces += [f"w{i}" for i in range(vocab_size - len(pieces))]
    writer.add_token_list(pieces)
    writer.add_token_scores([-float(i) for i in range(len(pieces))])
    writer.add_token_types([2, 3, 3, *[6] * 256, *[1] * (len(pieces) - 259)])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    norms = [f"blk.{i}.{which}_norm" for i in range(n_layers) for which in ("attn", "ffn")]
    for norm in [*norms, "output_norm"]:
        writer.add_tensor_info(f"{norm}.weight", (dim,), np.dtype(np.float32), 4 * dim)
    size, n_bytes = GGML_QUANT_SIZES[kind]
    for tensor, rows, cols in tensors(shape):
        row_bytes = cols // size * n_bytes
        writer.add_tensor_info(
            f"{tensor}.weight", (rows, row_bytes), np.dtype(np.uint8), rows * row_bytes, kind
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for _ in [*norms, "output_norm"]:
        writer.write_tensor_data(np.ones(dim, np.float32))
    for tensor, rows, cols in tensors(shape):
        if sys.stderr.isatty():
            print(f"\r{tensor:24}", end="", file=sys.stderr)
        writer.write_tensor_data(random_blocks(rng, kind, rows, cols))
    writer.close()
    part.replace(path)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("type", choices=TYPES)
    parser.add_argument("file", type=Path)
    args = parser.parse_args()
    write(args.file, args.shape, GGMLQuantizationType[args.type])


if __name__ == "__main__":
    main()
