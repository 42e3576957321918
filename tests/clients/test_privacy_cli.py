"""`assistant forget` and `assistant sessions export` as processes, with a real daemon."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import click
import pytest

from assistantd.config import LimitsConfig
from assistantd.protocol import Devices, RetentionInfo
from assistantd.sessions import SessionStore
from clients.cli.daemon import describe
from clients.cli.history import forget_typed, history_path
from clients.cli.moments import parse_age, parse_day, start_of
from tests.assistantd.stepped import Running
from tests.assistantd.test_forgetting import say
from tests.clients.scripted_daemon import WAIT_S, status_info
from tests.clients.terminal import ENTER, Terminal

COMMAND = [sys.executable, "-m", "clients.cli"]
REPOSITORY = Path(__file__).resolve().parents[2]
TODAY = datetime.now().replace(hour=0, minute=0, second=0, microsecond=0)
DAY = timedelta(days=1)


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    with tempfile.TemporaryDirectory(prefix="ad-") as name:
        folder = Path(name)
        (folder / "d").mkdir()
        store = SessionStore(folder / "d" / "sessions.db")
        say(store, "trip", "Busan?", "Yes.", (TODAY - DAY).timestamp())
        say(store, "trip", "Seoul?", "No.", (TODAY - 40 * DAY).timestamp())
        say(store, "work", "\x1b[31mSECRETWORD", "Done.", (TODAY - DAY / 2).timestamp())
        say(store, "old", "Long ago", None, (TODAY - 400 * DAY).timestamp())
        store.close()
        with Running(folder, LimitsConfig()) as running:
            monkeypatch.setenv("ASSISTANTD_ENDPOINT", running.endpoint)
            monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
            yield running


def assistant(*args: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*COMMAND, *args], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=WAIT_S
    )


def left(daemon: Running) -> dict[str, int]:
    with daemon.client() as client:
        return {session.id: session.n_messages for session in client.sessions()}


def test_a_day_and_an_age(daemon: Running) -> None:
    done = assistant("forget", "--day", "yesterday", "--yes")
    assert (done.returncode, done.stdout) == (0, "4 messages were forgotten\n")
    assert done.stderr == (
        "  work  [31mSECRETWORD  (2 messages)\n  trip  Busan?  (2 messages, the rest stays)\n"
    )
    assert left(daemon) == {"trip": 2, "old": 1}
    done = assistant("forget", "--older-than", "1y", "--yes", "--json")
    (told,) = map(json.loads, done.stdout.splitlines())
    assert told == {"forgotten": {"sessions": 1, "messages": 1}, "typed": 0}
    assert done.stderr == ""
    assert assistant("forget", "trip", "--yes").stdout == "2 messages were forgotten\n"
    assert left(daemon) == {}
    done = assistant("forget", "trip", "--yes")
    assert done.returncode == 1 and "there is no session 'trip'" in done.stderr


def test_nothing_goes_without_being_sure(daemon: Running) -> None:
    for options in (["--all"], ["--all", "--json"], ["trip"]):
        done = assistant("forget", *options)
        assert done.returncode == 2 and "add --yes" in done.stderr
    for options in ([], ["trip", "--all"], ["--day", "today", "--before", "today"]):
        done = assistant("forget", "--yes", *options)
        assert done.returncode == 2, done
    assert "is no day" in assistant("forget", "--day", "Freitag").stderr
    assert "is no age" in assistant("forget", "--older-than", "1").stderr
    assert len(left(daemon)) == 3
    for answer, n in (("n", 3), ("y", 2)):
        with Terminal([*COMMAND, "forget", "trip"], dict(os.environ)) as terminal:
            shown = terminal.read_until("Forget 4 messages for good?")
            assert "trip  Busan?  (4 messages)" in shown
            terminal.press(f"{answer}{ENTER}")
            terminal.wait()
        assert len(left(daemon)) == n


def test_all_with_what_was_typed(daemon: Running) -> None:
    path = history_path()
    path.parent.mkdir(parents=True)
    path.write_text(f"\n# {TODAY}\n+typed\n")
    damaged = Path(daemon.daemon._config.data_dir) / "sessions.db.damaged-1"
    damaged.touch()
    done = assistant("forget", "trip", "--yes")
    assert "sessions.db.damaged-1 was set aside as damaged" in done.stderr and path.exists()
    done = assistant("forget", "--all", "--yes")
    assert done.stdout == (
        "3 messages were forgotten\n1 input in the history of `assistant chat` as well\n"
    )
    assert "sessions.db.damaged-1, set aside as damaged" in done.stderr
    assert not path.exists() and not damaged.exists() and left(daemon) == {}


def test_what_a_device_asked(daemon: Running) -> None:
    daemon.engine.free_running = True
    with daemon.client() as client:
        device = client.request(Devices(op="add", name="phone")).device
        assert device is not None
        client.ask("x", session=f"{device.id}.s", max_tokens=1).wait()
    done = assistant("forget", "--device", "phone", "--all", "--yes")
    assert (done.stdout, len(left(daemon))) == ("2 messages were forgotten\n", 3)
    assert assistant("forget", "--device", "nobody", "--all", "--yes").returncode == 1


def test_export(daemon: Running, tmp_path: Path) -> None:
    whole = json.loads(assistant("sessions", "export", "--all").stdout)
    assert [session["id"] for session in whole["sessions"]] == ["old", "trip", "work"]
    messages = whole["sessions"][1]["messages"]
    assert [m["content"] for m in messages] == ["Busan?", "Yes.", "Seoul?", "No."]
    assert messages[1]["finish_reason"] == "stop" and messages[0]["id"] < messages[1]["id"]
    file = tmp_path / "trip.md"
    done = assistant("sessions", "export", "trip", "-o", str(file))
    assert done.stdout == f"saved as {file}\n" and file.read_text().startswith("# Busan?\n")
    done = assistant("sessions", "export", "work", "-o", str(file))
    assert done.returncode == 1 and "say --force" in done.stderr
    assert assistant("sessions", "export", "work", "-o", str(file), "--force").returncode == 0
    assert "SECRETWORD" in file.read_text() and "\x1b" not in file.read_text()
    folder = tmp_path / "notes"
    options = ("--all", "--format", "markdown", "-o", f"{folder}/", "--json")
    written = json.loads(assistant("sessions", "export", *options).stdout)
    assert written == [str(folder / f"{name}.md") for name in ("old", "trip", "work")]
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    assert assistant("sessions", "export").returncode == 2
    assert assistant("sessions", "export", "none").returncode == 1


# --- parts -----------------------------------------------------------------------------------


def test_the_history_of_the_chat() -> None:
    assert forget_typed(lambda moment: True) == 0
    path = history_path()
    path.parent.mkdir(parents=True)
    first, second = TODAY - DAY, TODAY
    before = f"\n# {first}\n+one\n+two\n\n# {second}.5\n+three\n+# {first}\n\n# nonsense\n+four\n"
    path.write_text(before)
    assert forget_typed(lambda moment: False) == 0
    assert path.read_text() == before
    assert forget_typed(lambda moment: moment == first.timestamp()) == 1
    assert path.read_text() == f"\n# {second}.5\n+three\n+# {first}\n\n# nonsense\n+four\n"
    assert path.stat().st_mode & 0o777 == 0o600
    assert forget_typed(lambda moment: moment < second.timestamp()) == 1  # of no known time
    assert forget_typed(lambda moment: True) == 1 and not path.exists()
    # as the editor itself reads and writes it
    from prompt_toolkit.history import FileHistory

    for words in ("first", "second\nline"):
        FileHistory(str(path)).store_string(words)
    assert list(FileHistory(str(path)).load_history_strings()) == ["second\nline", "first"]
    assert forget_typed(lambda moment: moment > TODAY.timestamp()) == 2


def test_days_in_the_local_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    try:
        day = parse_day("2026-10-25")  # when an hour came twice
        assert start_of(day + DAY) - start_of(day) == 25 * 3600
        assert start_of(parse_day("2026-03-30")) - start_of(parse_day("2026-03-29")) == 23 * 3600
    finally:
        monkeypatch.undo()
        time.tzset()
    assert parse_day("today") - parse_day("Yesterday") == DAY
    for text in ("", "2026-13-01", "tomorrow", "0000-01-01"):
        with pytest.raises(click.BadParameter):
            parse_day(text)
    for text in ("0001-01-01", "9999-12-31"):
        with pytest.raises(click.BadParameter):
            start_of(parse_day(text))


def test_ages() -> None:
    assert [parse_age(text) / DAY for text in ("12h", "30d", "8w", "1y")] == [0.5, 30, 56, 365]
    for text in ("", "d", "-1d", "1.5d", "1m", "999999d", "١d"):
        with pytest.raises(click.BadParameter):
            parse_age(text)


@pytest.mark.parametrize(
    ("info", "words"),
    [
        (RetentionInfo(1), "messages for 1 day"),
        (RetentionInfo(30, 1.0), "messages for 30 days; older ones were removed"),
        (RetentionInfo(30, None, 1.8e9), "the clock has leapt, so none is removed before 2027-"),
    ],
)
def test_status_tells(info: RetentionInfo, words: str) -> None:
    rows = dict(describe(status_info(retention=info), "ipc://x"))
    assert words in rows["keeps"]
    assert "keeps" not in dict(describe(status_info(), "ipc://x"))
