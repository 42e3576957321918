"""Damaged configuration, environment and files of JSON: an error that names the place."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from assistantd import config
from assistantd.config import ConfigError
from assistantd.download import _read_note, _validator
from assistantd.models import ModelStore
from clients import AssistantError, servers
from clients.voice import settings as voice
from clients.voice.errors import VoiceError
from tests.hostile import small

TOMLS: dict[str, bytes] = {
    "binary": bytes(range(256)),
    "NUL": b'model = "a\0b"',
    "not UTF-8": b'model = "\xff\xfe"',
    "UTF-16": 'model = "a"'.encode("utf-16"),
    "a BOM": b'\xef\xbb\xbfmodel = "a"',
    "open text": b'model = "a',
    "no value": b"model =",
    "no key": b"= 1",
    "key twice": b'model = "a"\nmodel = "b"',
    "table twice": b"[engine]\n[engine]",
    "a table for a value": b'[model]\na = "b"',
    "a value for a table": b"engine = 1",
    "an array for a table": b"[[engine]]\nthreads = 1",
    "a date": b"model = 2026-01-01",
    "a number for a text": b"model = 1",
    "a text for a number": b'[engine]\nthreads = "many"',
    "a list for a number": b"[engine]\nthreads = [1]",
    "a fraction": b"[engine]\nthreads = 1.5",
    "true": b"[engine]\nthreads = true",
    "below": b"[engine]\nthreads = -1",
    "above": b"[engine]\nkv_tokens = 99999999999999999999999999",
    "many digits": b"[engine]\nkv_tokens = " + b"9" * 10_000,
    "nan": b"[sampling]\ntemperature = nan",
    "inf": b"[limits]\nshutdown_grace_s = inf",
    "minus inf": b"idle_unload_s = -inf",
    "1e400": b"[sampling]\ntemperature = 1e400",
    "unknown": b"modell = 1",
    "an unknown table": b"[motor]\na = 1",
    "an unknown key of a table": b"[engine]\nthread = 1",
    "an unknown key of 100000": b"k" * 100_000 + b" = 1",
    "a long value": b'log_level = "' + b"x" * 100_000 + b'"',
    "deep lists": b"model = " + b"[" * 5000 + b"]" * 5000,
    "deep keys": b".".join([b"a"] * 5000) + b" = 1",
    "deep tables": b"model = " + b"{a=" * 3000 + b"1" + b"}" * 3000,
    "many keys": b"\n".join(b"k%d = 1" % i for i in range(20_000)),
    "too large": b"# " + b"x" * (1 << 20),
    "an empty model": b'model = ""',
    "tcp": b'endpoint = "tcp://0.0.0.0:1"',
    "a long socket": b'endpoint = "ipc:///' + b"x" * 200 + b'"',
    "a budget that is none": b'memory_budget = "much"',
    "a budget of nothing": b'memory_budget = ""',
    "a size that is none": b'[engine]\nkv_disk = "1X"',
    "a size below zero": b"[engine]\nkv_disk = -1",
    "a size of letters": '[engine]\nkv_disk = "٣G"'.encode(),
}
JSONS: dict[str, bytes] = {
    "nothing": b"",
    "null": b"null",
    "a number": b"1",
    "a list of numbers": b"[1]",
    "another kind": b'{"a": 1}',
    "wrong types": b'{"url": 1, "validator": [], "source": {}, "sha256": 5, "on": "x", "port": "y"}',
    "wrong types in a list": b'[{"name": 1, "endpoint": null, "device": []}]',
    "cut off": b'{"url": "http',
    "binary": bytes(range(256)),
    "NUL": b"\0" * 4096,
    "not UTF-8": b'{"source": "\xff"}',
    "a surrogate": b'{"source": "\\ud800", "sha256": "\\ud800"}',
    "deep": b"[" * 200_000,
    "deep and closed": b"[" * 200_000 + b"]" * 200_000,
    "deep objects": b'{"source":' * 50_000 + b"1" + b"}" * 50_000,
    "NaN": b'{"source": NaN, "port": 1e999}',
    "many digits": b'{"port": ' + b"9" * 10_000 + b"}",
    "large": b'{"source": "' + b"x" * (1 << 21) + b'"}',
}


@pytest.mark.parametrize("name", TOMLS)
def test_bad_settings(tmp_path: Path, name: str) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(TOMLS[name])
    with pytest.raises(ConfigError) as caught:
        config.load(path, {}, {})
    text = str(caught.value)
    assert ("config.toml" in text or "socket" in text) and len(text) < 1000, text
    with pytest.raises(VoiceError) as heard:
        voice._read(path)
        raise VoiceError("sound TOML: its values are looked at later")
    assert str(heard.value)


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(raw=st.binary(max_size=300) | st.text(max_size=200).map(str.encode))
def test_any_bytes_for_settings(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(raw)
    try:
        config.load(path, {}, {})
    except ConfigError as error:
        assert str(error)


@settings(max_examples=200, deadline=None)
@given(
    key=st.sampled_from(sorted(config.keys())),
    value=st.text(st.characters(exclude_characters="\0"), min_size=1, max_size=60)
    | st.sampled_from(["nan", "-1", "1e999", "9" * 5000, "\udcff", "[1]", "{}", "true"]),
)
def test_any_text_for_the_environment(key: str, value: str) -> None:
    variable = "ASSISTANTD_" + key.replace(".", "_").upper()
    try:
        loaded = config.load(Path("/dev/null"), {}, {variable: value})
    except ConfigError as error:
        assert variable in str(error) and len(str(error)) < 1000
        return
    config.to_toml(loaded)


@pytest.mark.parametrize("name", ["not UTF-8", "many digits", "a value for a table", "binary"])
def test_the_program_shows_no_traceback(tmp_path: Path, name: str) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(TOMLS[name])
    done = subprocess.run(
        [sys.executable, "-m", "assistantd", "--check-config", "--config", path],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr and "config.toml" in done.stderr


def test_what_is_no_file(tmp_path: Path) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    for path in (tmp_path, tmp_path / "none", loop):
        with pytest.raises(ConfigError, match="cannot read"):
            config.load(path, {}, {})


def put(folder: Path, name: str, raw: bytes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_bytes(raw)
    return path


def origin_of_a_model(folder: Path, raw: bytes) -> None:
    put(folder, "m.gguf", small.seeds()["bpe-f32"])
    put(folder, "m.json", raw)
    (model,) = ModelStore(folder).list()
    assert model.problem is None
    again = msgspec.convert(msgspec.to_builtins(model), type(model))
    assert again == model, "a client could not read it"


def note_of_a_download(folder: Path, raw: bytes) -> None:
    path = put(folder, "m.part.json", raw)
    assert _validator(_read_note(path), "http://x") is None


def servers_of_a_client(folder: Path, raw: bytes) -> None:
    put(folder / "assistantd", "servers.json", raw)
    before = os.environ.get("XDG_CONFIG_HOME")
    os.environ["XDG_CONFIG_HOME"] = str(folder)
    try:
        servers.load()
    except AssistantError as error:
        assert "servers.json" in str(error)
    finally:
        if before is None:
            del os.environ["XDG_CONFIG_HOME"]
        else:
            os.environ["XDG_CONFIG_HOME"] = before


def setting_of_the_network(folder: Path, raw: bytes) -> None:
    from assistantd.network.switch import FILE_NAME, Setting

    path = put(folder, FILE_NAME, raw)
    try:
        msgspec.json.decode(path.read_bytes(), type=Setting)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return


READERS: dict[str, Callable[[Path, bytes], None]] = {
    "origin of a model": origin_of_a_model,
    "note of a download": note_of_a_download,
    "servers of a client": servers_of_a_client,
    "setting of the network": setting_of_the_network,
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("name", JSONS)
def test_bad_json_of_ours(tmp_path: Path, reader: str, name: str) -> None:
    READERS[reader](tmp_path, JSONS[name])


def test_how_many(capsys: pytest.CaptureFixture[str]) -> None:
    assert len({*TOMLS.values()}) == len(TOMLS) and len({*JSONS.values()}) == len(JSONS)
    json.loads(JSONS["wrong types"])
    with capsys.disabled():
        print(
            f"\nsettings: {len(TOMLS)} bad TOML files, {len(JSONS)} bad JSON files in each of "
            f"{len(READERS)} places"
        )
