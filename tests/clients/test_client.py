"""clients.client over real ipc sockets, against a daemon that says what each test needs."""

import gc
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import clients
from assistantd.protocol import (
    Budget,
    Cancel,
    Chat,
    Complete,
    Delta,
    Done,
    Forget,
    ForgottenInfo,
    Message,
    ModelInfo,
    Models,
    Ping,
    Progress,
    Request,
    SessionInfo,
    Sessions,
    Shutdown,
    Status,
)
from clients import AssistantError, Client, errors
from tests.clients.scripted_daemon import (
    WAIT_S,
    ScriptedDaemon,
    Send,
    fail,
    plan_info,
    say,
    say_until_cancelled,
    status_info,
)

SESSION = SessionInfo(id="s1", title="Rivers", created_at=1.0, updated_at=2.0, n_messages=2)
MODEL = ModelInfo(name="tiny", size_bytes=1000)
PLAN = plan_info()


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[ScriptedDaemon]:
    with ScriptedDaemon(tmp_path) as daemon:
        yield daemon


@pytest.fixture
def client(daemon: ScriptedDaemon) -> Iterator[Client]:
    with Client(daemon.endpoint, timeout=WAIT_S) as client:
        yield client


# --- answers ---------------------------------------------------------------------------------


def test_an_answer_streams_and_ends(daemon: ScriptedDaemon, client: Client) -> None:
    daemon.on("chat", say("Pa", "ris", ".", " ✓"))
    answer = client.ask("Capital of France?", system="Be brief.", temperature=0.0, stop="\n")
    assert answer.done is None and answer.finish_reason is None and answer.timings is None
    assert next(answer) == "Pa"
    assert answer.text == "Pa"
    assert list(answer) == ["ris", ".", " ✓"]
    assert answer.text == str(answer) == "Paris. ✓"
    assert answer.finish_reason == "stop"
    assert answer.timings is not None and answer.timings.completion_tokens == 4
    assert daemon.requests == [
        Chat(text="Capital of France?", system="Be brief.", temperature=0.0, stop=["\n"])
    ]


def test_wait_gives_the_whole_text(daemon: ScriptedDaemon, client: Client) -> None:
    daemon.on("complete", say("one ", "two"))
    assert str(client.complete("count", max_tokens=5, stop=("a", "b")).wait()) == "one two"
    assert daemon.requests == [Complete(prompt="count", max_tokens=5, stop=["a", "b"])]


def test_messages_instead_of_text(daemon: ScriptedDaemon, client: Client) -> None:
    daemon.on("chat", say("ok"))
    given = [{"role": "user", "content": "a"}, Message(role="user", content="b")]
    client.ask(messages=given, logit_bias={"5": -1.0}).wait()
    expected = [Message(role="user", content="a"), Message(role="user", content="b")]
    assert daemon.requests == [Chat(messages=expected, logit_bias={"5": -1.0})]


def test_without_streaming_the_text_is_one_piece(daemon: ScriptedDaemon, client: Client) -> None:
    daemon.on("chat", lambda r, send: send(Done(text="all at once", finish_reason="stop")))
    assert list(client.ask("hi", stream=False)) == ["all at once"]


def test_an_empty_answer_has_no_pieces(daemon: ScriptedDaemon, client: Client) -> None:
    daemon.on("chat", lambda r, send: send(Done(text="", finish_reason="stop")))
    answer = client.ask("hi")
    assert list(answer) == []
    assert answer.text == ""


def test_progress_is_reported_in_order(daemon: ScriptedDaemon, client: Client) -> None:
    queued = Progress(stage="queued", message="1 before you")
    prefill = Progress(stage="prefill", message="reading", completed=3, total=9)

    def handler(request: Request, send: Send) -> None:
        for reply in (queued, prefill, Delta(text="x"), Done(text="x", finish_reason="stop")):
            send(reply)

    daemon.on("chat", handler)
    seen: list[Progress] = []
    assert list(client.ask("hi", on_progress=seen.append)) == ["x"]
    assert seen == [queued, prefill]


def test_more_pieces_than_zeromq_queues_by_default_all_arrive(
    daemon: ScriptedDaemon, client: Client
) -> None:
    pieces = [f"{number} " for number in range(5000)]
    daemon.on("chat", say(*pieces))
    answer = client.ask("count")
    assert next(answer) == "0 "
    assert client.ping().version  # while the rest of the answer piles up
    assert list(answer) == pieces[1:]


def test_two_answers_on_one_client(daemon: ScriptedDaemon, client: Client) -> None:
    def handler(request: Request, send: Send) -> None:
        assert isinstance(request, Chat) and request.text is not None
        say(request.text, request.text)(request, send)

    daemon.on("chat", handler)
    first, second = client.ask("a"), client.ask("b")
    assert list(second) == ["b", "b"]
    assert list(first) == ["a", "a"]


# --- cancelling ------------------------------------------------------------------------------


def test_cancel_ends_the_answer(daemon: ScriptedDaemon, client: Client) -> None:
    daemon.on("chat", say_until_cancelled("begin"))
    answer = client.ask("long story")
    assert next(answer) == "begin"
    answer.cancel()
    answer.cancel()  # once more does no harm
    assert list(answer) == []
    assert answer.finish_reason == "cancelled"
    assert answer.text == "begin"


def test_breaking_out_cancels(daemon: ScriptedDaemon, client: Client) -> None:
    daemon.on("chat", say_until_cancelled("begin"))
    for piece in client.ask("long story"):
        assert piece == "begin"
        break
    daemon.wait_for(Cancel)
    assert client.ping().version  # late replies to the answer do no harm


def test_leaving_the_with_block_cancels(daemon: ScriptedDaemon, client: Client) -> None:
    daemon.on("chat", say_until_cancelled("begin"))
    with client.ask("long story") as answer:
        assert next(answer) == "begin"
    daemon.wait_for(Cancel)
    assert list(answer) == []
    assert answer.done is None
    assert answer.text == "begin"


def test_dropping_an_answer_cancels(daemon: ScriptedDaemon, client: Client) -> None:
    daemon.on("chat", say_until_cancelled())
    client.ask("nobody reads this")
    gc.collect()
    daemon.wait_for(Cancel)


def test_a_finished_answer_is_not_cancelled(daemon: ScriptedDaemon, client: Client) -> None:
    daemon.on("chat", say("x"))
    with client.ask("hi") as answer:
        answer.wait()
    answer.cancel()
    answer.close()
    del answer
    client.ping()
    assert [type(request) for request in daemon.requests] == [Chat, Ping]


def test_cancel_of_an_answer_the_daemon_does_not_know(
    daemon: ScriptedDaemon, client: Client
) -> None:
    daemon.on("chat", lambda request, send: send(Delta(text="half")))  # and then it forgets
    daemon.on("cancel", fail("not_found", "no such request"))
    answer = client.ask("hi")
    assert next(answer) == "half"
    answer.cancel()
    assert answer.wait().finish_reason == "cancelled"
    assert answer.text == "half"


def test_cancel_from_another_thread(daemon: ScriptedDaemon, client: Client) -> None:
    daemon.on("chat", say_until_cancelled("a"))
    answer = client.ask("hi")

    def cancel() -> None:
        daemon.wait_for(Chat)
        answer.cancel()

    thread = threading.Thread(target=cancel)
    thread.start()
    assert answer.wait().finish_reason == "cancelled"
    thread.join(WAIT_S)


def test_cancel_from_a_signal_handler(daemon: ScriptedDaemon, client: Client) -> None:
    main = threading.get_ident()
    stream = say_until_cancelled("a", "b")

    def handler(request: Request, send: Send) -> None:
        signal.pthread_kill(main, signal.SIGUSR1)  # while the client waits
        stream(request, send)

    daemon.on("chat", handler)
    answers: list[clients.Answer] = []
    arrived = threading.Event()

    def on_signal(number: int, frame: object) -> None:
        arrived.set()
        for answer in answers:
            answer.cancel()

    before = signal.signal(signal.SIGUSR1, on_signal)
    try:
        answers.append(client.ask("hi"))
        if arrived.is_set():  # it came before there was an answer to cancel
            answers[0].cancel()
        assert answers[0].wait().finish_reason == "cancelled"
        assert arrived.is_set()
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_ctrl_c_while_pulling_cancels_the_download(daemon: ScriptedDaemon, client: Client) -> None:
    def handler(request: Request, send: Send) -> None:
        send(Progress(stage="download", message="tiny", completed=1, total=9))
        assert send.cancelled.wait(WAIT_S)
        send(Done(finish_reason="cancelled"))

    def interrupt(progress: Progress) -> None:
        raise KeyboardInterrupt

    daemon.on("models", handler)
    with pytest.raises(KeyboardInterrupt):
        client.pull("tiny", interrupt)
    daemon.wait_for(Cancel)


# --- errors ----------------------------------------------------------------------------------


@pytest.mark.parametrize("code", sorted(errors._BY_CODE))
def test_errors_by_code(daemon: ScriptedDaemon, client: Client, code: Any) -> None:
    daemon.on("chat", fail(code, f"what to do about {code}", retry_after_ms=250))
    with pytest.raises(errors._BY_CODE[code], match=f"what to do about {code}") as caught:
        client.ask("hi").wait()
    assert caught.value.code == code
    assert caught.value.retry_after_ms == 250
    assert client.ping().version  # the connection goes on


def test_an_error_after_some_text_keeps_the_text(daemon: ScriptedDaemon, client: Client) -> None:
    def handler(request: Request, send: Send) -> None:
        send(Delta(text="half"))
        fail("model_error", "the model broke")(request, send)

    daemon.on("chat", handler)
    answer = client.ask("hi")
    with pytest.raises(errors.ModelFailed):
        answer.wait()
    assert answer.text == "half"
    assert list(answer) == []  # it is over


def test_an_unreadable_reply_fails_its_request_only(daemon: ScriptedDaemon, client: Client) -> None:
    daemon.on("chat", lambda r, send: send.raw([b"assistant/1", send.request_id, b"{not json"]))
    with pytest.raises(errors.InternalError, match="same version"):
        client.ask("hi").wait()
    assert client.ping().version


def test_stray_frames_are_logged_and_skipped(
    daemon: ScriptedDaemon, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    def handler(request: Request, send: Send) -> None:
        send.raw([b"garbage"])
        send.raw([b"assistant/1", b"no-such-id", b'{"type":"delta","text":"x"}'])
        say("fine")(request, send)

    daemon.on("chat", handler)
    assert str(client.ask("hi").wait()) == "fine"
    assert "dropped an unreadable message" in caplog.text


def test_a_reply_without_what_was_asked_for(daemon: ScriptedDaemon, client: Client) -> None:
    daemon.on("status", lambda r, send: send(Done()))
    with pytest.raises(errors.InternalError, match="has no status"):
        client.status()


def test_what_cannot_be_sent_is_refused_here(daemon: ScriptedDaemon, client: Client) -> None:
    with pytest.raises(errors.TooLarge, match=r"4,194,304"):
        client.ask("x" * (4 * 1024 * 1024))
    with pytest.raises(errors.BadRequest, match="Unicode"):
        client.ask("broken \udc80 input")
    with pytest.raises(errors.BadRequest, match="JSON"):
        client.ask("hi", format={"enum": [object()]})
    with pytest.raises(errors.BadRequest, match="temprature"):
        client.ask("hi", temprature=0.5)
    with pytest.raises(errors.BadRequest, match="content"):
        client.ask(messages=[{"role": "user", "text": "hi"}])
    client.ping()
    assert [type(request) for request in daemon.requests] == [Ping]


def test_an_endpoint_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(errors.BadEndpoint, match="nonsense"):
        Client("nonsense")
    with pytest.raises(errors.BadEndpoint):
        Client(f"ipc://{tmp_path}/{'long' * 40}")


def test_the_endpoint_of_the_environment(
    daemon: ScriptedDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASSISTANTD_ENDPOINT", daemon.endpoint)
    with Client() as client:
        assert client.endpoint == daemon.endpoint
        assert client.ping(timeout=WAIT_S).version


# --- a daemon that is not there, or goes away ------------------------------------------------


def test_a_daemon_that_dies_mid_answer(daemon: ScriptedDaemon, client: Client) -> None:
    daemon.on("chat", say_until_cancelled("half of"))
    answer = client.ask("hi")
    assert next(answer) == "half of"
    daemon.stop()
    with pytest.raises(errors.ConnectionLost, match=r"went away"):
        answer.wait()
    assert answer.text == "half of"

    daemon.restart()
    daemon.on("chat", say("whole"))
    assert str(client.ask("again").wait()) == "whole"


def test_a_lost_request_is_not_sent_to_the_next_daemon(
    daemon: ScriptedDaemon, client: Client
) -> None:
    daemon.on("chat", say_until_cancelled("x"))
    first = client.ask("first")
    next(first)
    daemon.stop()
    with pytest.raises(errors.ConnectionLost):
        first.wait()
    waiting = client.ask("second")  # nobody there: it waits for the next daemon …
    waiting.close()  # … and this follows it
    daemon.requests.clear()
    daemon.restart()
    client.ping()
    kinds = [type(request) for request in daemon.requests]
    assert kinds == [Chat, Cancel, Ping]
    assert daemon.requests[0] == Chat(text="second")


def test_several_requests_are_lost_together(daemon: ScriptedDaemon, client: Client) -> None:
    answers = [client.ask("a"), client.ask("b")]
    daemon.wait_for(Chat, 2)
    daemon.stop()
    for answer in answers:
        with pytest.raises(errors.ConnectionLost):
            answer.wait()


def test_a_status_is_asked_again_when_the_connection_is_lost(daemon: ScriptedDaemon) -> None:
    daemon.on("status", lambda request, send: None)
    got: list[int] = []

    def ask() -> None:
        with Client(daemon.endpoint, timeout=WAIT_S) as client:
            got.append(client.status().pid)

    thread = threading.Thread(target=ask)
    thread.start()
    daemon.wait_for(Status)
    daemon.stop()
    daemon.on("status", lambda r, send: send(Done(status=status_info(pid=4711))))
    daemon.restart()
    thread.join(WAIT_S)
    assert got == [4711]


def test_what_changes_something_is_not_asked_again(daemon: ScriptedDaemon) -> None:
    caught: list[Exception] = []

    def ask() -> None:
        with Client(daemon.endpoint, timeout=WAIT_S) as client:
            try:
                client.delete_session("s1")
            except AssistantError as error:
                caught.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    daemon.wait_for(Sessions)
    daemon.stop()
    daemon.restart()
    thread.join(WAIT_S)
    assert [type(error) for error in caught] == [errors.ConnectionLost]
    assert len(daemon.wait_for(Sessions)) == 1


def test_nobody_there(tmp_path: Path) -> None:
    with Client(f"ipc://{tmp_path}/none.sock", timeout=0.05) as client:
        with pytest.raises(errors.NoAnswer, match="is it running there"):
            client.ping()
        with pytest.raises(errors.NoAnswer):
            client.ask("hi").wait()
        with pytest.raises(errors.NoAnswer, match=r"0\.02 s"):
            client.ping(timeout=0.02)


def test_a_silent_daemon(daemon: ScriptedDaemon) -> None:
    def handler(request: Request, send: Send) -> None:
        send(Delta(text="then nothing"))
        assert send.cancelled.wait(WAIT_S)

    daemon.on("chat", handler)
    with Client(daemon.endpoint) as client:
        client.ping(timeout=WAIT_S)
        answer = client.ask("hi")
        assert next(answer) == "then nothing"
        client.timeout = 0.05
        with pytest.raises(errors.NoAnswer):
            next(answer)
        daemon.wait_for(Cancel)  # nobody waits for it any more


def test_wait_ready_for_a_daemon_that_starts_later(tmp_path: Path) -> None:
    daemon = ScriptedDaemon(tmp_path)
    polled: list[bool] = []

    def alive() -> bool:
        polled.append(True)
        if len(polled) == 3:
            daemon.start()
        return True

    with Client(daemon.endpoint) as client:
        try:
            assert client.wait_ready(WAIT_S, alive).state == "ready"
            assert len(polled) >= 3
            assert len(daemon.wait_for(Ping)) == 1
        finally:
            daemon.stop()


def test_wait_ready_asks_for_the_status_if_a_ping_has_none(
    daemon: ScriptedDaemon, client: Client
) -> None:
    daemon.on("ping", lambda r, send: send(Done(version="1")))
    assert client.wait_ready(WAIT_S).version == "0.0.test"


def test_wait_ready_gives_up(tmp_path: Path) -> None:
    with Client(f"ipc://{tmp_path}/none.sock") as client:
        with pytest.raises(errors.NoAnswer):
            client.wait_ready(0.05)
        with pytest.raises(errors.ConnectionLost, match="process ended"):
            client.wait_ready(WAIT_S, lambda: False)


# --- the other verbs -------------------------------------------------------------------------

VERBS: list[tuple[Callable[[Client], object], Request, Done, object]] = [
    (lambda c: c.sessions(), Sessions(op="list"), Done(sessions=[SESSION]), [SESSION]),
    (lambda c: c.session("s1"), Sessions(op="show", session="s1"), Done(session=SESSION), SESSION),
    (
        lambda c: c.rename_session("s1", "t"),
        Sessions(op="rename", session="s1", title="t"),
        Done(session=SESSION),
        SESSION,
    ),
    (
        lambda c: c.delete_session("s1").message,
        Sessions(op="delete", session="s1"),
        Done(message="ok"),
        "ok",
    ),
    (
        lambda c: c.forget("s1", since=1.0, preview=True),
        Forget(session="s1", since=1.0, preview=True),
        Done(forgotten=ForgottenInfo(1, 2)),
        ForgottenInfo(1, 2),
    ),
    (
        lambda c: c.forget(all=True, owner="abcdefg2"),
        Forget(all=True, owner="abcdefg2"),
        Done(forgotten=ForgottenInfo(0, 0)),
        ForgottenInfo(0, 0),
    ),
    (lambda c: c.models(), Models(op="list"), Done(models=[]), []),
    (lambda c: c.show_model("tiny"), Models(op="show", name="tiny"), Done(model=MODEL), MODEL),
    (
        lambda c: c.show_model("tiny", budget=0),
        Models(op="show", name="tiny", budget=0),
        Done(model=MODEL),
        MODEL,
    ),
    (lambda c: c.set_budget(1 << 20), Budget(bytes=1 << 20), Done(plan=PLAN), PLAN),
    (lambda c: c.set_budget(0), Budget(bytes=0), Done(message="ok"), None),
    (lambda c: c.pull("tiny"), Models(op="pull", name="tiny"), Done(model=MODEL), MODEL),
    (lambda c: c.load("tiny"), Models(op="load", name="tiny"), Done(model=MODEL), MODEL),
    (lambda c: c.unload().message, Models(op="unload"), Done(message="ok"), "ok"),
    (
        lambda c: c.remove_model("tiny").message,
        Models(op="remove", name="tiny"),
        Done(message="ok"),
        "ok",
    ),
    (lambda c: c.shutdown().message, Shutdown(), Done(message="bye"), "bye"),
]


@pytest.mark.parametrize(("verb", "request_", "reply", "result"), VERBS)
def test_verbs(
    daemon: ScriptedDaemon,
    client: Client,
    verb: Callable[[Client], object],
    request_: Request,
    reply: Done,
    result: object,
) -> None:
    for kind in ("sessions", "models", "budget", "shutdown", "forget"):
        daemon.on(kind, lambda r, send: send(reply))
    assert verb(client) == result
    assert daemon.requests == [request_]


def test_pull_reports_progress(daemon: ScriptedDaemon, client: Client) -> None:
    step = Progress(stage="download", message="tiny", completed=5, total=10)

    def handler(request: Request, send: Send) -> None:
        send(step)
        send(Done(model=MODEL))

    daemon.on("models", handler)
    seen: list[Progress] = []
    assert client.pull("tiny", seen.append) == MODEL
    assert seen == [step]


def test_a_chat_as_a_plain_request(daemon: ScriptedDaemon, client: Client) -> None:
    daemon.on("chat", say("a", "b"))
    assert client.request(Chat(text="hi")).text == "ab"


# --- life ------------------------------------------------------------------------------------


def test_closing_cancels_what_is_under_way(daemon: ScriptedDaemon) -> None:
    daemon.on("chat", say_until_cancelled("x"))
    client = Client(daemon.endpoint, timeout=WAIT_S)
    answer = client.ask("hi")
    assert next(answer) == "x"
    client.close()
    client.close()
    daemon.wait_for(Cancel)
    with pytest.raises(errors.ConnectionLost, match="closed"):
        next(answer)
    with pytest.raises(AssistantError, match="closed"):
        client.ping()


def test_a_cancel_leaves_before_the_client_does(daemon: ScriptedDaemon) -> None:
    daemon.on("chat", say_until_cancelled("x"))
    with Client(daemon.endpoint, timeout=WAIT_S) as client:
        for _ in client.ask("hi"):
            break
    daemon.wait_for(Cancel)


def test_closing_wakes_another_thread(daemon: ScriptedDaemon) -> None:
    client = Client(daemon.endpoint)
    caught: list[Exception] = []

    def wait() -> None:
        try:
            client.ask("hi").wait()
        except AssistantError as error:
            caught.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    daemon.wait_for(Chat)
    client.close()
    thread.join(WAIT_S)
    assert [type(error) for error in caught] == [errors.ConnectionLost]


def test_a_forgotten_client_is_reported(daemon: ScriptedDaemon) -> None:
    client = Client(daemon.endpoint)
    with pytest.warns(ResourceWarning, match="unclosed"):
        del client
        gc.collect()


def test_names_are_exported_lazily() -> None:
    assert clients.__all__ == sorted(clients.__all__)
    for name in clients.__all__:
        assert getattr(clients, name).__name__ == name
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = clients.no_such_name


@pytest.mark.parametrize(
    ("statement", "forbidden"),
    [
        ("import clients", ["zmq", "msgspec", "assistantd"]),
        (
            "from clients import Client",
            ["numpy", "numba", "engine", "asyncio", "jinja2", "click", "rich", "sqlite3"],
        ),
        ("from clients import AsyncClient", ["numpy", "numba", "engine"]),
    ],
)
def test_imports_are_light(statement: str, forbidden: list[str]) -> None:
    program = f"import sys; {statement}; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    loaded = set(run.stdout.decode().split())
    assert "clients" in loaded
    assert loaded.isdisjoint(forbidden)
    daemon_modules = {name for name in loaded if name.startswith("assistantd.")}
    daemon_modules = {m for m in daemon_modules if not m.startswith("assistantd.localisation")}
    assert daemon_modules <= {"assistantd.protocol"}
