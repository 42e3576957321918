"""Chat templates: any text, rendered with a conversation; an EngineError, or a bounded output.

Whatever of Python's internals a template got at would be written: so nothing of them may be in
what comes out.
"""

import random
from functools import cache

from engine import chat
from engine.chat import ChatTemplate
from engine.errors import EngineError
from tests.fuzz.target import Mutate, Target
from tests.hostile import readers, small, templates

MESSAGES = [
    {"role": "system", "content": "s"},
    {"role": "user", "content": "the <|im_end|> {{ x }}"},
    {"role": "assistant", "content": "a"},
    {"role": "user", "content": "u"},
]
INTERNALS = ("<class '", "<function ", "<built-in ", "<module ", "<bound method", " object at 0x")
PIECES = (
    "{% for m in messages %}", "{% endfor %}", "{% if x %}", "{% endif %}", "{{ ", " }}", "{% set x = ",
    " %}", " | ", "~", "messages", "m.content", "m['role']", "loop.index", "namespace(a=1)", "ns.a",
    "{% set ns.a = ns.a ~ ns.a %}", "range(9999)", ".format(", ".join(", ".replace(", "(", ")", "[", "]",
    "'a'", "99999", "-1", "*", "**", "%", "+", "{% macro f(n) %}", "{{ f(n - 1) }}", "{% endmacro %}",
    "{% call f(1) %}", "{% endcall %}", "{% filter upper %}", "{% endfilter %}", "{% set x %}",
    "{% endset %}", "self", "caller()", "__class__", "__globals__", "[::-1]", "is defined", " in ",
    "tojson(indent=2)", "center(9)", "indent(9)", "batch(3)", "groupby('role')", "map(attribute='x')",
    "raise_exception('x')", "strftime_now('%Y')", "{%- ", " -%}", "{# ", " #}", "recursive",
    "loop(messages)", "cycler(1, 2).next()", "joiner()()", "dict(a=1)", "{% break %}", "\n", "\t",
)  # fmt: skip


def one(data: bytes) -> str:
    text = data.decode("utf-8", "replace")
    try:
        out = ChatTemplate(readers.tokenizer(), text).render(MESSAGES)
    except EngineError as error:
        assert 0 < len(str(error)) < 1000
        return str(error)
    assert len(out) <= chat.MAX_PROMPT_CHARS
    # a template may write such a text itself, but a short one does not by chance
    assert not any(inner in out and inner not in text for inner in INTERNALS), out[:200]
    return f"rendered {len(out).bit_length()}"


def seeds() -> dict[str, bytes]:
    found = {name: text.encode("utf-8", "replace") for name, text in templates.everything().items()}
    short = {name: text for name, text in found.items() if len(text) < 2000}
    return {**short, "sound": small.TEMPLATE.encode()}


@cache
def _short() -> list[bytes]:
    return sorted(seeds().values())


def mutate(data: bytes, longest: int, seed: int, generic: Mutate) -> bytes:
    rng = random.Random(seed)
    if rng.random() < 0.3:
        return generic(data, longest)
    at = rng.randint(0, len(data))
    if rng.random() < 0.2:
        other = rng.choice(_short())
        start = rng.randint(0, len(other))
        new = other[start : start + rng.randint(1, 60)]
    else:
        new = "".join(rng.choices(PIECES, k=rng.randint(1, 4))).encode()
    gone = rng.choice((0, 0, rng.randint(0, 20)))
    return (data[:at] + new + data[at + gone :])[:longest]


TARGET = Target("templates", one, seeds, mutate, longest=4096)
