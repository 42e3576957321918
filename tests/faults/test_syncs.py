"""What is renamed into place was synced before, and its folder after it: seen in system calls.

A file system may keep these in any order that is not asked for. ext4 and XFS happen to write names
with any file's fsync, so that a run on them cannot show what is missing (power_cuts.py).
"""

import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from assistantd.protocol import Devices, Network
from tests.assistantd.web import FileServer
from tests.running import RunningDaemon

CALLS = "openat,write,pwrite64,pwritev,fsync,fdatasync,rename,renameat,renameat2,close,mkdir"
LINE = re.compile(r"^(?P<pid>\d+) +(?P<call>\w+)\((?P<rest>.*)\) += (?P<result>-?\d+)")
OPENED = re.compile(r"<(?P<path>[^>]*)>")
QUOTED = re.compile(r'"(?P<text>[^"]*)"')


@dataclass
class Disk:
    """What is not synced at a moment of the trace."""

    unsynced: set[str] = field(default_factory=set)
    """Files."""
    renamed: dict[str, list[str]] = field(default_factory=dict)
    """Folder → names that were put there and would be gone after a cut."""
    problems: list[str] = field(default_factory=list)
    n_renames: int = 0

    def see(self, call: str, rest: str, result: int) -> None:
        """One system call, that has ended."""
        if result < 0:
            return
        opened = OPENED.search(rest)
        path = opened["path"] if opened else ""
        match call:
            case "write" | "pwrite64" | "pwritev":
                self.unsynced.add(path)
            case "fsync" | "fdatasync":
                self.unsynced.discard(path)
                self.renamed.pop(path, None)
            case "rename" | "renameat" | "renameat2":
                source, target = (match["text"] for match in QUOTED.finditer(rest))
                self.n_renames += 1
                if source in self.unsynced:
                    self.problems.append(f"{source} was renamed to {target} before it was synced")
                self.renamed.setdefault(str(Path(target).parent), []).append(target)
            case "mkdir":
                made = QUOTED.search(rest)
                assert made is not None
                self.renamed.setdefault(str(Path(made["text"]).parent), []).append(made["text"])


def calls(trace: Path, within: str) -> Iterator[tuple[str, str, int]]:
    """System calls that concern files in a folder; those of several threads are put together."""
    begun: dict[str, str] = {}
    for line in trace.read_text(errors="replace").splitlines():
        pid = line.split(" ", 1)[0]
        if line.endswith("<unfinished ...>"):
            begun[pid] = line.removesuffix("<unfinished ...>")
            continue
        if " resumed>" in line:
            line = begun.pop(pid, "") + line.partition(" resumed>")[2]
        found = LINE.match(line)
        if found is not None and within in found["rest"]:
            yield found["call"], found["rest"], int(found["result"])


def test_what_is_renamed_is_synced(own_daemon: RunningDaemon) -> None:
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    trace = own_daemon.folder / "trace"
    strace = ["strace", "-f", "-y", "-qq", "-s", "0", "-e", f"trace={CALLS}", "-o", str(trace)]
    # -s 0 cuts what is written, not the names of files
    may = subprocess.run([*strace, "true"], capture_output=True, text=True)
    if may.returncode:
        pytest.skip(f"strace may not trace here: {may.stderr}")
    own_daemon.within = strace
    content = own_daemon.model.read_bytes()
    own_daemon.start()
    with own_daemon.client() as client, FileServer(content).running() as web:
        assert client.ask("Hello", session="s", max_tokens=8).wait().text
        client.pull(f"{web.url}/m.gguf")
        client.request(Devices(op="add", name="program"))
        client.request(Network(op="on", address="127.0.0.1", port=27991))
        client.request(Network(op="off"))
        client.remove_model("m")
        client.shutdown()
    assert own_daemon.process is not None
    assert own_daemon.process.wait(60) == 0
    disk = Disk()
    data = own_daemon.folder / "data"
    for call, rest, result in calls(trace, str(own_daemon.folder)):
        disk.see(call, rest, result)
    assert not disk.problems, disk.problems
    left = {folder: names for folder, names in disk.renamed.items() if names}
    assert not left, f"renamed or made, and the folder not synced: {left}"
    # the model and what is known of it, the network's switch and key, the cache's index
    assert disk.n_renames >= 5
    assert (data / "sessions.db").exists()
