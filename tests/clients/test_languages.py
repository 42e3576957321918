"""`assistant` and `assistantd` as processes in Korean, and in languages they do not know."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from assistantd.localisation.width import columns
from assistantd.protocol import Done, ModelInfo, SessionInfo
from tests.clients.scripted_daemon import WAIT_S, ScriptedDaemon, fail, plan_info, say, status_info
from tests.clients.terminal import CTRL_D, ENTER, Terminal

REPOSITORY = Path(__file__).resolve().parents[2]
SETTINGS = ("LANGUAGE", "LC_ALL", "LC_MESSAGES", "LANG")
KOREAN = "ko_KR.UTF-8"
ENGLISH = ("C", "C.UTF-8", "en_US.UTF-8", "de_DE.UTF-8", "")


@pytest.fixture
def daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedDaemon]:
    with ScriptedDaemon(tmp_path) as daemon:
        monkeypatch.setenv("ASSISTANTD_ENDPOINT", daemon.endpoint)
        monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
        daemon.on("status", lambda request, send: send(Done(status=status_info(plan=plan_info()))))
        yield daemon


def environment(language: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    return {**kept, "LANG": language}


def run(
    module: str, *args: str, language: str = KOREAN, env: dict[str, str] | None = None
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", module, *args],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=4 * WAIT_S,
        env={**environment(language), **(env or {})},
    )


def assistant(*args: str, language: str = KOREAN) -> "subprocess.CompletedProcess[str]":
    return run("clients.cli", *args, language=language)


# --- help ------------------------------------------------------------------------------------


def test_help(daemon: ScriptedDaemon) -> None:
    done = assistant("--help")
    assert done.returncode == 0
    assert done.stdout.startswith("사용법: assistant [OPTIONS]")
    for text in ("옵션:", "명령:", "이 도움말을 표시하고 끝냅니다.", "데몬을 종료합니다."):
        assert text in done.stdout
    assert "What" not in done.stdout and "Show" not in done.stdout
    assert max(map(columns, done.stdout.splitlines())) <= 98


def test_help_of_commands(daemon: ScriptedDaemon) -> None:
    shown = assistant("models", "show", "--help").stdout
    assert (
        "종료 코드는 1입니다." in shown and "사용법: assistant models show [OPTIONS] NAME" in shown
    )
    assert "smollm2 --budget 200M    다른 예산으로" in shown  # in lines as they were written
    assert "디스크에서 모델을 삭제합니다." in assistant("models", "--help").stdout


@pytest.mark.parametrize("language", ENGLISH)
def test_english_is_for_everybody_else(daemon: ScriptedDaemon, language: str) -> None:
    done = assistant("top", "--help", language=language)
    assert done.stdout.startswith("Usage: assistant top [OPTIONS]\n\n  Look on while the daemon")
    assert done.stdout.isascii()
    done = assistant("status", language=language)
    assert "state" in done.stdout and done.stdout.isascii()


def test_help_of_the_daemon() -> None:
    env = {"PYTHONPATH": str(REPOSITORY)}
    assert "이 파일만 읽습니다." in run("assistantd", "--help", env=env).stdout
    assert "프롬프트의 토큰 수." in run("assistantd.bench", "--help", env=env).stdout


# --- what is said ----------------------------------------------------------------------------


def test_status(daemon: ScriptedDaemon) -> None:
    done = assistant("status")
    assert (done.returncode, done.stderr) == (0, "")
    rows = dict(line.split("  ", 1) for line in done.stdout.splitlines())
    assert rows["상태"].strip() == "준비됨"
    assert "계획" in rows and "프로세스" in rows["데몬"]
    # values stand below each other though the letters of their names are wide
    starts = {columns(line) - columns(line.split("  ", 1)[1].lstrip()) for line in
              done.stdout.splitlines()}  # fmt: skip
    assert len(starts) == 1


def test_errors(daemon: ScriptedDaemon) -> None:
    done = assistant("ask", "--nonsense", "x")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("assistant: ") and "옵션은 없습니다" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    done = assistant("budget", "much")
    assert (done.returncode, "크기가 아닙니다" in done.stderr) == (2, True)
    daemon.on("chat", fail("busy", "full"))  # the daemon's words are the daemon's
    done = assistant("hi")
    assert (done.returncode, done.stderr) == (1, "assistant: full\n")


def test_voice(daemon: ScriptedDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    done = assistant("voice", "--help")
    assert done.returncode == 0
    assert "이름을 부르고 물어보세요." in done.stdout and "호출어의 감도." in done.stdout
    assert "Hear" not in done.stdout and "Show" not in done.stdout
    (tmp_path / "assistantd").mkdir()
    file = tmp_path / "assistantd" / "voice.toml"
    file.write_text("wake_wrods = []")
    done = assistant("voice", "voices")
    assert (done.returncode, done.stdout) == (1, "")
    told = f"{file}: 'wake_wrods' 설정은 없습니다. wake_words을(를) 찾으셨나요?"
    assert done.stderr == f"assistant: {told}\n"
    english = assistant("voice", "voices", language="C")
    told = f"{file}: there is no setting 'wake_wrods'; did you mean wake_words?"
    assert english.stderr == f"assistant: {told}\n"


def test_nobody_listens(tmp_path: Path) -> None:
    endpoint = f"ipc://{tmp_path}/none.sock"
    env = {"ASSISTANTD_ENDPOINT": endpoint, "PYTHONPATH": str(REPOSITORY)}
    done = run("clients.cli", "status", env=env)
    assert done.returncode == 3
    assert done.stderr.startswith(f"assistant: {endpoint}에서 수신 대기하는 데몬이 없습니다.")


def test_json_is_the_same_in_every_language(daemon: ScriptedDaemon, tmp_path: Path) -> None:
    daemon.on("chat", say("Hello"))
    sessions = [SessionInfo(id="a", title="T", created_at=1.0, updated_at=2.0, n_messages=2)]
    daemon.on("sessions", lambda request, send: send(Done(sessions=sessions)))
    model = ModelInfo(name="m", size_bytes=1, plan=plan_info())
    daemon.on("models", lambda request, send: send(Done(model=model)))
    for args in (
        ("--json", "hi"),
        ("status", "--json"),
        ("sessions", "list", "--json"),
        ("models", "show", "m", "--json"),
    ):
        args = args if args[0] != "--json" else ("ask", *args)
        korean, english = (assistant(*args, language=one) for one in (KOREAN, "C"))
        assert korean.stdout == english.stdout and korean.stdout
        assert (korean.returncode, english.returncode) == (0, 0)
    endpoint = ("--endpoint", f"ipc://{tmp_path}/none")
    korean, english = (assistant("stop", "--json", *endpoint, language=x) for x in (KOREAN, "C"))
    assert json.loads(korean.stdout) == json.loads(english.stdout) == {"message": "not running"}
    told = json.loads(assistant("ask", "--json", "--format", "xml", "x").stdout)["error"]
    assert told["code"] == "usage" and "값이 잘못되었습니다" in told["message"]


def test_a_chat(daemon: ScriptedDaemon) -> None:
    daemon.on("chat", say("Hello"))
    command = [sys.executable, "-m", "clients.cli", "chat", "-s", "trip"]
    with Terminal(command, environment(KOREAN)) as terminal:
        terminal.read_until("세션 trip.")
        terminal.read_until("나>")
        terminal.press("/help" + ENTER)
        terminal.read_until("이 도움말을 표시합니다")
        terminal.read_until("나>")
        terminal.press("/nonsense" + ENTER)
        terminal.read_until("/nonsense 명령은 없습니다.")
        terminal.read_until("나>")
        terminal.press(CTRL_D)
        assert terminal.wait() == 0


# --- the daemon ------------------------------------------------------------------------------


def test_the_daemon_answers_in_korean(tmp_path: Path) -> None:
    endpoint = f"ipc://{tmp_path}/a.sock"
    env = {"PYTHONPATH": str(REPOSITORY), "ASSISTANTD_DATA_DIR": str(tmp_path / "data")}
    daemon = subprocess.Popen(
        [sys.executable, "-m", "assistantd", "--endpoint", endpoint],
        env={**environment(KOREAN), **env},
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )
    try:
        from clients import Client, NotFound

        with Client(endpoint, timeout=WAIT_S) as client:
            client.wait_ready(WAIT_S, alive=lambda: daemon.poll() is None)
            with pytest.raises(NotFound, match="아직 이 컴퓨터에 모델이 없습니다"):
                client.ask("hi").wait()
            with pytest.raises(NotFound, match="'x' 세션은 없습니다") as told:
                client.session("x")
            assert told.value.code == "not_found"
            client.shutdown()
        _, log = daemon.communicate(timeout=WAIT_S)
    finally:
        daemon.kill()
        daemon.wait()
    assert daemon.returncode == 0
    assert " listening endpoint=" in log and " stopped" in log  # events are for grep


def test_settings_of_the_daemon(tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    config.write_text("memory_bugdet = 1")
    done = run("assistantd", "--config", str(config), env={"PYTHONPATH": str(REPOSITORY)})
    assert done.returncode == 2
    assert "'memory_bugdet' 설정은 없습니다. memory_budget을(를) 찾으셨나요?" in done.stderr
