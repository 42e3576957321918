"""The corpus of bad inputs against a real daemon: it answers afterwards, as the same process."""

import os
import shutil
import socket
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import zmq

from assistantd import protocol
from clients import AssistantError
from engine.guard import AVAILABLE
from tests.hostile import ggufs, readers, small, templates
from tests.hostile.parts import STRING, text
from tests.hostile.test_frames import BODIES, SCHEMAS, messages
from tests.running import RunningDaemon, short_folder

EVERY_GGUF = 25
"""One in so many of the corpus is loaded: all of them go through the same code in-process."""


@pytest.fixture(scope="module")
def daemon() -> Iterator[RunningDaemon]:
    folder = short_folder()
    model = folder / "sound.gguf"
    model.write_bytes(small.seeds()["bpe-f32"])
    running = RunningDaemon(folder, model, {"ASSISTANTD_ENGINE_THREADS": "2"}).start()
    yield running
    running.stop()
    shutil.rmtree(folder)


@contextmanager
def same_process(daemon: RunningDaemon) -> Iterator[None]:
    """Whatever is done: afterwards the daemon answers, and has not been started again."""
    with daemon.client() as client:
        before = client.status().pid
    yield
    with daemon.client() as client:
        assert client.status().pid == before
        client.load(str(daemon.model))
        assert client.complete("a", max_tokens=1).wait().finish_reason
    assert daemon.process is not None and daemon.process.poll() is None


@contextmanager
def dealer(daemon: RunningDaemon) -> Iterator["zmq.Socket[bytes]"]:
    with zmq.Context() as context, context.socket(zmq.DEALER) as each:
        each.set(zmq.LINGER, 0)
        each.connect(daemon.endpoint)
        yield each


def ask(daemon: RunningDaemon, each: "zmq.Socket[bytes]") -> None:
    """A ping on the same connection, whose answer comes after those to all before it."""
    each.send_multipart([protocol.PROTOCOL, b"last", b'{"type": "ping"}'])
    while True:
        assert each.poll(60_000), "no answer"
        frames = each.recv_multipart()
        if frames[-2] == b"last" and b'"done"' in frames[-1]:
            return


@pytest.mark.slow
def test_messages(daemon: RunningDaemon, capsys: pytest.CaptureFixture[str]) -> None:
    sent = 0
    with same_process(daemon), dealer(daemon) as each:
        for raw in messages(readers.FRAMES["request"]):
            frames = raw.split(readers.SEPARATOR)
            if b"shutdown" in raw or b'"pull"' in raw or b'"network"' in raw or b'"pair"' in raw:
                continue  # these are sound as often as not, and do what they say
            each.send_multipart(frames)
            sent += 1
            if sent % 200 == 0:
                ask(daemon, each)
        for body in (*BODIES.values(), *SCHEMAS.values()):
            if b"shutdown" not in body:
                each.send_multipart([protocol.PROTOCOL, b"b%d" % sent, body])
                sent += 1
        ask(daemon, each)
    with capsys.disabled():
        print(f"\n{sent} bad messages to a real daemon")


@pytest.mark.slow
def test_bytes_that_are_no_zeromq(daemon: RunningDaemon) -> None:
    path = daemon.endpoint.removeprefix("ipc://")
    greeting = b"\xff" + bytes(8) + b"\x7f\x03\x00NULL" + bytes(48)
    garbage = [
        b"",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x00" * 4096,
        b"\xff" * 4096,
        greeting[:10],
        greeting,
        greeting + b"\x04\x19\x05READY\x0bSocket-Type\x00\x00\x00\x06DEALER" + b"\xff" * 99,
        greeting + b"\x06" + b"\xff" * 8,
        os.urandom(1 << 16),
    ]
    with same_process(daemon):
        for data in garbage * 5:
            with socket.socket(socket.AF_UNIX) as raw:
                raw.connect(path)
                raw.sendall(data)
        half_open = [socket.socket(socket.AF_UNIX) for _each in range(200)]
        for raw in half_open:
            raw.connect(path)
            raw.sendall(greeting[:20])
        with daemon.client() as client:
            assert client.ping()
        for raw in half_open:
            raw.close()


@pytest.mark.slow
def test_who_never_reads(daemon: RunningDaemon) -> None:
    with same_process(daemon), dealer(daemon) as each:
        each.set(zmq.RCVHWM, 1)
        for n in range(5000):
            each.send_multipart([protocol.PROTOCOL, b"%d" % n, b'{"type": "status"}'])


@pytest.mark.slow
def test_models(daemon: RunningDaemon, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused = used = 0
    path = tmp_path / "bad.gguf"
    with same_process(daemon), daemon.client() as client:
        for number, (_name, raw) in enumerate(ggufs.cases()):
            if number % EVERY_GGUF:
                continue
            path.write_bytes(raw)
            try:
                client.load(str(path))
                used += 1
                client.ask("hello", max_tokens=2).wait()
            except AssistantError as error:
                assert "see the daemon's log" not in str(error), (_name, str(error))
                refused += 1
    with capsys.disabled():
        print(f"\n{refused + used} bad models to a real daemon: {refused} refused, {used} loaded")


@pytest.mark.slow
def test_chat_templates(daemon: RunningDaemon, tmp_path: Path) -> None:
    sound = small.model(small.bpe_keys())
    path = tmp_path / "template.gguf"
    picked = [
        *list(templates.ESCAPES.values())[::40],
        *list(templates.BOMBS.values())[::16],
        *list(templates.BROKEN.values())[::6],
    ]
    with same_process(daemon), daemon.client() as client:
        for template in picked:
            raw = template.encode("utf-8", "replace")
            path.write_bytes(sound.with_entry("tokenizer.chat_template", STRING, text(raw)).build())
            try:
                client.load(str(path))
                client.ask("hello", max_tokens=1).wait()
            except AssistantError as error:
                assert "see the daemon's log" not in str(error), template[:200]


@pytest.mark.slow
@pytest.mark.skipif(not AVAILABLE, reason="the handler is for 64-bit Linux")
def test_a_model_that_is_cut_off_and_mended(daemon: RunningDaemon, tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    sound = small.seeds()["spm-q4_0"]
    path.write_bytes(sound)
    with same_process(daemon), daemon.client() as client:
        client.load(str(path))
        os.truncate(path, 5000)
        with pytest.raises(AssistantError, match="changed"):
            client.complete("the", max_tokens=5).wait()
        # not by a question: one that comes after the daemon has seen it has the default loaded
        with pytest.raises(AssistantError, match=r"cut off|damaged"):
            client.load(str(path))
        path.write_bytes(sound)
        client.load(str(path))
        client.complete("the", max_tokens=5).wait()


@pytest.mark.slow
def test_a_session_database_that_breaks_meanwhile() -> None:
    folder = short_folder()
    model = folder / "sound.gguf"
    model.write_bytes(small.seeds()["bpe-f32"])
    running = RunningDaemon(folder, model).start()
    try:
        with running.client() as client:
            for n in range(40):
                client.ask("x" * 200, session=f"s{n % 60}", max_tokens=1).wait()
            path = folder / "data" / "sessions.db"
            with closing(sqlite3.connect(path)) as db:
                db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            with path.open("r+b") as file:
                for at in range(4096, path.stat().st_size, 4096):
                    file.seek(at)
                    file.write(b"\xa5" * 4096)
            with pytest.raises(AssistantError, match="damaged"):
                for n in range(40):
                    client.session(f"s{n}")
            status = client.status()
            assert "damaged" in status.message
            client.complete("a", max_tokens=1).wait()
        running.stop()
        running.start()
        with running.client() as client:
            assert "set aside" in client.status().message
            client.ask("x", session="new", max_tokens=1).wait()
    finally:
        running.stop()
        shutil.rmtree(folder)
