"""A disk that is full, that fails, or that may not be used any more."""

import errno
import os
import resource
import shutil
from pathlib import Path

import pytest

from assistantd import protocol
from benchmarks.power_cuts import cut_power
from clients import Client
from clients.errors import AssistantError
from tests.assistantd.web import FileServer
from tests.running import RunningDaemon

EVER = {"2": -100.0}  # SmolLM2's end: the answer goes on to max_tokens


def fill(disk: Path) -> Path:
    """Use up a disk; the file that does."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(1 << 12))
        except OSError as problem:
            assert problem.errno == errno.ENOSPC
    return filler


def ask(client: Client, text: str, session: str = "s") -> protocol.Done:
    answer = client.ask(text, session=session, max_tokens=4).wait()
    assert answer.text and answer.done is not None
    return answer.done


def questions(client: Client, session: str = "s") -> list[str]:
    return [m.content for m in client.session(session).messages or [] if m.role == "user"]


def test_a_full_disk_costs_no_answer(own_daemon: RunningDaemon, small_disk: Path) -> None:
    """Sessions, log, pulls and saved state are on it."""
    daemon = own_daemon
    daemon.log = small_disk / "log"
    daemon.settings["ASSISTANTD_DATA_DIR"] = str(small_disk / "data")
    daemon.start()
    assert daemon.process is not None
    with daemon.client() as client, FileServer(bytes(1 << 20)).running() as web:
        assert ask(client, "first").message is None
        filler = fill(small_disk)
        done = ask(client, "unsaved")
        assert "not saved" in (done.message or "") and done.session is None
        with pytest.raises(AssistantError, match="room"):
            client.pull(f"{web.url}/m.gguf")
        assert client.status().state == "ready"
        with pytest.raises(AssistantError, match="full"):
            client.rename_session("s", "no room for this")
        filler.unlink()
        after = ask(client, "saved again")
        assert after.message is None and after.session is not None
        assert questions(client)[0] == "first" and questions(client)[-1] == "saved again"
        assert client.rename_session("s", "better").title == "better"
        fill(small_disk)
    # what cannot be saved at the end is no failure of the whole
    assert daemon.stop() == 0
    daemon.start()  # as after a power cut, with a card that is still full
    with daemon.client() as client:
        assert questions(client)[-1] == "saved again"
        assert "not saved" in (ask(client, "unsaved").message or "")
        (small_disk / "filler").unlink()
        assert ask(client, "and again").message is None
        assert questions(client)[-1] == "and again"
        assert not list((small_disk / "data").glob("*damaged*"))
    assert daemon.stop() == 0


def test_a_limit_on_files_is_like_a_full_disk(own_daemon: RunningDaemon) -> None:
    """As by a quota; it needs no root."""
    own_daemon.start()
    assert own_daemon.process is not None
    with own_daemon.client() as client:
        ask(client, "first")
        limits = resource.prlimit(own_daemon.process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(own_daemon.process.pid, resource.RLIMIT_FSIZE, (0, limits[1]))
        assert "not saved" in (ask(client, "unsaved").message or "")
        resource.prlimit(own_daemon.process.pid, resource.RLIMIT_FSIZE, limits)
        assert ask(client, "saved again").message is None
        assert questions(client) == ["first", "saved again"]
    assert own_daemon.stop() == 0


def test_a_disk_that_fails_costs_no_answer(own_daemon: RunningDaemon, real_disk: Path) -> None:
    """Every read and write gives EIO from a moment on."""
    own_daemon.settings["ASSISTANTD_DATA_DIR"] = str(real_disk / "data")
    own_daemon.start()
    with own_daemon.client() as client:
        ask(client, "first")
        answer = client.ask("Go on.", session="s", max_tokens=30, logit_bias=EVER)
        next(iter(answer))
        cut_power(real_disk)
        answer.wait()
        assert answer.done is not None and "not saved" in (answer.done.message or "")
        assert client.ask("Without a session.", max_tokens=4).wait().text
        with pytest.raises(AssistantError):
            client.session("s")
        assert client.status().state == "ready"
    assert own_daemon.stop() == 0


def test_a_model_that_cannot_be_read_any_more(
    own_daemon: RunningDaemon, real_disk: Path, smollm2_path: Path
) -> None:
    """With little memory its layers are read again and again; now the disk gives EIO."""
    model = real_disk / "model.gguf"
    shutil.copy(own_daemon.model, model)
    own_daemon.model = model
    own_daemon.settings["ASSISTANTD_MEMORY_BUDGET"] = "120M"
    own_daemon.start()
    with own_daemon.client() as client:
        plan = client.status().plan
        assert plan is not None and plan.streamed_bytes > 0
        answer = client.ask("Go on.", max_tokens=200, logit_bias=EVER)
        next(iter(answer))
        cut_power(real_disk)
        with pytest.raises(AssistantError) as caught:
            answer.wait()
            client.ask("Again.", max_tokens=200, logit_bias=EVER).wait()
        assert "traceback" not in str(caught.value).lower()
        assert client.status().state == "ready"
        # another model helps
        client.load(str(smollm2_path))
        assert client.ask("Hi", max_tokens=2).wait().text
    assert own_daemon.stop() == 0


def test_a_model_that_may_not_be_read_any_more(own_daemon: RunningDaemon) -> None:
    """As for any user but root, files' modes hold here."""
    model = own_daemon.folder / "m.gguf"
    shutil.copy(own_daemon.model, model)
    own_daemon.model = model
    if not os.geteuid():
        without = "-dac_override,-dac_read_search"
        own_daemon.within = ["setpriv", "--bounding-set", without, "--inh-caps", without]
    own_daemon.start()
    with own_daemon.client() as client:
        model.chmod(0)
        with pytest.raises(AssistantError, match=r"[Pp]ermission"):
            client.load(str(model))
        model.chmod(0o600)
        assert client.ask("Hi", max_tokens=2).wait().text
        data = own_daemon.folder / "data"
        data.chmod(0)
        assert ask(client, "what is open stays open").message is None
        data.chmod(0o700)
    assert own_daemon.stop() == 0
