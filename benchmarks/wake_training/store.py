"""Clips in files, a block of them in each, so that making them can be broken off and resumed."""

import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from benchmarks.wake_training.clips import CALLS, Clip, Studio

BLOCK = 50
"""Clips in a file; of the long ones a tenth of it."""
AMOUNTS = {
    "near Korean": 400, "자비스": 3000, "hey jarvis": 1200,
    "near English": 100, "Jarvis": 10, "jarvis": 200, "Korean": 900, "English": 300,
    "any language": 60, "neural English": 15, "sounds": 60,
}  # fmt: skip
_studio: Studio | None = None


def _open(neural: Path, folder: Path) -> None:
    global _studio
    _studio = Studio(neural, folder / "said")


def _in_block(kind: str) -> int:
    return BLOCK if kind in CALLS else BLOCK // 10


def _make(kind: str, block: int, folder: Path) -> str:
    assert _studio is not None
    n = _in_block(kind)
    clips = [_studio.make(kind, number) for number in range(block * n, (block + 1) * n)]
    path = _path(folder, kind, block)
    part = path.with_suffix(f".{os.getpid()}.part")
    with part.open("wb") as file:
        np.savez(
            file,
            embeddings=np.concatenate([clip.embeddings for clip in clips]),
            lengths=[len(clip.embeddings) for clip in clips],
            calls=[clip.call or (-1, -1) for clip in clips],
            before=[clip.before for clip in clips],
        )
    part.replace(path)
    return f"{kind} {block}"


def _path(folder: Path, kind: str, block: int) -> Path:
    return folder / f"{kind.replace(' ', '-')}-{block:03}.npz"


def make(folder: Path, neural: Path, share: float, processes: int) -> None:
    """Make what is missing of a share of AMOUNTS; a larger share keeps what a smaller one made."""
    (folder / "said").mkdir(parents=True, exist_ok=True)
    jobs = []
    for kind, n in AMOUNTS.items():
        blocks = max(1, round(share * n / _in_block(kind)))
        # spread evenly, so that what is there at any time is a mixture
        jobs += [((block + 0.5) / blocks, kind, block) for block in range(blocks)]
    with ProcessPoolExecutor(processes, initializer=_open, initargs=(neural, folder)) as pool:
        todo = [
            pool.submit(_make, kind, block, folder)
            for _, kind, block in sorted(jobs)
            if not _path(folder, kind, block).exists()
        ]
        for number, job in enumerate(todo, 1):
            print(f"{number} of {len(todo)}: {job.result()}", flush=True)


def read(folder: Path, kind: str, most: int | None = None) -> list[Clip]:
    """The clips of a kind that were made; of `most` blocks at most."""
    clips = []
    for path in sorted(folder.glob(f"{kind.replace(' ', '-')}-???.npz"))[:most]:
        with np.load(path) as file:
            ends = np.cumsum(file["lengths"])
            all_of_it, calls, before = file["embeddings"], file["calls"], file["before"]
        for number, end in enumerate(ends):
            first = ends[number - 1] if number else 0
            call = (int(calls[number][0]), int(calls[number][1]))
            clips.append(
                Clip(all_of_it[first:end], None if call[0] < 0 else call, int(before[number]))
            )
    return clips
