"""The gate, the endpointer and the echo canceller with spoken English, not a test's buzz."""

import subprocess
from pathlib import Path

import numpy as np
import pytest

from clients.voice.echo import EchoCanceller, erle_db
from clients.voice.endpoint import End, Endpointer
from clients.voice.gate import Gate
from clients.voice.interruption import Interruption
from clients.voice.sound import BLOCK, RATE_HZ, Samples, level_dbfs, read_wav, resample
from tests.clients.voice.signals import blocks, echoed, mixed, noise, room, silence, to_samples

pytestmark = pytest.mark.voice

QUESTION = "Hello computer, what is the weather like today in London?"
ANSWER = (
    "The weather in London today is mostly cloudy, with a gentle breeze from the west. In the "
    "afternoon there will be some sunshine, and the temperature will rise to seventeen degrees. "
    "Towards the evening, expect light rain, which will continue during the night."
)


def spoken(text: str, folder: Path) -> Samples:
    try:
        subprocess.run(["espeak-ng", "-w", str(folder / "said.wav"), text], check=True)
    except FileNotFoundError:
        pytest.skip("not installed: espeak-ng (Debian: espeak-ng)")
    return resample(*read_wav(folder / "said.wav"), RATE_HZ)


def at_level(sound: Samples, dbfs: float) -> Samples:
    return to_samples(sound * 10 ** ((dbfs - level_dbfs(sound)) / 20))


@pytest.mark.parametrize(
    ("level_dbfs", "noisy"),
    # at -3 dBFS all is clipped, and noise fills what is left
    [(dbfs, noisy) for noisy in (False, True) for dbfs in (-50, -35, -20, -10)] + [(-3, False)],
)
def test_a_question_is_heard_from_its_beginning_to_its_end(
    level_dbfs: float, noisy: bool, tmp_path: Path
) -> None:
    question = at_level(spoken(QUESTION, tmp_path), level_dbfs)
    sound = np.concatenate([silence(4), question, silence(3)])
    end_s = 4 + question.size / RATE_HZ
    if noisy:
        sound = mixed(sound, noise(sound.size / RATE_HZ, level_dbfs - 10))
    gate, endpointer, first_s, ended_s = Gate(), Endpointer(), 0.0, 0.0
    for block in blocks(sound):
        gate.hear(block)
        if gate.just_opened and not first_s:
            first_s = gate.heard_s - gate.preroll().size / RATE_HZ
        if first_s and not ended_s and (end := endpointer.hear(gate.probability)):
            assert end is End.FINISHED
            ended_s = gate.heard_s
    assert 2.9 < first_s < 4.05
    assert end_s + 0.5 < ended_s < end_s + 1.2
    cpu = gate.cpu_s / gate.heard_s
    print(f"{level_dbfs} dBFS: ended {ended_s - end_s:.2f} s after it, {cpu:.2%} of a core")


@pytest.mark.parametrize(("delay_ms", "gain"), [(20, 0.3), (60, 1.0), (120, 0.1)])
def test_an_answer_and_its_echo(delay_ms: float, gain: float, tmp_path: Path) -> None:
    answer = spoken(ANSWER, tmp_path)
    echo = mixed(echoed(answer, room(delay_ms, gain=gain)), noise(answer.size / RATE_HZ, -70))
    interruption, cleaned = Interruption(EchoCanceller()), []
    for heard, played in zip(blocks(echo), blocks(answer), strict=True):
        assert not interruption.hear(heard, played)
        assert interruption.cleaned is not None
        cleaned.append(interruption.cleaned)
    whole = np.concatenate(cleaned)
    print(f"ERLE after 4 s: {erle_db(echo[4 * RATE_HZ : whole.size], whole[4 * RATE_HZ :]):.1f} dB")
    assert erle_db(echo[4 * RATE_HZ : whole.size], whole[4 * RATE_HZ :]) > 10


@pytest.mark.parametrize(("delay_ms", "gain"), [(20, 0.3), (60, 0.3), (120, 0.1)])
def test_a_question_into_an_answer(delay_ms: float, gain: float, tmp_path: Path) -> None:
    """As loud as the echo, at the microphone."""
    answer, question = spoken(ANSWER, tmp_path), spoken(QUESTION, tmp_path)
    echo = echoed(answer, room(delay_ms, gain=gain))
    said = np.concatenate([silence(6), at_level(question, level_dbfs(echo))])
    heard = mixed(echo, said, noise(answer.size / RATE_HZ, -70))
    interruption = Interruption(EchoCanceller())
    noticed = [
        (n + 1) * BLOCK / RATE_HZ
        for n, pair in enumerate(zip(blocks(heard), blocks(answer), strict=True))
        if interruption.hear(*pair)
    ]
    print(f"noticed after {noticed[0] - 6:.2f} s")
    assert 6 < noticed[0] < 7
