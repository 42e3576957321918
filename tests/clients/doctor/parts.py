"""A place to break: folders of its own, and what the doctor finds there."""

import json
import os
import pickle
import shutil
import socket
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from assistantd import examine as examining
from assistantd.protocol_examine import Examination
from clients.doctor.checks import CHECKS, chosen, run
from clients.doctor.context import Context
from clients.doctor.finding import Finding

REPOSITORY = Path(__file__).resolve().parents[3]
NOBODY = 65534


class Place:
    """An installation's folders, and their environment.

    Attributes:
        folder: for whatever a test needs; with a short name.
        data: the daemon's folder of data; not made yet.
        root: instead of /, for what /proc and /sys say; empty unless a test writes into it.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self._patch = folder, monkeypatch
        self.data, self.root = folder / "data", folder / "root"
        self.endpoint = f"ipc://{folder}/s"
        for name in [name for name in os.environ if name.startswith("ASSISTANTD_")]:
            if name not in ("ASSISTANTD_TEST_MODEL", "ASSISTANTD_KERNEL_CACHE"):
                monkeypatch.delenv(name)
        self.set(ASSISTANTD_DATA_DIR=str(self.data), ASSISTANTD_ENDPOINT=self.endpoint)
        for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME"):
            self.set(**{name: str(folder / name.lower())})

    def set(self, **variables: str) -> None:
        """Set environment variables."""
        for name, value in variables.items():
            self._patch.setenv(name, value)

    def use_model(self, model: Path) -> Path:
        """Put a model into the store under its name, with the note that a pull leaves."""
        from hashlib import sha256

        store = self.data / "models"
        store.mkdir(parents=True, mode=0o700)
        path = store / "tiny.gguf"
        shutil.copyfile(model, path)
        note = {
            "sha256": sha256(path.read_bytes()).hexdigest(),
            "size_bytes": path.stat().st_size,
        }
        path.with_suffix(".json").write_text(json.dumps(note))
        self.set(ASSISTANTD_MODEL="tiny")
        return path

    def write(self, path: str, text: str) -> None:
        """A file below `root`."""
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def context(self, **more: Any) -> Context:
        """The doctor's view; what the daemon's program tells is asked within this process."""
        context = Context(**more)
        context.__dict__["_examined"] = self.examination()
        return context

    def examination(self) -> Examination:
        """As `assistantd --examine` prints it, and clients read it."""
        found = examining.examine(None, {})
        return msgspec.json.decode(msgspec.json.encode(found), type=Examination)

    def find(self, check: str, context: Context | None = None, **more: Any) -> list[Finding]:
        """What a check finds here."""
        context = context or self.context(**more)
        return [finding for _check, finding in run(chosen([check]), context)]

    def find_as_stranger(self, check: str) -> list[Finding]:
        """The same as somebody who owns nothing here: root may read and write everything."""
        self.find(check)  # imports what it needs, which a stranger may not be able to read
        if os.geteuid() != 0:
            return self.find(check)
        reader, writer = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of threads that are not there
            child = os.fork()
        if child == 0:
            try:
                os.setgroups([])
                os.setgid(NOBODY)
                os.setuid(NOBODY)
                os.write(writer, pickle.dumps(self.find(check)))
            finally:
                os._exit(0)
        os.close(writer)
        with os.fdopen(reader, "rb") as told:
            found = pickle.load(told)
        os.waitpid(child, 0)
        assert isinstance(found, list)
        return found

    def command(self, *arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
        """Run `assistant doctor`."""
        environment = {**os.environ, "PYTHONPATH": python_path(), **variables}
        return subprocess.run(
            [sys.executable, "-B", "-m", "clients.cli", "doctor", *arguments],
            cwd=REPOSITORY,
            env=environment,
            capture_output=True,
            text=True,
        )


def python_path(*first: Path) -> str:
    """PYTHONPATH with this repository, after other folders."""
    given = os.environ.get("PYTHONPATH", "")
    return os.pathsep.join([*map(str, first), str(REPOSITORY), *([given] if given else [])])


def one(findings: list[Finding], id: str, severity: str) -> Finding:
    """The only finding of this id; it says what, why and how to mend."""
    found = [finding for finding in findings if finding.id == id]
    assert len(found) == 1, findings
    assert found[0].severity == severity
    assert found[0].found and found[0].why and found[0].mend, found[0]
    assert found[0].check in [check.name for check in CHECKS]
    return found[0]


def fine(findings: list[Finding]) -> Finding:
    """All is well."""
    assert [finding.severity for finding in findings] == ["ok"], findings
    return findings[0]


def all_fine(findings: list[Finding]) -> None:
    """All of several are well."""
    assert findings and {finding.severity for finding in findings} == {"ok"}, findings


def program(folder: Path, name: str, script: str) -> Path:
    """A shell script, executable."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def listener(path: Path) -> socket.socket:
    """A bare socket that listens, and never answers."""
    bound = socket.socket(socket.AF_UNIX)
    bound.bind(str(path))
    bound.listen(5)
    return bound


def make_place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """For a fixture."""
    folder = Path(tempfile.mkdtemp(prefix="doc-"))
    yield Place(folder, monkeypatch)
    shutil.rmtree(folder)


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
