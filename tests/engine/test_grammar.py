"""JSON answers: whatever is drawn, the result parses and satisfies the schema."""

import json
from pathlib import Path

import numpy as np
import pytest

from engine.errors import GrammarError
from engine.gguf import open_gguf
from engine.grammar import Constraint
from engine.sampler import Sampler, SamplingParams
from engine.tokenizer import Tokenizer, load_tokenizer

SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 3},
    },
    "required": ["name", "age", "tags"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def tokenizer(smollm2_path: Path) -> Tokenizer:
    with open_gguf(smollm2_path) as file:
        return load_tokenizer(file.metadata)


def draw(tokenizer: Tokenizer, grammar: str | dict[str, object], seed: int, limit: int) -> str:
    """Draw tokens from noise until the end; the vocabulary is padded, as in many files."""
    size = tokenizer.vocab_size + 64
    rng = np.random.default_rng(seed)
    params = SamplingParams(temperature=1.0, seed=seed, top_k=0, top_p=1.0, min_p=0.0)
    sampler = Sampler(params, size, [], Constraint(tokenizer, grammar))
    ids: list[int] = []
    for _ in range(limit):
        token = sampler.sample(rng.normal(0, 1, size).astype(np.float32))
        assert token < tokenizer.vocab_size
        if token in tokenizer.eog_ids:
            break
        sampler.accepted(token)
        ids.append(token)
    return tokenizer.decode(ids)


@pytest.mark.parametrize("seed", range(8))
def test_schema(tokenizer: Tokenizer, seed: int) -> None:
    value = json.loads(draw(tokenizer, SCHEMA, seed, 400))
    assert set(value) == {"name", "age", "tags"}
    assert isinstance(value["name"], str) and len(value["name"]) <= 12
    assert isinstance(value["age"], int) and 0 <= value["age"] <= 150
    assert len(value["tags"]) <= 3 and set(value["tags"]) <= {"a", "b"}


def test_any_json_may_be_cut_but_is_not_wrong(tokenizer: Tokenizer) -> None:
    text = draw(tokenizer, "json", 3, 40)
    assert text[0] in '{["-0123456789tfn'


@pytest.mark.parametrize("schema", [{"type": "nonsense"}, {"pattern": "(", "type": "string"}])
def test_a_wrong_schema_is_told(tokenizer: Tokenizer, schema: dict[str, object]) -> None:
    with pytest.raises(GrammarError, match="schema cannot be used"):
        Constraint(tokenizer, schema)
