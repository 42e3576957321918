"""Chat templates: the real one, hostile ones, and the format for models without one."""

import functools
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import chat
from engine.chat import ALPACA_SYSTEM, TEMPLATE_KEY, ChatTemplate
from engine.errors import ModelFormatError, TemplateError
from engine.tokenizer import MARKER, Tokenizer, load_tokenizer
from tests.data.tokenizer.packed import load_vocabulary

HELLO = [{"role": "user", "content": "Hello"}]
LLAMA2_TEMPLATE = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'user' %}[INST] {{ message['content'] | trim }} [/INST]"
    "{% elif message['role'] == 'assistant' %} {{ message['content'] }}{{ eos_token }}"
    "{% else %}{{ raise_exception('role ' ~ message['role']) }}{% endif %}{% endfor %}"
)


@functools.cache
def tokenizer_of(name: str) -> Tokenizer:
    return load_tokenizer(load_vocabulary(name))


@pytest.fixture(scope="module")
def smollm2() -> ChatTemplate:
    return ChatTemplate.from_metadata(load_vocabulary("smollm2"), tokenizer_of("smollm2"))


def with_template(template: str, name: str = "smollm2") -> ChatTemplate:
    return ChatTemplate(tokenizer_of(name), template)


# --- SmolLM2's own template ---


def test_smollm2_conversation(smollm2: ChatTemplate) -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What is the capital of France?"},
        {"role": "assistant", "content": "Paris."},
        {"role": "user", "content": "And of Italy?"},
    ]
    expected = (
        "<|im_start|>system\nBe brief.<|im_end|>\n"
        "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n"
        "<|im_start|>assistant\nParis.<|im_end|>\n"
        "<|im_start|>user\nAnd of Italy?<|im_end|>\n"
    )
    assert smollm2.render(messages) == expected + "<|im_start|>assistant\n"
    assert smollm2.render(messages, add_generation_prompt=False) == expected
    assert (smollm2.source, smollm2.stop_strings) == ("gguf", ())

    ids = smollm2.encode(messages)
    assert tokenizer_of("smollm2").decode(ids, skip_special=False) == smollm2.render(messages)
    assert (ids.count(1), ids.count(2)) == (5, 4)


def test_smollm2_has_a_system_message_of_its_own(smollm2: ChatTemplate) -> None:
    assert smollm2.render(HELLO) == (
        "<|im_start|>system\n"
        "You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"
    )


# --- what people write stays text ---

attack = st.lists(
    st.one_of(
        st.sampled_from(
            ("<|im_end|>", "<|im_start|>", "<|endoftext|>", "<|im_", "end|>", MARKER, "\nsystem\n")
        ),
        st.text("a<|>\n", max_size=6),
    ),
    max_size=8,
).map("".join)


@given(content=attack, system=attack, role=attack)
def test_messages_cannot_leave_their_place(content: str, system: str, role: str) -> None:
    tokenizer = tokenizer_of("smollm2")
    template = load_vocabulary_template()
    safe = ChatTemplate(tokenizer, template)
    ids = safe.encode([{"role": "system", "content": system}, {"role": role, "content": content}])
    special = set(tokenizer.special_tokens.values())
    assert [i for i in ids if i in special] == [1, 2, 1, 2, 1]
    # and nothing that was written is lost
    ends = [at for at, i in enumerate(ids) if i in special]
    assert tokenizer.decode(ids[ends[2] : ends[3]]) == f"{role}\n{content}".replace(MARKER, "")


@functools.cache
def load_vocabulary_template() -> str:
    template = load_vocabulary("smollm2")[TEMPLATE_KEY]
    assert isinstance(template, str)
    return template


def test_rendered_text_shows_what_was_written(smollm2: ChatTemplate) -> None:
    text = smollm2.render([{"role": "user", "content": "what does <|im_end|> mean?"}])
    assert "what does <|im_end|> mean?" in text
    assert MARKER not in text


# --- BOS ---


def test_bos_is_added_once() -> None:
    spm = tokenizer_of("llama-spm")
    for template in ("{{ bos_token }}{{ messages[0].content }}", "{{ messages[0].content }}"):
        ids = with_template(template, "llama-spm").encode(HELLO)
        assert ids == [1, *spm.encode("Hello")]
    # SmolLM2 does not want one
    assert with_template("x").encode(HELLO) == tokenizer_of("smollm2").encode("x")


def test_a_message_cannot_stand_in_for_bos() -> None:
    ids = with_template("{{ messages[0].content }}", "llama-spm").encode(
        [{"role": "user", "content": "<s>"}]
    )
    assert ids[0] == 1
    assert ids.count(1) == 1
    assert tokenizer_of("llama-spm").decode(ids) == "<s>"


# --- templates that refuse ---


def test_a_refused_system_message_moves_into_the_first_user_message() -> None:
    template = with_template(LLAMA2_TEMPLATE, "llama-spm")
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": "Bye"},
    ]
    assert (
        template.render(messages)
        == "<s>[INST] Be brief.\n\nHi [/INST] Hello.</s>[INST] Bye [/INST]"
    )


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([{"role": "system", "content": "alone"}], "no system role"),
        ([{"role": "tool", "content": "x"}], "role tool"),
        ([{"role": "system", "content": "x"}, {"role": "user", "content": "y"},
          {"role": "tool", "content": "z"}], "role tool"),
    ],
)  # fmt: skip
def test_what_cannot_be_merged_is_an_error(messages: list[dict[str, str]], reason: str) -> None:
    with pytest.raises(TemplateError, match=f"refuses these messages: {reason}"):
        with_template(LLAMA2_TEMPLATE).render(messages)


# --- hostile and broken templates ---


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{{ ''.__class__.__mro__ }}", "__class__"),
        ("{{ ''.__class__ }}", "__class__"),
        ("{{ ''['__class__'] }}", "__class__"),
        ("{{ '' | attr('__class__') }}", "attr"),
        ("{{ messages | map(attribute='__class__') | list }}", "__class__"),
        ("{{ '{0.__class__}'.format(3) }}", "__class__"),
        ("{{ cycler.__init__.__globals__ }}", "__init__"),
        ("{{ raise_exception.__globals__ }}", "__globals__"),
        ("{{ self._TemplateReference__context }}", "_TemplateReference__context"),
        ("{{ messages.append(1) }}", "append"),
        ("{{ messages[0].update({'a': 1}) }}", "update"),
        ("{{ __steps__._left }}", "undefined"),
        ("{% include 'etc/passwd' %}", "no loader"),
        ("{{ range(10 ** 9) | list }}", "[Rr]ange"),
        (
            "{% for i in range(9999) %}{% for j in range(9999) %}{% endfor %}{% endfor %}",
            "takes more than",
        ),
        (
            "{% set __steps__ = none %}"
            "{% for i in range(9999) %}{% for j in range(9999) %}{% endfor %}{% endfor %}",
            "takes more than",
        ),
        ("{{ 'a' * 10 ** 9 }}", "too large"),
        ("{{ [1] * 10 ** 9 }}", "too large"),
        ("{{ 9 ** 9 ** 9 }}", "too large"),
        ("{{ 4611686018427387905 * 2 }}", "too large"),
        ("{% set x = 'a' * 99999 %}{% for i in range(9999) %}{{ x }}{% endfor %}", "output"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "RecursionError"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{{ messages[0].content.missing.more }}", "missing"),
        ("{{ messages[7].content }}", "Undefined"),
        ("{{ none + 1 }}", "TypeError"),
    ],
)
def test_a_hostile_template_is_an_error(template: str, reason: str) -> None:
    with pytest.raises(TemplateError, match=reason):
        with_template(template).render(HELLO)


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{% if %}", "line 1"),
        ("a\n{% for x in y %}", "line 2"),
        ("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", "cannot be compiled"),
        ("x" * (chat.MAX_TEMPLATE_CHARS + 1), "characters"),
    ],
)
def test_a_template_that_is_not_jinja(template: str, reason: str) -> None:
    with pytest.raises(TemplateError, match=reason):
        with_template(template)


@pytest.mark.parametrize("value", [7, ["x"], True])
def test_a_template_that_is_not_text(value: object) -> None:
    with pytest.raises(ModelFormatError, match=TEMPLATE_KEY):
        ChatTemplate.from_metadata({TEMPLATE_KEY: value}, tokenizer_of("smollm2"))


# --- what templates may use ---


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{ {'k': '<é>'} | tojson }}", '{"k": "<é>"}'),
        ("{{ [1] | tojson(indent=2) }}", "[\n  1\n]"),
        ("{% for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}", "01"),
        ("{% for m in messages %}{{ loop.index }}/{{ loop.length }}{{ loop.last }}{% endfor %}",
         "1/1True"),
        ("{% generation %}x{% endgeneration %}", "x"),
        ("{{ eos_token }}", "<|im_end|>"),
        ("{% if tools %}t{% endif %}{% if tools is none %}n{% endif %}", "n"),
        ("  {% if true %}\n  x\n  {% endif %}\n", "  x\n"),
        ("{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}"
         "{{ ns.n * 3 }}{{ '-' * 3 }}", "3---"),
    ],
)  # fmt: skip
def test_features_that_templates_rely_on(template: str, expected: str) -> None:
    assert with_template(template).render(HELLO) == expected


def test_strftime_now() -> None:
    text = with_template("{{ strftime_now('%Y-%m-%d') }}").render(HELLO)
    assert len(text) == 10
    assert text[:2] == "20"


# --- Alpaca ---


@pytest.mark.parametrize(
    "make",
    [
        lambda tokenizer: ChatTemplate.from_metadata({}, tokenizer),
        lambda tokenizer: ChatTemplate.from_metadata({TEMPLATE_KEY: " \n"}, tokenizer),
    ],
)
def test_alpaca_is_for_models_without_a_template(
    make: Callable[[Tokenizer], ChatTemplate],
) -> None:
    alpaca = make(tokenizer_of("llama-spm"))
    assert alpaca.source == "alpaca"
    assert alpaca.stop_strings == ("### Instruction:", "### Response:")
    assert alpaca.render(HELLO) == (
        "Below is an instruction that describes a task. "
        "Write a response that appropriately completes the request.\n\n"
        "### Instruction:\nHello\n\n### Response:\n"
    )


def test_alpaca_conversation() -> None:
    alpaca = ChatTemplate(tokenizer_of("llama-spm"))
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi </s>"},
        {"role": "assistant", "content": "Hello."},
    ]
    text = "Be brief.\n\n### Instruction:\nHi </s>\n\n### Response:\nHello."
    assert alpaca.render(messages, add_generation_prompt=False) == text
    assert alpaca.encode(messages, add_generation_prompt=False) == [
        1,
        *tokenizer_of("llama-spm").encode(text),
    ]
    assert ALPACA_SYSTEM not in alpaca.render(messages)


def test_alpaca_names_a_role_it_does_not_have() -> None:
    with pytest.raises(TemplateError, match="'tool'"):
        ChatTemplate(tokenizer_of("llama-spm")).render([{"role": "tool", "content": "x"}])
