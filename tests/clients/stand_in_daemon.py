"""A scripted daemon as a process of its own, for tests of what starts one: `python -m assistantd`.

`install` puts a package in front of the real one whose `__main__` is this file; everything else
of `assistantd` stays real. Environment: STAND_IN_MODEL=missing answers not_found until a model
was pulled.
"""

import fcntl
import os
import sys
import threading
from pathlib import Path

import assistantd
from assistantd.protocol import Done, Error, ErrorInfo, ModelInfo, Models, Progress, Request
from tests.clients.scripted_daemon import ScriptedDaemon, Send, say

REPOSITORY = Path(__file__).resolve().parents[2]
EXIT_RUNS_ALREADY = 75


def install(folder: Path) -> str:
    """Write the package; returns what PYTHONPATH must be for it to be found."""
    package = folder / "assistantd"
    package.mkdir(parents=True)
    real = Path(assistantd.__file__).parent
    (package / "__init__.py").write_text(f"__path__.append({str(real)!r})\n")
    (package / "__main__.py").write_text(
        "from tests.clients.stand_in_daemon import main\n\nmain()\n"
    )
    return f"{folder}{os.pathsep}{REPOSITORY}"


def main() -> None:
    """Serve until a shutdown request; exit 75 if another one holds the lock, as the real one."""
    endpoint = sys.argv[sys.argv.index("--endpoint") + 1]
    socket_path = Path(endpoint.removeprefix("ipc://"))
    with open(f"{socket_path}.lock", "a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit(EXIT_RUNS_ALREADY)
        with open(f"{socket_path}.starts", "a") as starts:
            starts.write(f"{os.getpid()}\n")
        _serve(endpoint, socket_path.parent)


def _serve(endpoint: str, folder: Path) -> None:
    over = threading.Event()
    models: list[ModelInfo] = []
    missing = os.environ.get("STAND_IN_MODEL") == "missing"
    info = ModelInfo(name="smollm2", size_bytes=98_000_000)

    def chat(request: Request, send: Send) -> None:
        if missing and not models:
            send(Error(ErrorInfo("not_found", "no model is on this machine yet")))
        else:
            say("The capital of France is ", "Paris.")(request, send)

    def on_models(request: Request, send: Send) -> None:
        assert isinstance(request, Models)
        if request.op == "pull":
            for percent in range(0, 101, 5):
                send(Progress("download", "downloading smollm2", percent, 100))
            models.append(info)
            send(Done(model=info))
        else:
            send(Done(models=models))

    def shutdown(request: Request, send: Send) -> None:
        send(Done(message="stopping"))
        over.set()

    daemon = ScriptedDaemon(folder)
    daemon.endpoint = endpoint
    daemon.on("chat", chat)
    daemon.on("models", on_models)
    daemon.on("shutdown", shutdown)
    with daemon:
        over.wait()
