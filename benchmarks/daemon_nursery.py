"""A process that has imported all that a daemon imports, and becomes one whenever it is told to.

A start costs a second of importing; of thousands of daemons that are killed, each is spared it. It
is a process of its own all the same, with nothing of the others' but the modules. One JSON line
each way:

    in   {"environment": {"ASSISTANTD_ENDPOINT": …}, "log": PATH}
    out  {"started": PID}     {"ended": PID, "status": as os.waitstatus_to_exitcode gives it}
"""

import contextlib
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

MODULES = (
    "assistantd.__main__",
    "assistantd.daemon",
    "assistantd.loading",
    "engine.generate",
    "engine.model",
    "engine.info",
    "engine.native",
)


def become_daemon(environment: Mapping[str, str], log: Path) -> NoReturn:
    """The rest of a child's life."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ.update(environment)
    sys.argv = ["assistantd"]
    status = 1
    try:
        from assistantd.__main__ import main

        main()
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(bool(end.code))
    finally:
        sys.stderr.flush()
        os._exit(status)


def tell(**line: int) -> None:
    """To whoever started us."""
    print(json.dumps(line), flush=True)


def main() -> None:
    """Until standard input ends; then all children are killed."""
    for module in MODULES:
        importlib.import_module(module)
    gc.freeze()
    children: set[int] = set()
    reader, writer = socket.socketpair()
    reader.setblocking(False)
    writer.setblocking(False)
    signal.set_wakeup_fd(writer.fileno())
    signal.signal(signal.SIGCHLD, lambda *_signal: None)
    pending = b""
    while True:
        ready, _, _ = select.select([0, reader], [], [])
        if reader in ready:
            with contextlib.suppress(BlockingIOError):
                reader.recv(4096)
            for pid in list(children):
                done, status = os.waitpid(pid, os.WNOHANG)
                if done:
                    children.discard(pid)
                    tell(ended=pid, status=os.waitstatus_to_exitcode(status))
        if 0 not in ready:
            continue
        data = os.read(0, 65536)
        if not data:
            break
        *lines, pending = (pending + data).split(b"\n")
        for line in lines:
            order = json.loads(line)
            pid = os.fork()
            if not pid:
                become_daemon(order["environment"], Path(order["log"]))
            children.add(pid)
            tell(started=pid)
    for pid in children:
        os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    main()
