"""`assistant service uninstall --purge`: what is deleted, and that nobody loses it unasked."""

import io
import socket
import sys
from pathlib import Path

import pytest

from clients.cli.app import run
from clients.service import checks, purge

HOMES = ("XDG_DATA_HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME")


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """All of a user's folders, with a file in each; and something of another program."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    # the services of whoever runs the tests stay as they are
    monkeypatch.setattr(checks, "has_systemd", lambda *, system: False)
    made = []
    for variable in HOMES:
        home = tmp_path / variable.lower()
        monkeypatch.setenv(variable, str(home))
        folder = home / "assistantd"
        folder.mkdir(parents=True)
        (folder / "file").write_text("mine")
        (home / "other").mkdir()
        made.append(folder)
    return made


def uninstall(*options: str) -> int:
    return run(["service", "uninstall", "--user", *options])


def test_only_after_a_yes(
    folders: list[Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for answer in ("n\n", ""):  # no, and nobody there
        monkeypatch.setattr(sys, "stdin", io.StringIO(answer))
        assert uninstall("--purge") != 0
        assert all((folder / "file").is_file() for folder in folders)
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    assert uninstall("--purge") == 0
    assert not any(folder.exists() for folder in folders)
    assert all((folder.parent / "other").is_dir() for folder in folders)
    said = capsys.readouterr()
    assert all(f"removed {folder}\n" in said.out for folder in folders)
    assert "kept" not in said.out


def test_yes_is_said_ahead(folders: list[Path]) -> None:
    assert uninstall("--purge", "--yes") == 0
    assert purge.places(system=False) == []


def test_not_while_a_daemon_runs(folders: list[Path], tmp_path: Path) -> None:
    (tmp_path / "run").mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as daemon:
        daemon.bind(str(tmp_path / "run" / "assistantd.sock"))
        daemon.listen()
        assert uninstall("--purge", "--yes") != 0
    assert all((folder / "file").is_file() for folder in folders)
