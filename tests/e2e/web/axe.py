"""Fetches axe-core, which judges whether a page is accessible."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

VERSION = "4.10.3"
INSTALL_TIMEOUT_S = 240


def source(cache: Path) -> str:
    """Its JavaScript, fetched by npm once; skips where there is no npm, fails if CI is set."""
    script = cache / "node_modules" / "axe-core" / "axe.min.js"
    installed = cache / f"installed-{VERSION}"  # written last
    if not installed.is_file():
        if shutil.which("npm") is None:
            if os.environ.get("CI"):
                pytest.fail("CI needs npm for axe-core")
            pytest.skip("needs npm")
        cache.mkdir(parents=True, exist_ok=True)
        (cache / "package.json").write_text('{"private": true}')
        command = ["npm", "install", "--no-package-lock", "--no-audit", "--no-fund"]
        command.append(f"axe-core@{VERSION}")
        npm = subprocess.run(
            command, cwd=cache, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S
        )
        assert npm.returncode == 0, f"{' '.join(command)} failed:\n{npm.stdout}{npm.stderr}"
        installed.touch()
    return script.read_text(encoding="utf-8")
