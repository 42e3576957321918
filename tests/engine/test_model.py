"""The forward pass against the oracle: float32 numpy over dequantized weights (oracle.py).

Errors are the root of the mean squared difference over the standard deviation of the oracle's
logits. Int8 activations carry a relative rounding error of about 0.5 % per matrix: a step is
peak/127, its error 1/√12 of that, and the peak of 32 values about 2.2 times their rms. Over the
matrices of two layers these add to 1–3 %. Against an oracle that rounds activations the same way,
tokens agree to float32 precision, but for those in which some activation falls on the other side
of a rounding step, which then counts like the rounding itself.
"""

from pathlib import Path

import numpy as np
import pytest

from engine.kernels import CHUNK
from tests.engine.oracle import Oracle, log_softmax, perplexity
from tests.engine.running import Runner
from tests.engine.tiny_models import PIECES, Spec, Type, write_model

INT8_TOLERANCE = 0.04  # of a model with two layers, against plain float32
F16_CACHE_TOLERANCE = 1e-3  # of weights in a float type: only the cache is rounded
SAME_ROUNDING_TOLERANCE = 0.02  # against the oracle with the engine's roundings, int8 types
FLOAT_TOLERANCE = 1e-4  # the same where no activation is rounded
UNFLIPPED_TOLERANCE = 1e-5  # of the closest token: one in which no rounding fell differently

TYPES = [
    Type.F32,
    Type.F16,
    Type.BF16,
    Type.Q8_0,
    Type.Q4_0,
    Type.Q4_1,
    Type.Q5_0,
    Type.Q5_1,
    Type.Q4_K,
    Type.Q5_K,
    Type.Q6_K,
]


def relative_error(got: np.ndarray, expected: np.ndarray) -> float:
    return float(np.sqrt(np.mean((got - expected) ** 2)) / np.std(expected))


def check(path: Path, n_tokens: int = 23) -> None:
    oracle = Oracle(path)
    rng = np.random.default_rng(1)
    vocab_size = oracle.weights["token_embd.weight"].shape[0]
    tokens = rng.integers(0, vocab_size, n_tokens).tolist()
    with Runner(path) as runner:
        got = runner.logits(tokens)
    plain = oracle.logits(tokens)
    is_float = not any("attn_q" in name for name in oracle.quantized)
    assert relative_error(got, plain) < (F16_CACHE_TOLERANCE if is_float else INT8_TOLERANCE)
    oracle.int8_activations = oracle.f16_cache = True
    same = oracle.logits(tokens)
    assert relative_error(got, same) < (FLOAT_TOLERANCE if is_float else SAME_ROUNDING_TOLERANCE)
    errors = [relative_error(g, s) for g, s in zip(got, same, strict=True)]
    assert min(errors) < UNFLIPPED_TOLERANCE


@pytest.mark.parametrize("kind", TYPES, ids=lambda kind: kind.name)
def test_every_tensor_type(tmp_path: Path, kind: Type) -> None:
    check(write_model(tmp_path / "m.gguf", Spec(type=kind)))


@pytest.mark.parametrize("kind", [Type.Q4_1, Type.F32], ids=lambda kind: kind.name)
@pytest.mark.parametrize(
    ("n_heads", "n_kv_heads", "head_dim"),
    [(8, 8, 32), (8, 1, 32), (9, 3, 64), (4, 2, 100), (6, 2, 20)],
)
def test_every_head_shape(
    tmp_path: Path, kind: Type, n_heads: int, n_kv_heads: int, head_dim: int
) -> None:
    spec = Spec(type=kind, n_heads=n_heads, n_kv_heads=n_kv_heads, head_dim=head_dim)
    if (n_heads * head_dim) % 32 and kind is not Type.F32:
        spec.type = Type.F16  # rows of a quantized type are multiples of 32 long
    check(write_model(tmp_path / "m.gguf", spec))


@pytest.mark.parametrize(
    "spec",
    [
        Spec(type=Type.Q4_0, tied=True),
        Spec(type=Type.Q4_0, biases=True),
        Spec(type=Type.Q4_0, extra={"llama.rope.freq_base": 500000.0}),
        Spec(
            type=Type.F32,
            extra={"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0},
        ),
        Spec(type=Type.F32, rope_factors=True),
        Spec(type=Type.Q8_0, dim=288, hidden_dim=352, n_heads=9, n_kv_heads=3, vocab_size=301),
        Spec(type=Type.F32, n_heads=4, n_kv_heads=2, head_dim=21, rope_dim=20),
        Spec(type=Type.F32, dim=50, hidden_dim=77, n_heads=5, n_kv_heads=5, head_dim=10),
    ],
    ids=[
        "tied",
        "biases",
        "rope-base",
        "rope-linear",
        "rope-factors",
        "odd-rows",
        "odd-head",
        "odd-cols",
    ],
)
def test_every_variant(tmp_path: Path, spec: Spec) -> None:
    check(write_model(tmp_path / "m.gguf", spec))


@pytest.mark.parametrize("kind", [Type.Q4_0, Type.Q6_K, Type.F16], ids=lambda kind: kind.name)
def test_a_token_does_not_depend_on_its_batch(tmp_path: Path, kind: Type) -> None:
    """The same bits whether tokens come one by one or together, on one thread or three."""
    path = write_model(tmp_path / "m.gguf", Spec(type=kind, vocab_size=301))
    tokens = np.random.default_rng(2).integers(0, 301, 41).tolist()
    with Runner(path, n_threads=1) as runner:
        one_by_one = runner.logits(tokens, chunk=1)
        sevens = runner.logits(tokens, chunk=7)
    with Runner(path, n_threads=3) as runner:
        together = runner.logits(tokens)
    assert np.array_equal(one_by_one, together)
    assert np.array_equal(sevens, together)


def test_long_context_crosses_pages(tmp_path: Path) -> None:
    check(write_model(tmp_path / "m.gguf", Spec(type=Type.F16, n_layers=1)), n_tokens=150)


def test_attention_over_several_chunks(tmp_path: Path) -> None:
    """More positions than attention takes at a time, computed alone and in blocks of rows."""
    path = write_model(tmp_path / "m.gguf", Spec(type=Type.F16, n_layers=1, context=1024))
    tokens = np.random.default_rng(3).integers(0, len(PIECES), 2 * CHUNK + 75).tolist()
    with Runner(path, n_threads=3) as runner:
        together = runner.logits(tokens)
        one_by_one = runner.logits(tokens, chunk=1)
        threes = runner.logits(tokens, chunk=3)
    oracle = Oracle(path, f16_cache=True)
    assert relative_error(together, oracle.logits(tokens)) < FLOAT_TOLERANCE
    assert np.array_equal(one_by_one, together)
    assert np.array_equal(threes, together)


@pytest.mark.parametrize(("n_heads", "n_kv_heads", "head_dim"), [(9, 3, 64), (4, 1, 20)])
def test_byte_cache(tmp_path: Path, n_heads: int, n_kv_heads: int, head_dim: int) -> None:
    """Keys and values as bytes: an error of 1/127 of the peak of each, as for activations."""
    spec = Spec(type=Type.F32, n_heads=n_heads, n_kv_heads=n_kv_heads, head_dim=head_dim)
    path = write_model(tmp_path / "m.gguf", spec)
    tokens = np.random.default_rng(4).integers(0, len(PIECES), 150).tolist()
    with Runner(path, kv_type="q8") as runner:
        got = runner.logits(tokens)
        one_by_one = runner.logits(tokens, chunk=1)
    assert relative_error(got, Oracle(path).logits(tokens)) < INT8_TOLERANCE
    assert np.array_equal(one_by_one, got)


# --- the real model ------------------------------------------------------------------------------

TEXT = (Path(__file__).parent.parent / "data" / "prose.txt").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def real_tokens(smollm2_path: Path) -> list[int]:
    from engine.gguf import open_gguf
    from engine.tokenizer import load_tokenizer

    with open_gguf(smollm2_path) as file:
        return load_tokenizer(file.metadata).encode(TEXT)


def test_smollm2_logits_and_perplexity(smollm2_path: Path, real_tokens: list[int]) -> None:
    """On real text: close logits, the same favourite token, perplexity within 1 %."""
    tokens = real_tokens[:512]
    expected = Oracle(smollm2_path).logits(tokens)
    with Runner(smollm2_path) as runner:
        got = runner.logits(tokens)
    # the share of divergence that int8 causes: mean KL(oracle ‖ engine), in nats
    p, q = log_softmax(expected), log_softmax(got)
    divergence = float(np.mean(np.sum(np.exp(p) * (p - q), axis=-1)))
    agreement = float(np.mean(got.argmax(-1) == expected.argmax(-1)))
    ours, theirs = perplexity(got, tokens), perplexity(expected, tokens)
    print(
        f"SmolLM2 Q4_1, {len(tokens)} tokens: perplexity {ours:.4f}, oracle {theirs:.4f} "
        f"({100 * (ours / theirs - 1):+.2f} %); mean KL {divergence:.5f} nats; "
        f"same favourite {100 * agreement:.1f} %; "
        f"logits off by {100 * relative_error(got, expected):.2f} % of their spread"
    )
    assert abs(ours / theirs - 1) < 0.01
    assert divergence < 0.01
    assert agreement > 0.95
    assert relative_error(got, expected) < 0.05


def test_smollm2_with_a_byte_cache(smollm2_path: Path, real_tokens: list[int]) -> None:
    tokens = real_tokens[:400]
    with Runner(smollm2_path) as runner:
        half = runner.logits(tokens)
    with Runner(smollm2_path, kv_type="q8") as runner:
        byte = runner.logits(tokens)
    assert abs(perplexity(byte, tokens) / perplexity(half, tokens) - 1) < 0.01


def test_smollm2_greedy_continuation(smollm2_path: Path, real_tokens: list[int]) -> None:
    """Greedy tokens are the oracle's, up to a first choice that was a near tie for the oracle."""
    tokens = real_tokens[:48]
    oracle = Oracle(smollm2_path)
    with Runner(smollm2_path) as runner:
        ours = list(tokens)
        for _ in range(24):
            ours.append(int(runner.logits(ours)[-1].argmax()))
    theirs = oracle.logits(ours)
    for i in range(len(tokens), len(ours)):
        logits = theirs[i - 1]
        gap = float(logits.max() - logits[ours[i]])
        assert gap < 0.35, f"token {i}: the oracle prefers {logits.argmax()} by {gap:.3f} logits"
    same = sum(int(theirs[i - 1].argmax()) == ours[i] for i in range(len(tokens), len(ours)))
    assert same >= 22
