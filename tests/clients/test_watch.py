"""clients.watch: a glance, over a network that comes and goes; and what it may cost."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from assistantd.protocol import Chat, Delta, Done, Error, ErrorInfo, Progress, Request, Resume
from clients import servers, watch
from tests.clients.scripted_daemon import WAIT_S, Send, fail, say
from tests.clients.scripted_network import NetworkDaemon, Teller

REPOSITORY = Path(__file__).resolve().parents[2]
PIECES = ("The moon ", "is 384,400 km ", "away 🌙.")
TEXT = "".join(PIECES)
MAX_RSS_KB = 15_000


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[NetworkDaemon]:
    with NetworkDaemon(tmp_path) as daemon:
        daemon.pair("home")
        yield daemon


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """Where the program keeps a question."""
    return tmp_path / "xdg_state_home" / "assistantd" / "watch.json"


def run(*arguments: str, stdin: str = "") -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "clients.watch", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=4 * WAIT_S,
        cwd=REPOSITORY,
    )


def glance(kept: Path, *, stream: bool = False) -> watch.Glance:
    return watch.Glance(msgspec.to_builtins(servers.load()[0]), str(kept), stream=stream)


def answer(
    glance: watch.Glance, each_turn: Callable[[], None] = lambda: None, turns: int = 400
) -> str:
    for _turn in range(turns):
        found = glance.turn(50)
        if found is not None:
            return found
        each_turn()
    raise AssertionError(f"no answer; so far {glance.text!r}")


# --- the program -----------------------------------------------------------------------------


def test_a_question(daemon: NetworkDaemon, kept: Path) -> None:
    Teller(*PIECES).install(daemon)
    done = run("How", "far?")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{TEXT}\n", "")
    (asked,) = daemon.wait_for(Chat)
    assert asked.text == "How far?" and not asked.stream
    assert asked.max_tokens == watch.MAX_TOKENS
    assert asked.system is not None and "140" in asked.system
    assert not kept.exists()


def test_each_line_is_a_question(daemon: NetworkDaemon) -> None:
    def echo(request: Request, send: Send) -> None:
        assert isinstance(request, Chat) and request.text is not None
        say(request.text, "!")(request, send)

    daemon.on("chat", echo)
    done = run("--stream", "--server", "home", stdin="one\ntwo\n")
    assert (done.returncode, done.stdout) == (0, "one!\ntwo!\n")


def test_a_question_waits_on_the_disk_and_is_asked_once(daemon: NetworkDaemon, kept: Path) -> None:
    teller = Teller(*PIECES).install(daemon)
    daemon.cable.cut()
    done = run("--wait", "0", "How far?")
    assert (done.returncode, done.stdout) == (3, "")
    assert "kept" in done.stderr
    assert kept.stat().st_mode & 0o777 == 0o600
    request_id = json.loads(kept.read_bytes())["id"]
    daemon.cable.mend()
    done = run()
    assert (done.returncode, done.stdout) == (0, f"{TEXT}\n")
    assert "How far?" in done.stderr
    assert teller.asked == [request_id.encode()]
    assert not kept.exists()
    assert run().stdout == ""
    assert len(teller.asked) == 1


def test_killed_in_mid_answer(daemon: NetworkDaemon, kept: Path) -> None:
    teller = Teller(*PIECES, pause_after=1).install(daemon)
    process = subprocess.Popen([sys.executable, "-m", "clients.watch", "How far?"], cwd=REPOSITORY)
    assert teller.paused.wait(WAIT_S)
    process.kill()
    process.wait()
    teller.go_on.set()
    assert run().stdout == f"{TEXT}\n"
    assert len(teller.asked) == 1
    assert len(daemon.wait_for(Chat)) == 1 and len(daemon.wait_for(Resume)) == 1


def test_a_key_that_is_refused(daemon: NetworkDaemon, kept: Path) -> None:
    daemon.refused.add(servers.load()[0].public_key)
    done = run("How far?")
    assert (done.returncode, done.stdout) == (1, "")
    assert "assistant connect" in done.stderr
    assert not kept.exists()


def test_what_the_daemon_refuses(daemon: NetworkDaemon, kept: Path) -> None:
    daemon.on("chat", fail("model_error", "the model is broken"))
    done = run("How far?")
    assert (done.returncode, done.stderr) == (1, "watch: the model is broken\n")
    assert not kept.exists()


@pytest.mark.parametrize("arguments", [["--wait"], ["--wait", "x"], ["--unknown", "x"]])
def test_wrong_usage(daemon: NetworkDaemon, arguments: list[str]) -> None:
    done = run(*arguments)
    assert done.returncode == 2 and "--server NAME" in done.stderr


def test_a_question_that_cannot_be_kept(daemon: NetworkDaemon, kept: Path) -> None:
    kept.parent.parent.mkdir(parents=True, exist_ok=True)
    kept.parent.symlink_to(kept.parent.parent / "nowhere")
    done = run("hi")
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert f"cannot write {kept}" in done.stderr


def test_keys_that_are_not_whole(daemon: NetworkDaemon, tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    path.write_text('[{"endpoint": "tcp://127.0.0.1:9"}]')
    done = run("--keys", str(path), "hi")
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "run `assistant connect`" in done.stderr


def test_no_keys(tmp_path: Path) -> None:
    done = run("hi")
    assert done.returncode == 1 and "assistant connect" in done.stderr


def test_damaged_keys(daemon: NetworkDaemon, kept: Path) -> None:
    (server,) = servers.load()
    server.secret_key = "short"
    servers.save([server])
    done = run("hi")
    assert (done.returncode, done.stdout) == (1, "")
    assert "are damaged" in done.stderr
    assert kept.exists()  # for the time when they are mended


def test_keys_of_a_file(daemon: NetworkDaemon, tmp_path: Path) -> None:
    Teller(*PIECES).install(daemon)
    keys = tmp_path / "keys.json"
    keys.write_bytes(msgspec.json.encode(servers.load()[0]))
    servers.save([])
    assert run("--keys", str(keys), "How far?").stdout == f"{TEXT}\n"


# --- over a network that comes and goes ------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("pause_after", range(len(PIECES)))
def test_the_connection_is_lost(
    daemon: NetworkDaemon, kept: Path, stream: bool, pause_after: int
) -> None:
    teller = Teller(*PIECES, pause_after=pause_after).install(daemon)
    mine = glance(kept, stream=stream)
    mine.ask("How far?")

    def cut_once() -> None:
        if teller.paused.is_set() and not teller.go_on.is_set():
            daemon.cable.cut()
            daemon.cable.mend()
            teller.go_on.set()

    assert answer(mine, cut_once) == TEXT
    assert len(teller.asked) == 1
    assert mine.connections == 2


def test_the_daemon_restarts(daemon: NetworkDaemon, kept: Path) -> None:
    teller = Teller(*PIECES, pause_after=1).install(daemon)
    mine = glance(kept, stream=True)
    mine.ask("How far?")

    def restart_once() -> None:
        if teller.paused.is_set() and not teller.go_on.is_set():
            daemon.stop()
            teller.forget()
            teller.go_on.set()
            daemon.restart()

    assert answer(mine, restart_once) == TEXT
    assert len(teller.asked) == 2 and len(set(teller.asked)) == 1
    first, second = daemon.wait_for(Chat, 2)
    assert first == second


def test_a_busy_daemon_is_asked_again_later(daemon: NetworkDaemon, kept: Path) -> None:
    ids = []

    def chat(request: Request, send: Send) -> None:
        ids.append(send.request_id)
        if len(ids) == 1:
            send(Error(ErrorInfo("busy", "come again", retry_after_ms=1)))
        else:
            say(TEXT)(request, send)

    daemon.on("chat", chat)
    mine = glance(kept)
    mine.ask("How far?")
    assert answer(mine) == TEXT
    assert len(ids) == 2 and len(set(ids)) == 1


def test_what_belongs_to_nobody_is_left_alone(daemon: NetworkDaemon, kept: Path) -> None:
    def chat(request: Request, send: Send) -> None:
        send.raw([b"assistant/1", b"another", b'{"type":"done","text":"wrong"}'])
        send(Progress(stage="queued", message="1 before you"))
        send(Delta("right"))
        send(Done(text="right", finish_reason="stop"))

    daemon.on("chat", chat)
    mine = glance(kept)
    mine.ask("How far?")
    assert answer(mine) == "right"


def test_a_reply_that_is_too_long(daemon: NetworkDaemon, kept: Path) -> None:
    daemon.on("chat", say("x" * watch.MAX_REPLY_BYTES))
    mine = glance(kept)
    mine.ask("How far?")
    with pytest.raises(watch.WatchError, match="too long"):
        answer(mine)
    assert not kept.exists()


# --- a glance --------------------------------------------------------------------------------

sentences = st.lists(
    st.text(st.sampled_from("abc .!?。한 "), max_size=60).map(lambda s: s + "."), max_size=8
)


@given(sentences.map(" ".join) | st.text())
def test_what_is_shown(text: str) -> None:
    shown = watch.at_a_glance(text)
    plain = " ".join(text.split())
    assert len(shown) <= watch.MAX_CHARACTERS
    assert plain.startswith(shown.removesuffix("…"))
    assert len(plain) > watch.MAX_CHARACTERS or shown == plain


def test_it_ends_with_a_sentence_or_a_word() -> None:
    first = "Seoul is the capital of South Korea. It has 3.6 million flats, and "
    assert watch.at_a_glance(first + "so on " * 30) == "Seoul is the capital of South Korea."
    cut = watch.at_a_glance("word " * 100)
    assert cut.endswith("word…") and len(cut) > 130
    assert watch.at_a_glance("가" * 139 + "。" + "나" * 9) == "가" * 139 + "。"
    assert watch.at_a_glance("가" * 200) == "가" * 139 + "…"


# --- what it costs ---------------------------------------------------------------------------


def test_it_stands_alone() -> None:
    code = (
        "import sys, clients.watch; print(sorted(m for m in sys.modules if m.partition('.')[0] in "
        "('clients', 'assistantd', 'zmq', 'msgspec', 'asyncio', 'ssl', 'argparse', 'typing')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY
    )
    assert done.stdout.strip() == "['clients', 'clients.watch']"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_after_an_answer(daemon: NetworkDaemon) -> None:
    Teller(*PIECES).install(daemon)
    done = run("--stats", "How far?")
    assert done.stdout == f"{TEXT}\n"
    assert int(done.stderr.split()[-4]) < MAX_RSS_KB, done.stderr


@pytest.mark.parametrize("question", ["?", "How far is the moon, and how far is the sun? " * 10])
@pytest.mark.parametrize("stream", [False, True])
def test_bytes_are_counted(daemon: NetworkDaemon, kept: Path, question: str, stream: bool) -> None:
    Teller(*PIECES).install(daemon)
    mine = glance(kept, stream=stream)
    mine.ask(question)
    assert answer(mine) == TEXT
    assert (mine.sent, mine.received) == (daemon.cable.sent, daemon.cable.received)
