"""Settings: where they come from, which wins, and what is said of wrong ones."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from assistantd import config


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_a_later_source_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    write(
        tmp_path / "assistantd" / "config.toml",
        'model = "a"\n[engine]\nthreads = 1\nkv_tokens = 1000\n',
    )
    environ = {"ASSISTANTD_ENGINE_THREADS": "2", "ASSISTANTD_LIMITS_MAX_QUEUE": "5"}
    loaded = config.load(None, {"engine.kv_tokens": 2000, "model": None}, environ)
    assert loaded.config.model == "a"
    assert (loaded.config.engine.threads, loaded.config.engine.kv_tokens) == (2, 2000)
    assert loaded.config.limits.max_queue == 5
    assert loaded.origins["engine.threads"] == "$ASSISTANTD_ENGINE_THREADS"
    assert loaded.origins["engine.kv_tokens"] == "--kv-tokens"


def test_sizes(tmp_path: Path) -> None:
    assert config.Config().engine.kv_disk_bytes == 1 << 30
    for text, n_bytes in (("'1.5G'", 3 << 29), ("0", 0), ("4096", 4096)):
        file = write(tmp_path / "c.toml", f"[engine]\nkv_disk = {text}")
        assert config.load(file, {}, {}).config.engine.kv_disk_bytes == n_bytes
    loaded = config.load(None, {}, {"ASSISTANTD_ENGINE_KV_DISK": "0"})
    assert loaded.config.engine.kv_disk_bytes == 0


def test_printed_settings_are_read_back(tmp_path: Path) -> None:
    loaded = config.load(None, {"chat.system": 'say "hi"\nand ä'}, {})
    text = config.to_toml(loaded)
    file = write(tmp_path / "c.toml", text)
    assert config.load(file, {}, {}).config == loaded.config
    assert "# --system" in text and "# default" in text
    assert tomllib.loads(text)["limits"]["max_active"] == 4


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("modl = 'x'", ["modl", "model"]),
        ("[engine]\nthread = 1", ["engine.thread", "engine.threads"]),
        ("[engine]\nthreads = -1", ["engine.threads", "-1", ">= 0"]),
        ("[engine]\nthreads = 'many'", ["engine.threads", "many", "int"]),
        ("[engine]\nkv_disk = 'lots'", ["engine.kv_disk", "lots", "1.5G"]),
        ("[engine]\nkv_disk = -1", ["engine.kv_disk", "-1"]),
        ("[sampling]\ntop_p = 0", ["sampling.top_p", "> 0"]),
        ("log_level = 'loud'", ["log_level", "loud"]),
        ("endpoint = 'tcp://0.0.0.0:5771'", ["endpoint", "ipc://", "assistant network on"]),
        (f"endpoint = 'ipc:///{'x' * 120}'", ["103", "shorter"]),
        ("engine = 5", ["engine"]),
        ("= nonsense", ["TOML"]),
    ],
)
def test_wrong_settings_are_told_why(tmp_path: Path, text: str, parts: list[str]) -> None:
    file = write(tmp_path / "c.toml", text)
    with pytest.raises(config.ConfigError) as caught:
        config.load(file, {}, {})
    for part in parts:
        assert part in str(caught.value)


def test_the_command(tmp_path: Path) -> None:
    good = write(tmp_path / "good.toml", "log_level = 'debug'")
    bad = write(tmp_path / "bad.toml", "log_level = 1")

    def run(*args: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "assistantd", *args]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert run("--config", str(good), "--check-config").stdout == "the settings are fine\n"
    assert (
        tomllib.loads(run("--config", str(good), "--print-config").stdout)["log_level"] == "debug"
    )
    no_model = run("--check-config", "--model", str(tmp_path / "none.gguf"))
    assert no_model.returncode == 0  # it may be put there later
    assert f"there is no file {tmp_path / 'none.gguf'}" in no_model.stderr
    nobody = run("--check-config", "--model", "~nobodyatall/x.gguf")
    assert nobody.returncode == 0 and "Traceback" not in nobody.stderr
    broken = write(tmp_path / "broken.gguf", "GGUF")
    assert "broken.gguf" in run("--check-config", "--model", str(broken)).stderr
    failed = run("--config", str(bad), "--check-config")
    assert failed.returncode == 2
    assert failed.stderr.startswith("assistantd: ") and "Traceback" not in failed.stderr
    assert run("--config", str(tmp_path / "none.toml"), "--check-config").returncode == 2
