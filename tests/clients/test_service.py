"""`assistant service`: what it writes, and what it says when it cannot. What the units then do is
tested under a real systemd, in tests/e2e/systemd/."""

import contextlib
import io
import json
import os
import plistlib
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import NamedTuple

import pytest

from clients.cli import app
from clients.service import checks, files, units
from clients.service.errors import ServiceError
from clients.service.units import DAEMON, File, Wanted, systemd_files, with_budget

KNOWN_TO_254 = ("RestartSteps", "RestartMaxDelaySec")
needs_analyze = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="needs systemd-analyze"
)


class Ran(NamedTuple):
    code: int
    out: str
    err: str


def run(arguments: list[str]) -> Ran:
    """Run `assistant` with these arguments."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = app.run(arguments)
    return Ran(code, out.getvalue(), err.getvalue())


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("assistantd", "assistant"):
        (folder / name).write_text("#!/bin/sh\n")
        (folder / name).chmod(0o755)
    return folder


def write_all(root: Path, programs: Path, *options: str) -> Path:
    """Run `install --root`, and return the folder of units."""
    scope = "--user" if "--user" in options else "--system"
    command = ["service", "install", scope, "--root", str(root), "--programs", str(programs)]
    done = run([*command, *(option for option in options if option != "--user")])
    assert done.code == 0, done.err
    return root / "usr/lib/systemd" / scope.removeprefix("--")


def test_root_has_all_that_a_package_needs(tmp_path: Path) -> None:
    root = tmp_path / "root"
    write_all(root, Path("/usr/bin"), "--voice", "--gateway", "--memory-budget", "400M")
    found = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
    folder = "usr/lib/systemd/system"
    assert found == {
        *(f"{folder}/{unit}" for unit in units.ALL),
        f"{folder}/assistantd.service.d/50-memory.conf",
        "usr/lib/sysusers.d/assistantd.conf",
        "usr/lib/tmpfiles.d/assistantd.conf",
        "etc/assistantd/config.toml",
    }
    for path in root.rglob("*.service"):
        text = path.read_text()
        assert "@" not in re.sub(r"@[a-z-]+", "", text), path  # but for sets of system calls
        assert re.search(r"^ExecStart=/usr/bin/assistantd?\b", text, re.MULTILINE), path
        assert path.stat().st_mode & 0o777 == 0o644


def test_voice_and_gateway_come_when_asked_for(tmp_path: Path) -> None:
    folder = write_all(tmp_path, Path("/usr/bin"))
    assert {path.name for path in folder.iterdir()} == {units.DAEMON, units.SOCKET, units.KERNELS}


@needs_analyze
@pytest.mark.parametrize("options", [(), ("--offline",), ("--user",)])
def test_systemd_understands_every_line(
    tmp_path: Path, programs: Path, options: tuple[str, ...]
) -> None:
    folder = write_all(tmp_path / "root", programs, "--voice", "--gateway", *options)
    manager = ["--user"] if "--user" in options else []
    paths = [str(path) for path in folder.iterdir() if path.is_file()]
    done = subprocess.run(
        ["systemd-analyze", *manager, "verify", "--man=no", *paths],
        capture_output=True,
        text=True,
        env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)},
    )
    complaints = [
        line
        for line in done.stderr.splitlines()
        # of units of this machine it complains as well
        if str(tmp_path) in line or line.startswith("assistant")
        if not any(f"Unknown key '{key}'" in line for key in KNOWN_TO_254)
    ]
    assert not complaints
    assert done.returncode == 0, done.stderr


@needs_analyze
@pytest.mark.parametrize(
    ("options", "unit", "most"),
    [
        ((), "assistantd", 1.2),
        (("--offline",), "assistantd", 0.3),
        ((), "assistantd-kernels", 0.3),
        (("--gateway",), "assistant-gateway", 1.2),
        (("--voice",), "assistant-voice", 1.7),
    ],
)
def test_the_sandbox_stays_tight(
    tmp_path: Path, programs: Path, options: tuple[str, ...], unit: str, most: float
) -> None:
    """docs/service.md tells of these figures."""
    root = tmp_path / "root"
    write_all(root, programs, *options)
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", f"--root={root}", f"{unit}.service"],
        capture_output=True,
        text=True,
    )
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", done.stdout)
    if found is None and "offline" in done.stderr:
        pytest.skip("needs systemd 250")
    assert found is not None, done.stderr
    assert float(found[1]) <= most


@needs_analyze
def test_a_path_of_any_kind_is_one_word(tmp_path: Path) -> None:
    odd = tmp_path / "it is 100% odd; $HOME"
    odd.mkdir()
    (odd / "assistantd").write_text("#!/bin/sh\n")
    (odd / "assistantd").chmod(0o755)
    (file,) = (f for f in systemd_files(Wanted(True, odd, tmp_path)) if f.path.name == DAEMON)
    files.write(file)
    files.write(File(file.path.with_name(units.SOCKET), "[Socket]\nListenStream=/run/x\n"))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(file.path)], capture_output=True, text=True
    )
    # it looks whether the program is there, and says so by its name
    assert "not executable" not in done.stderr and "odd" not in done.stderr, done.stderr
    with pytest.raises(ServiceError, match="quotes"):
        systemd_files(Wanted(True, Path('/opt/"odd"'), tmp_path))


def test_dry_run_writes_nothing(tmp_path: Path, programs: Path) -> None:
    root = tmp_path / "root"
    command = ["service", "install", "--system", "--root", str(root), "--dry-run"]
    done = run([*command, "--programs", str(programs), "--memory-budget", "1G"])
    assert done.code == 0 and not root.exists()
    assert f"ExecStart={programs}/assistantd\n" in done.out
    assert 'memory_budget = "1G"' in done.out
    done = run([*command, "--programs", str(programs), "--json"])
    assert str(root / "usr/lib/systemd/system" / DAEMON) in json.loads(done.out)["files"]


def test_limits_leave_room_above_the_budget() -> None:
    for budget in (100 << 20, 400 << 20, 16 << 30):
        values = dict(re.findall(r"^(Memory\w+)=(\d+)$", units.memory_limits(budget), re.MULTILINE))
        high, most = int(values["MemoryHigh"]), int(values["MemoryMax"])
        assert budget < high < most <= max(budget * 9 // 8, budget + (32 << 20))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# mine\nmodel = 'x'\n",
        'memory_budget = "auto"  # as much as there is\nmodel = "x"\n',
        '[engine]\nthreads = 2\n[chat]\nsystem = "memory_budget = 1"\n',
        '  memory_budget="none"\n[limits]\nmax_active = 1\n',
    ],
)
def test_only_the_budget_of_a_configuration_changes(text: str) -> None:
    before, after = tomllib.loads(text), tomllib.loads(with_budget(text, 400 << 20))
    assert after == {**before, "memory_budget": "400M"}
    assert tomllib.loads(with_budget(text, 0))["memory_budget"] == "none"
    assert tomllib.loads(with_budget(text, 12345))["memory_budget"] == "12345"
    for line in text.splitlines():
        assert line in with_budget(text, 1 << 30) or "memory_budget" in line


def test_a_file_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text("old")
    path.chmod(0o600)
    files.write(File(path, "new"))
    assert path.read_text() == "new" and path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_the_launch_agent_is_a_property_list(monkeypatch: pytest.MonkeyPatch) -> None:
    agent = units.agent(Path("/opt/A & B <c>/bin"))
    values = plistlib.loads(agent.text.encode())
    assert values["ProgramArguments"] == ["/opt/A & B <c>/bin/assistantd"]
    assert values["KeepAlive"] == {"SuccessfulExit": False} and values["RunAtLoad"] is True
    assert Path(values["StandardErrorPath"]).is_absolute()
    assert agent.path.name == f"{values['Label']}.plist"


def test_programs_that_are_not_there(tmp_path: Path) -> None:
    done = run(["service", "install", "--programs", str(tmp_path), "--dry-run"])
    assert done.code == 1
    assert "--programs" in done.err and str(tmp_path) in done.err


def test_a_program_in_a_home_is_refused_for_the_machine(tmp_path: Path) -> None:
    with pytest.raises(ServiceError, match="sandbox hides /home"):
        checks.check_readable(Path("/home/ann/.local/bin"))


def test_a_program_behind_a_closed_folder_is_refused(tmp_path: Path, programs: Path) -> None:
    tmp_path.chmod(0o700)
    with pytest.raises(ServiceError, match=r"chmod o\+rx"):
        checks.check_readable(programs)


@pytest.mark.skipif(sys.platform != "linux", reason="about systemd")
@pytest.mark.skipif(Path("/run/systemd/system").is_dir(), reason="systemd runs here")
@pytest.mark.parametrize("command", ["install", "uninstall", "status"])
def test_without_systemd_it_says_so(command: str, programs: Path) -> None:
    options = ["--programs", str(programs)] if command == "install" else []
    done = run(["service", command, "--user", *options])
    assert done.code == 1
    assert "systemd does not run this machine" in done.err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may")
def test_the_machines_service_needs_its_administrator(programs: Path) -> None:
    done = run(["service", "install", "--system", "--programs", str(programs)])
    assert done.code == 1 and "sudo" in done.err
