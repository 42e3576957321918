"""Guessed tokens: what is guessed, and that answers do not depend on it."""

from pathlib import Path

import pytest

from engine.generate import Engine
from engine.lookup import MAX_GUESS, MIN_GUESS, PromptLookup
from engine.sampler import SamplingParams

PASSAGE = (
    "The lighthouse keeper, Ada Merrow, kept a ledger of every ship that passed the northern "
    "reef between 1871 and 1893. She wrote down the name, the flag and the hour of each."
)
QUOTE = [{"role": "user", "content": f"Repeat this text exactly, word for word:\n\n{PASSAGE}"}]


def test_the_latest_continuation_is_guessed() -> None:
    lookup = PromptLookup([1, 2, 3, 4, 5, 9, 1, 2, 3, 6, 7, 8, 1, 2, 3])
    assert lookup.guess(10) == [6, 7, 8]
    assert lookup.guess(1) == [6]
    assert lookup.guess(0) == []


def test_nothing_is_guessed_without_a_repetition() -> None:
    assert PromptLookup(range(50)).guess(5) == []
    assert PromptLookup([]).guess(5) == []


def test_guesses_grow_when_right_and_pause_when_wrong() -> None:
    lookup = PromptLookup(list(range(40)) * 2)
    assert len(lookup.guess(99)) == MIN_GUESS
    for _ in range(5):
        lookup.learn(3, 3)
    assert len(lookup.guess(99)) == MAX_GUESS
    lookup.learn(15, 0)
    assert lookup.guess(99) == []
    for token in range(2):
        lookup.append(token)
    assert len(lookup.guess(99)) == MIN_GUESS


@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(temperature=0, max_tokens=70),
        SamplingParams(temperature=0, max_tokens=70, repeat_penalty=1.1),
        SamplingParams(temperature=0.8, seed=3, max_tokens=70),
        SamplingParams(temperature=0, max_tokens=70, stop=("reef",)),
    ],
    ids=["greedy", "penalty", "sampled", "stop"],
)
def test_the_same_answer_with_and_without(smollm2_path: Path, params: SamplingParams) -> None:
    """Bit for bit: logits do not depend on the batch, and a seed draws once for every token."""
    answers, passes = [], []
    for prompt_lookup in (False, True):
        engine = Engine.load(smollm2_path, n_threads=2, kv_tokens=1024, prompt_lookup=prompt_lookup)
        sequence = engine.start(engine.chat.encode(QUOTE), params)
        text, n = "", 0
        while engine.n_active:
            n += 1
            text += "".join(output.text for output in engine.step())
        answers.append((text, sequence.completion_ids, sequence.finish_reason))
        passes.append(n)
        if prompt_lookup and params.temperature == 0 and params.repeat_penalty == 1.0:
            assert engine.guesses_right > 0
            assert passes[1] < passes[0]
        engine.close()
    assert answers[0] == answers[1]


def test_guesses_and_neighbours(smollm2_path: Path) -> None:
    """Several quoting sequences at once: more guesses than outputs a pass can look at."""
    engine = Engine.load(smollm2_path, n_threads=2, kv_tokens=4096)
    params = SamplingParams(temperature=0, max_tokens=40)
    alone = "".join(engine.generate(engine.chat.encode(QUOTE), params))
    sequences = [engine.start(engine.chat.encode(QUOTE), params) for _ in range(5)]
    texts = {id(sequence): "" for sequence in sequences}
    while engine.n_active:
        for output in engine.step():
            texts[id(output.sequence)] += output.text
    assert set(texts.values()) == {alone}
    engine.close()
