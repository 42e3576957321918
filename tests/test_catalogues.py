"""Every message has its translation, every translation its message; both are compiled."""

import ast
import string
from io import BytesIO
from pathlib import Path

import pytest
from babel.messages.catalog import Message
from babel.messages.mofile import read_mo, write_mo

from assistantd.localisation.click_help import CLICK
from tests.catalogues import DOMAINS, Domain, languages, read

ROOT = Path(__file__).resolve().parent.parent
CATALOGUES = [(domain, language) for domain in DOMAINS for language in languages()]
each = pytest.mark.parametrize(
    ("domain", "language"), CATALOGUES, ids=[f"{d.name}-{language}" for d, language in CATALOGUES]
)


def ids(message: Message) -> tuple[str, ...]:
    return (message.id,) if isinstance(message.id, str) else tuple(message.id)


def strings(message: Message) -> tuple[str, ...]:
    return (message.string,) if isinstance(message.string, str) else tuple(message.string)


def fields(text: str) -> set[str]:
    """Placeholders with what decides their form: {n:,}, {name!r}."""
    return {
        f"{name}!{conversion or ''}:{spec or ''}"
        for _, name, spec, conversion in string.Formatter().parse(text)
        if name is not None
    }


def test_there_is_korean() -> None:
    assert "ko" in languages()
    assert sum(len(read(domain, "ko")) for domain in DOMAINS) > 400


@each
def test_every_message_is_translated(domain: Domain, language: str) -> None:
    catalogue = read(domain, language)
    wanted = {ids(message) for message in domain.template() if message.id}
    found = {ids(message) for message in catalogue if message.id}
    assert wanted - found == set(), "run `make catalogues`, then translate"
    if domain.name != CLICK.domain:  # which has what other versions of click say, too
        assert found - wanted == set(), "run `make catalogues`"
    todo = [m.id for m in catalogue if m.id and (m.fuzzy or not all(strings(m)))]
    assert todo == []


@each
def test_placeholders_and_lines_are_the_same(domain: Domain, language: str) -> None:
    for message in read(domain, language):
        if not message.id:
            continue
        allowed = set().union(*map(fields, ids(message)))
        for text in strings(message):
            # one of them may be said twice, or by its plain value and as it is written
            if isinstance(message.id, tuple):
                assert fields(text) <= allowed, message.id
            else:
                assert fields(text) == allowed, message.id
                assert text.count("\n") == message.id.count("\n"), message.id
                assert text[-1:].isspace() == message.id[-1:].isspace(), message.id


@each
def test_what_is_compiled_is_what_was_translated(domain: Domain, language: str) -> None:
    path = domain.po(language)
    compiled = BytesIO()
    write_mo(compiled, read(domain, language))
    compiled.seek(0)
    with path.with_suffix(".mo").open("rb") as file:
        shipped = {ids(message): strings(message) for message in read_mo(file) if message.id}
    fresh = {ids(message): strings(message) for message in read_mo(compiled) if message.id}
    assert shipped == fresh, "run `make catalogues`"


def test_korean_is_polite_throughout() -> None:
    for domain in DOMAINS:
        for message in read(domain, "ko"):
            for text in strings(message) if message.id else ():
                # plain and intimate endings of a sentence
                assert not text.rstrip('." )').endswith(("한다", "이다", "해요", "예요", "돼요"))


def test_nothing_takes_the_name_of_the_translator() -> None:
    """Where `_` is assigned in a function, `_("…")` would call that."""
    for package in ("assistantd", "clients", "engine"):
        for path in sorted((ROOT / package).rglob("*.py")):
            for function in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                    continue
                uses = [n for n in ast.walk(function) if isinstance(n, ast.Name) and n.id == "_"]
                kinds = {type(name.ctx) for name in uses}
                assert kinds != {ast.Load, ast.Store}, (path, function.name)
