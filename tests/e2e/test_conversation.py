"""The real daemon and model: answers, sessions, reuse of the cache, formats, limits."""

import json
import subprocess
import sys

import pytest
import zmq

from assistantd import protocol
from clients.errors import BadRequest, DeadlineExceeded, NotFound, TooLarge
from tests.running import RunningDaemon

LONG_TEXT = " ".join(f"Item {i} costs {3 * i} coins." for i in range(110))


def test_paris_arrives_as_a_stream(daemon: RunningDaemon) -> None:
    with daemon.client() as client:
        pieces = list(client.ask("What is the capital of France?", temperature=0))
    assert "Paris" in "".join(pieces)
    assert len(pieces) > 3


def test_same_seed_same_text(daemon: RunningDaemon) -> None:
    with daemon.client() as client:
        texts = {
            client.ask("Tell me a story.", seed=5, temperature=1.0, max_tokens=40).wait().text
            for _ in range(3)
        }
        other = client.ask("Tell me a story.", seed=6, temperature=1.0, max_tokens=40).wait().text
    assert len(texts) == 1 and other not in texts


def test_second_turn_of_a_long_conversation(daemon: RunningDaemon) -> None:
    with daemon.client() as client:
        first = client.ask(LONG_TEXT, session="long", max_tokens=30).wait().done
        second = client.ask("How much is item 7?", session="long", max_tokens=10).wait().done
    assert first is not None and second is not None
    assert first.timings is not None and second.timings is not None
    assert first.timings.prompt_tokens > 1000
    history = first.timings.prompt_tokens
    print(f"second turn: {second.timings}")
    assert second.timings.cached_tokens >= history
    computed = second.timings.prompt_tokens - second.timings.cached_tokens
    assert computed < 100


def test_schema(daemon: RunningDaemon) -> None:
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 20}, "big": {"type": "boolean"}},
        "required": ["city", "big"],
        "additionalProperties": False,
    }
    with daemon.client() as client:
        answer = client.ask("Name a city, as JSON.", format=schema, max_tokens=60).wait()
        with pytest.raises(BadRequest, match="schema"):
            client.ask("x", format={"type": "nonsense"}).wait()
    value = json.loads(answer.text)
    assert set(value) == {"city", "big"} and isinstance(value["big"], bool)


def test_cancel_ends_with_what_there_is(daemon: RunningDaemon) -> None:
    with daemon.client() as client:
        answer = client.ask("Count to a thousand.", session="c", max_tokens=1000)
        next(iter(answer))
        answer.cancel()
        answer.wait()
        assert answer.finish_reason == "cancelled"
        stored = client.session("c").messages
    assert stored is not None and stored[-1].content == answer.text
    assert stored[-1].finish_reason == "cancelled"


def test_deadlines(daemon: RunningDaemon) -> None:
    with daemon.client() as client:
        with pytest.raises(DeadlineExceeded):
            client.ask(LONG_TEXT[::-1], deadline_ms=5).wait()
        answer = client.ask("Count.", deadline_ms=600, max_tokens=1000, logit_bias={"2": -100})
        assert answer.wait().finish_reason == "deadline"


def test_stop_and_max_tokens(daemon: RunningDaemon) -> None:
    with daemon.client() as client:
        answer = client.complete("1, 2, 3, 4, 5,", stop=[" 8"], temperature=0, max_tokens=50).wait()
        assert "8" not in answer.text and answer.finish_reason == "stop"
        cut = client.complete("1, 2, 3,", max_tokens=4, temperature=0).wait()
        assert cut.finish_reason == "length"
        assert cut.timings is not None and cut.timings.completion_tokens == 4


def test_what_does_not_fit_is_refused_with_the_numbers(daemon: RunningDaemon) -> None:
    with daemon.client() as client:
        with pytest.raises(TooLarge, match="7680"):
            client.ask("word " * 20_000).wait()
        assert client.ask("Hi", max_tokens=2).wait().text


def test_a_conversation_that_outgrows_the_context_goes_on(own_daemon: RunningDaemon) -> None:
    own_daemon.settings["ASSISTANTD_ENGINE_KV_TOKENS"] = "1024"
    own_daemon.start()
    notes: list[str] = []
    cached: list[int] = []
    text = " ".join(f"Item {i} costs {3 * i} coins." for i in range(12))
    with own_daemon.client() as client:
        for turn in range(12):
            answer = client.ask(
                f"Turn {turn}. {text}",
                session="huge",
                max_tokens=5,
                on_progress=lambda progress: notes.append(progress.message),
            ).wait()
            assert answer.timings is not None
            assert answer.timings.prompt_tokens < 1024
            cached.append(answer.timings.cached_tokens)
    left_out = [note for note in notes if "left out" in note]
    assert left_out
    # it is cut now and then, not at every turn: in between, turns find their history in the cache
    assert len(left_out) < 6
    assert sum(n > 200 for n in cached) >= 5


def test_sessions(daemon: RunningDaemon) -> None:
    with daemon.client() as client:
        client.ask("Remember me.", session="keep", max_tokens=3).wait()
        assert client.rename_session("keep", "Mine").title == "Mine"
        assert "keep" in [session.id for session in client.sessions()]
        client.delete_session("keep")
        with pytest.raises(NotFound):
            client.session("keep")


def test_unload_and_load(daemon: RunningDaemon) -> None:
    with daemon.client() as client:
        client.unload()
        assert client.status().state == "no_model"
        client.load(str(daemon.model))
        assert client.status().state == "ready"
        assert client.ask("Hi", max_tokens=2).wait().text


def test_a_req_gets_one_message(daemon: RunningDaemon) -> None:
    with zmq.Context() as context, context.socket(zmq.REQ) as req:
        req.linger = 0
        req.connect(daemon.endpoint)
        request = protocol.Chat(text="Hi", max_tokens=3)
        for _ in range(2):
            req.send_multipart(protocol.encode_request(b"1", request))
            assert req.poll(60_000)
            _, reply = protocol.decode_reply(req.recv_multipart())
            assert isinstance(reply, protocol.Done) and reply.text


def test_the_command_line(daemon: RunningDaemon) -> None:
    command = [sys.executable, "-m", "clients.cli", "--endpoint", daemon.endpoint]
    done = subprocess.run(
        [*command, "ask", "--json", "--temperature", "0", "What is the capital of France?"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "Paris" in json.loads(done.stdout)["text"]
