"""What OpenAI's clients may send, and what of it reaches the daemon."""

import json
from typing import Any

import pytest

from assistantd.protocol import Chat, Complete, Message
from clients.web.errors import Refusal
from clients.web.openai_errors import shape
from clients.web.openai_requests import ChatBody, CompletionBody, chat_of, complete_of, decode

HELLO = [{"role": "user", "content": "Hello"}]


def chat(**fields: Any) -> Chat:
    """The request that a body becomes."""
    body = json.dumps({"model": "m", "messages": HELLO, **fields}).encode()
    return chat_of(decode(body, ChatBody), "abcdefgh")


def complete(**fields: Any) -> Complete:
    """The same of /v1/completions."""
    body = json.dumps({"model": "m", "prompt": "Once", **fields}).encode()
    return complete_of(decode(body, CompletionBody), "abcdefgh")


def asked(**fields: Any) -> Chat:
    """What `chat` is expected to return."""
    messages = fields.pop("messages", [Message("user", "Hello")])
    return Chat(messages=messages, device="abcdefgh", **fields)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {}),
        ({"max_tokens": 5}, {"max_tokens": 5}),
        ({"max_tokens": 5, "max_completion_tokens": 7}, {"max_tokens": 7}),
        ({"seed": 42}, {"seed": 42}),
        ({"seed": -1}, {"seed": 2**63 - 1}),
        ({"temperature": 0, "top_p": 0.5}, {"temperature": 0.0, "top_p": 0.5}),
        ({"top_p": 0}, {"top_p": 1e-6}),
        ({"stop": "\n"}, {"stop": ["\n"]}),
        ({"stop": ["a", "", "b"]}, {"stop": ["a", "b"]}),
        ({"stop": None}, {}),
        (
            {"presence_penalty": 1.5, "frequency_penalty": -0.5},
            {"presence_penalty": 1.5, "frequency_penalty": -0.5},
        ),
        ({"logit_bias": {"50256": -100}}, {"logit_bias": {"50256": -100.0}}),
        ({"response_format": {"type": "text"}}, {}),
        ({"response_format": {"type": "json_object"}}, {"format": {"type": "object"}}),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "n", "strict": True, "schema": {"type": "array"}},
                }
            },
            {"format": {"type": "array"}},
        ),
        ({"n": 1, "tools": [], "logprobs": False, "modalities": ["text"]}, {}),
        ({"top_k": 5, "min_p": 0.1, "repeat_penalty": 1.1},) * 2,
        # what decorates, or comes with some new version of a client
        ({"user": "me", "metadata": {"a": "b"}, "store": True, "service_tier": "auto"}, {}),
        ({"parallel_tool_calls": False, "something_new": {"x": [1]}}, {}),
    ],
)
def test_fields(given: dict[str, Any], expected: dict[str, Any]) -> None:
    assert chat(**given) == asked(**expected)


def test_messages() -> None:
    given = [
        {"role": "developer", "content": "Be brief."},
        {
            "role": "user",
            "content": [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}],
        },
        {"role": "assistant", "content": None, "refusal": None, "tool_calls": None},
        {"role": "user", "content": "Again", "name": "somebody"},
    ]
    assert chat(messages=given).messages == [
        Message("system", "Be brief."),
        Message("user", "Hello"),
        Message("assistant", ""),
        Message("user", "Again"),
    ]


@pytest.mark.parametrize(
    ("given", "parameter"),
    [
        ({"n": 2}, "n"),
        ({"n": 0}, "n"),
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"functions": [{}]}, "tools"),
        ({"logprobs": True}, "logprobs"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"messages": []}, "messages"),
        ({"messages": "Hello"}, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "messages"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "messages[0].content",
        ),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": "many"}, "max_tokens"),
        ({"temperature": 11}, "temperature"),
        ({"temperature": -1}, "temperature"),
        ({"top_p": 1.5}, "top_p"),
        ({"top_p": -0.5}, "top_p"),
        ({"logit_bias": {"1": 9999}}, "logit_bias"),
        ({"stop": ["x"] * 17}, "stop"),
        ({"response_format": {"type": "yaml"}}, "response_format"),
        ({"response_format": {"type": "json_schema"}}, "response_format"),
        ({"response_format": {"type": "json_schema", "json_schema": {}}}, "response_format"),
    ],
)
def test_refusals_name_the_field(given: dict[str, Any], parameter: str) -> None:
    with pytest.raises(Refusal) as refused:
        chat(**given)
    error = shape(refused.value)
    assert refused.value.status == 400 and error["type"] == "invalid_request_error"
    assert error["param"] == parameter and error["message"]


def test_completions() -> None:
    expected = Complete(prompt="Once", device="abcdefgh", max_tokens=3, stop=["."])
    assert complete(max_tokens=3, stop=".") == expected
    assert complete(prompt=["Once"], max_tokens=3, stop=["."]) == expected
    for bad, parameter in (
        ({"prompt": None}, "prompt"),
        ({"prompt": ["a", "b"]}, "prompt"),
        ({"prompt": [1, 2]}, "prompt"),
        ({"prompt": [[1]]}, "prompt"),
        ({"best_of": 2}, "best_of"),
        ({"n": 3}, "n"),
        ({"echo": True}, "echo"),
        ({"suffix": "end"}, "suffix"),
        ({"logprobs": 3}, "logprobs"),
    ):
        with pytest.raises(Refusal) as refused:
            complete(**bad)
        assert refused.value.parameter == parameter


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"x"', b"\xff", b"[" * 10_000])
def test_what_is_no_json(body: bytes) -> None:
    with pytest.raises(Refusal) as refused:
        decode(body, ChatBody)
    assert refused.value.status == 400
