"""A real daemon as a process of its own, for tests/e2e/ and tests/memory/."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from clients import Client

START_TIMEOUT_S = 180  # the first start compiles the kernels


@dataclass
class RunningDaemon:
    """A daemon in a folder of its own; may be killed and started again."""

    folder: Path
    model: Path
    settings: dict[str, str] = field(default_factory=dict)
    within: list[str] = field(default_factory=list)
    """A command that starts the command that follows it."""
    program: list[str] = field(default_factory=lambda: [sys.executable, "-m", "assistantd"])
    """The daemon: by default the one of the repository."""

    def __post_init__(self) -> None:
        self.endpoint = f"ipc://{self.folder}/a.sock"
        self.log = self.folder / "log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> "RunningDaemon":
        """Start it, and wait until it answers with the model loaded."""
        environment = {
            **os.environ,
            "ASSISTANTD_ENDPOINT": self.endpoint,
            "ASSISTANTD_DATA_DIR": str(self.folder / "data"),
            "ASSISTANTD_MODEL": str(self.model),
            **self.settings,
        }
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*self.within, *self.program],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        with self.client() as client:
            client.wait_ready(START_TIMEOUT_S, alive=lambda: self.process.poll() is None)
            # a request waits for the model; this one shows that it has come
            client.complete("a", max_tokens=1).wait()
        return self

    def client(self) -> Client:
        """A new connection."""
        return Client(self.endpoint, timeout=START_TIMEOUT_S)

    def kill(self) -> None:
        """kill -9."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM; returns the exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.terminate()
        return self.process.wait(30)


def short_folder() -> Path:
    """A folder with a short name: a socket's path has some 100 bytes only."""
    return Path(tempfile.mkdtemp(prefix="ad-"))


@contextmanager
def running_daemon(model: Path, **settings: str) -> Iterator[RunningDaemon]:
    """One that runs while the block does; it must end well, without a traceback in its log."""
    folder = short_folder()
    running = RunningDaemon(folder, model, settings).start()
    yield running
    code = running.stop()
    log = running.log.read_text()
    shutil.rmtree(folder)
    assert code == 0, log
    assert "Traceback" not in log, log
