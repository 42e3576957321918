"""The wheel in a fresh environment: nothing of the repository is in reach."""

from pathlib import Path

import pytest

from clients import Client
from clients.cli.connection import listening
from tests.e2e.installing.environments import Environment, wheel_of_this
from tests.running import short_folder

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def test_from_nothing_to_an_answer_and_back(tmp_path: Path, smollm2_path: Path) -> None:
    environment = Environment(tmp_path / "venv", borrow=False)
    before = {path.name for path in environment.site.iterdir()}
    programs = {path.name for path in environment.bin.iterdir()}
    environment.pip("install", "--quiet", wheel_of_this(tmp_path / "dist"))
    assert not list(environment.site.glob("__editable__*"))
    environment.pip("check")

    assert environment("assistant", "--version").startswith("assistant ")
    assert environment("assistantd", "--version").startswith("assistantd, version ")
    # what is no code has come with it: translations, units, the page
    assert "사용" in environment("assistant", "--help", LANGUAGE="ko")
    root = tmp_path / "root"
    environment("assistant", "service", "install", "--system", "--root", str(root))
    assert (root / "usr/lib/systemd/system/assistantd.socket").is_file()
    assert (environment.site / "clients/web/page/index.html").is_file()

    folder = short_folder()
    where = {
        "ASSISTANTD_ENDPOINT": f"ipc://{folder}/a.sock",
        "ASSISTANTD_DATA_DIR": str(folder / "data"),
        "ASSISTANTD_MODEL": str(smollm2_path),
        "ASSISTANTD_AUTOSTART": "1",
    }
    answer = environment(
        "assistant", "--temperature", "0", "What is the capital of France?", **where
    )
    assert "Paris" in answer
    with Client(where["ASSISTANTD_ENDPOINT"]) as client:
        pid = client.status().pid
    assert str(environment.site) in Path(f"/proc/{pid}/maps").read_text()
    environment("assistant", "stop", **where)
    assert not listening(where["ASSISTANTD_ENDPOINT"])

    environment.pip("uninstall", "--quiet", "--yes", "assistantd")
    left = {path.name for path in environment.site.iterdir()} - before
    assert not [name for name in left if name.startswith(("assistantd", "clients", "engine"))]
    new = {path.name for path in environment.bin.iterdir()} - programs
    assert not [name for name in new if name.startswith("assistant")]
