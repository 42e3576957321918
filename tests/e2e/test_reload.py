"""Settings that are read again by a real daemon, with real models, while it answers."""

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import termios
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from clients import Client
from tests.engine.tiny_models import Spec, write_model
from tests.running import START_TIMEOUT_S, RunningDaemon, running_daemon, short_folder

PROMPT = "Once upon a time there was a small robot who lived by the sea, and"


@dataclass
class Configured:
    """A daemon whose settings are a file, and whom it notifies."""

    daemon: RunningDaemon
    file: Path
    channel: socket.socket
    heard: list[str] = field(default_factory=list)

    def write(self, model: Path, budget: str, more: str = "") -> None:
        self.file.write_text(f'model = "{model}"\nmemory_budget = "{budget}"\n{more}\n')

    def reload(self) -> subprocess.CompletedProcess[str]:
        """`assistant reload --json`"""
        command = [sys.executable, "-m", "clients.cli", "reload", "--json"]
        environment = {**os.environ, "ASSISTANTD_ENDPOINT": self.daemon.endpoint}
        return subprocess.run(
            command, capture_output=True, text=True, env=environment, timeout=START_TIMEOUT_S
        )

    def hear_until(self, last: str) -> list[str]:
        """What the service manager was told next, up to a message that begins so."""
        heard = [self.channel.recv(4096).decode()]
        while not heard[-1].startswith(last):
            heard.append(self.channel.recv(4096).decode())
        return heard


@pytest.fixture
def configured(smollm2_path: Path) -> Iterator[Configured]:
    home = short_folder()
    (home / "assistantd").mkdir()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(f"{home}/notify")
        channel.settimeout(START_TIMEOUT_S)
        file = home / "assistantd" / "config.toml"
        file.write_text(f'model = "{smollm2_path}"\nmemory_budget = "none"\n')
        settings = {
            "ASSISTANTD_MODEL": "",  # or it would be stronger than the file
            "XDG_CONFIG_HOME": str(home),
            "NOTIFY_SOCKET": f"{home}/notify",
        }
        with running_daemon(smollm2_path, **settings) as daemon:
            found = Configured(daemon, file, channel)
            found.hear_until("READY=1")
            yield found


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return write_model(tmp_path / "tiny.gguf", Spec())


def test_an_answer_goes_on_while_the_model_changes(
    configured: Configured, smollm2_path: Path, tiny: Path
) -> None:
    daemon = configured.daemon
    with daemon.client() as client:
        expected = client.complete(PROMPT, temperature=0, max_tokens=200).wait()
        assert len(expected.text) > 200
        under_way = client.complete(PROMPT, temperature=0, max_tokens=200)
        pieces = [next(under_way)]
        configured.write(tiny, "none", "[limits]\nmax_queue = 5\n[engine]\nkv_tokens = 1024")
        done = configured.reload()
        assert done.returncode == 0, done.stderr
        reply = json.loads(done.stdout)
        assert [change["key"] for change in reply["settings"]] == [
            "model",
            "engine.kv_tokens",
            "limits.max_queue",
        ]
        assert reply["model"]["name"] == str(tiny)
        # the new one answers, the old one goes on, to the same words
        short = client.complete("the", temperature=0, max_tokens=3).wait()
        assert short.done is not None and short.done.model is not None
        assert short.done.model.name == str(tiny)
        pieces += list(under_way)
        assert "".join(pieces) == under_way.text == expected.text
        assert under_way.finish_reason == expected.finish_reason
        status = client.status()
        assert status.queue.capacity == 5
        first = configured.hear_until("READY=1")
        assert first[0].startswith("RELOADING=1\nMONOTONIC_USEC=")
        assert all(text.startswith("STATUS=") for text in first[1:-1])
        # and back, by a signal: what is kept of the other model's conversations is not used
        configured.write(smollm2_path, "none")
        assert daemon.process is not None
        daemon.process.send_signal(signal.SIGHUP)
        second = configured.hear_until("READY=1")
        assert second[0].startswith("RELOADING=1\nMONOTONIC_USEC=")
        again = client.complete(PROMPT, temperature=0, max_tokens=200).wait()
        assert again.text == expected.text
        assert again.timings is not None and again.timings.cached_tokens == 0
    log = daemon.log.read_text()
    assert log.count("the model before was unloaded") == 2


def test_no_room_for_two_models(configured: Configured, smollm2_path: Path, tmp_path: Path) -> None:
    daemon = configured.daemon
    with daemon.client() as client:
        plan = client.set_budget(0)
        assert plan is not None
        # what one of them takes, and half of another
        budget = sum(plan.owners.values()) + smollm2_path.stat().st_size // 2
        same = tmp_path / "another-name.gguf"
        same.symlink_to(smollm2_path)
        under_way = client.complete(PROMPT, temperature=0, max_tokens=60)
        next(under_way)
        configured.write(same, str(budget))
        with subprocess.Popen(
            [sys.executable, "-m", "clients.cli", "reload"],
            env={**os.environ, "ASSISTANTD_ENDPOINT": daemon.endpoint},
            stdout=subprocess.PIPE,
            text=True,
        ) as command:
            configured.hear_until("STATUS=the answers under way are finished first")
            waits = client.complete(PROMPT, temperature=0, max_tokens=60)
            told, _ = command.communicate(timeout=START_TIMEOUT_S)
        assert command.returncode == 0
        assert f"{same} is loaded" in told and f'model\t"{smollm2_path}"\t"{same}"\tnow' in told
        # both are whole, and the same
        assert under_way.wait().text == waits.wait().text
        assert waits.done is not None and waits.done.model is not None
        assert waits.done.model.name == str(same)
        assert client.status().budget == budget
        # a model whose header is fine, and which cannot be loaded all the same
        bad = write_model(tmp_path / "bad.gguf", Spec())
        raw = bad.read_bytes()
        at = raw.index(b"llama", raw.index(b"tokenizer.ggml.model"))
        bad.write_bytes(raw[:at] + b"klamm" + raw[at + 5 :])
        configured.hear_until("READY=1")
        configured.write(bad, str(budget), "[limits]\nmax_queue = 5\n[engine]\nkv_tokens = 512")
        done = configured.reload()
        assert done.returncode == 1
        error = json.loads(done.stdout)["error"]
        assert error["code"] == "model_error" and "nothing was changed" in error["message"]
        assert "klamm" in error["message"]
        assert client.complete(PROMPT, temperature=0, max_tokens=60).wait().text == waits.text
        assert client.status().queue.capacity == 32
        heard = configured.hear_until("READY=1")
        assert heard[0].startswith("RELOADING=1\n")


def test_a_terminal_that_is_closed_ends_the_daemon(tmp_path: Path) -> None:
    """The same signal as for a reload, and the terminal is gone."""
    folder = short_folder()
    master, slave = os.openpty()

    def own_terminal() -> None:
        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    environment = {
        **os.environ,
        "ASSISTANTD_ENDPOINT": f"ipc://{folder}/s",
        "ASSISTANTD_DATA_DIR": str(tmp_path / "data"),
        "ASSISTANTD_MODEL": "/no/model.gguf",
    }
    with (
        (tmp_path / "log").open("wb") as log,
        subprocess.Popen(
            [sys.executable, "-m", "assistantd"],
            env=environment,
            stdin=slave,
            stdout=log,
            stderr=log,
            preexec_fn=own_terminal,
        ) as process,
    ):
        os.close(slave)
        with Client(f"ipc://{folder}/s", timeout=START_TIMEOUT_S) as client:
            client.wait_ready(START_TIMEOUT_S, alive=lambda: process.poll() is None)
            process.send_signal(signal.SIGHUP)  # while it is there: a reload
            while "reloaded" not in (tmp_path / "log").read_text():
                client.ping()
        os.close(master)
        assert process.wait(START_TIMEOUT_S) == 0
    assert "stopped" in (tmp_path / "log").read_text()
