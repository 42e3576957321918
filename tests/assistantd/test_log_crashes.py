"""Reports of crashes: of real processes that die in every way a process can."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from assistantd.log import describe, trace, unquoted
from assistantd.log_crashes import _FILE_BYTES, Crashes, read_running

ROOT = Path(__file__).resolve().parent.parent.parent
SENTINEL = "xylophone"
PROGRAM = """
import faulthandler, logging, os, signal, sys, threading
from pathlib import Path
from assistantd.log import fields, set_up, text_fields
from assistantd.log_crashes import Crashes

set_up("error", "text", with_text=True)
crashes = Crashes(Path(sys.argv[1]), "tester", int(sys.argv[3]), {"limits.max_active": "4"})
crashes.start()
log = logging.getLogger("assistantd.test")
for name in ("r1", "r2", "r3"):
    log.info("asked", extra=fields(request=name, kind="chat", **text_fields(question="xylophone")))
log.info("answered", extra=fields(request="r2", **text_fields(answer="xylophone")))
logging.getLogger("elsewhere").error("xylophone")
how = sys.argv[2]
set_up("error", "text")

def deep(word):
    {}[word]

if how == "exception":
    deep("xylophone")
elif how == "thread":
    thread = threading.Thread(target=deep, args=("xylophone",), name="engine")
    thread.start()
    thread.join()
elif how == "segv":
    faulthandler._sigsegv()
elif how == "kill":
    os.kill(os.getpid(), signal.SIGKILL)
elif how == "look":
    print(crashes.last or "")
crashes.close()
"""


def run(folder: Path, how: str, keep: int = 10) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder), how, str(keep)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=120,
    )


def reports(folder: Path) -> list[Path]:
    return sorted(folder.glob("tester-*.txt"))


@pytest.mark.parametrize("how", ["exception", "thread", "segv"])
def test_a_crash_is_reported_and_told_by_the_next_run(tmp_path: Path, how: str) -> None:
    done = run(tmp_path / "crashes", how)
    if how == "segv":
        assert done.returncode == -signal.SIGSEGV
        assert reports(tmp_path / "crashes") == []  # no code of ours ran: the next start writes it
    next_run = run(tmp_path / "crashes", "look")
    assert next_run.returncode == 0, next_run.stderr
    (report,) = reports(tmp_path / "crashes")
    assert next_run.stdout.strip() == str(report)
    assert "the last run crashed" in next_run.stderr and str(report) in next_run.stderr
    assert report.stat().st_mode & 0o777 == 0o600
    text = report.read_text()
    print(text)
    assert "r1 chat" in text and "r3 chat" in text and "r2 chat" not in text
    assert "limits.max_active = 4" in text and "version" in text and "platform" in text
    assert "asked request=r3" in text
    assert ("Segmentation fault" if how == "segv" else "in deep") in text
    if how == "thread":
        assert "in the thread engine" in text
    if how != "segv":
        assert "KeyError" in text
    # and never a word of anybody, here or in the log, but what the log was asked to have
    assert SENTINEL not in text
    for line in done.stderr.splitlines():
        assert SENTINEL not in line or " error   xylophone" in line, line
    # once: the run after that one knows nothing of it
    assert run(tmp_path / "crashes", "look").stdout.strip() == ""


def test_being_killed_is_no_crash(tmp_path: Path) -> None:
    assert run(tmp_path, "kill").returncode == -signal.SIGKILL
    assert run(tmp_path, "look").stdout.strip() == ""
    assert list(tmp_path.iterdir()) == []


def test_so_many_are_kept(tmp_path: Path) -> None:
    for number in range(4):
        (tmp_path / f"tester-2020010{number}-000000-1.txt").write_text("old")
    (tmp_path / "other-20200101-000000-1.txt").write_text("of another program")
    run(tmp_path, "exception", 2)
    kept = reports(tmp_path)
    assert len(kept) == 2 and kept[0].name.startswith("tester-20200103")
    assert (tmp_path / "other-20200101-000000-1.txt").exists()
    run(tmp_path / "none", "exception", 0)
    assert not (tmp_path / "none").exists()


def test_two_at_the_same_time_do_not_mix_their_files(tmp_path: Path) -> None:
    first = Crashes(tmp_path, "tester", 3)
    first.start()
    try:
        assert run(tmp_path, "segv").returncode == -signal.SIGSEGV
        assert run(tmp_path, "exception").returncode == 1
        assert len(reports(tmp_path)) == 1
    finally:
        first.close()


def test_a_folder_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    done = run(tmp_path / "file", "exception")
    assert done.returncode == 1 and "cannot write the report" in done.stderr
    assert "KeyError" in done.stderr and SENTINEL not in done.stderr.splitlines()[-1]


def test_a_failed_start_is_one_report(tmp_path: Path) -> None:
    crashes = Crashes(tmp_path, "tester", 3)
    for number in range(5):
        path = crashes.report_failed_start(f"the disk is full, try {number}")
    assert path is not None and reports(tmp_path) == [path]
    assert "try 4" in path.read_text()


@pytest.mark.parametrize("raw", [b"", os.urandom(_FILE_BYTES), b"\xff" * 100, b"1 x" * 5000])
def test_whatever_a_power_cut_leaves_is_read(raw: bytes) -> None:
    head, requests, events = read_running(raw)
    assert isinstance(head, str) and isinstance(requests, list) and isinstance(events, list)


def test_what_exceptions_say_is_left_out_where_it_could_quote() -> None:
    assert describe(ValueError("xylophone")).startswith("ValueError (says something of 9")
    assert describe(TypeError("can't add str and int")) == "TypeError: can't add str and int"
    assert describe(FileNotFoundError(2, "x", "/xylophone")) == (
        "FileNotFoundError: [Errno 2] No such file or directory"
    )
    try:
        try:
            raise KeyError("xylophone")
        except KeyError as inner:
            raise RuntimeError("xylophone") from inner
    except RuntimeError as problem:
        text = trace(problem)
    assert "xylophone" not in text.replace('KeyError("xylophone")', "").replace(
        'RuntimeError("xylophone")', ""
    )
    assert text.index("KeyError (") < text.index("RuntimeError (")


@pytest.mark.parametrize(
    ("problem", "told"),
    [
        ("cannot read the request: Invalid enum value 'xylophone' - at `$.op`", 48),
        ("cannot read the request: Object contains unknown field `xylophone`", 56),
        ("cannot read the request: Expected `int`, got `str` - at `$.seed`", None),
        ("cannot read the request: JSON is malformed: invalid character (byte 3)", None),
        ("the request says b'xylophone'", 18),
    ],
)
def test_complaints_without_quotations(problem: str, told: int | None) -> None:
    found = unquoted(problem)
    assert "xylophone" not in found
    assert found == problem if told is None else problem.startswith(found.removesuffix("…"))
