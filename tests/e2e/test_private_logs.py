"""What people write is in no log and in no report of a crash, whatever goes wrong with it."""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import zmq

from assistantd.protocol import Complete, Devices, Models, Pair, Request, Sessions
from clients import Client
from clients.errors import AssistantError, NotFound
from tests.engine.tiny_models import Spec, write_model
from tests.running import RunningDaemon, short_folder

WORD = "xylophone"
TEMPLATES = (
    "{{ raise_exception(messages[-1]['content']) }}",
    "{{ messages[-1]['content'] + 1 }}",
    "{{ messages[-1]['content'] | no_such_filter }}",
    "{% for x in messages[-1]['content'] %}{{ x.nothing.nothing }}{% endfor %}",
)


@pytest.fixture
def daemon(smollm2_path: Path) -> Iterator[RunningDaemon]:
    folder = short_folder()
    (folder / "assistantd").mkdir()
    settings = {"XDG_CONFIG_HOME": str(folder), "ASSISTANTD_LOG_LEVEL": "debug"}
    running = RunningDaemon(folder, smollm2_path, settings).start()
    yield running
    if running.process is not None and running.process.poll() is None:
        running.kill()


def tried(client: Client, request: Request) -> None:
    """Ask, whatever comes of it."""
    try:
        client.request(request, timeout=60)
    except AssistantError as problem:
        print(type(problem).__name__, problem)


def raw_frames(endpoint: str) -> None:
    """What no client of ours sends."""
    bodies = [
        b'{"type": "chat", "text": "xylophone"',
        b'{"type": "xylophone"}',
        b'{"type": "chat", "xylophone": 1}',
        b'{"type": "chat", "text": ["xylophone"]}',
        b'{"type": "sessions", "op": "xylophone"}',
        b'{"type": "complete", "prompt": "a", "format": "xylophone"}',
        b'{"type": "chat", "text": "a", "session": "xylophone xylophone"}',
        b'{"type": "complete", "prompt": "a", "logit_bias": {"xylophone": 1}}',
        b"xylophone",
        b"\xff xylophone",
    ]
    with zmq.Context() as context, context.socket(zmq.DEALER) as channel:
        channel.connect(endpoint)
        for number, body in enumerate(bodies):
            channel.send_multipart([b"assistant/1", f"raw-{number}".encode(), body])
        channel.send_multipart([b"xylophone/1", b"raw-v", b"{}"])
        channel.send_multipart([b"xylophone", b"xylophone"])
        for _ in range(len(bodies) + 1):
            assert channel.poll(60_000)
            assert b'"error"' in channel.recv_multipart()[-1]


def everything(folder: Path) -> str:
    """All logs and reports of the daemon."""
    found = [folder / "log", *folder.glob("data/crashes/*"), *folder.glob("data/crashes/.*")]
    return "\n".join(path.read_text(errors="replace") for path in found if path.is_file())


def test_no_words_of_users(daemon: RunningDaemon, tmp_path: Path) -> None:
    with daemon.client() as client:
        for format_ in ("text", {"type": "string", "pattern": WORD}, {"$ref": f"#/{WORD}"}):
            tried(client, Complete(prompt=f"{WORD} {WORD}", max_tokens=5, format=format_))
        tried(client, Complete(prompt=f"{WORD} " * 9000))
        tried(client, Complete(prompt=WORD, deadline_ms=1))
        client.ask(WORD, session="s", system=WORD, max_tokens=5, stop=[WORD]).wait()
        tried(client, Sessions(op="rename", session="s", title=WORD))
        tried(client, Sessions(op="show", session=WORD))
        tried(client, Devices(op="add", name=WORD))
        tried(client, Devices(op="authenticate", token=WORD))
        tried(client, Pair(op="claim", code=WORD, name=WORD))
        tried(client, Models(op="show", name=WORD))
        cancelled = client.ask(WORD, max_tokens=500)
        next(cancelled)
        cancelled.cancel()
        cancelled.wait()
        for number, template in enumerate(TEMPLATES):
            spec = Spec(extra={"tokenizer.chat_template": template})
            model = write_model(tmp_path / f"template-{number}.gguf", spec)
            tried(client, Models(op="load", name=str(model)))
            try:
                client.ask(WORD, max_tokens=3).wait()
            except AssistantError as problem:
                print(template, problem)
        raw_frames(daemon.endpoint)
        client.ping()
        # an answer under way, when a signal kills the daemon
        tried(client, Models(op="load", name=str(daemon.model)))
        last = client.ask(f"{WORD} {WORD}", max_tokens=1000)
        next(last)
        assert daemon.process is not None
        daemon.process.send_signal(signal.SIGSEGV)
        assert daemon.process.wait(60) == -signal.SIGSEGV
    daemon.start()
    with daemon.client() as client:
        status = client.status()
    assert status.crash_report is not None
    report = Path(status.crash_report).read_text()
    assert re.search(r"Requests under way.*:\n  \S+ chat", report), report
    assert "Segmentation fault" in report
    text = everything(daemon.folder)
    assert "bad request" in text and "the last run crashed" in text
    assert text.count("asked request=") > 10
    assert WORD not in text, [line for line in text.splitlines() if WORD in line]
    # until it is asked for, and no longer
    config = daemon.folder / "assistantd" / "config.toml"
    for wanted in ("true", "false"):
        config.write_text(f"log_text = {wanted}\n")
        with daemon.client() as client:
            assert [change.key for change in client.reload()] == ["log_text"]
            client.complete(f"{WORD} {wanted}", max_tokens=3).wait()
    assert daemon.stop() == 0
    text = everything(daemon.folder)
    assert "IS LOGGED" in text
    lines = [line for line in text.splitlines() if WORD in line]
    assert any("asked" in line and f'question="{WORD} true"' in line for line in lines)
    assert any("answered" in line and "answer=" in line for line in text.splitlines())
    assert not any("false" in line for line in lines)
    assert WORD not in report


def test_a_thread_that_dies_is_told_to_all(daemon: RunningDaemon) -> None:
    """The engine thread, by a fault that is put in: the report and the exit code tell of it."""
    code = (
        "import assistantd.answering as a\n"
        "def step(self):\n    raise RuntimeError('xylophone')\n"
        "a.Answers.step = step\n"
        "from assistantd.__main__ import main\nmain()\n"
    )
    assert daemon.stop() == 0
    environment = {
        **os.environ,
        "ASSISTANTD_ENDPOINT": daemon.endpoint,
        "ASSISTANTD_DATA_DIR": str(daemon.folder / "data"),
        "ASSISTANTD_MODEL": str(daemon.model),
    }
    with (
        daemon.log.open("ab") as log,
        subprocess.Popen(
            [sys.executable, "-c", code], env=environment, stdout=log, stderr=log
        ) as process,
    ):
        with daemon.client() as client:
            client.wait_ready(180, alive=lambda: process.poll() is None)
            with pytest.raises(AssistantError):
                client.complete(WORD, max_tokens=3).wait()
        assert process.wait(60) == 70
    (report,) = (daemon.folder / "data" / "crashes").glob("*.txt")
    text = report.read_text()
    assert "in the thread engine" in text and "in step" in text and "RuntimeError" in text
    assert WORD not in text.replace("RuntimeError('xylophone')", "")
    assert re.search(r"\n  \S+ complete\n", text)


@contextmanager
def gateway(endpoint: str, folder: Path) -> Iterator[tuple[str, Path]]:
    """The real gateway; its address and its log."""
    log = folder / "gateway.log"
    environment = {**os.environ, "ASSISTANTD_ENDPOINT": endpoint, "XDG_DATA_HOME": str(folder)}
    with (
        log.open("ab") as file,
        subprocess.Popen(
            [sys.executable, "-m", "clients.cli", "gateway", "--port", "0", "--json"],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=file,
        ) as process,
    ):
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())["plain"][0], log
        process.terminate()
        assert process.wait(60) == 0, log.read_text()


def test_a_request_has_one_id_in_all_logs(daemon: RunningDaemon) -> None:
    pytest.importorskip("starlette")
    with daemon.client() as client:
        token = client.request(Devices(op="add", name="program")).token
        with pytest.raises(NotFound):
            client.session("none")
    with gateway(daemon.endpoint, daemon.folder) as (address, log):
        body = {"messages": [{"role": "user", "content": WORD}], "max_tokens": 3}
        request = urllib.request.Request(
            f"{address}v1/chat/completions",
            json.dumps(body).encode(),
            {"authorization": f"Bearer {token}", "content-type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=120) as reply:
            assert reply.status == 200
    asked = [json.loads(line) for line in log.read_text().splitlines()]
    (name,) = [line["request"] for line in asked if line["event"] == "asked"]
    assert [line["event"] for line in asked if line.get("request") == name] == ["asked", "answered"]
    own = [line for line in daemon.log.read_text().splitlines() if f"request={name}" in line]
    assert ["asked" in own[0], "answered" in own[1], len(own)] == [True, True, 2]
    assert WORD not in log.read_text() + daemon.log.read_text()
    assert daemon.stop() == 0
