"""The examples of the documentation, run as they stand against the real daemon."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.running import RunningDaemon

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("page", "name"), [("docs/protocol.md", "bare-pyzmq"), ("README.md", "ten-lines")]
)
def test_example(daemon: RunningDaemon, page: str, name: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    found = re.search(rf"<!-- test: {name} -->\n```python\n(.*?)```", text, re.DOTALL)
    assert found is not None
    done = subprocess.run(
        [sys.executable, "-c", found[1]],
        env={**os.environ, "ASSISTANTD_ENDPOINT": daemon.endpoint},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Paris" in done.stdout
