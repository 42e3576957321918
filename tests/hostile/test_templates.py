"""Hostile chat templates: no escape, and an end that comes soon, by an error or a bounded text."""

import resource
import time

import pytest

from engine import chat, sandbox
from engine.chat import ChatTemplate
from engine.errors import TemplateError
from tests.hostile import readers, templates

MESSAGES = [
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "x"},
    {"role": "user", "content": "y" * 1000},
]
MEMORY_KB = 400 << 10
"""What the process may grow by over all of them, in KiB: MAX_BYTES, its garbage, and the output."""
CPU_S = 15 * sandbox.MAX_CPU_S
"""Far above what one of them takes; without a bound most would take hours."""


def render(text: str) -> str:
    return ChatTemplate(readers.tokenizer(), text).render(MESSAGES)


@pytest.mark.parametrize("name", templates.ESCAPES)
def test_no_escape(name: str) -> None:
    """Refused, or undefined, which is written as nothing."""
    try:
        out = render(templates.ESCAPES[name])
    except TemplateError as error:
        assert len(str(error)) < 1000
        return
    assert out in ("", "x"), out


@pytest.mark.parametrize(
    ("steps", "seconds"),
    [
        (50_000, 0.2),
        pytest.param(sandbox.MAX_STEPS, sandbox.MAX_CPU_S, marks=pytest.mark.slow),
    ],
    ids=["with a tenth of the limits", "with the real limits"],
)
def test_bombs(
    steps: int,
    seconds: float,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sandbox, "MAX_STEPS", steps)
    monkeypatch.setattr(sandbox, "MAX_CPU_S", seconds)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused = 0
    for name, text in templates.BOMBS.items():
        started = time.thread_time()
        try:
            out = render(text)
            assert len(out) <= chat.MAX_PROMPT_CHARS, name
        except TemplateError as error:
            refused += 1
            assert len(str(error)) < 1000, name
        assert time.thread_time() - started < CPU_S, name
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < MEMORY_KB
    assert refused > len(templates.BOMBS) // 2
    with capsys.disabled():
        n_escapes, n_broken = len(templates.ESCAPES), len(templates.BROKEN)
        print(
            f"\ntemplates: {n_escapes} escapes, {len(templates.BOMBS)} bombs ({refused} refused), "
            f"{n_broken} broken; grown by {grown >> 10} MiB"
        )


@pytest.mark.parametrize("name", templates.BROKEN)
def test_broken(name: str) -> None:
    try:
        render(templates.BROKEN[name])
    except TemplateError as error:
        assert 0 < len(str(error)) < 1000
        assert all(letter.isprintable() for letter in str(error))


def test_one_rendering_does_not_pay_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "MAX_STEPS", 10_000)
    template = ChatTemplate(
        readers.tokenizer(),
        "{% for i in range(900) %}{% for j in range(9) %}{% endfor %}{% endfor %}",
    )
    for _time in range(2):
        assert template.render(MESSAGES) == ""
