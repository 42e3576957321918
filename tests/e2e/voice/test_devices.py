"""Real PortAudio, real ALSA, real PulseAudio: sound in and out, stopping, unplugging."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clients.voice.sound import RATE_HZ, Samples, read_wav, write_wav
from tests.clients.voice.signals import babble, tone
from tests.e2e.voice.sound_server import VIRTUAL_MICROPHONE, VIRTUAL_SPEAKER, SoundServer

pytestmark = pytest.mark.voice
pytest.importorskip("sounddevice")

RATE = 22_050  # of what is played: a voice's, and no device's


class Program:
    """A running program.py."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process

    def until(self, event: str, **expected: Any) -> dict[str, Any]:
        """Read on to that event; the other ones before it are passed over."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            found: dict[str, Any] = json.loads(line)
            if found["event"] == event and all(found[k] == v for k, v in expected.items()):
                return found
            assert found["event"] != "error", found
        raise AssertionError(f"it ended without {event!r}")

    def say(self, line: str = "") -> None:
        """What told() returns there."""
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()


@contextmanager
def running(server: SoundServer, *arguments: str | Path) -> Iterator[Program]:
    with subprocess.Popen(
        [sys.executable, "-m", "tests.e2e.voice.program", *map(str, arguments)],
        env=server.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield Program(process)
            assert process.wait(20) == 0
        finally:
            process.kill()


def frequency_hz(samples: Samples, rate_hz: int) -> float:
    """Of the strongest component."""
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(samples.size)))
    return float(np.argmax(spectrum)) * rate_hz / samples.size


def audible(samples: Samples, threshold: int = 500) -> Samples:
    """From the first sample above it to the last."""
    loud = np.flatnonzero(np.abs(samples.astype(np.int32)) > threshold)
    return samples[loud[0] : loud[-1] + 1] if loud.size else samples[:0]


@pytest.fixture
def wav(tmp_path: Path) -> Path:
    """1.5 s of 441 Hz."""
    write_wav(path := tmp_path / "tone.wav", tone(441, 1.5, rate_hz=RATE), RATE)
    return path


def test_devices_are_listed_by_name(sound_server: SoundServer) -> None:
    with running(sound_server, "devices") as program:
        assert {VIRTUAL_MICROPHONE, VIRTUAL_SPEAKER} <= set(program.until("devices")["names"])


def test_hearing(sound_server: SoundServer, wav: Path, tmp_path: Path) -> None:
    with running(sound_server, "hear", tmp_path / "heard.wav") as program:
        program.until("heard")
        assert sound_server.play_into_microphone(wav).wait(20) == 0
        program.until("heard")
        program.say()
        ended = program.until("ended")
    assert ended["dropped"] == 0
    samples, rate_hz = read_wav(tmp_path / "heard.wav")
    heard = audible(samples)
    assert heard.size / rate_hz == pytest.approx(1.5, abs=0.1)
    assert frequency_hz(heard, rate_hz) == pytest.approx(441, abs=2)
    assert np.abs(heard).max() == pytest.approx(32767 / 2, rel=0.1)


def test_speaking(sound_server: SoundServer, wav: Path, tmp_path: Path) -> None:
    with (
        sound_server.record_speaker(tmp_path / "out.wav"),
        running(sound_server, "play", wav) as program,
    ):
        drained = program.until("drained")
    assert drained["played_s"] == pytest.approx(1.5, abs=0.01)
    samples, rate_hz = read_wav(tmp_path / "out.wav")
    out = audible(samples)
    print(f"underflows: {drained['underflows']}, {out.size / rate_hz:.3f} s")
    assert out.size / rate_hz == pytest.approx(1.5, abs=0.1)
    assert frequency_hz(out, rate_hz) == pytest.approx(441, abs=2)


def test_stopping(sound_server: SoundServer, wav: Path, tmp_path: Path) -> None:
    """How much is heard of what was queued after stop(), from the recording."""
    times = 5
    with (
        sound_server.record_speaker(tmp_path / "out.wav"),
        running(sound_server, "stop", wav, str(times)) as program,
    ):
        stopped = [program.until("stopped") for _ in range(times)]
    samples, rate_hz = read_wav(tmp_path / "out.wav")
    loud = np.flatnonzero(np.abs(samples.astype(np.int32)) > 500)
    gaps = np.flatnonzero(np.diff(loud) > rate_hz // 10)
    starts = [loud[0], *loud[gaps + 1]]
    ends = [*loud[gaps], loud[-1]]
    assert len(starts) == times
    after_ms = [
        1000 * ((end - start) / rate_hz - one["played_s"])
        for start, end, one in zip(starts, ends, stopped, strict=True)
    ]
    print("ms of sound after stop() beyond what had been handed over:", np.round(after_ms, 1))
    print("handed over after stop(), s:", [one["in_all_s"] - one["played_s"] for one in stopped])
    assert max(after_ms) < 200


def test_the_echo_of_real_devices(sound_server: SoundServer, tmp_path: Path) -> None:
    """What was played is known in time, so that it can be taken out of what is heard."""
    write_wav(tmp_path / "said.wav", babble(10, -20), RATE_HZ)
    sound_server.couple()
    with running(sound_server, "echo", tmp_path / "said.wav", tmp_path / "played.wav") as program:
        echo = program.until("echo")
    print(echo)
    assert echo["heard_dbfs"] > -30
    # where the machine is too busy for the sound server the echo moves, and is learned anew
    assert max(echo["erle_db"]) > 15
    # of that 120 ms and more are the way from the speaker to the microphone
    assert echo["silent_after_stop_ms"] < 400


def test_the_microphone_is_unplugged(sound_server: SoundServer, wav: Path, tmp_path: Path) -> None:
    with running(sound_server, "hear", tmp_path / "heard.wav") as program:
        program.until("heard")
        sound_server.unplug_microphone()
        assert VIRTUAL_MICROPHONE in program.until("microphone lost")["reason"]
        sound_server.plug_microphone()
        program.until("microphone back")
        program.until("heard")
        assert sound_server.play_into_microphone(wav).wait(20) == 0
        program.until("heard")
        program.say()
        program.until("ended")
    heard = audible(read_wav(tmp_path / "heard.wav")[0])
    assert frequency_hz(heard, RATE_HZ) == pytest.approx(441, abs=2)


def test_the_speaker_is_unplugged(sound_server: SoundServer, wav: Path, tmp_path: Path) -> None:
    with running(sound_server, "speak", wav) as program:
        program.until("ready")
        program.say("play")
        program.until("sounding")
        sound_server.unplug_speaker()
        program.until("speaker lost")
        assert VIRTUAL_SPEAKER in program.until("device lost")["reason"]
        program.say("play")  # it is still away
        program.until("device lost")
        sound_server.plug_speaker()
        with sound_server.record_speaker(tmp_path / "out.wav"):
            program.say("play")
            program.until("speaker back")
            before = program.until("drained")["blocks"]
        # the microphone has gone on, though PortAudio was started anew
        program.say("play")
        assert program.until("drained")["blocks"] > before + 20
        program.say()
        program.until("ended")
    out, rate_hz = read_wav(tmp_path / "out.wav")
    assert frequency_hz(audible(out), rate_hz) == pytest.approx(441, abs=2)


def test_nobody_waits_for_a_name_that_never_was(
    sound_server: SoundServer, wav: Path, tmp_path: Path
) -> None:
    (tmp_path / "alsa").write_text("pcm.default { type pulse hint { show on } }\n")
    program = subprocess.run(
        [sys.executable, "-m", "tests.e2e.voice.program", "play", str(wav)],
        env={**sound_server.environment, "ALSA_CONFIG_PATH": str(tmp_path / "alsa")},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert program.returncode == 1, program.stderr
    assert json.loads(program.stdout)["reason"].startswith("there is no speaker")
