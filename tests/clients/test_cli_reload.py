"""`assistant reload`, and what `assistant status` says of a crash."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from assistantd.protocol import Done, ModelInfo, Progress, Request, SettingChange
from tests.clients.scripted_daemon import ScriptedDaemon, Send, fail, status_info
from tests.clients.test_cli import REPOSITORY, assistant


@pytest.fixture
def daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedDaemon]:
    with ScriptedDaemon(tmp_path) as daemon:
        monkeypatch.setenv("ASSISTANTD_ENDPOINT", daemon.endpoint)
        monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
        yield daemon


def test_what_has_changed(daemon: ScriptedDaemon) -> None:
    def reload(request: Request, send: Send) -> None:
        send(Progress("load", "loading phi"))
        settings = [
            SettingChange("model", '"smollm2"', '"phi"'),
            SettingChange("data_dir", '""', '"/srv"', needs_restart=True),
        ]
        send(Done(settings=settings, model=ModelInfo("phi", 7), message="…"))

    daemon.on("reload", reload)
    done = assistant("reload")
    assert done.returncode == 0
    assert done.stdout.splitlines() == [
        'model\t"smollm2"\t"phi"\tnow',
        'data_dir\t""\t"/srv"\tafter a restart',
        "phi is loaded",
    ]
    assert "loading phi" in done.stderr
    told = json.loads(assistant("reload", "--json").stdout)
    assert [change["key"] for change in told["settings"]] == ["model", "data_dir"]
    assert told["settings"][1]["needs_restart"] is True


def test_nothing_has_changed_or_can(daemon: ScriptedDaemon) -> None:
    daemon.on("reload", lambda request, send: send(Done(settings=[])))
    assert assistant("reload").stdout == "no setting has changed\n"
    problem = "/etc/x.toml: limits.max_active = 99: Expected `int` <= 32; nothing was changed"
    daemon.on("reload", fail("bad_request", problem))
    done = assistant("reload")
    assert done.returncode == 1 and problem in done.stderr
    assert assistant("reload", "--endpoint", "ipc:///nowhere").returncode == 3


def test_the_status_tells_of_a_crash(daemon: ScriptedDaemon) -> None:
    info = status_info(crash_report="/srv/crashes/assistantd-1.txt")
    daemon.on("status", lambda request, send: send(Done(status=info)))
    assert "crashed; see /srv/crashes/assistantd-1.txt" in assistant("status").stdout
    daemon.on("status", lambda request, send: send(Done(status=status_info())))
    assert "crashed" not in assistant("status").stdout
