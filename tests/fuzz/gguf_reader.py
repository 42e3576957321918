"""The GGUF reader: from the header to the plan, the tokenizer and the template; then a real pass.

A file is refused with an EngineError that says why, or it is used. Of those that are used, one in
eight is loaded and answers: its weights go through the compiled kernels.
"""

import random
import zlib

from engine import native
from engine.chat import ChatTemplate
from engine.config import read_config
from engine.errors import EngineError
from engine.generate import Engine
from engine.gguf import open_gguf
from engine.info import describe
from engine.kv_disk import fingerprint
from engine.plan import Planner, Settings
from engine.sampler import SamplingParams
from engine.tokenizer import load_tokenizer
from tests.fuzz.target import FileOf, Mutate, Target
from tests.hostile import parts, small

MESSAGES = [{"role": "user", "content": "the hello 12 <|im_end|>"}]
LOADED_OF = 8


def one(data: bytes) -> str:
    with FileOf(data) as path:
        try:
            describe(path)
            used = True
        except EngineError as error:
            check_message(error)
            used = False
        try:
            with open_gguf(path) as file:
                for tensor in file.tensors.values():
                    assert 0 <= tensor.offset <= tensor.offset + tensor.n_bytes <= file.size
                    raw = file.tensor_bytes(tensor.name)
                    assert raw.nbytes == tensor.n_bytes
                config = read_config(file)
                planner = Planner(file, config, 1 << 26, Settings(2, 2048))
                for budget in (None, 1 << 40, 1 << 28, 1 << 20):
                    try:
                        plan = planner.plan(budget)
                        assert budget is None or plan.total <= budget
                    except EngineError as error:
                        check_message(error)
                fingerprint(file, "f16", 4096)
                tokenizer = load_tokenizer(file.metadata)
                ids = tokenizer.encode("hello the\n\x00 한 <|im_end|>", parse_special=True)
                assert all(0 <= token < tokenizer.vocab_size for token in ids)
                tokenizer.decode(ids)
                chat = ChatTemplate.from_metadata(file.metadata, tokenizer)
                chat.encode(MESSAGES)
            assert used, "it is used, but could not be described"
            if zlib.crc32(data) % LOADED_OF == 0:
                answer(path)
        except EngineError as error:
            check_message(error)
            return str(error)
    return "used"


def answer(path: object) -> None:
    """Load the model and have it say something."""
    engine = Engine.load(path, n_threads=2, kv_tokens=256, budget=1 << 30)  # type: ignore[arg-type]
    try:
        prompt = engine.chat.encode(MESSAGES) or [0]
        for _text in engine.generate(prompt[:64], SamplingParams(max_tokens=3, seed=1)):
            pass
    finally:
        engine.close()


def check_message(error: EngineError) -> None:
    """It can be shown: not empty, not long, and without what a terminal would act on."""
    text = str(error)
    assert text.strip() and len(text) < 4000, len(text)
    assert all(letter.isprintable() or letter == "\n" for letter in text), text


def mutate(data: bytes, longest: int, seed: int, generic: Mutate) -> bytes:
    rng = random.Random(seed)
    if rng.random() < 0.85:
        new = parts.mutate(data, seed, rng.choice((1, 1, 1, 2, 4)))
        if new is not None:
            return new[:longest]
    return generic(data, longest)


TARGET = Target("gguf", one, small.seeds, mutate, longest=1 << 15, prepare=native.warm)
