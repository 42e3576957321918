"""`assistant doctor` beside the real daemon with the real model: healthy, killed, and back."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.clients.doctor.parts import REPOSITORY, python_path
from tests.running import RunningDaemon


def doctor(daemon: RunningDaemon, *arguments: str) -> tuple[int, list[dict[str, Any]]]:
    """Exit status and findings."""
    environment = {
        **os.environ,
        "PYTHONPATH": python_path(),
        "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
        "ASSISTANTD_ENDPOINT": daemon.endpoint,
        "ASSISTANTD_DATA_DIR": str(daemon.folder / "data"),
        "ASSISTANTD_MODEL": str(daemon.model),
        "LANG": "C.UTF-8",
    }
    environment.pop("ASSISTANTD_TEST_MODEL", None)
    done = subprocess.run(
        [sys.executable, "-B", "-m", "clients.cli", "doctor", "--json", *arguments],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert "Traceback" not in done.stderr
    return done.returncode, json.loads(done.stdout)["findings"]


def everything(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Each file of a folder: mode, size, time of the last change."""
    found = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        found[str(path)] = (status.st_mode, status.st_size, status.st_mtime_ns)
    return found


def wrong(findings: list[dict[str, Any]]) -> list[str]:
    """Ids of what is not as it should be.

    Whether this machine has a microphone says nothing of the installation.
    """
    return [
        one["id"]
        for one in findings
        if one["severity"] in ("warning", "problem") and one["group"] != "voice"
    ]


def test_healthy_killed_and_back(own_daemon: RunningDaemon) -> None:
    own_daemon.start()
    with own_daemon.client() as client:
        client.ask("Hello.", session="s", max_tokens=4).wait()
    before = everything(own_daemon.folder / "data")
    code, findings = doctor(own_daemon, "--thorough")
    assert everything(own_daemon.folder / "data") == before
    assert (code, wrong(findings)) == (0, [])
    fine = {one["id"] for one in findings if one["severity"] == "ok"}
    assert {"daemon", "socket", "lock", "memory", "model", "database", "kernels"} <= fine
    own_daemon.kill()
    before = everything(own_daemon.folder / "data")
    code, findings = doctor(own_daemon, "running", "data", "permissions")
    assert everything(own_daemon.folder / "data") == before
    assert (code, wrong(findings)) == (0, ["socket.stale"])
    # what is advised is a start, and that mends it
    own_daemon.start()
    code, findings = doctor(own_daemon, "running")
    assert (code, wrong(findings)) == (0, [])
