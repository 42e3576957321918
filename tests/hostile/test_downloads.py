"""Servers that send something else, or nothing, or more than there is room for."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from assistantd import download
from assistantd.models import ModelStore, StoreError
from tests.assistantd.web import FileServer
from tests.hostile import small

# urllib leaves the connection of a redirect that it cannot parse to the garbage collector
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

SOUND = small.seeds()["bpe-f32"]


@contextmanager
def raw_server(answer: bytes, *, endless: bytes = b"") -> Iterator[str]:
    """Sends these bytes whatever it is asked; then the endless ones, until the client is gone."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                client, _address = listener.accept()
            except OSError:
                return
            with client:
                try:
                    client.recv(65536)
                    client.sendall(answer)
                    while endless:
                        client.sendall(endless)
                except OSError:
                    continue

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/m.gguf"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "RETRY_WAIT_S", 0.0)


OK = b"HTTP/1.1 200 OK\r\n"
ANSWERS: dict[str, bytes] = {
    "nothing": b"",
    "no HTTP": b"220 ftp ready\r\n",
    "binary": bytes(range(256)),
    "half a header": OK + b"Content-Le",
    "a long header": OK + b"X: " + b"x" * 70_000 + b"\r\n\r\n",
    "many headers": OK + b"X: y\r\n" * 1000 + b"\r\n",
    "a length that is none": OK + b"Content-Length: many\r\n\r\n" + b"x" * 99,
    "a length below zero": OK + b"Content-Length: -1\r\n\r\n" + b"x" * 99,
    "a length of other digits": OK + b"Content-Length: \xb2\r\n\r\n" + b"x" * 99,
    "a length of 5000 digits": OK + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n" + b"x" * 99,
    "more than there is": OK + b"Content-Length: 999999\r\n\r\n" + SOUND,
    "as much as no disk has": OK + b"Content-Length: 99999999999999999\r\n\r\n" + SOUND,
    "a chunk that is none": OK + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n",
    "a chunk below zero": OK + b"Transfer-Encoding: chunked\r\n\r\n-5\r\nabc\r\n",
    "a chunk without an end": OK + b"Transfer-Encoding: chunked\r\n\r\nffffff\r\nabc",
    "a page": OK + b"Content-Length: 15\r\n\r\n<!DOCTYPE html>",
    "an empty file": OK + b"Content-Length: 0\r\n\r\n",
    "gzip": OK + b"Content-Encoding: gzip\r\nContent-Length: 30\r\n\r\n\x1f\x8b\x08" + bytes(27),
    "a part of it": b"HTTP/1.1 206 Partial\r\nContent-Length: 50\r\n"
    b"Content-Range: bytes 100-149/9999\r\n\r\n" + SOUND[:50],
    "a part without a range": b"HTTP/1.1 206 Partial\r\nContent-Length: 50\r\n\r\n" + SOUND[:50],
    "a wrong hash": OK
    + b'ETag: "' + b"0" * 64 + b'"\r\nContent-Length: %d\r\n\r\n' % len(SOUND) + SOUND,
    "half of it": OK + b"Content-Length: %d\r\n\r\n" % len(SOUND) + SOUND[: len(SOUND) // 2],
    "to a file": b"HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\n\r\n",
    "to ftp": b"HTTP/1.1 302 Found\r\nLocation: ftp://127.0.0.1/m.gguf\r\n\r\n",
    "to data": b"HTTP/1.1 302 Found\r\nLocation: data:,x\r\n\r\n",
    "to nowhere": b"HTTP/1.1 302 Found\r\nLocation: \r\n\r\n",
    "to itself": b"HTTP/1.1 302 Found\r\nLocation: /m.gguf\r\n\r\n",
    "to no address": b"HTTP/1.1 302 Found\r\nLocation: http://[::1/x\r\n\r\n",
    "without a place": b"HTTP/1.1 302 Found\r\n\r\n",
    "a status that is none": b"HTTP/1.1 999 What\r\n\r\n",
    "a teapot": b"HTTP/1.1 418 I'm a teapot\r\n\r\n",
    "for ever interim": b"HTTP/1.1 100 Continue\r\n\r\n" * 500,
}  # fmt: skip


@pytest.mark.parametrize("name", ANSWERS)
def test_bad_servers(tmp_path: Path, name: str) -> None:
    store = ModelStore(tmp_path)
    with raw_server(ANSWERS[name]) as url, pytest.raises(StoreError) as caught:
        store.pull(url)
    assert str(caught.value) and len(str(caught.value)) < 2000
    assert not list(tmp_path.glob("*.gguf")) and store.list() == []


@pytest.mark.parametrize(
    "url",
    [
        "http://[::1/m.gguf",
        "http://a b/m.gguf",
        "http://127.0.0.1:99999/m.gguf",
        "http://127.0.0.1:x/m.gguf",
        "http:///m.gguf",
        "http://" + "a" * 300 + "/m.gguf",
        "http://\ud800/m.gguf",
        "http://127.0.0.1:1/\r\nX: y/m.gguf",
        "ftp://127.0.0.1/m.gguf",
        "file:///etc/passwd.gguf",
        "http://127.0.0.1:1/../../x/.gguf",
        "a/b/../../c.gguf",
    ],
)
def test_bad_addresses(tmp_path: Path, url: str) -> None:
    with pytest.raises(StoreError):
        ModelStore(tmp_path).pull(url)
    assert not list(tmp_path.glob("*.gguf"))


class _Usage(NamedTuple):
    total: int
    used: int
    free: int


def test_a_file_without_an_end_leaves_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "CHECK_ROOM_EVERY", 1 << 20)
    part = tmp_path / "m.part"

    def usage(_folder: object) -> _Usage:
        have = part.stat().st_size if part.exists() else 0
        return _Usage(1 << 40, 0, download.KEEP_FREE + (10 << 20) - have)

    monkeypatch.setattr("shutil.disk_usage", usage)
    with (
        raw_server(OK + b"\r\n", endless=b"x" * 65536) as url,
        pytest.raises(StoreError, match="make room"),
    ):
        ModelStore(tmp_path).pull(url)
    assert part.stat().st_size < 20 << 20


def test_a_drip_can_be_cancelled(tmp_path: Path) -> None:
    """One byte has come and no other will: the next look at `cancelled` must not wait for more."""
    looks = 0

    def cancelled() -> bool:
        nonlocal looks
        looks += 1
        return looks > 1

    answer = OK + b"Content-Length: 1000000\r\n\r\nx"
    listener = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/m.gguf"
    done = threading.Event()

    def serve() -> None:
        client, _address = listener.accept()
        with client:
            client.recv(65536)
            client.sendall(answer)
            done.wait(60)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        with pytest.raises(StoreError, match="cancelled"):
            ModelStore(tmp_path).pull(url, cancelled=cancelled)
    finally:
        done.set()
        thread.join()
        listener.close()


def test_a_redirect_to_another_server_is_followed(tmp_path: Path) -> None:
    with FileServer(SOUND).running() as target, FileServer(b"").running() as first:
        first.redirect = f"{target.url}/m.gguf"
        assert ModelStore(tmp_path).pull(f"{first.url}/m.gguf").name == "m"
