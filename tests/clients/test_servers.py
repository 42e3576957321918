"""Where the keys of paired daemons are kept."""

import os
from pathlib import Path

import pytest

from clients import servers
from clients.errors import AssistantError
from clients.servers import Server


def server(name: str = "box", **changes: str) -> Server:
    fields = {
        "endpoint": "tcp://192.0.2.7:5771",
        "server_key": "s" * 40,
        "public_key": "p" * 40,
        "secret_key": "k" * 40,
        "device": "abcdefgh",
        "words": "one two three four",
    }
    return Server(name=name, **{**fields, **changes})


def test_what_was_saved_is_loaded() -> None:
    assert servers.load() == []
    servers.save([server("a"), server("b")])
    assert servers.load() == [server("a"), server("b")]
    servers.put(server("a", endpoint="tcp://192.0.2.8:1"))
    assert [known.name for known in servers.load()] == ["b", "a"]


def test_nobody_else_may_read_it() -> None:
    before = os.umask(0)
    try:
        servers.save([server()])
    finally:
        os.umask(before)
    assert servers.path().stat().st_mode & 0o777 == 0o600
    assert servers.path().parent.stat().st_mode & 0o777 == 0o700
    servers.path().chmod(0o644)
    servers.save([server()])
    assert servers.path().stat().st_mode & 0o777 == 0o600


def test_the_secret_is_in_no_traceback() -> None:
    assert "k" * 40 not in repr(server())


def test_it_is_replaced_whole_or_not_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    servers.save([server("old")])

    def fail(*_paths: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(os, "replace", fail)
        with pytest.raises(AssistantError, match="No space left"):
            servers.save([server("new")])
    assert [known.name for known in servers.load()] == ["old"]
    assert os.listdir(servers.path().parent) == ["servers.json"]


@pytest.mark.parametrize("text", ["", "{", "[1]", '[{"name": "x"}]', "\xff"])
def test_a_damaged_file(text: str) -> None:
    servers.path().parent.mkdir(parents=True)
    servers.path().write_bytes(text.encode("latin-1"))
    with pytest.raises(AssistantError, match="damaged"):
        servers.load()
    assert servers.path().read_bytes() == text.encode("latin-1")


def test_a_folder_that_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "file"))
    with pytest.raises(AssistantError, match="cannot"):
        servers.save([server()])
    with pytest.raises(AssistantError, match="cannot"):
        servers.load()
