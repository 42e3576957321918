"""Installs and runs node/ask.mjs, the client that shares no code with this project."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent / "node"
INSTALL_TIMEOUT_S = 240
RUN_TIMEOUT_S = 200


def install(cache: Path) -> Path:
    """Put ask.mjs and its one dependency into `cache`; returns the script.

    npm runs again only if package.json has changed. Skips the test where there is no Node.js,
    fails it if CI is set.
    """
    if shutil.which("node") is None or shutil.which("npm") is None:
        if os.environ.get("CI"):
            pytest.fail("CI needs node and npm for the non-Python client")
        pytest.skip("needs node and npm")
    cache.mkdir(parents=True, exist_ok=True)
    manifest = (SOURCE / "package.json").read_text()
    installed = cache / "installed.json"  # written last, so an interrupted install is repeated
    if not installed.is_file() or installed.read_text() != manifest:
        installed.unlink(missing_ok=True)
        (cache / "package.json").write_text(manifest)
        command = ["npm", "install", "--no-package-lock", "--no-audit", "--no-fund"]
        npm = subprocess.run(
            command, cwd=cache, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S
        )
        assert npm.returncode == 0, f"{' '.join(command)} failed:\n{npm.stdout}{npm.stderr}"
        installed.write_text(manifest)
    return Path(shutil.copy(SOURCE / "ask.mjs", cache / "ask.mjs"))


def ask(script: Path, endpoint: str, question: str) -> "subprocess.CompletedProcess[str]":
    """Run the script against the daemon at `endpoint`."""
    return subprocess.run(
        ["node", str(script), question],
        env={**os.environ, "ASSISTANTD_ENDPOINT": endpoint},
        capture_output=True,
        text=True,
        timeout=RUN_TIMEOUT_S,
    )
