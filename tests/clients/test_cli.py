"""`assistant` as a process, against a scripted daemon over real sockets."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from assistantd.protocol import (
    Cancel,
    Chat,
    Delta,
    Done,
    ModelInfo,
    Models,
    Progress,
    Request,
    SessionInfo,
    Sessions,
    StoredMessage,
)
from clients.cli.app import COMMANDS
from tests.clients import stand_in_daemon
from tests.clients.scripted_daemon import (
    WAIT_S,
    ScriptedDaemon,
    Send,
    fail,
    plan_info,
    say,
    say_until_cancelled,
    status_info,
    timings,
)
from tests.clients.terminal import CTRL_C, CTRL_D, ENTER, ESCAPE, Terminal

COMMAND = [sys.executable, "-m", "clients.cli"]
REPOSITORY = Path(__file__).resolve().parents[2]
SESSIONS = [
    SessionInfo(id="old", title="Rivers", created_at=1.0, updated_at=2.0, n_messages=2),
    SessionInfo(id="new", title="A\ttab", created_at=3.0, updated_at=4.0, n_messages=4),
]


@pytest.fixture
def daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedDaemon]:
    with ScriptedDaemon(tmp_path) as daemon:
        monkeypatch.setenv("ASSISTANTD_ENDPOINT", daemon.endpoint)
        monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
        daemon.on("chat", say("Hello", " there"))
        daemon.on("sessions", lambda request, send: send(Done(sessions=SESSIONS)))
        yield daemon


def assistant(
    *args: str, stdin: str = "", env: dict[str, str] | None = None
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*COMMAND, *args],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=4 * WAIT_S,
        env={**os.environ, **(env or {})},
    )


def start(*args: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [*COMMAND, *args],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


# --- asking ----------------------------------------------------------------------------------


@pytest.mark.parametrize("args", [("How are you?",), ("ask", "How", "are", "you?")])
def test_a_question(daemon: ScriptedDaemon, args: tuple[str, ...]) -> None:
    done = assistant(*args)
    assert (done.returncode, done.stdout, done.stderr) == (0, "Hello there\n", "")
    assert daemon.wait_for(Chat) == [Chat(text="How are you?")]


def test_every_option_reaches_the_daemon(daemon: ScriptedDaemon, tmp_path: Path) -> None:
    schema = tmp_path / "schema.json"
    schema.write_text('{"type": "object"}')
    options = (
        "-s work --system Brief. --temperature 0.5 --max-tokens 7 --top-p 0.9 --top-k 5 "
        f"--min-p 0.1 --seed 3 --stop A --stop B --schema {schema} --deadline 1.5 --no-stream"
    )
    assert assistant(*options.split(), "hi").stdout == "Hello there\n"
    assert daemon.wait_for(Chat) == [
        Chat(
            text="hi",
            session="work",
            system="Brief.",
            temperature=0.5,
            max_tokens=7,
            top_p=0.9,
            top_k=5,
            min_p=0.1,
            seed=3,
            stop=["A", "B"],
            format={"type": "object"},
            deadline_ms=1500,
            stream=False,
        )
    ]


def test_what_is_piped_is_the_question(daemon: ScriptedDaemon) -> None:
    assert assistant(stdin="  Who?\n").returncode == 0
    assert assistant("ask", stdin="What?\n").returncode == 0
    assert daemon.wait_for(Chat, 2) == [Chat(text="Who?"), Chat(text="What?")]


def test_what_is_piped_goes_below_the_question(daemon: ScriptedDaemon) -> None:
    assert assistant("explain", stdin="+ a\n").returncode == 0
    assert assistant("explain", stdin="```\n- b\n```\n").returncode == 0
    assert [chat.text for chat in daemon.wait_for(Chat, 2) if isinstance(chat, Chat)] == [
        "explain\n\n```\n+ a\n```",
        "explain\n\n````\n```\n- b\n```\n````",
    ]


def test_continue_takes_the_last_session(daemon: ScriptedDaemon) -> None:
    assert assistant("-c", "and?").returncode == 0
    assert daemon.wait_for(Chat) == [Chat(text="and?", session="new")]
    daemon.on("sessions", lambda request, send: send(Done(sessions=[])))
    done = assistant("-c", "and?")
    assert done.returncode == 1
    assert "there is no session to go on with" in done.stderr


def test_json_is_the_last_message(daemon: ScriptedDaemon) -> None:
    done = assistant("--json", "hi")
    assert done.returncode == 0
    (line,) = done.stdout.splitlines()
    reply = json.loads(line)
    assert (reply["text"], reply["finish_reason"]) == ("Hello there", "stop")
    assert reply["timings"]["completion_tokens"] == 4


def test_stats(daemon: ScriptedDaemon) -> None:
    done = assistant("--stats", "hi")
    assert done.stdout == "Hello there\n"
    assert "4 tokens written at 200.0 tokens/s" in done.stderr


def test_a_deadline_that_cuts_the_answer_is_told(daemon: ScriptedDaemon) -> None:
    cut = Done(text="He", finish_reason="deadline", timings=timings())
    daemon.on("chat", lambda request, send: send(cut))
    done = assistant("hi")
    assert (done.returncode, done.stdout) == (0, "He\n")
    assert done.stderr == "assistant: the deadline passed before the answer was complete\n"


def test_pieces_are_printed_as_they_come(daemon: ScriptedDaemon) -> None:
    seen = threading.Event()

    def handler(request: Request, send: Send) -> None:
        send(Delta(text="first"))
        assert seen.wait(WAIT_S)
        send(Done(text="first", finish_reason="stop", timings=timings()))

    daemon.on("chat", handler)
    with start("hi") as process:
        assert process.stdout is not None
        assert process.stdout.read(5) == "first"
        seen.set()
        assert process.wait(WAIT_S) == 0


# --- what goes wrong -------------------------------------------------------------------------


def test_an_error_of_the_daemon(daemon: ScriptedDaemon) -> None:
    daemon.on("chat", fail("busy", "the queue is full; try again in 2 s", 2000))
    done = assistant("hi")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "assistant: the queue is full; try again in 2 s\n"


def test_an_error_with_json(daemon: ScriptedDaemon) -> None:
    daemon.on("chat", fail("busy", "full"))
    done = assistant("--json", "hi")
    assert done.returncode == 1
    assert json.loads(done.stdout) == {"error": {"code": "busy", "message": "full"}}


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (("ask",), "there is no question"),
        (("ask", "--temperature", "99", "x"), "0<=x<=10"),
        (("ask", "--nonsense", "x"), "No such option"),
        (("-s", "a", "-c", "x"), "give one of them"),
        (("statsu",), "did you mean `assistant status`?"),
        (("device", "list"), "did you mean `assistant devices`?"),
        (("--json", "devices", "list"), "options come after the command: assistant devices"),
        (("--schema", __file__, "x"), "is not valid JSON"),
        (("--endpoint", "nowhere", "ask", "x"), "cannot use the endpoint 'nowhere'"),
        (("sessions", "rename", "x"), "Missing argument"),
    ],
)
def test_wrong_usage(daemon: ScriptedDaemon, args: tuple[str, ...], told: str) -> None:
    done = assistant(*args)
    assert (done.returncode, done.stdout) == (2, "")
    assert told in done.stderr
    assert done.stderr.startswith("assistant: ")
    assert len(done.stderr.splitlines()) == 1
    assert daemon.requests == []


@pytest.mark.parametrize(
    "args", [("hi",), ("status",), ("ping",), ("sessions", "list"), ("top",), ("budget", "1G")]
)
def test_nobody_listens(tmp_path: Path, args: tuple[str, ...]) -> None:
    endpoint = f"ipc://{tmp_path / 'none.sock'}"
    done = assistant(*args, env={"ASSISTANTD_ENDPOINT": endpoint})
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith(f"assistant: no daemon listens at {endpoint}; ")
    assert len(done.stderr.splitlines()) == 1


def test_a_socket_file_that_was_left_behind(daemon: ScriptedDaemon) -> None:
    daemon.stop()  # as after kill -9: the file may still be there
    path = Path(daemon.endpoint.removeprefix("ipc://"))
    if not path.exists():
        import socket

        with socket.socket(socket.AF_UNIX) as left:
            left.bind(str(path))
    done = assistant("ping")
    assert done.returncode == 3
    assert "no daemon listens" in done.stderr


def test_the_daemon_dies_in_the_middle_of_an_answer(daemon: ScriptedDaemon) -> None:
    daemon.on("chat", lambda request, send: send(Delta(text="Once")))
    with start("hi") as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.read(4) == "Once"
        daemon.stop()
        assert process.wait(WAIT_S) == 3
        assert "went away before it had answered" in process.stderr.read()


def test_ctrl_c_cancels_and_exits_130(daemon: ScriptedDaemon) -> None:
    asked: list[str] = []
    say = say_until_cancelled("Once")

    def chat(request: Request, send: Send) -> None:
        asked.append(send.request_id.decode())
        say(request, send)

    daemon.on("chat", chat)
    with start("hi") as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.read(4) == "Once"
        process.send_signal(signal.SIGINT)
        assert process.wait(WAIT_S) == 130
        assert process.stderr.read() == ""
    assert daemon.wait_for(Cancel) == [Cancel(target=asked[0])]


def test_a_reader_that_leaves_cancels(daemon: ScriptedDaemon) -> None:
    gone = threading.Event()

    def handler(request: Request, send: Send) -> None:
        send(Delta(text="first\n"))
        assert gone.wait(WAIT_S)
        send(Delta(text="more\n"))
        assert send.cancelled.wait(WAIT_S)

    daemon.on("chat", handler)
    with start("hi") as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline() == "first\n"
        process.stdout.close()
        gone.set()
        assert process.wait(WAIT_S) == 141
        assert process.stderr.read() == ""


def test_ask_imports_nothing_heavy(daemon: ScriptedDaemon) -> None:
    script = (
        "import sys; from clients.cli.app import run; code = run(['ask', 'hi']); "
        "heavy = {'numpy', 'numba', 'engine', 'rich', 'prompt_toolkit', 'asyncio', 'subprocess'}; "
        "print(sorted(heavy & set(sys.modules)), code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], input="", capture_output=True, text=True, timeout=WAIT_S
    )
    assert done.stdout == "Hello there\n[] 0\n"
    assert daemon.wait_for(Chat) == [Chat(text="hi")]


# --- no model yet ----------------------------------------------------------------------------


class NoModel:
    """Makes a scripted daemon one that has no model until one is pulled."""

    def __init__(self, daemon: ScriptedDaemon, *, loads_by_itself: bool = True) -> None:
        self.on_disk: list[ModelInfo] = []
        self.loaded = False
        self._loads_by_itself = loads_by_itself
        daemon.on("chat", self._chat)
        daemon.on("models", self._models)

    def _chat(self, request: Request, send: Send) -> None:
        if self.loaded:
            say("Paris.")(request, send)
        else:
            fail("not_found", "the model was unloaded")(request, send)

    def _models(self, request: Request, send: Send) -> None:
        assert isinstance(request, Models)
        info = ModelInfo(name="smollm2", size_bytes=98_000_000)
        if request.op == "list":
            send(Done(models=self.on_disk))
        elif request.op == "pull":
            for n in range(101):
                send(Progress("download", "downloading smollm2", n, 100))
            self.on_disk.append(info)
            self.loaded = self._loads_by_itself
            send(Done(model=info))
        else:
            self.loaded = True
            send(Done(model=info))


def ops(daemon: ScriptedDaemon) -> list[str]:
    return [request.op for request in daemon.requests if isinstance(request, Models)]


def test_yes_downloads_the_default_model(daemon: ScriptedDaemon) -> None:
    NoModel(daemon)
    done = assistant("-y", "What is the capital of France?")
    assert (done.returncode, done.stdout) == (0, "Paris.\n")
    lines = done.stderr.splitlines()
    assert lines[0] == "assistant: downloading smollm2 0 %"
    assert lines[-2:] == ["assistant: downloading smollm2 100 %", "assistant: smollm2 is here"]
    assert len(lines) == 12
    assert ops(daemon) == ["list", "pull"]


def test_it_is_loaded_where_the_daemon_serves_another(daemon: ScriptedDaemon) -> None:
    NoModel(daemon, loads_by_itself=False)
    assert assistant("-y", "What?").stdout == "Paris.\n"
    assert ops(daemon) == ["list", "pull", "load"]


def test_without_yes_and_terminal_the_command_is_told(daemon: ScriptedDaemon) -> None:
    NoModel(daemon)
    done = assistant("What?")
    assert (done.returncode, done.stdout) == (1, "")
    assert "`assistant models pull smollm2`, or add -y" in done.stderr
    assert ops(daemon) == ["list"]


def test_no_download_where_there_are_models(daemon: ScriptedDaemon) -> None:
    NoModel(daemon).on_disk.append(ModelInfo(name="other", size_bytes=1))
    done = assistant("-y", "What?")
    assert (done.returncode, done.stderr) == (1, "assistant: the model was unloaded\n")


@pytest.mark.parametrize("key", [ENTER, "n" + ENTER])
def test_on_a_terminal_one_is_asked(daemon: ScriptedDaemon, key: str) -> None:
    NoModel(daemon)
    with Terminal([*COMMAND, "What?"], dict(os.environ)) as terminal:
        terminal.read_until("SmolLM2 (98 MB) is not on this machine yet. Download it now? [Y/n]")
        terminal.press(key)
        if key == ENTER:
            terminal.read_until("Paris.")
            assert terminal.wait() == 0
        else:
            terminal.read_until("there is no model to answer with")
            assert terminal.wait() == 1
    assert ("pull" in ops(daemon)) == (key == ENTER)


# --- the other commands ----------------------------------------------------------------------


def test_status(daemon: ScriptedDaemon) -> None:
    model = ModelInfo(name="smollm2", size_bytes=1)
    info = status_info(model=model, memory={"rss": 98_000_000}, tokens_per_second=61.25)
    daemon.on("status", lambda request, send: send(Done(status=info)))
    text = assistant("status").stdout
    assert "state       ready\n" in text
    assert "model       smollm2\n" in text
    assert "last speed  61.2 tokens/s\n" in text
    assert "memory      93M in use now\n" in text
    assert "planned" not in text
    assert json.loads(assistant("status", "--json").stdout)["model"]["name"] == "smollm2"


def test_ping(daemon: ScriptedDaemon) -> None:
    assert assistant("ping").stdout.startswith("assistantd 0.0.test answered in ")
    assert json.loads(assistant("ping", "--json").stdout)["version"] == "0.0.test"


def test_sessions_list(daemon: ScriptedDaemon) -> None:
    rows = [line.split("\t")[:3] for line in assistant("sessions", "list").stdout.splitlines()]
    assert rows == [["new", "A tab", "4"], ["old", "Rivers", "2"]]
    listed = json.loads(assistant("sessions", "list", "--json").stdout)
    assert [session["id"] for session in listed] == ["new", "old"]


def test_sessions_show_rename_delete(daemon: ScriptedDaemon) -> None:
    session = SessionInfo(
        id="old",
        title="Rivers",
        created_at=1.0,
        updated_at=2.0,
        n_messages=3,
        messages=[
            StoredMessage(role="user", content="Longest?", created_at=1.0),
            StoredMessage(
                role="assistant", content="The Nile", created_at=2.0, finish_reason="length"
            ),
            StoredMessage(role="user", content="Sure?", created_at=3.0, answered=False),
        ],
    )

    def handler(request: Request, send: Send) -> None:
        assert isinstance(request, Sessions)
        send(Done(message="deleted") if request.op == "delete" else Done(session=session))

    daemon.on("sessions", handler)
    assert assistant("sessions", "show", "old").stdout == (
        "# Rivers\n\n## You\n\nLongest?\n\n## Assistant (length)\n\nThe Nile\n"
        "\n## You (not answered)\n\nSure?\n"
    )
    shown = json.loads(assistant("sessions", "show", "old", "--json").stdout)
    assert len(shown["messages"]) == 3
    assert assistant("sessions", "rename", "old", "Rivers").stdout == (
        "old is now called 'Rivers'\n"
    )
    assert assistant("sessions", "delete", "old", "new").stdout == (
        "old was deleted\nnew was deleted\n"
    )
    assert [(r.op, r.session, r.title) for r in daemon.wait_for(Sessions, 5)] == [  # type: ignore[union-attr]
        ("show", "old", None),
        ("show", "old", None),
        ("rename", "old", "Rivers"),
        ("delete", "old", None),
        ("delete", "new", None),
    ]


def test_models(daemon: ScriptedDaemon) -> None:
    model = ModelInfo(
        name="smollm2",
        size_bytes=98_000_000,
        loaded=True,
        quantization="Q4_1",
        parameters=134_515_008,
        context_length=8192,
        plan=plan_info(),
    )
    broken = ModelInfo(name="bad", size_bytes=10, problem="is cut off")

    def handler(request: Request, send: Send) -> None:
        assert isinstance(request, Models)
        if request.op == "list":
            send(Done(models=[model, broken]))
        elif request.op in ("show", "pull", "load"):
            send(Progress("load", "reading", 1, 2))
            send(Done(model=model))
        else:
            send(Done(message="fine"))

    daemon.on("models", handler)
    assert assistant("models", "list").stdout == (
        "smollm2\t98 MB\tQ4_1\tloaded\nbad\t10 bytes\t\tis cut off\n"
    )
    shown = assistant("models", "show", "smollm2").stdout
    assert "parameters    135M\n" in shown
    assert "planned       300M: libraries 60M, weights 110M, " in shown
    assert assistant("models", "load", "smollm2").stdout == "smollm2 is loaded\n"
    assert json.loads(assistant("models", "pull", "smollm2", "--json").stdout)["loaded"] is True
    assert assistant("models", "unload").stdout == "no model is in memory now\n"
    assert assistant("models", "rm", "smollm2").stdout == "smollm2 was deleted\n"
    assert ops(daemon) == ["list", "show", "load", "pull", "unload", "remove"]


@pytest.mark.parametrize(
    "args", [(), ("models", "show"), *((command,) for command in COMMANDS if command != "bench")]
)
def test_help_needs_no_daemon(tmp_path: Path, args: tuple[str, ...]) -> None:
    env = {"ASSISTANTD_ENDPOINT": f"ipc://{tmp_path / 'none.sock'}"}
    done = assistant(*args, "--help", env=env)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Usage: assistant" in done.stdout


def test_version(tmp_path: Path) -> None:
    assert assistant("--version").stdout.startswith("assistant 0.")


def test_tab_completion(tmp_path: Path) -> None:
    env = {"_ASSISTANT_COMPLETE": "bash_complete", "COMP_WORDS": "assistant s", "COMP_CWORD": "1"}
    words = {line.partition(",")[2] for line in assistant(env=env).stdout.splitlines()}
    assert words == {"status", "start", "stop", "sessions", "service"}


def test_tables_have_headers_and_no_control_characters_on_a_terminal(
    daemon: ScriptedDaemon,
) -> None:
    SESSIONS[1].title = "evil \x07\x1b]0;title [bold]"
    with Terminal([*COMMAND, "sessions", "list"], dict(os.environ)) as terminal:
        assert terminal.wait() == 0
        assert "last used" in terminal.seen
        assert "evil ]0;title [bold]" in terminal.seen
        assert "\x07" not in terminal.seen


# --- starting the daemon ---------------------------------------------------------------------


@pytest.fixture
def fresh_machine(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Environment in which no daemon runs, and the stand-in is what would be started."""
    runtime = tmp_path / "run"
    runtime.mkdir()
    path = stand_in_daemon.install(tmp_path / "stand-in")
    env = {"XDG_RUNTIME_DIR": str(runtime), "ASSISTANTD_ENDPOINT": "", "PYTHONPATH": path}
    yield env
    assistant("stop", env=env)


def test_the_first_question_starts_the_daemon(fresh_machine: dict[str, str]) -> None:
    env = {**fresh_machine, "STAND_IN_MODEL": "missing"}
    done = assistant("-y", "What is the capital of France?", env=env)
    assert (done.returncode, done.stdout) == (0, "The capital of France is Paris.\n")
    assert "no daemon is running; starting assistantd" in done.stderr.splitlines()[0]
    assert assistant("ping", env=env).returncode == 0  # it stays
    assert "runs already" in assistant("start", env=env).stdout
    assert assistant("stop", env=env).stdout == "assistantd stopped\n"
    assert assistant("ping", env=env).returncode == 3
    assert assistant("stop", env=env).stdout == "assistantd is not running\n"


def test_two_commands_at_once_start_one_daemon(fresh_machine: dict[str, str]) -> None:
    env = {**os.environ, **fresh_machine}
    both = [
        subprocess.Popen(
            [*COMMAND, "hi"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=env,
        )
        for _ in range(2)
    ]
    for process in both:
        assert process.communicate(timeout=4 * WAIT_S)[0] == "The capital of France is Paris.\n"
    starts = Path(fresh_machine["XDG_RUNTIME_DIR"]) / "assistantd.sock.starts"
    assert len(starts.read_text().splitlines()) == 1


def test_a_daemon_that_cannot_start_says_why(tmp_path: Path) -> None:
    """The real daemon, with a setting it does not know."""
    config = tmp_path / "config"
    (config / "assistantd").mkdir(parents=True)
    (config / "assistantd" / "config.toml").write_text("modle = 'x'\n")
    env = {
        "XDG_RUNTIME_DIR": str(tmp_path),
        "XDG_CONFIG_HOME": str(config),
        "ASSISTANTD_ENDPOINT": "",
        "PYTHONPATH": str(REPOSITORY),
    }
    done = assistant("hi", env=env)
    assert (done.returncode, done.stdout) == (3, "")
    assert "assistantd could not start (it ended with status 2)" in done.stderr
    assert "did you mean model?" in done.stderr
    assert "Traceback" not in done.stderr


def test_autostart_can_be_switched_off_and_on(
    fresh_machine: dict[str, str], tmp_path: Path
) -> None:
    off = assistant("hi", env={**fresh_machine, "ASSISTANTD_AUTOSTART": "0"})
    assert off.returncode == 3
    assert "no daemon listens" in off.stderr
    endpoint = f"ipc://{tmp_path / 'mine.sock'}"
    on = {**fresh_machine, "ASSISTANTD_ENDPOINT": endpoint, "ASSISTANTD_AUTOSTART": "1"}
    assert assistant("hi", env=on).stdout == "The capital of France is Paris.\n"
    assert assistant("stop", "--endpoint", endpoint, env=on).stdout == "assistantd stopped\n"


# --- chat ------------------------------------------------------------------------------------


def test_chat_reads_lines_from_a_pipe(daemon: ScriptedDaemon, tmp_path: Path) -> None:
    questions = 'one\n\ntwo \\\nlines\n"""\na\n\nblock\n"""\n'
    script = questions + "/set temperature 0.5\n/system Be brief.\n/retry\n"
    done = assistant("chat", "-s", "s1", stdin=script)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("Hello there\n") == 4
    assert daemon.wait_for(Chat, 4) == [
        Chat(text="one", session="s1"),
        Chat(text="two \nlines", session="s1"),
        Chat(text="a\n\nblock", session="s1"),
        Chat(text="a\n\nblock", session="s1", system="Be brief.", temperature=0.5),
    ]


def test_chat_slash_commands(daemon: ScriptedDaemon, tmp_path: Path) -> None:
    stored = [StoredMessage(role="user", content="Longest?", created_at=1.0)]
    session = SessionInfo("x", "Rivers", 1.0, 2.0, 1, stored)

    def handler(request: Request, send: Send) -> None:
        assert isinstance(request, Sessions)
        send(Done(sessions=SESSIONS) if request.op == "list" else Done(session=session))

    daemon.on("sessions", handler)
    saved = tmp_path / "saved.md"
    script = (
        f"/help\n/sessions\n/switch x\nhi\n/save {saved}\n/save {saved}\n/set top_k many\n"
        "/nothing\n/stats\n/new y\nhi\n/quit\nnever sent\n"
    )
    done = assistant("chat", stdin=script)
    assert done.returncode == 1  # some commands failed
    assert "/retry" in done.stdout and "\tnew\t" in done.stdout
    assert saved.read_text() == "# Rivers\n\n## You\n\nLongest?\n"
    assert [chat.session for chat in daemon.wait_for(Chat, 2) if isinstance(chat, Chat)] == [
        "x",
        "y",
    ]
    problems = done.stderr.splitlines()
    assert f"{saved} exists" in problems[0]
    assert problems[1].startswith("assistant: /set top_k many: Expected `int`")
    assert "there is no command /nothing" in problems[2]
    assert "tokens/s" in problems[3]
    assert len(problems) == 4


def test_chat_goes_on_after_an_error(daemon: ScriptedDaemon) -> None:
    replies: list[Callable[[Request, Send], None]] = [fail("busy", "full"), say("Fine")]
    daemon.on("chat", lambda request, send: replies.pop(0)(request, send))
    done = assistant("chat", stdin="one\ntwo\n")
    assert (done.returncode, done.stdout, done.stderr) == (1, "Fine\n", "assistant: full\n")


def test_chat_on_a_terminal(daemon: ScriptedDaemon) -> None:
    with Terminal([*COMMAND, "chat", "-s", "s1"], dict(os.environ)) as terminal:
        terminal.read_until("session s1")
        terminal.read_until("you>")
        terminal.press("How" + ESCAPE + ENTER + "are you?" + ENTER)
        terminal.read_until("Hello there")

        daemon.on("chat", say_until_cancelled("Once upon"))
        terminal.read_until("you>")
        terminal.press("Tell" + ENTER)
        terminal.read_until("Once upon")
        terminal.press(CTRL_C)  # ends the answer, not the program
        terminal.read_until("cancelled")

        terminal.read_until("you>")
        terminal.press("half a tho" + CTRL_C)
        terminal.read_until("Ctrl-D or /quit leaves")
        terminal.read_until("you>")
        terminal.press(CTRL_D)
        assert terminal.wait() == 0
    assert daemon.wait_for(Chat, 2) == [
        Chat(text="How\nare you?", session="s1"),
        Chat(text="Tell", session="s1"),
    ]
    assert len(daemon.wait_for(Cancel)) == 1
    history = Path(os.environ["XDG_STATE_HOME"]) / "assistantd" / "chat_history"
    assert history.stat().st_mode & 0o077 == 0
    assert "+Tell" in history.read_text()


def test_a_package_of_an_extra_is_missing() -> None:
    """Whichever command finds out says how to get it; nobody sees a traceback."""
    done = subprocess.run(
        [
            *(sys.executable, "-c"),
            "import sys; sys.modules['soxr'] = None\n"
            "from clients.cli.app import run\n"
            "sys.exit(run(['voice', 'voices']))",
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    told = "assistant: the Python package soxr is not installed; pip install 'assistantd[voice]'\n"
    assert done.stderr == told
