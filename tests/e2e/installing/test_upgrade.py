"""A version from before devices and the network, and this one: data, and who speaks to whom."""

import io
import json
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.installing.environments import (
    REPOSITORY,
    Environment,
    wheel_of_any,
    wheel_of_this,
)
from tests.running import RunningDaemon, short_folder

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # each compiles its kernels, once

OLD = "8ce7c19"
"""A commit that served without numba, and knew neither devices nor languages."""
CHAT = """
import sys
from clients import Client
with Client(sys.argv[1]) as client:
    print(client.ask(sys.argv[2], session="old-client", temperature=0, max_tokens=16).wait().text)
"""


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    done = subprocess.run(["git", "archive", OLD], cwd=REPOSITORY, capture_output=True)
    if done.returncode != 0:
        pytest.skip(f"the history of this clone does not go back to {OLD}")
    folder = tmp_path_factory.mktemp("old")
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        archive.extractall(folder / "source", filter="data")
    environment = Environment(folder / "venv", borrow=True)
    environment.install(wheel_of_any(folder / "source", folder / "dist"))
    environment("assistantd", "--warm")  # which a slow machine takes longer for than a start may
    return environment


@pytest.fixture(scope="module")
def new_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return wheel_of_this(tmp_path_factory.mktemp("new"))


@pytest.fixture
def new(new_wheel: Path, tmp_path: Path) -> Environment:
    environment = Environment(tmp_path / "venv", borrow=True)
    environment.install(new_wheel)
    return environment


@pytest.fixture
def daemon(smollm2_path: Path) -> Iterator[RunningDaemon]:
    running = RunningDaemon(short_folder(), smollm2_path)
    yield running
    running.stop()
    assert "Traceback" not in running.log.read_text()


def sessions(environment: Environment, endpoint: str) -> list[dict[str, object]]:
    """All conversations, as a command of that version tells them."""
    said = environment("assistant", "--endpoint", endpoint, "sessions", "list", "--json")
    listed = json.loads(said)
    found = listed["sessions"] if isinstance(listed, dict) else listed
    assert isinstance(found, list)
    return found


def test_conversations_go_on_after_an_upgrade(
    daemon: RunningDaemon, old: Environment, new: Environment
) -> None:
    daemon.program = [str(old.bin / "assistantd")]
    daemon.start()  # this version's client waits for it, and completes something
    with daemon.client() as client:
        first = client.ask("What is the capital of France?", session="trip", temperature=0).wait()
    old("python", "-c", CHAT, daemon.endpoint, "Say hello.")
    # both see the same, from the old daemon
    assert sessions(old, daemon.endpoint) == sessions(new, daemon.endpoint)
    assert daemon.stop() == 0

    daemon.program = [str(new.bin / "assistantd")]
    daemon.start()
    with daemon.client() as client:
        assert client.status().version == new("assistant", "--version").split()[-1]
        kept = client.session("trip")
        assert [message.content for message in kept.messages][1] == first.text
        client.ask("And of Spain?", session="trip", temperature=0, max_tokens=16).wait()
        assert len(client.session("trip").messages) == 4
    # an old client goes on with its own conversation, and sees all of them
    assert old("python", "-c", CHAT, daemon.endpoint, "Say it again.").strip()
    assert {found["id"] for found in sessions(old, daemon.endpoint)} == {"trip", "old-client"}
    assert "ready" in old("assistant", "--endpoint", daemon.endpoint, "status")


def test_a_daemon_says_the_version_that_it_is(
    daemon: RunningDaemon, new: Environment, tmp_path: Path
) -> None:
    before = new("assistant", "--version").split()[-1]
    daemon.program = [str(new.bin / "assistantd")]
    daemon.start()
    (metadata,) = new.site.glob("assistantd-*.dist-info/METADATA")
    text = metadata.read_text()
    metadata.write_text(text.replace(f"\nVersion: {before}\n", "\nVersion: 99.0\n", 1))
    assert new("assistant", "--version").split()[-1] == "99.0"
    with daemon.client() as client:
        assert client.status().version == client.ping().version == before
    assert daemon.stop() == 0
    daemon.start()
    with daemon.client() as client:
        assert client.status().version == "99.0"
