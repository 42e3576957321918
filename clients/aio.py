"""The asyncio client: the verbs of clients.client, awaited; any number of requests at once.

It waits on the file descriptors of the same clients.link, so both clients share every line that
deals with messages and lost connections.
"""

import asyncio
import warnings
from collections.abc import Callable
from time import monotonic
from types import TracebackType
from typing import Any, Self

import zmq

from assistantd.protocol import (
    Budget,
    Done,
    Forget,
    ForgottenInfo,
    ModelInfo,
    Models,
    Ping,
    PlanInfo,
    Reload,
    Request,
    SessionInfo,
    Sessions,
    SettingChange,
    Shutdown,
    Status,
    StatusInfo,
)
from clients import requests
from clients.client import ALIVE_INTERVAL_S, RETRY_TIMEOUT_S
from clients.errors import AssistantError, ConnectionLost, NoAnswer
from clients.i18n import _
from clients.link import Link
from clients.requests import BaseAnswer, Exchange, Messages, OnProgress, present


class AsyncAnswer(BaseAnswer):
    """An answer as it is being written: `async for` its pieces of text, or `await wait()`.

    Leaving its `async with` block, `aclose`, or dropping the last reference cancels it.
    """

    def __init__(
        self, client: "AsyncClient", exchange: Exchange, on_progress: OnProgress | None
    ) -> None:
        super().__init__(exchange, on_progress)
        self._client = client

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        """The next piece of text. Raises RequestError, ConnectionLost, NoAnswer."""
        while not self._over:
            try:
                await self._client._wait(self._exchange, self._client.timeout)
            except (NoAnswer, ConnectionLost, asyncio.CancelledError):
                self._close()
                raise
            piece = self._take()
            if piece is not None:
                return piece
        raise StopAsyncIteration

    async def wait(self) -> Self:
        """Read to the end. Raises as iterating does."""
        async for _piece in self:
            pass
        return self

    def cancel(self) -> None:
        """Ask the daemon to stop. Iterating then ends, with finish_reason "cancelled"."""
        if not self._over:
            self._client._send(self._client._exchanges.cancel(self._exchange))

    async def aclose(self) -> None:
        """Cancel it if it has not ended, and read no more of it."""
        self._close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._close()

    def __del__(self) -> None:
        if not self._over:
            self._client._from_anywhere(self._close)

    def _close(self) -> None:
        if not self._over:
            self._over = True
            self._client._abandon(self._exchange)


class AsyncClient:
    """A connection to the daemon for asyncio. Arguments as for Client.

    `request_prefix` goes in front of every request id: the ids of a device's answers must differ
    from those that it had before, also on other connections.

    It belongs to the event loop that runs at its first request; any number of tasks may use it
    at once. `ask` and `complete` send at once and return an AsyncAnswer, without `await`.

    Raises:
        BadEndpoint, AssistantError: as Client does.
    """

    def __init__(
        self,
        endpoint: str | None = None,
        *,
        timeout: float | None = None,
        request_prefix: str = "",
    ) -> None:
        self._closed = True
        self.timeout = timeout
        self._link = Link(endpoint, request_prefix)
        self._exchanges = self._link.exchanges
        self._loop: asyncio.AbstractEventLoop | None = None
        self._watched: list[int] = []  # file descriptors the loop watches for us
        self._closed = False

    @property
    def endpoint(self) -> str:
        """Where the daemon is looked for."""
        return self._link.endpoint

    # --- answers ---

    def ask(
        self,
        text: str | None = None,
        *,
        session: str | None = None,
        system: str | None = None,
        messages: Messages | None = None,
        on_progress: OnProgress | None = None,
        **sampling: Any,
    ) -> AsyncAnswer:
        """Ask a question. Arguments and errors as for Client.ask."""
        request = requests.chat(text, session, system, messages, sampling)
        return AsyncAnswer(self, self._begin(request), on_progress)

    def complete(
        self, prompt: str, *, on_progress: OnProgress | None = None, **sampling: Any
    ) -> AsyncAnswer:
        """Continue `prompt` as it stands, without a chat template."""
        return AsyncAnswer(self, self._begin(requests.complete(prompt, sampling)), on_progress)

    # --- everything else: one request, one Done ---

    async def request(
        self,
        request: Request,
        on_progress: OnProgress | None = None,
        timeout: float | None = None,
    ) -> Done:
        """Send any request of the protocol and wait until it is done, as Client.request."""
        timeout = timeout if timeout is not None else self.timeout
        try:
            return await self._request_once(request, on_progress, timeout)
        except ConnectionLost as error:
            if self._closed or not requests.is_repeatable(request):
                raise
            retry_timeout = timeout if timeout is not None else RETRY_TIMEOUT_S
            try:
                return await self._request_once(request, on_progress, retry_timeout)
            except NoAnswer:
                raise error from None

    async def ping(self, timeout: float | None = None) -> Done:
        """Is the daemon there?"""
        return await self.request(Ping(), timeout=timeout)

    async def status(self) -> StatusInfo:
        """Version, model, queue, memory and speed of the daemon."""
        return present((await self.request(Status())).status, "status")

    async def sessions(self) -> list[SessionInfo]:
        """Conversations the daemon keeps, without their messages."""
        return present((await self.request(Sessions(op="list"))).sessions, "sessions")

    async def session(self, session_id: str) -> SessionInfo:
        """One conversation with its messages. Raises NotFound."""
        done = await self.request(Sessions(op="show", session=session_id))
        return present(done.session, "session")

    async def rename_session(self, session_id: str, title: str) -> SessionInfo:
        """Give a conversation a title. Raises NotFound."""
        done = await self.request(Sessions(op="rename", session=session_id, title=title))
        return present(done.session, "session")

    async def delete_session(self, session_id: str) -> Done:
        """Forget a conversation. Raises NotFound."""
        return await self.request(Sessions(op="delete", session=session_id))

    async def forget(
        self,
        session: str | None = None,
        *,
        since: float | None = None,
        before: float | None = None,
        owner: str | None = None,
        all: bool = False,
        preview: bool = False,
    ) -> ForgottenInfo:
        """Delete conversations or parts of them, so that nothing of them is left in any file.

        Args:
            session: only of this one.
            since, before: only what was asked in this time; Unix time.
            owner: only what this device asked.
            all: if none of session, since and before is given.
            preview: only tell what would be deleted.

        Raises:
            NotFound: there is no such session.
        """
        request = Forget(
            session=session, since=since, before=before, owner=owner, all=all, preview=preview
        )
        return present((await self.request(request)).forgotten, "forgotten")

    async def models(self) -> list[ModelInfo]:
        """Models on the daemon's disk."""
        return present((await self.request(Models(op="list"))).models, "models")

    async def show_model(self, name: str, budget: int | None = None) -> ModelInfo:
        """One model in full, and how it would use a memory budget; see Client.show_model."""
        done = await self.request(Models(op="show", name=name, budget=budget))
        return present(done.model, "model")

    async def pull(self, name: str, on_progress: OnProgress | None = None) -> ModelInfo:
        """Download a model: a name, a URL, or a Hugging Face ORG/REPO/FILE.gguf."""
        done = await self.request(Models(op="pull", name=name), on_progress)
        return present(done.model, "model")

    async def load(self, name: str, on_progress: OnProgress | None = None) -> ModelInfo:
        """Make a model the one in memory."""
        done = await self.request(Models(op="load", name=name), on_progress)
        return present(done.model, "model")

    async def unload(self) -> Done:
        """Take the model out of memory."""
        return await self.request(Models(op="unload"))

    async def remove_model(self, name: str) -> Done:
        """Delete a model from the daemon's disk. Raises NotFound."""
        return await self.request(Models(op="remove", name=name))

    async def set_budget(self, n_bytes: int) -> PlanInfo | None:
        """Change the memory budget until the daemon restarts; see Client.set_budget."""
        return (await self.request(Budget(bytes=n_bytes))).plan

    async def reload(self, on_progress: OnProgress | None = None) -> list[SettingChange]:
        """Have the daemon read its settings again; see Client.reload."""
        return present((await self.request(Reload(), on_progress)).settings, "settings")

    async def shutdown(self) -> Done:
        """Stop the daemon as SIGTERM would."""
        return await self.request(Shutdown())

    async def wait_ready(
        self, timeout: float, alive: Callable[[], bool] | None = None
    ) -> StatusInfo:
        """Wait until the daemon answers, as Client.wait_ready."""
        deadline = monotonic() + timeout
        while True:
            exchange = self._begin(Ping())
            try:
                done = await self._await_ping(exchange, deadline, timeout, alive)
                return done.status or await self.status()
            except ConnectionLost:
                if self._closed or (alive is not None and not alive()) or monotonic() >= deadline:
                    raise
            finally:
                self._abandon(exchange)

    # --- life ---

    async def close(self) -> None:
        """Cancel answers under way and disconnect; takes half a second at most."""
        if self._closed:
            return
        self._shut()
        await asyncio.to_thread(self._link.term)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    def __del__(self) -> None:
        if not self._closed:
            warnings.warn(f"unclosed {self!r}", ResourceWarning, stacklevel=2, source=self)
            self._from_anywhere(self._shut_at_once)

    def _shut(self) -> None:
        self._closed = True
        farewell = self._exchanges.close()
        for frames in farewell:
            self._link.send(frames)
        self._unwatch()
        self._link.close(unsent=bool(farewell))

    def _shut_at_once(self) -> None:
        self._shut()
        self._link.term()

    # --- moving messages ---

    async def _request_once(
        self, request: Request, on_progress: OnProgress | None, timeout: float | None
    ) -> Done:
        exchange = self._begin(request)
        answer = BaseAnswer(exchange, on_progress)
        try:
            while answer.done is None:
                await self._wait(exchange, timeout)
                answer._take()
        finally:
            self._abandon(exchange)
        return answer.done

    async def _await_ping(
        self,
        exchange: Exchange,
        deadline: float,
        timeout: float,
        alive: Callable[[], bool] | None,
    ) -> Done:
        while not exchange.inbox:
            if alive is not None and not alive():
                raise requests.process_ended(self.endpoint)
            left = deadline - monotonic()
            if left <= 0:
                raise requests.no_answer(self.endpoint, timeout)
            await self._arrival(exchange, left if alive is None else min(left, ALIVE_INTERVAL_S))
        reply = exchange.take()
        return reply if isinstance(reply, Done) else present(None, "end")

    def _begin(self, request: Request) -> Exchange:
        if self._closed:
            raise AssistantError(_("this client is closed; open a new AsyncClient"))
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
            self._watch()
        elif self._loop is not loop:
            raise AssistantError(_("this client belongs to another event loop; give each its own"))
        self._drain()  # a daemon that went away while we were idle must not cost this request
        exchange, frames = self._exchanges.begin(request)
        self._send(frames)
        return exchange

    async def _wait(self, exchange: Exchange, timeout: float | None) -> None:
        """Until `exchange` has something to read. Raises as Client._wait does."""
        deadline = None if timeout is None else monotonic() + timeout
        while not exchange.inbox:
            if not await self._arrival(exchange, self._link.left(exchange, deadline, timeout)):
                self._drain()  # it may be time for something

    async def _arrival(self, exchange: Exchange, timeout: float | None) -> bool:
        """Whether `exchange` had something to read within `timeout` seconds."""
        if exchange.inbox:
            return True
        arrived = asyncio.Event()
        exchange.on_arrival = arrived.set
        try:
            async with asyncio.timeout(timeout):
                await arrived.wait()
        except TimeoutError:
            return bool(exchange.inbox)
        return True

    def _watch(self) -> None:
        assert self._loop is not None
        for socket in self._link.sockets:
            descriptor = int(socket.get(zmq.FD))
            self._loop.add_reader(descriptor, self._drain)
            self._watched.append(descriptor)
        self._loop.call_soon(self._drain)  # what came before the loop was watching

    def _unwatch(self) -> None:
        for descriptor in self._watched:
            if self._loop is not None and not self._loop.is_closed():
                self._loop.remove_reader(descriptor)
        self._watched.clear()

    def _drain(self) -> None:
        if self._closed:
            return
        if not self._link.drain():
            self._unwatch()
            self._link.open()
            self._watch()

    def _abandon(self, exchange: Exchange) -> None:
        self._send(self._exchanges.abandon(exchange))

    def _send(self, frames: list[bytes] | None) -> None:
        if frames is None or self._closed:
            return
        self._link.send(frames)
        # ZeroMQ's descriptor signals an arrival once, and sending may have used that up
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon(self._drain)

    def _from_anywhere(self, act: Callable[[], None]) -> None:
        """Run `act` in the loop's thread: the garbage collector may work in any other."""
        if self._loop is None or self._loop.is_closed():
            act()
        else:
            self._loop.call_soon_threadsafe(act)
