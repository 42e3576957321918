"""Two hosts: the daemon in one network namespace, a client in another, and a link that goes down.

Needs root and `ip`. The link says nothing when it is down: both ends have only their heartbeats to
notice it by.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from clients import Client
from tests.e2e.network.elsewhere import listen
from tests.running import RunningDaemon, short_folder

DAEMON, CLIENT = "198.51.100.1", "198.51.100.2"
DOWN_S = 30
QUESTION = "Write a long story about the sea, the wind and the light."
FIXED = {"temperature": 0.0, "seed": 7, "max_tokens": 600}

ASK = """
import json, sys
from clients import Client

with Client("home") as client:
    progress = []
    answer = client.ask(sys.argv[1], on_progress=lambda p: progress.append(p.stage),
                        **json.loads(sys.argv[2]))
    for piece in answer:
        print(json.dumps(piece), flush=True)
    print(json.dumps({"text": answer.text, "reason": answer.finish_reason, "progress": progress}))
"""


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


def why_not() -> str | None:
    if sys.platform != "linux" or shutil.which("ip") is None:
        return "needs Linux and `ip`"
    if os.geteuid() != 0:
        return "needs root, to make network namespaces"
    name = f"ad-probe-{os.getpid()}"
    if subprocess.run(["ip", "netns", "add", name], capture_output=True).returncode:
        return "may not make network namespaces here"
    ip("netns", "del", name)
    return None


@pytest.fixture
def hosts() -> Iterator[tuple[str, str]]:
    """Two namespaces with a cable between them: that of the daemon, that of the client."""
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    daemon, client = (f"ad-{os.getpid()}-{end}" for end in "dc")
    try:
        for name in (daemon, client):
            ip("netns", "add", name)
            ip("-n", name, "link", "set", "lo", "up")
        ip("-n", daemon, "link", "add", "wire", "type", "veth", "peer", "wire", "netns", client)
        for name, address in ((daemon, DAEMON), (client, CLIENT)):
            ip("-n", name, "address", "add", f"{address}/24", "dev", "wire")
            ip("-n", name, "link", "set", "wire", "up")
        yield daemon, client
    finally:
        for name in (daemon, client):
            subprocess.run(["ip", "netns", "del", name], capture_output=True)


@pytest.fixture
def daemon(hosts: tuple[str, str], smollm2_path: Path) -> Iterator[RunningDaemon]:
    folder = short_folder()
    running = RunningDaemon(folder, smollm2_path, within=["ip", "netns", "exec", hosts[0]])
    listen(running, address=DAEMON)
    yield running
    running.stop()
    shutil.rmtree(folder)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_link_is_down_for_a_while(hosts: tuple[str, str], daemon: RunningDaemon) -> None:
    with daemon.client() as local:
        undisturbed = local.ask(QUESTION, **FIXED).wait()
        assert undisturbed.finish_reason == "length"
        before = local.status().requests_served

    arguments = [sys.executable, "-c", ASK, QUESTION, json.dumps(FIXED)]
    with subprocess.Popen(
        ["ip", "netns", "exec", hosts[1], *arguments], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        pieces = [json.loads(process.stdout.readline()) for _piece in range(10)]
        ip("-n", hosts[1], "link", "set", "wire", "down")
        time.sleep(DOWN_S)  # this is what the test is about
        ip("-n", hosts[1], "link", "set", "wire", "up")
        rest = [json.loads(line) for line in process.stdout]
    assert process.returncode == 0
    end = rest.pop()
    assert "".join(pieces + rest) == end["text"] == undisturbed.text
    assert end["reason"] == "length" and "connection" in end["progress"]
    with Client(daemon.endpoint, timeout=60) as local:
        assert local.status().requests_served == before + 1
