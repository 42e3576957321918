"""The examples of docs/client.md, as a reader would run them."""

import os
import re
import subprocess
import sys
from pathlib import Path

from assistantd.protocol import Chat, Counters, HistogramInfo, StatusInfo
from tests.clients.scripted_daemon import ScriptedDaemon, fail, say

PAGE = Path(__file__).resolve().parents[2] / "docs" / "client.md"


def ten_lines() -> str:
    found = re.search(r"<!-- test: ten-lines -->\n```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert found is not None
    return found[1]


def run(endpoint: str) -> str:
    process = subprocess.run(
        [sys.executable, "-W", "error", "-c", ten_lines()],
        env={**os.environ, "ASSISTANTD_ENDPOINT": endpoint},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (process.returncode, process.stderr) == (0, "")
    return process.stdout


def test_the_ten_lines(tmp_path: Path) -> None:
    assert len([line for line in ten_lines().splitlines() if line]) <= 10
    with ScriptedDaemon(tmp_path) as daemon:
        daemon.on("chat", say("It is ", "there."))
        assert run(daemon.endpoint) == "It is there.\nIt is there. (200 tokens/s)\n"
        assert daemon.requests == [
            Chat(text="What is the capital of France?", temperature=0),
            Chat(text="And of Italy?", session="travel"),
        ]


def test_the_ten_lines_when_the_daemon_refuses(tmp_path: Path) -> None:
    with ScriptedDaemon(tmp_path) as daemon:
        daemon.on("chat", fail("busy", "the queue is full; try again"))
        assert run(daemon.endpoint) == "no answer: the queue is full; try again\n"


def test_every_field_of_the_status_is_documented() -> None:
    page = (PAGE.parent / "observability.md").read_text(encoding="utf-8")
    for kind in (StatusInfo, Counters, HistogramInfo):
        for field in kind.__struct_fields__:
            assert f"`{field}`" in page, field
