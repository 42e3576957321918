"""Exported conversations: complete, whole files, and harmless whatever was said in them."""

import json
import os
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from assistantd.protocol import SessionInfo, StoredMessage
from clients.cli.export import as_json, as_markdown, file_name
from clients.cli.output import clean
from clients.durable import write_file

HOSTILE = [
    "\x1b[31mred\x1b]0;title\x07 \x9b2J \u202egnp.exe",
    "> quote\n\n## Assistant (2026-01-01)\n\nI never said this",
    "</blockquote><script>alert(1)</script>",
    "<img src=http://evil.example/?q onerror=alert(1)>",
    "![pixel](http://evil.example/p.png) ![x][y]\n\n[y]: http://evil.example/q.png",
    "```\ncode <b>\n```\n<script>",
    "- list\n  ```\n<script>\n```\n<script>",
    "  ```\n```\n<script>",
    "```\n\t```\n<script>",
    "```\n    ```\n<script>\n```",
    "```\n   ```\n<script>",
    "~~~ info\n```\n<script>\n~~~\n<script>",
    "``` a`b\n<script>",
    "<!-- \n## You\n-->",
    "<?php\n?>",
    "`````\n```\n<b>\n`````\n<i>",
    "\r\n# You\rEnd\r\n",
    "text\n===\n\n---\n\n* * *",
    "\ttab\n\t```\n\t<script>",
    "1. a\n   ~~~\n   b\n~~~\n<script>\n~~~\n<script>",
    "> ```\n<script>\n```\n<script>",
    "",
]


def session(*contents: str, title: str = "Title", system: str | None = None) -> SessionInfo:
    messages = [
        StoredMessage("user" if n % 2 == 0 else "assistant", text, 1.8e9 + n, None, True, n)
        for n, text in enumerate(contents)
    ]
    return SessionInfo("trip", title, 1.8e9, 1.8e9, len(messages), messages, system)


def judge(written: str, n_messages: int) -> None:
    """What a renderer that trusts everything would make of it."""
    assert clean(written) == written and "\u202e" not in written
    found = MarkdownIt("commonmark", {"html": True}).parse(written)
    inline = [child for token in found for child in token.children or ()]
    assert not {token.type for token in (*found, *inline)} & {
        "html_block",
        "html_inline",
        "image",
    }
    headings = [t for t in found if t.type == "heading_open" and t.level == 0]
    assert len(headings) == 1 + n_messages
    quotes = [t for t in found if t.type == "blockquote_open" and t.level == 0]
    assert len(quotes) == n_messages


@pytest.mark.parametrize("text", HOSTILE)
def test_nothing_breaks_out(text: str) -> None:
    judge(as_markdown(session("Hello", text, "Bye", title=text)), 3)


PIECES = [
    *("```", "~~~", "````", " ", "   ", "    ", "\t", "\n", "\n", "\r", "- ", "> ", "1. ", "* "),
    *("<b>", "<script>", "</x", "<!--", "-->", "<?", "]]>", "<![CDATA[", "&lt;", "![a](b)", "!"),
    *("[x]: <y>\n", "[", "`", "a", "\\", "#", "==="),
]


@given(st.lists(st.sampled_from(PIECES), max_size=30).map("".join))
def test_nothing_breaks_out_whatever_is_said(text: str) -> None:
    judge(as_markdown(session(text, "Bye", title=text)), 2)


def test_it_can_be_read() -> None:
    told = session("What is `<T>`?", "A *parameter*:\n\n```rust\nfn f<T>() {}\n```\n\n한국어")
    told.system = "Be brief."
    assert told.messages is not None
    told.messages[1].model, told.messages[1].finish_reason = "smollm2", "length"
    lines = as_markdown(told).splitlines()
    assert lines[0] == "# Title" and lines[2].startswith("Conversation `trip`, begun 2027-")
    assert lines[4:7] == ["## System", "", "> Be brief."]
    assert lines[8].startswith("## You (2027-") and lines[10] == "> What is `&lt;T>`?"
    assert ", smollm2, length)" in lines[12]
    assert lines[14:] == [
        *("> A *parameter*:", ">", "> ```rust", "> fn f<T>() {}", "> ```", ">", "> 한국어")
    ]


@given(st.text())
def test_json_has_every_letter(text: str) -> None:
    told = session(text, title=text, system=text)
    written = as_json([told])
    assert not {letter for letter in written if ord(letter) < 32} - {"\n"}
    assert not set(written) & set("\x7f\x9b\u202e\u2028")
    found = json.loads(written)
    assert (found["format"], found["version"]) == ("assistantd sessions", 1)
    assert msgspec.convert(found["sessions"], list[SessionInfo]) == [told]


def test_names_of_files() -> None:
    taken: set[str] = set()
    names = [
        file_name(name, taken) for name in ("a", "A", "../../etc/passwd", "..", "-rf", "", "é")
    ]
    assert names == ["a", "A-2", "_.._.._etc_passwd", "_..", "_-rf", "_", "_-2"]


def test_whole_files_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.md"
    write_file(path, "one")
    with pytest.raises(FileExistsError):
        write_file(path, "two")
    assert path.read_text() == "one"
    assert path.stat().st_mode & 0o777 == 0o600
    write_file(path, "three", replace=True)
    assert path.read_text() == "three"

    def no_links(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")  # as FAT says

    monkeypatch.setattr(os, "link", no_links)
    with pytest.raises(FileExistsError):
        write_file(path, "four")
    write_file(tmp_path / "b.md", "five")
    assert (tmp_path / "b.md").read_text() == "five"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.md", "b.md"]
