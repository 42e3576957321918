"""Words that were forgotten are in no file below the data folder, with the real engine."""

from pathlib import Path

import pytest

from assistantd.privacy import NOTE_NAME
from assistantd.protocol import Forget
from engine.kv_disk import DATA_NAME, INDEX_NAME
from tests.e2e.conftest import RunningDaemon

WORD = "Xylophonquarz"
"""Which no model would write by itself."""
TEXT = f"The {WORD} is a stone. " * 12


def files_with(folder: Path, word: str) -> list[str]:
    """Files that have a word in their bytes, as text or as SQLite or JSON could write it."""
    forms = [word.encode(), word.encode("utf-16-le"), word.encode().hex().encode()]
    found = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return [str(path) for path in found if any(form in path.read_bytes() for form in forms)]


def test_nothing_of_it_is_left(own_daemon: RunningDaemon) -> None:
    own_daemon.settings["ASSISTANTD_LOG_LEVEL"] = "debug"
    data = own_daemon.folder / "data"
    own_daemon.start()
    with own_daemon.client() as client:
        for number in range(3):
            question = f"{TEXT} {number}"
            client.ask(question, session=f"s{number}", temperature=0, max_tokens=8).wait()
            client.rename_session(f"s{number}", f"About {WORD}")
        client.ask("What is the capital of France?", session="kept", max_tokens=8).wait()
    # the first is in the memory's cache, then all are on disk, as tokens and as keys and values
    assert own_daemon.stop() == 0
    assert (data / "kv" / INDEX_NAME).exists() and files_with(data, WORD)
    damaged = data / "sessions.db.damaged-20260101-000000"
    damaged.write_bytes((data / "sessions.db").read_bytes())
    own_daemon.start()
    with own_daemon.client() as client:
        assert client.forget(session="s0").messages == 2
        assert files_with(data, WORD)  # of the others
        # an answer that is being written has it in its prompt
        answer = client.ask(f"Tell a long story of {WORD}.", session="s1", max_tokens=500)
        next(answer)
        for number in (1, 2):
            told = client.forget(session=f"s{number}")
        assert answer.wait().finish_reason == "cancelled"
        assert told.copies == [str(damaged)]
        assert files_with(data, WORD) == [str(damaged)]
        assert (data / "kv" / DATA_NAME).stat().st_size == 0
        # what stays can be gone on with
        again = client.ask("And of Italy?", session="kept", temperature=0, max_tokens=8).wait()
        assert again.timings is not None and again.timings.prompt_tokens > 30
        assert client.forget(all=True).copies == []
        assert files_with(data, WORD) == []
    assert own_daemon.stop() == 0
    assert files_with(own_daemon.folder, WORD) == []  # nor in the log
    assert not (data / "kv" / INDEX_NAME).exists()


@pytest.mark.slow
def test_killed_in_the_middle(own_daemon: RunningDaemon) -> None:
    """A note on the disk says that something was to go; the next daemon sees to it."""
    data = own_daemon.folder / "data"
    note = data / NOTE_NAME
    own_daemon.start()
    with own_daemon.client() as client:
        client.ask(TEXT, session="s", max_tokens=4).wait()
        client._begin(Forget(all=True))
        while not note.exists():  # it is there for some milliseconds
            assert own_daemon.process is not None and own_daemon.process.poll() is None
        own_daemon.kill()
    assert note.exists()
    own_daemon.start()
    with own_daemon.client() as client:
        # killed before the transaction: all is still there, and may be forgotten again
        if client.sessions():
            client.forget(all=True)
        assert files_with(data, WORD) == []
    assert own_daemon.stop() == 0
    assert not note.exists()
