"""The synchronous client: verbs, streamed answers, and waiting for them with a poller.

Replies are sorted by clients.requests and bytes moved by clients.link; the asyncio twin is
clients.aio.
"""

import contextlib
import os
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterator
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
from clients.errors import AssistantError, ConnectionLost, NoAnswer
from clients.i18n import _
from clients.link import Link
from clients.requests import BaseAnswer, Exchange, Messages, OnProgress, present

# After a lost connection a harmless request is asked again; without a timeout of the caller's
# it waits this long for the daemon to come back.
RETRY_TIMEOUT_S = 5.0
# How often wait_ready looks whether the process it waits for is still alive.
ALIVE_INTERVAL_S = 0.1


class Answer(BaseAnswer):
    """An answer as it is being written: iterate for its pieces of text, or `wait` for all of it.

    Letting go of it early (leaving its `with` block, `close`, or dropping the last reference, as
    a `break` out of `for piece in client.ask(...)` does) cancels it in the daemon.
    """

    def __init__(
        self, client: "Client", exchange: Exchange, on_progress: OnProgress | None
    ) -> None:
        super().__init__(exchange, on_progress)
        self._client = client

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        """The next piece of text.

        Raises:
            RequestError, ConnectionLost, NoAnswer: the answer failed; `text` keeps what came.
        """
        while not self._over:
            try:
                self._client._wait(self._exchange, self._client.timeout)
            except (NoAnswer, ConnectionLost):
                self.close()
                raise
            piece = self._take()
            if piece is not None:
                return piece
        raise StopIteration

    def wait(self) -> Self:
        """Read to the end. Raises as iterating does."""
        for _piece in self:
            pass
        return self

    def cancel(self) -> None:
        """Ask the daemon to stop. Iterating then ends, with finish_reason "cancelled".

        May be called from any thread, and from a signal handler.
        """
        if not self._over:
            self._client._cancel(self._exchange)

    def close(self) -> None:
        """Cancel it if it has not ended, and read no more of it."""
        if not self._over:
            self._over = True
            self._client._abandon(self._exchange)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


class Client:
    """A connection to the daemon.

    A client belongs to one thread (`Answer.cancel` apart); several answers may be under way at
    once. If the daemon goes away, requests under way raise ConnectionLost and the next one works
    as soon as it is back. Over the network answers go on when the connection is back.

    Args:
        endpoint: where the daemon listens, or the name under which `assistant connect` stored it;
            by default $ASSISTANTD_ENDPOINT, or the user's or system's socket.
        timeout: seconds of silence from the daemon before a request raises NoAnswer;
            None waits for ever, even for a daemon that has never been there; over the network
            for two minutes without a connection.

    Raises:
        BadEndpoint: the endpoint is no address and no stored name; NotPaired: there are no keys
            for it.
        AssistantError: the stored keys cannot be read.
    """

    def __init__(self, endpoint: str | None = None, *, timeout: float | None = None) -> None:
        self._closed = True  # so that __del__ is right if the next lines fail
        self.timeout = timeout
        self._link = Link(endpoint)
        self._exchanges = self._link.exchanges
        # Held while the sockets are in use. Who finds it taken (another thread, a signal handler,
        # the garbage collector) leaves its message in the outbox and wakes the holder.
        self._busy = threading.Lock()
        self._pumping = False  # held for as long as it takes, not for a moment
        self._outbox: deque[list[bytes]] = deque()
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        self._closed = False
        self._watch()

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
    ) -> Answer:
        """Ask a question, in a `session` whose history the daemon keeps, or by itself.

        Args:
            text: the question; or give a whole conversation as `messages`.
            session: 1–64 of A–Z a–z 0–9 . _ -; created at first use.
            system: instructions for the model.
            messages: `{"role": ..., "content": ...}` each, the last one from the user.
            on_progress: called while the request is queued or its prompt is being read.
            **sampling: temperature, top_p, seed, stop, format, max_tokens, deadline_ms, …
                as in docs/protocol.md.

        Raises:
            BadRequest, TooLarge: it cannot be sent. Everything else is raised by the Answer.
        """
        request = requests.chat(text, session, system, messages, sampling)
        return Answer(self, self._begin(request), on_progress)

    def complete(
        self, prompt: str, *, on_progress: OnProgress | None = None, **sampling: Any
    ) -> Answer:
        """Continue `prompt` as it stands, without a chat template. See `ask`."""
        return Answer(self, self._begin(requests.complete(prompt, sampling)), on_progress)

    # --- everything else: one request, one Done ---

    def request(
        self,
        request: Request,
        on_progress: OnProgress | None = None,
        timeout: float | None = None,
    ) -> Done:
        """Send any request of the protocol and wait until it is done.

        Reads that do no harm (ping, status, list, show) are asked once more if the connection
        is lost.

        Args:
            timeout: seconds of silence; None takes the client's.

        Raises:
            RequestError, ConnectionLost, NoAnswer.
        """
        timeout = timeout if timeout is not None else self.timeout
        try:
            return self._request_once(request, on_progress, timeout)
        except ConnectionLost as error:
            if self._closed or not requests.is_repeatable(request):
                raise
            retry_timeout = timeout if timeout is not None else RETRY_TIMEOUT_S
            try:
                return self._request_once(request, on_progress, retry_timeout)
            except NoAnswer:
                raise error from None

    def ping(self, timeout: float | None = None) -> Done:
        """Is the daemon there?"""
        return self.request(Ping(), timeout=timeout)

    def status(self) -> StatusInfo:
        """Version, model, queue, memory and speed of the daemon."""
        return present(self.request(Status()).status, "status")

    def sessions(self) -> list[SessionInfo]:
        """Conversations the daemon keeps, without their messages."""
        return present(self.request(Sessions(op="list")).sessions, "sessions")

    def session(self, session_id: str) -> SessionInfo:
        """One conversation with its messages. Raises NotFound."""
        return present(self.request(Sessions(op="show", session=session_id)).session, "session")

    def rename_session(self, session_id: str, title: str) -> SessionInfo:
        """Give a conversation a title. Raises NotFound."""
        request = Sessions(op="rename", session=session_id, title=title)
        return present(self.request(request).session, "session")

    def delete_session(self, session_id: str) -> Done:
        """Forget a conversation. Raises NotFound."""
        return self.request(Sessions(op="delete", session=session_id))

    def forget(
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
        return present(self.request(request).forgotten, "forgotten")

    def models(self) -> list[ModelInfo]:
        """Models on the daemon's disk."""
        return present(self.request(Models(op="list")).models, "models")

    def show_model(self, name: str, budget: int | None = None) -> ModelInfo:
        """One model in full, and how it would use a memory budget.

        Args:
            budget: bytes; 0 for no budget, None for the daemon's own. If it is too small, the
                model's `plan.smallest` is the smallest that would do.

        Raises:
            NotFound: there is no such model.
        """
        request = Models(op="show", name=name, budget=budget)
        return present(self.request(request).model, "model")

    def pull(self, name: str, on_progress: OnProgress | None = None) -> ModelInfo:
        """Download a model: a name, a URL, or a Hugging Face ORG/REPO/FILE.gguf."""
        return present(self.request(Models(op="pull", name=name), on_progress).model, "model")

    def load(self, name: str, on_progress: OnProgress | None = None) -> ModelInfo:
        """Make a model the one in memory."""
        return present(self.request(Models(op="load", name=name), on_progress).model, "model")

    def unload(self) -> Done:
        """Take the model out of memory."""
        return self.request(Models(op="unload"))

    def remove_model(self, name: str) -> Done:
        """Delete a model from the daemon's disk. Raises NotFound."""
        return self.request(Models(op="remove", name=name))

    def set_budget(self, n_bytes: int) -> PlanInfo | None:
        """Change the memory budget until the daemon restarts; 0 for none.

        Returns:
            What comes of it for the model in memory; None if there is none.

        Raises:
            OverBudget: the model in memory cannot do with so little; the old budget holds.
        """
        return self.request(Budget(bytes=n_bytes)).plan

    def reload(self, on_progress: OnProgress | None = None) -> list[SettingChange]:
        """Have the daemon read its settings again; returns once they hold.

        Returns:
            What is not as it was, also what needs a restart.

        Raises:
            RequestError: a setting is wrong, or its model cannot be loaded; nothing has changed.
        """
        return present(self.request(Reload(), on_progress).settings, "settings")

    def shutdown(self) -> Done:
        """Stop the daemon as SIGTERM would."""
        return self.request(Shutdown())

    def wait_ready(self, timeout: float, alive: Callable[[], bool] | None = None) -> StatusInfo:
        """Wait until the daemon answers, as after starting it.

        Args:
            timeout: seconds in all.
            alive: polled ten times a second; when it returns False, waiting ends.

        Raises:
            NoAnswer: `timeout` passed.
            ConnectionLost: `alive` returned False.
        """
        deadline = monotonic() + timeout
        while True:
            exchange = self._begin(Ping())
            try:
                done = self._await_ping(exchange, deadline, timeout, alive)
                return done.status or self.status()
            except ConnectionLost:
                # one daemon left as we asked, and the next may be on its way
                if self._closed or (alive is not None and not alive()) or monotonic() >= deadline:
                    raise
            finally:
                self._abandon(exchange)

    # --- life ---

    def close(self) -> None:
        """Cancel answers under way and disconnect; takes half a second at most.

        Not for signal handlers: they may interrupt this client's own use of its sockets.
        """
        if self._closed:
            return
        self._closed = True
        farewell = self._exchanges.close()
        self._outbox.extend(farewell)
        self._wake()  # another thread may be waiting in a poll
        with self._busy:
            self._send_outbox()
            self._link.close(unsent=bool(farewell))
            self._link.term()
            os.close(self._wake_read)
            os.close(self._wake_write)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if not self._closed:
            warnings.warn(f"unclosed {self!r}", ResourceWarning, stacklevel=2, source=self)
            self.close()

    # --- moving messages ---

    def _request_once(
        self, request: Request, on_progress: OnProgress | None, timeout: float | None
    ) -> Done:
        exchange = self._begin(request)
        answer = BaseAnswer(exchange, on_progress)
        try:
            while answer.done is None:
                self._wait(exchange, timeout)
                answer._take()
        finally:  # Ctrl-C or a failing callback: the daemon need not go on downloading, say
            self._abandon(exchange)
        return answer.done

    def _await_ping(
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
            self._pump(left if alive is None else min(left, ALIVE_INTERVAL_S))
        reply = exchange.take()
        return reply if isinstance(reply, Done) else present(None, "end")

    def _begin(self, request: Request) -> Exchange:
        if self._closed:
            raise AssistantError(_("this client is closed; open a new Client"))
        if self._busy.acquire(blocking=False):
            # a daemon that went away while we were idle must not cost the next request
            try:
                self._drain()
            finally:
                self._busy.release()
        exchange, frames = self._exchanges.begin(request)
        self._send(frames)
        return exchange

    def _wait(self, exchange: Exchange, timeout: float | None) -> None:
        """Until `exchange` has something to read.

        Raises:
            NoAnswer: `timeout` seconds passed.
            ConnectionLost: no timeout was set, and the network is down for long.
        """
        deadline = None if timeout is None else monotonic() + timeout
        while not exchange.inbox:
            self._pump(self._link.left(exchange, deadline, timeout))

    def _pump(self, timeout: float | None) -> None:
        """Wait once for anything to happen, and deal with it."""
        if self._closed:
            raise AssistantError(_("this client is closed; open a new Client"))
        if self._pumping:
            raise AssistantError(
                _("this client is waiting in another thread; give each thread its own Client")
            )
        with self._busy:
            self._pump_held(timeout)
        self._flush()  # what was left in the outbox since

    def _pump_held(self, timeout: float | None) -> None:
        self._pumping = True
        try:
            milliseconds = None if timeout is None else max(1, round(timeout * 1000))
            ready = dict(self._poller.poll(milliseconds))
            if self._wake_read in ready:
                os.read(self._wake_read, 4096)
            self._drain()
            self._send_outbox()
        finally:
            self._pumping = False

    def _drain(self) -> None:
        if not self._link.drain():
            self._link.open()
            self._watch()

    def _watch(self) -> None:
        self._poller = zmq.Poller()
        for socket in self._link.sockets:
            self._poller.register(socket, zmq.POLLIN)
        self._poller.register(self._wake_read, zmq.POLLIN)

    def _cancel(self, exchange: Exchange) -> None:
        frames = self._exchanges.cancel(exchange)
        if frames is not None and not self._closed:
            self._send(frames)

    def _abandon(self, exchange: Exchange) -> None:
        frames = self._exchanges.abandon(exchange)
        if frames is not None and not self._closed:
            self._send(frames)

    def _send(self, frames: list[bytes]) -> None:
        self._outbox.append(frames)
        self._flush()

    def _flush(self) -> None:
        """Send what is in the outbox, or wake whoever holds the sockets to do it."""
        while self._outbox:
            if not self._busy.acquire(blocking=False):
                self._wake()
                return
            try:
                self._send_outbox()
            finally:
                self._busy.release()

    def _send_outbox(self) -> None:
        while self._outbox:
            self._link.send(self._outbox.popleft())

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):  # full of wake-ups: one is enough
            os.write(self._wake_write, b"\0")
