"""The page's files: complete, of one version, small, and with nothing from elsewhere."""

import gzip
import re

import pytest

from tests import page_assets
from tests.page_assets import PAGE

STATIC = sorted((PAGE / "static").iterdir())
SCRIPTS = [path for path in STATIC if path.suffix == ".js"]
TEXTS = [*STATIC, PAGE / "index.html", PAGE / "sw.js", PAGE / "manifest.webmanifest"]
SHELL_BYTES, ALL_BYTES = 60_000, 80_000
"""Budgets: of what is needed to open the page, and of everything; compressed."""


def test_what_is_made_is_up_to_date() -> None:
    index, worker = (PAGE / "index.html").read_text(), (PAGE / "sw.js").read_text()
    assert page_assets.with_preloads(index) == index, "run `make page`"
    assert page_assets.with_version(worker, index) == worker, "run `make page`"
    for name in page_assets.ICONS:
        assert (PAGE / name).read_bytes().startswith(b"\x89PNG"), name


def test_nothing_is_inline_and_nothing_from_elsewhere() -> None:
    index = (PAGE / "index.html").read_text()
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=", index)
    for path in TEXTS:
        text = path.read_text()
        addresses = set(re.findall(r"\b(?:https?|wss?)://[\w.]+", text))
        assert addresses <= {"http://www.w3.org"}, path.name
        assert not re.search(r"@import|url\(", text), path.name


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_text_never_becomes_markup(path: "page_assets.Path") -> None:
    text = path.read_text()
    forbidden = (
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|\beval\(|Function\("
    )
    assert not re.search(forbidden, re.sub(r"//.*", "", text))


def test_words() -> None:
    i18n = (PAGE / "static" / "i18n.js").read_text()
    words = re.findall(r"^  (\w+): \"", i18n, re.MULTILINE)
    n_languages = len(re.findall(r"^const \w\w = \{", i18n, re.MULTILINE))
    assert n_languages > 1
    assert all(words.count(word) == n_languages for word in words)
    code = "\n".join(path.read_text() for path in SCRIPTS)
    used = set(re.findall(r"\bt\(\"(\w+)\"", code))
    assert used <= set(words)
    # the others are named in tables: as a string of their own, or by a word of the protocol
    named = set(re.findall(r"\"(\w+)\"", code.replace(i18n, "")))
    owners = {"weights", "kv_cache", "activations", "libraries", "sessions", "stream", "margin"}
    unused = {word for word in words if not word.startswith("state_")} - used - named - owners
    assert unused == set()


def packed(name: str) -> int:
    content = (PAGE / name.lstrip("/")).read_bytes()
    return len(content) if name.endswith(".png") else len(gzip.compress(content, 9))


def test_weight() -> None:
    needed = [name if name != "/" else "/index.html" for name in page_assets.shell()]
    others = [*page_assets.ICONS, "sw.js", "manifest.webmanifest"]
    weight = sum(map(packed, needed))
    assert weight < SHELL_BYTES
    assert weight + sum(map(packed, others)) < ALL_BYTES
