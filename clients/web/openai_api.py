"""OpenAI's API for programs: /v1/models, /v1/chat/completions, /v1/completions.

A program has a key (`assistant devices add-key`), which is a device like any other: the daemon
counts its requests and bounds its answers. What is asked is translated in openai_requests.py.
"""

import asyncio
import contextlib
import logging
import secrets
from collections.abc import AsyncGenerator
from time import monotonic, time
from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from assistantd.log import fields
from assistantd.protocol import Chat, Complete, DeviceInfo, ModelInfo, Models, Status, Timings
from clients.aio import AsyncAnswer, AsyncClient
from clients.errors import AssistantError
from clients.i18n import _
from clients.web.daemon import Daemon, unreachable
from clients.web.devices import Authenticator, no_key
from clients.web.disconnects import EventStream, HungUp, while_connected
from clients.web.errors import Refusal
from clients.web.limits import Buckets
from clients.web.openai_errors import refusal_for, shape
from clients.web.openai_requests import (
    ChatBody,
    CompletionBody,
    chat_of,
    complete_of,
    decode,
)
from clients.web.replies import address_of, json_reply
from clients.web.security import read_body

log = logging.getLogger(__name__)

DEFAULT: Final = "default"
"""A name for whatever model there is."""
_KNOWN_S: Final = 10.0
_PATIENCE_S: Final = 10.0
"""Errors mostly come within it, and can still be told by the status."""
_KEEP_ALIVE_S: Final = 15.0
_REQUESTS_PER_MINUTE: Final = 600
_REQUESTS_AT_ONCE: Final = 100
_FINISHED: Final = {"stop": "stop", "length": "length", "cancelled": "stop", "deadline": "length"}

_encoder = msgspec.json.Encoder()


class OpenAi:
    """The endpoints."""

    def __init__(self, daemon: Daemon, authenticator: Authenticator) -> None:
        self._daemon, self._authenticator = daemon, authenticator
        self._requests = Buckets(_REQUESTS_PER_MINUTE, _REQUESTS_AT_ONCE)
        self._models: list[ModelInfo] = []
        self._models_at = -_KNOWN_S

    def routes(self) -> list[Route]:
        """Where they are."""
        return [
            Route("/v1/models", self.models),
            Route("/v1/models/{name:path}", self.model),
            Route("/v1/chat/completions", self.chat, methods=["POST"]),
            Route("/v1/completions", self.complete, methods=["POST"]),
        ]

    # --- endpoints ---

    async def models(self, request: Request) -> Response:
        """GET /v1/models."""
        await self._device(request)
        found = [_model(one.name) for one in await self._list()]
        return json_reply({"object": "list", "data": found})

    async def model(self, request: Request) -> Response:
        """GET /v1/models/NAME."""
        await self._device(request)
        name = request.path_params["name"]
        if name not in [one.name for one in await self._list()]:
            raise _no_model(name, self._models)
        return json_reply(_model(name))

    async def chat(self, request: Request) -> Response:
        """POST /v1/chat/completions."""
        device = await self._device(request)
        body = decode(await read_body(request), ChatBody)
        asked = chat_of(body, device.id)
        shown = await self._name(body.model)
        return await self._answer(request, asked, _Shape("chat", shown), body)

    async def complete(self, request: Request) -> Response:
        """POST /v1/completions."""
        device = await self._device(request)
        body = decode(await read_body(request), CompletionBody)
        asked = complete_of(body, device.id)
        shown = await self._name(body.model)
        return await self._answer(request, asked, _Shape("text", shown), body)

    # --- who and what ---

    async def _device(self, request: Request) -> DeviceInfo:
        scheme, _space, token = request.headers.get("authorization", "").partition(" ")
        if scheme.casefold() != "bearer":
            raise no_key()
        try:
            device = await self._authenticator.device(token.strip(), "api", address_of(request))
        except Refusal as refusal:
            if refusal.status == 401:
                raise no_key() from refusal
            raise
        request.scope.setdefault("state", {})["device"] = device.id
        wait_s = self._requests.take(device.id)
        if wait_s:
            text = _("too many requests with this key; wait a moment")
            raise Refusal(429, "busy", text, retry_s=wait_s)
        return device

    async def _list(self) -> list[ModelInfo]:
        if monotonic() - self._models_at > _KNOWN_S:
            try:
                # not as the device: it is its questions that count against its limits
                listed = (await self._daemon.request(Models(op="list"))).models
                status = (await self._daemon.request(Status())).status
            except AssistantError as error:
                raise refusal_for(error) from error
            usable = [one for one in listed or [] if one.problem is None]
            loaded = status.model if status is not None else None
            if loaded is not None and loaded.name not in [one.name for one in usable]:
                loaded.loaded = True  # one that was named by its path is in no list
                usable.append(loaded)
            # the one that answers first: many programs take the first of the list
            self._models = sorted(usable, key=lambda one: (not one.loaded, not one.default))
            self._models_at = monotonic()
        return self._models

    async def _name(self, asked: str) -> str:
        """The model that will answer, if it is the one that was asked for. Raises Refusal."""
        models = await self._list()
        answering = next((one.name for one in models if one.loaded), None)
        answering = answering or next((one.name for one in models if one.default), DEFAULT)
        if asked not in ("", DEFAULT, answering):
            self._models_at = -_KNOWN_S  # another one may be loaded by the next time
            raise _no_model(asked, [one for one in models if one.name == answering])
        return answering

    # --- answers ---

    async def _answer(
        self,
        request: Request,
        asked: Chat | Complete,
        shape_: "_Shape",
        body: ChatBody | CompletionBody,
    ) -> Response:
        if not self._daemon.online:
            raise refusal_for(unreachable())
        asked.stream = bool(body.stream)
        answer = _begin(self._daemon.answers, asked)
        kind = "chat" if shape_.is_chat else "complete"
        log.info("asked", extra=fields(request=answer.request_id, kind=kind, device=asked.device))
        if not body.stream:
            return await self._whole(request, answer, shape_)
        usage = body.stream_options is not None and bool(body.stream_options.include_usage)
        first = asyncio.create_task(_first(answer))
        try:
            # an error that comes at once still has a status of its own
            await while_connected(request.receive, _wait(first, _PATIENCE_S))
            if first.done():
                first.result()
        except AssistantError as error:
            log.warning("failed", extra=fields(request=answer.request_id))
            await answer.aclose()
            raise refusal_for(error) from error
        except (HungUp, asyncio.CancelledError):
            first.cancel()
            await answer.aclose()
            raise
        return EventStream(_events(answer, first, shape_, usage))

    async def _whole(self, request: Request, answer: AsyncAnswer, shape_: "_Shape") -> Response:
        async with answer:
            try:
                await while_connected(request.receive, answer.wait())
            except AssistantError as error:
                log.warning("failed", extra=fields(request=answer.request_id))
                raise refusal_for(error) from error
        log.info("answered", extra=fields(request=answer.request_id, finish=answer.finish_reason))
        return json_reply(shape_.whole(answer.text, answer.finish_reason, answer.timings))


def _begin(client: AsyncClient, asked: Chat | Complete) -> AsyncAnswer:
    """Ask, and read the answer as clients do."""
    fields = {
        name: value
        for name in asked.__struct_fields__
        if (value := getattr(asked, name)) is not None and name != "session"
    }
    if isinstance(asked, Complete):
        return client.complete(fields.pop("prompt"), **fields)
    return client.ask(messages=fields.pop("messages"), **fields)


async def _first(answer: AsyncAnswer) -> str:
    """The first piece of text; "" if there is none."""
    async for piece in answer:
        return piece
    return ""


async def _wait(task: "asyncio.Task[str]", for_s: float) -> None:
    await asyncio.wait((task,), timeout=for_s)


async def _events(
    answer: AsyncAnswer, first: "asyncio.Task[str]", shape_: "_Shape", usage: bool
) -> AsyncGenerator[bytes, None]:
    """The stream of events; leaving it cancels the answer."""
    try:
        yield _event(shape_.piece("", first=True))
        while not first.done():
            await _wait(first, _KEEP_ALIVE_S)
            if not first.done():
                yield b": still reading\n\n"
        if first.result():
            yield _event(shape_.piece(first.result()))
        async for piece in answer:
            yield _event(shape_.piece(piece))
        yield _event(shape_.end(answer.finish_reason))
        if usage:
            yield _event(shape_.usage_only(answer.timings))
        yield b"data: [DONE]\n\n"
        log.info("answered", extra=fields(request=answer.request_id, finish=answer.finish_reason))
    except AssistantError as error:
        refusal = refusal_for(error)
        log.warning(
            "failed",
            extra=fields(request=answer.request_id, code=refusal.code, reason=refusal.reason),
        )
        yield _event({"error": shape(refusal)})
    finally:
        first.cancel()
        with contextlib.suppress(asyncio.CancelledError, AssistantError):
            await first
        await answer.aclose()


def _event(value: Any) -> bytes:
    return b"data: " + _encoder.encode(value) + b"\n\n"


class _Shape:
    """How an answer looks: as a chat's, or as a plain text's.

    Args:
        kind: which of them.
        model: the name that is shown.
    """

    def __init__(self, kind: str, model: str) -> None:
        self.is_chat, self._model = kind == "chat", model
        self.id = f"{'chatcmpl' if self.is_chat else 'cmpl'}-{secrets.token_hex(12)}"
        self._created = int(time())

    def whole(self, text: str, reason: str | None, timings: Timings | None) -> dict[str, Any]:
        """All at once."""
        choice: dict[str, Any] = {"index": 0, "logprobs": None}
        if self.is_chat:
            choice["message"] = {"role": "assistant", "content": text, "refusal": None}
        else:
            choice["text"] = text
        choice["finish_reason"] = _FINISHED.get(reason or "", "stop")
        return {**self._head(streamed=False), "choices": [choice], "usage": _usage(timings)}

    def piece(self, text: str, *, first: bool = False) -> dict[str, Any]:
        """The next piece."""
        delta: dict[str, Any] = {"content": text}
        if first:
            delta["role"] = "assistant"
        return self._chunk({"delta": delta} if self.is_chat else {"text": text}, None)

    def end(self, reason: str | None) -> dict[str, Any]:
        """The last piece, which says why it ended."""
        empty: dict[str, Any] = {"delta": {}} if self.is_chat else {"text": ""}
        return self._chunk(empty, _FINISHED.get(reason or "", "stop"))

    def usage_only(self, timings: Timings | None) -> dict[str, Any]:
        """After the last piece, what it took."""
        return {**self._head(streamed=True), "choices": [], "usage": _usage(timings)}

    def _chunk(self, what: dict[str, Any], reason: str | None) -> dict[str, Any]:
        choice = {"index": 0, **what, "logprobs": None, "finish_reason": reason}
        return {**self._head(streamed=True), "choices": [choice]}

    def _head(self, *, streamed: bool) -> dict[str, Any]:
        kind = "text_completion"
        if self.is_chat:
            kind = "chat.completion.chunk" if streamed else "chat.completion"
        return {
            "id": self.id,
            "object": kind,
            "created": self._created,
            "model": self._model,
            "system_fingerprint": None,
        }


def _usage(timings: Timings | None) -> dict[str, Any]:
    if timings is None:
        return {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    return {
        "prompt_tokens": timings.prompt_tokens,
        "completion_tokens": timings.completion_tokens,
        "total_tokens": timings.prompt_tokens + timings.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": timings.cached_tokens},
    }


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "assistantd"}


def _no_model(name: str, models: list[ModelInfo]) -> Refusal:
    there = ", ".join(one.name for one in models) or DEFAULT
    return Refusal(
        404,
        "model_not_found",
        _("the model {name!r} does not answer here; ask for {there}, or for {default!r}").format(
            name=name[:100], there=there, default=DEFAULT
        ),
        parameter="model",
    )
