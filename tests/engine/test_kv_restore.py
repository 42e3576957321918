"""The KV cache on disk under the real model: the same words, and less to compute."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from engine.errors import PromptTooLongError
from engine.generate import Engine, Phase
from engine.kv_disk import DATA_NAME, INDEX_NAME
from engine.sampler import SamplingParams

GREEDY = SamplingParams(temperature=0, max_tokens=12)
TOPICS = ("rivers", "bread", "the moon", "bees")


def load(path: Path, folder: Path | None, kv_tokens: int = 1024, disk: int = 1 << 28) -> Engine:
    return Engine.load(path, n_threads=2, kv_tokens=kv_tokens, kv_dir=folder, kv_disk_bytes=disk)


class Talks:
    """Several conversations that alternate; `cached` is what each turn found."""

    def __init__(self) -> None:
        self.histories: dict[str, list[dict[str, str]]] = {topic: [] for topic in TOPICS}
        self.cached: list[int] = []
        self.prompts: list[int] = []

    def turn(self, engine: Engine, number: int) -> None:
        for topic, history in self.histories.items():
            text = f"Turn {number} about {topic}. " + f"I like {topic} very much. " * 15
            history.append({"role": "user", "content": text})
            prompt = engine.chat.encode(history)
            sequence = engine.start(prompt, GREEDY)
            self.cached.append(sequence.n_cached)
            self.prompts.append(len(prompt))
            answer = ""
            while sequence.phase is not Phase.FINISHED:
                answer += "".join(output.text for output in engine.step())
            history.append({"role": "assistant", "content": answer})


@pytest.fixture(scope="module")
def expected(smollm2_path: Path) -> dict[str, list[dict[str, str]]]:
    """What is said with room for all, and no disk."""
    engine = load(smollm2_path, None, kv_tokens=8192)
    talks = Talks()
    for number in range(3):
        talks.turn(engine, number)
    engine.close()
    return talks.histories


def test_conversations_that_take_turns_in_a_small_cache(
    smollm2_path: Path, tmp_path: Path, expected: dict[str, list[dict[str, str]]]
) -> None:
    engine = load(smollm2_path, tmp_path, kv_tokens=512)
    talks = Talks()
    for number in range(3):
        talks.turn(engine, number)
    engine.close()
    assert talks.histories == expected
    # all four need twice the memory there is, and yet each finds its turns before
    assert all(cached > 80 for cached in talks.cached[4:])
    assert (tmp_path / DATA_NAME).stat().st_size > 0


def test_the_limit_is_lowered_between_turns(
    smollm2_path: Path, tmp_path: Path, expected: dict[str, list[dict[str, str]]]
) -> None:
    engine = load(smollm2_path, tmp_path)
    talks = Talks()
    talks.turn(engine, 0)
    sequence = engine.start(engine.tokenizer.encode("One, two, three, four, five"), GREEDY)
    held = engine.limit_kv(16)
    assert held == 32  # what was set aside for the sequence is more
    while sequence.phase is not Phase.FINISHED:
        engine.step()
    assert engine.memory()["kv_used"] <= engine.plan.owners["kv_cache"] // 64
    with pytest.raises(PromptTooLongError):
        engine.start([1] * 100, GREEDY)
    assert engine.limit_kv(512) == engine.context_length == 512
    for number in range(1, 3):
        talks.turn(engine, number)
    engine.close()
    assert talks.histories == expected


def test_the_next_process_goes_on(
    smollm2_path: Path, tmp_path: Path, expected: dict[str, list[dict[str, str]]]
) -> None:
    talks = Talks()
    for number in range(3):
        engine = load(smollm2_path, tmp_path)
        talks.turn(engine, number)
        engine.close()
    assert talks.histories == expected
    for before, cached in zip(talks.prompts, talks.cached[4:], strict=False):
        assert cached >= before


@pytest.mark.parametrize("name", [DATA_NAME, INDEX_NAME])
@pytest.mark.parametrize("how", ["flip", "cut", "empty", "gone"])
def test_damage_costs_time_only(
    smollm2_path: Path,
    tmp_path: Path,
    expected: dict[str, list[dict[str, str]]],
    name: str,
    how: str,
) -> None:
    engine = load(smollm2_path, tmp_path)
    talks = Talks()
    talks.turn(engine, 0)
    engine.close()
    path = tmp_path / name
    raw = bytearray(path.read_bytes())
    if how == "flip":
        for at in range(len(raw) // 20, len(raw), len(raw) // 10):
            raw[at] ^= 4
        path.write_bytes(raw)
    elif how == "cut":
        path.write_bytes(raw[: len(raw) // 3])
    elif how == "empty":
        path.write_bytes(b"")
    else:
        path.unlink()
    engine = load(smollm2_path, tmp_path)
    talks.turn(engine, 1)
    engine.close()
    for topic, history in talks.histories.items():
        assert history == expected[topic][:4]


def test_another_kind_of_cache_finds_nothing(smollm2_path: Path, tmp_path: Path) -> None:
    engine = load(smollm2_path, tmp_path)
    Talks().turn(engine, 0)
    engine.close()
    other = Engine.load(
        smollm2_path,
        n_threads=2,
        kv_tokens=512,
        kv_type="q8",
        kv_dir=tmp_path,
        kv_disk_bytes=1 << 28,
    )
    sequence = other.start(other.chat.encode([{"role": "user", "content": "Hi"}]), GREEDY)
    assert sequence.n_cached == 0
    other.close()


def test_forgotten_means_forgotten(smollm2_path: Path, tmp_path: Path) -> None:
    engine = load(smollm2_path, tmp_path)
    Talks().turn(engine, 0)
    engine.forget_cached()
    engine.close()
    assert os.listdir(tmp_path) == [DATA_NAME]
    assert (tmp_path / DATA_NAME).stat().st_size == 0


FULL_DISK = """
import json, resource, sys
from pathlib import Path
from tests.engine.test_kv_restore import Talks, load
resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, 2_000_000))
engine = load(Path(sys.argv[1]), Path(sys.argv[2]), kv_tokens=512)
talks = Talks()
for number in range(3):
    talks.turn(engine, number)
engine.close()
print(json.dumps(talks.histories))
"""


def test_a_full_disk_changes_no_word(
    smollm2_path: Path, tmp_path: Path, expected: dict[str, list[dict[str, str]]]
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(smollm2_path), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=200,
        check=True,
    )
    assert json.loads(done.stdout) == expected
    assert "cannot write" in done.stderr  # Python's handler of last resort prints warnings
