"""The daemon's own key."""

import stat
import threading
from pathlib import Path

import pytest
import zmq

from assistantd.network.keys import FILE_NAME, KeyFileError, ServerKey


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_it_is_made_once_and_is_private(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "network"
    key = ServerKey.load_or_make(folder)
    assert zmq.curve_public(key.secret.encode()).decode() == key.public
    assert ServerKey.load_or_make(folder) == key
    assert (mode(folder), mode(folder / FILE_NAME)) == (0o700, 0o600)
    assert [path.name for path in folder.iterdir()] == [FILE_NAME]
    assert key.secret not in repr(key)


def test_a_folder_and_a_file_that_others_could_read_are_closed(tmp_path: Path) -> None:
    key = ServerKey.load_or_make(tmp_path)
    tmp_path.chmod(0o755)
    (tmp_path / FILE_NAME).chmod(0o644)
    assert ServerKey.load_or_make(tmp_path) == key
    assert (mode(tmp_path), mode(tmp_path / FILE_NAME)) == (0o700, 0o600)


def test_threads_get_the_same_one(tmp_path: Path) -> None:
    keys: list[ServerKey] = []
    together = threading.Barrier(8)

    def load() -> None:
        together.wait()
        keys.append(ServerKey.load_or_make(tmp_path))

    threads = [threading.Thread(target=load) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(keys) == 8 and len(set(keys)) == 1


@pytest.mark.parametrize("content", [b"", b"short", b"~" * 40, b"\xff" * 40, b"x" * 41])
def test_a_damaged_one_is_not_replaced(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE_NAME).write_bytes(content)
    with pytest.raises(KeyFileError, match="damaged"):
        ServerKey.load_or_make(tmp_path)
    assert (tmp_path / FILE_NAME).read_bytes() == content


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(KeyFileError, match=r"server\.key"):
        ServerKey.load_or_make(tmp_path / "file" / "network")
