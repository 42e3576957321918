"""A daemon that is stopped and started: conversations go on without being read again."""

from pathlib import Path

from assistantd.protocol import Timings
from engine.kv_disk import DATA_NAME, INDEX_NAME
from tests.e2e.conftest import RunningDaemon
from tests.e2e.test_conversation import LONG_TEXT


def turn(daemon: RunningDaemon, text: str) -> tuple[str, Timings]:
    with daemon.client() as client:
        answer = client.ask(text, session="s", temperature=0, max_tokens=20).wait()
    assert answer.timings is not None
    print(answer.timings)
    return answer.text, answer.timings


def folder_of(daemon: RunningDaemon) -> Path:
    return daemon.folder / "data" / "kv"


def restart(daemon: RunningDaemon) -> None:
    assert daemon.stop() == 0
    daemon.start()


def test_the_second_turn_after_a_restart(own_daemon: RunningDaemon) -> None:
    own_daemon.start()
    _, first = turn(own_daemon, LONG_TEXT)
    restart(own_daemon)
    assert not (folder_of(own_daemon) / INDEX_NAME).exists()
    text, second = turn(own_daemon, "How much is item 7?")
    assert second.cached_tokens >= first.prompt_tokens > 1000
    assert second.prompt_tokens - second.cached_tokens < 100
    # and without what was saved, the same is said
    with own_daemon.client() as client:
        client.delete_session("s")
    own_daemon.settings["ASSISTANTD_ENGINE_KV_DISK"] = "0"
    restart(own_daemon)
    assert list(folder_of(own_daemon).iterdir()) == []
    turn(own_daemon, LONG_TEXT)
    restart(own_daemon)
    again, computed = turn(own_daemon, "How much is item 7?")
    assert computed.cached_tokens < 50
    assert again == text
    assert own_daemon.stop() == 0
    assert "Traceback" not in own_daemon.log.read_text()


def test_nothing_saved_after_a_kill(own_daemon: RunningDaemon) -> None:
    own_daemon.start()
    turn(own_daemon, LONG_TEXT)
    own_daemon.kill()
    own_daemon.start()
    _, second = turn(own_daemon, "How much is item 7?")
    assert second.cached_tokens < 50


def test_a_deleted_session_leaves_nothing_on_disk(own_daemon: RunningDaemon) -> None:
    own_daemon.start()
    turn(own_daemon, LONG_TEXT)
    restart(own_daemon)
    assert (folder_of(own_daemon) / DATA_NAME).stat().st_size > 1_000_000
    with own_daemon.client() as client:
        client.delete_session("s")
    assert own_daemon.stop() == 0
    kept = folder_of(own_daemon) / DATA_NAME
    assert kept.stat().st_size == 0 and not (folder_of(own_daemon) / INDEX_NAME).exists()
