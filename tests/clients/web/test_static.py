"""The page's files: types, tags, compression, and what is not served."""

import gzip
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import Response

from clients.web.static import Page


@pytest.fixture
def page(tmp_path: Path) -> Page:
    folder = tmp_path / "page"
    (folder / "static").mkdir(parents=True)
    (folder / "index.html").write_text("<!doctype html>" + "<p>hello</p>" * 100)
    (folder / "static" / "app.js").write_text("let x = 1;\n" * 100)
    (folder / "static" / "tiny.css").write_text("p{}")
    (folder / "icon-192.png").write_bytes(b"\x89PNG" + b"\0" * 1000)
    (folder / "manifest.webmanifest").write_text("{}")
    (folder / "notes.py").write_text("secret")
    (folder / ".hidden.js").write_text("secret")
    (folder / "static" / "_draft.js").write_text("secret")
    (tmp_path / "outside.js").write_text("secret")
    (folder / "link.js").symlink_to(tmp_path / "outside.js")
    return Page(folder)


def get(page: Page, path: str, **headers: str) -> Response | None:
    """As a browser asks."""
    raw = [(k.replace("_", "-").encode(), v.encode()) for k, v in headers.items()]
    scope: dict[str, Any] = {"type": "http", "method": "GET", "path": path, "headers": raw}
    return page.reply(Request(scope), path)


def test_types(page: Page) -> None:
    for path, kind in (
        ("/index.html", "text/html; charset=utf-8"),
        ("/static/app.js", "text/javascript; charset=utf-8"),
        ("/static/tiny.css", "text/css; charset=utf-8"),
        ("/icon-192.png", "image/png"),
        ("/manifest.webmanifest", "application/manifest+json"),
    ):
        reply = get(page, path)
        assert reply is not None and reply.headers["content-type"] == kind
        assert reply.headers["cache-control"] == "no-cache"


@pytest.mark.parametrize(
    "path",
    [
        "/notes.py",
        "/.hidden.js",
        "/static/_draft.js",
        "/link.js",
        "/static",
        "/",
        "",
        "/../outside.js",
    ],
)
def test_what_is_not_served(page: Page, path: str) -> None:
    assert get(page, path) is None


def test_compression(page: Page) -> None:
    plain = get(page, "/static/app.js")
    packed = get(page, "/static/app.js", accept_encoding="br, GZIP")
    assert plain is not None and packed is not None
    assert "content-encoding" not in plain.headers
    assert packed.headers["content-encoding"] == "gzip"
    assert gzip.decompress(bytes(packed.body)) == plain.body
    assert packed.headers["vary"] == plain.headers["vary"] == "Accept-Encoding"
    assert packed.headers["etag"] != plain.headers["etag"]
    for path in ("/static/tiny.css", "/icon-192.png"):
        reply = get(page, path, accept_encoding="gzip")
        assert reply is not None and "content-encoding" not in reply.headers


def test_tags(page: Page) -> None:
    first = get(page, "/index.html", accept_encoding="gzip")
    assert first is not None
    tag = first.headers["etag"]
    for known in (tag, f'"other", {tag}', f"W/{tag}", "*"):
        again = get(page, "/index.html", accept_encoding="gzip", if_none_match=known)
        assert again is not None and again.status_code == 304 and again.body == b""
        assert again.headers["etag"] == tag
    changed = get(page, "/index.html", accept_encoding="gzip", if_none_match='"other"')
    assert changed is not None and changed.status_code == 200


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    assert Page(tmp_path / "none").paths == []
