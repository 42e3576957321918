"""Bad model files through everything that reads one: an EngineError that can be shown, or use.

None takes more than MEMORY of memory, which the kernel is asked to see to.
"""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from engine.errors import EngineError, ModelFormatError
from engine.generate import Engine
from engine.gguf import open_gguf
from engine.info import describe
from engine.plan import Settings, plan_for
from tests.fuzz import gguf_reader, texts
from tests.hostile import ggufs, small

MEMORY = 3 << 30
"""Of address space, of which the libraries take half."""
FOUND = Path(__file__).parent / "found"
"""What the fuzzers found; the first word of a name is the target's."""


def test_bad_files(capsys: pytest.CaptureFixture[str]) -> None:
    """In a process of its own, so that the limit is on this alone."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.hostile.test_models"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    with capsys.disabled():
        print(f"\n{done.stdout.strip()}")


def main() -> None:
    """All of the corpus; prints how many there were, and what became of them."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    seen: dict[bytes, str] = {}
    outcomes: dict[str, int] = {}
    for name, raw in ggufs.cases():
        assert len(raw) < 1 << 24, name
        if raw in seen:
            continue
        seen[raw] = name
        try:
            outcome = gguf_reader.one(raw)
        except BaseException as error:
            raise AssertionError(f"{name}: {error!r}") from error
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
    used = outcomes.pop("used", 0)
    assert len(seen) > 2000 and len(outcomes) > 500
    print(
        f"GGUF: {len(seen)} distinct bad files, {used} of them used, the others refused with "
        f"{len(outcomes)} different messages"
    )


@pytest.mark.parametrize("path", sorted(FOUND.iterdir()), ids=lambda path: path.name)
def test_found_by_the_fuzzers(path: Path) -> None:
    target = {"gguf": gguf_reader.one, "tokenizer": texts.one}[path.name.partition("-")[0]]
    target(path.read_bytes())


@pytest.mark.parametrize("name", small.seeds())
def test_what_is_damaged_was_sound(tmp_path: Path, name: str) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(small.seeds()[name])
    if name == "bare":
        with pytest.raises(EngineError):
            describe(path)
        return
    describe(path)
    gguf_reader.answer(path)


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda path: path.mkdir(), "regular file"),
        (os.mkfifo, "regular file"),
        (lambda path: path.symlink_to("/dev/zero"), "regular file"),
        (lambda path: path.symlink_to("/dev/tty"), "cannot open|regular file"),
        (lambda path: path.symlink_to(path), "symbolic links"),
        (lambda path: path.symlink_to("/none"), "No such file"),
        (lambda path: None, "No such file"),
        (lambda path: path.touch(), "0 bytes"),
    ],
    ids=["folder", "pipe", "zeros", "terminal", "loop", "dangling", "missing", "empty"],
)
def test_what_is_no_file(tmp_path: Path, make: object, problem: str) -> None:
    path = tmp_path / "m.gguf"
    make(path)  # type: ignore[operator]
    for read in (
        open_gguf,
        describe,
        Engine.load,
        lambda p: plan_for(p, 0, Settings(1, 256), None),
    ):
        with pytest.raises(ModelFormatError, match=problem):
            read(path)


def test_no_permission(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(small.seeds()["bpe-f32"])
    path.chmod(0)
    code = "from engine.info import describe; from pathlib import Path; import os, sys\n"
    code += "os.setuid(65534)\n" if os.getuid() == 0 else ""
    code += "try:\n    describe(Path(sys.argv[1]))\nexcept Exception as e:\n    print(e)\n"
    for folder in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
        folder.chmod(0o755)
    # imported before the rights are gone: the interpreter may be in the home of root
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True)
    assert "Permission denied" in done.stdout, done.stderr


def test_a_file_of_more_than_there_is(tmp_path: Path) -> None:
    """Sparse: it takes no room, and says that it has some terabytes."""
    path = tmp_path / "m.gguf"
    path.write_bytes(small.seeds()["bpe-f32"])
    try:
        os.truncate(path, 1 << 43)
    except OSError:
        pytest.skip("the file system has no files as large")
    assert describe(path).n_layers == 1
    with open_gguf(path) as file:
        assert file.size == 1 << 43


def test_a_list_that_takes_too_much_memory(tmp_path: Path) -> None:
    """Short strings take six times as much in memory as in the file: their number is bounded."""
    sound = small.model(small.bpe_keys())
    path = tmp_path / "m.gguf"
    for n_lists in (1, 2):
        changed = sound
        for i in range(n_lists):
            changed = changed.with_entry(f"x{i}", 9, ggufs.Array(8, [bytes(8)] * (1_200_000)))
        path.write_bytes(changed.build())
        if n_lists == 1:
            open_gguf(path).close()
        else:
            with pytest.raises(ModelFormatError, match="strings are in lists"):
                open_gguf(path)


def test_a_header_that_takes_too_much_memory(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    part = small.parts_of_zeros(1 << 22)
    sound = small.model(small.bpe_keys())
    for i in range(33):
        sound = sound.with_entry(f"x{i}", 9, part)
    path.write_bytes(sound.build())
    with pytest.raises(ModelFormatError, match="header is longer"):
        open_gguf(path)


if __name__ == "__main__":
    main()
