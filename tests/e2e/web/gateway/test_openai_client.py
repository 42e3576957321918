"""OpenAI's official client, a real gateway, a real daemon, the real model."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from assistantd.protocol import Limits
from tests.e2e.web.gateway.process import RunningGateway

DOCS = Path(__file__).resolve().parents[4] / "docs" / "web.md"
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture(scope="module")
def client(gateway: RunningGateway) -> Iterator[openai.OpenAI]:
    _device, key = gateway.new_key("tests", limits=Limits(requests_per_minute=10_000))
    with openai.OpenAI(base_url=f"{gateway.plain}/v1", api_key=key, max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def model(client: openai.OpenAI) -> str:
    return client.models.list().data[0].id


def test_whole_and_streamed_are_the_same(client: openai.OpenAI, model: str) -> None:
    whole = client.chat.completions.create(model=model, messages=QUESTION, temperature=0)  # type: ignore[call-overload]
    text = whole.choices[0].message.content
    assert "Paris" in text and whole.choices[0].finish_reason == "stop" and whole.model == model
    usage = whole.usage
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert usage.prompt_tokens > 5 and usage.completion_tokens > 1
    stream = client.chat.completions.create(  # type: ignore[call-overload]
        model=model,
        messages=QUESTION,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    pieces = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(pieces) == text and len([piece for piece in pieces if piece]) > 1
    assert chunks[-1].usage.completion_tokens == usage.completion_tokens


def test_stop_and_max_tokens(client: openai.OpenAI, model: str) -> None:
    cut = client.chat.completions.create(  # type: ignore[call-overload]
        model=model, messages=QUESTION, temperature=0, stop=["Paris"]
    )
    assert "Paris" not in cut.choices[0].message.content
    assert cut.choices[0].finish_reason == "stop"
    for name in ("max_tokens", "max_completion_tokens"):
        short = client.chat.completions.create(  # type: ignore[call-overload]
            model=model, messages=QUESTION, temperature=0, **{name: 3}
        )
        assert short.choices[0].finish_reason == "length" and short.usage.completion_tokens == 3


def test_seed(client: openai.OpenAI, model: str) -> None:
    def told(seed: int) -> str:
        answer = client.chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": "Tell me a story."}],
            temperature=1.5,
            seed=seed,
            max_tokens=24,
        )
        return answer.choices[0].message.content or ""

    assert told(1) == told(1) and told(1) != told(2)


def test_json(client: openai.OpenAI, model: str) -> None:
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 20}},
        "required": ["city"],
        "additionalProperties": False,
    }
    answer = client.chat.completions.create(  # type: ignore[call-overload]
        model=model,
        messages=QUESTION,
        temperature=0,
        max_tokens=60,
        response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema}},
    )
    assert set(json.loads(answer.choices[0].message.content)) == {"city"}
    answer = client.chat.completions.create(  # type: ignore[call-overload]
        model=model,
        messages=QUESTION,
        temperature=0,
        max_tokens=1,
        response_format={"type": "json_object"},
    )
    assert answer.choices[0].message.content.lstrip().startswith("{")


def test_completions(client: openai.OpenAI, model: str) -> None:
    answer = client.completions.create(
        model=model, prompt="The capital of France is", temperature=0, max_tokens=5
    )
    assert "Paris" in answer.choices[0].text
    assert answer.usage is not None and answer.usage.completion_tokens == 5
    stream = client.completions.create(
        model=model, prompt="The capital of France is", temperature=0, max_tokens=5, stream=True
    )
    assert "".join(chunk.choices[0].text for chunk in stream) == answer.choices[0].text


def test_errors(client: openai.OpenAI, model: str, gateway: RunningGateway) -> None:
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="gpt-none", messages=QUESTION)  # type: ignore[call-overload]
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model=model, messages=QUESTION, n=3)  # type: ignore[call-overload]
    assert refused.value.param == "n"
    with pytest.raises(openai.BadRequestError) as long:
        client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": "word " * 20_000}]
        )
    assert long.value.code == "context_length_exceeded"
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="sk-wrong").models.list()


def test_limits_of_a_key(gateway: RunningGateway, model: str) -> None:
    limits = Limits(requests_per_minute=2, max_tokens=2)
    device, key = gateway.new_key("slow", limits=limits)
    with openai.OpenAI(base_url=f"{gateway.plain}/v1", api_key=key, max_retries=0) as client:
        answer = client.chat.completions.create(model=model, messages=QUESTION, max_tokens=50)  # type: ignore[call-overload]
        assert answer.usage.completion_tokens <= 2
        with pytest.raises(openai.RateLimitError) as refused:
            for _ in range(5):
                client.chat.completions.create(model=model, messages=QUESTION)  # type: ignore[call-overload]
        assert int(refused.value.response.headers["retry-after"]) > 0
        gateway.revoke(device.id)
        with pytest.raises(openai.AuthenticationError):
            client.models.list()


def test_who_leaves_is_not_answered_further(
    gateway: RunningGateway, client: openai.OpenAI, model: str
) -> None:
    with gateway.daemon.client() as local:
        before = local.status().tokens_generated
    stream = client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": "Write a very long story about the sea."}],
        stream=True,
        logit_bias={"0": -100, "2": -100},
        max_tokens=2000,
    )
    next(stream)
    stream.close()
    with gateway.daemon.client() as local:
        while local.status().queue.active:
            pass  # asked again until it has ended, long before its 2,000 tokens
        assert local.status().tokens_generated - before < 1000


def test_the_example_of_the_documentation(gateway: RunningGateway) -> None:
    _device, key = gateway.new_key("reader")
    found = re.search(r"<!-- test: openai -->\n```python\n(.*?)```", DOCS.read_text(), re.DOTALL)
    assert found is not None
    done = subprocess.run(
        [sys.executable, "-c", found[1]],
        env={**os.environ, "OPENAI_BASE_URL": f"{gateway.plain}/v1", "OPENAI_API_KEY": key},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0 and "Paris" in done.stdout, done.stderr
