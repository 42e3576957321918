"""/v1 by the official client, with a scripted daemon; with a real one in tests/e2e/web/gateway/."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx2
import openai
import pytest

from assistantd.protocol import Cancel, Chat, Complete, Request
from tests.clients.scripted_daemon import WAIT_S, Send, fail, say, say_until_cancelled
from tests.clients.web.house import House, visit

HELLO = [{"role": "user", "content": "Hello"}]


def ask(
    tmp_path: Path,
    test: Callable[[House, openai.AsyncOpenAI], Awaitable[None]],
    key: str = "key-token",
) -> None:
    """Run a test with OpenAI's client."""

    async def with_client(house: House) -> None:
        async with openai.AsyncOpenAI(
            base_url=f"{house.plain}/v1", api_key=key, max_retries=0, timeout=WAIT_S
        ) as client:
            await test(house, client)

    visit(tmp_path, with_client)


def test_models(tmp_path: Path) -> None:
    async def test(house: House, client: openai.AsyncOpenAI) -> None:
        assert [model.id async for model in await client.models.list()] == ["tiny"]
        assert (await client.models.retrieve("tiny")).owned_by == "assistantd"
        with pytest.raises(openai.NotFoundError) as missing:
            await client.models.retrieve("org/gpt")
        assert missing.value.code == "model_not_found"

    ask(tmp_path, test)


def test_an_answer(tmp_path: Path) -> None:
    async def test(house: House, client: openai.AsyncOpenAI) -> None:
        house.daemon.on("chat", say("Pa", "ris"))
        answer = await client.chat.completions.create(model="tiny", messages=HELLO)  # type: ignore[arg-type]
        assert answer.object == "chat.completion" and answer.model == "tiny"
        (choice,) = answer.choices
        assert (choice.message.content, choice.finish_reason) == ("Paris", "stop")
        assert choice.message.role == "assistant" and answer.id.startswith("chatcmpl-")
        assert answer.usage is not None and answer.usage.total_tokens == 14
        (asked,) = house.daemon.wait_for(Chat)
        assert asked.device == "editoraa" and asked.stream is False

    ask(tmp_path, test)


def test_a_stream(tmp_path: Path) -> None:
    async def test(house: House, client: openai.AsyncOpenAI) -> None:
        house.daemon.on("chat", say("Pa", "ris"))
        stream = await client.chat.completions.create(
            model="default",
            messages=HELLO,  # type: ignore[arg-type]
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = [chunk async for chunk in stream]
        assert chunks[0].choices[0].delta.role == "assistant"
        pieces = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
        assert "".join(pieces) == "Paris" and len([piece for piece in pieces if piece]) == 2
        assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
        assert chunks[-1].choices == [] and chunks[-1].usage is not None
        assert chunks[-1].usage.completion_tokens == 4
        assert len({chunk.id for chunk in chunks}) == 1

    ask(tmp_path, test)


def test_completions(tmp_path: Path) -> None:
    async def test(house: House, client: openai.AsyncOpenAI) -> None:
        house.daemon.on("complete", say(" upon", " a time"))
        answer = await client.completions.create(model="tiny", prompt="Once", max_tokens=4)
        assert answer.object == "text_completion" and answer.choices[0].text == " upon a time"
        stream = await client.completions.create(model="tiny", prompt="Once", stream=True)
        assert "".join([c.choices[0].text async for c in stream]) == " upon a time"
        assert house.daemon.wait_for(Complete)[0].max_tokens == 4

    ask(tmp_path, test)


ERRORS = [
    ("bad_request", 400, None),
    ("too_large", 400, "context_length_exceeded"),
    ("unauthorized", 403, "unauthorized"),
    ("not_found", 404, "model_not_found"),
    ("busy", 429, "rate_limit_exceeded"),
    ("deadline", 504, "deadline"),
    ("model_error", 503, "model_error"),
    ("shutting_down", 503, "shutting_down"),
    ("internal", 500, "internal"),
]
"""Code of the protocol, status of HTTP, OpenAI's code."""


@pytest.mark.parametrize("stream", [False, True])
def test_errors(tmp_path: Path, stream: bool) -> None:
    async def test(house: House, client: openai.AsyncOpenAI) -> None:
        for code, status, theirs in ERRORS:
            house.daemon.on("chat", fail(code, "what to do", 1500))  # type: ignore[arg-type]
            with pytest.raises(openai.APIStatusError) as failed:
                await client.chat.completions.create(  # type: ignore[call-overload]
                    model="tiny", messages=HELLO, stream=stream
                )
            assert (failed.value.status_code, failed.value.code) == (status, theirs), code
            assert "what to do" in failed.value.message
            if status == 429:
                assert failed.value.response.headers["retry-after"] == "2"

    ask(tmp_path, test)


def test_errors_that_come_late(tmp_path: Path) -> None:
    def handler(request: Request, send: Send) -> None:
        from assistantd.protocol import Delta

        send(Delta("Pa"))
        fail("internal", "it broke")(request, send)

    async def test(house: House, client: openai.AsyncOpenAI) -> None:
        house.daemon.on("chat", handler)
        stream = await client.chat.completions.create(model="", messages=HELLO, stream=True)  # type: ignore[arg-type]
        pieces = []
        with pytest.raises(openai.APIError, match="it broke"):
            async for chunk in stream:
                pieces.append(chunk.choices[0].delta.content or "")
        assert "".join(pieces) == "Pa"

    ask(tmp_path, test)


def test_who_may(tmp_path: Path) -> None:
    async def test(house: House, client: openai.AsyncOpenAI) -> None:
        with pytest.raises(openai.AuthenticationError) as refused:
            await client.chat.completions.create(model="tiny", messages=HELLO)  # type: ignore[arg-type]
        assert refused.value.code == "invalid_api_key" and "assistant devices" in str(refused.value)

    ask(tmp_path, test, key="wrong")


def test_another_model(tmp_path: Path) -> None:
    async def test(house: House, client: openai.AsyncOpenAI) -> None:
        with pytest.raises(openai.NotFoundError) as missing:
            await client.chat.completions.create(model="gpt-4o", messages=HELLO)  # type: ignore[arg-type]
        assert missing.value.code == "model_not_found" and "tiny" in str(missing.value)
        with pytest.raises(openai.BadRequestError) as refused:
            await client.chat.completions.create(model="tiny", messages=HELLO, n=2)  # type: ignore[arg-type]
        assert refused.value.param == "n"

    ask(tmp_path, test)


def test_what_is_not_there(tmp_path: Path) -> None:
    async def test(house: House, client: openai.AsyncOpenAI) -> None:
        with pytest.raises(openai.NotFoundError) as missing:
            await client.embeddings.create(model="tiny", input="x")
        assert missing.value.type == "invalid_request_error"
        with pytest.raises(openai.APIStatusError) as refused:
            await client.get("/chat/completions", cast_to=httpx2.Response)
        assert refused.value.status_code == 405

    ask(tmp_path, test)


@pytest.mark.parametrize("stream", [False, True])
def test_who_hangs_up_is_not_answered_further(tmp_path: Path, stream: bool) -> None:
    cancelled = asyncio.Event()

    async def test(house: House, client: openai.AsyncOpenAI) -> None:
        loop = asyncio.get_running_loop()

        def handler(request: Request, send: Send) -> None:
            say_until_cancelled("Once")(request, send)
            loop.call_soon_threadsafe(cancelled.set)

        house.daemon.on("chat", handler)
        body = json.dumps({"model": "tiny", "messages": HELLO, "stream": stream}).encode()
        reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
        head = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
        more = f"Authorization: Bearer key-token\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write((head + more).encode() + body)
        await asyncio.to_thread(house.daemon.wait_for, Chat)
        if stream:
            await reader.readuntil(b"Once")
        writer.transport.abort()
        async with asyncio.timeout(WAIT_S):
            await cancelled.wait()
        assert house.daemon.wait_for(Cancel)[0].device == "editoraa"

    ask(tmp_path, test)


def test_the_daemon_goes_in_mid_answer(tmp_path: Path) -> None:
    async def test(house: House, client: openai.AsyncOpenAI) -> None:
        house.daemon.on("chat", say_until_cancelled("Once"))
        stream = await client.chat.completions.create(model="", messages=HELLO, stream=True)  # type: ignore[arg-type]
        chunks = aiter(stream)
        while not (await anext(chunks)).choices[0].delta.content:
            pass
        await asyncio.to_thread(house.daemon.stop)
        with pytest.raises(openai.APIError) as lost:
            await anext(chunks)
        assert lost.value.code == "unreachable"
        with pytest.raises(openai.InternalServerError) as away:
            await client.chat.completions.create(model="", messages=HELLO)  # type: ignore[arg-type]
        assert away.value.status_code == 503

    ask(tmp_path, test)
