"""A daemon that says what a test tells it to, over a real ipc socket and the real protocol.

    with ScriptedDaemon(tmp_path) as daemon:
        daemon.on("chat", lambda request, send: send(Done(text="hi", finish_reason="stop")))
        client = Client(daemon.endpoint)

A handler gets the request and a `Send`, runs in a thread of its own, and may wait for
`send.cancelled`; handlers for ping, status and cancel are there from the start. Without a handler
a request is recorded and never answered.
"""

import os
import queue
import shutil
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

import zmq

from assistantd import protocol
from assistantd.protocol import (
    Cancel,
    Delta,
    Done,
    Error,
    ErrorInfo,
    PlanInfo,
    QueueStatus,
    Reply,
    Request,
    StatusInfo,
    Timings,
)

WAIT_S = 20.0
"""How long to wait for what must happen; long, as the test machine may be busy."""


def status_info(**changes: object) -> StatusInfo:
    """A plausible status of an idle daemon."""
    info = StatusInfo(
        version="0.0.test",
        pid=os.getpid(),
        uptime_s=1.0,
        state="ready",
        model=None,
        queue=QueueStatus(active=0, waiting=0, capacity=8),
        memory={"rss": 1_000_000},
        requests_served=0,
        tokens_generated=0,
        tokens_per_second=None,
    )
    for name, value in changes.items():
        setattr(info, name, value)
    return info


def plan_info(**changes: object) -> PlanInfo:
    """A plan in which some weights are streamed; every owner has another size."""
    owners = {
        "libraries": 60,
        "weights": 110,
        "stream": 20,
        "kv_cache": 40,
        "activations": 15,
        "margin": 55,
    }
    plan = PlanInfo(
        budget=300 << 20,
        owners={name: n << 20 for name, n in owners.items()},
        resident_bytes=100 << 20,
        streamed_bytes=50 << 20,
        kv_tokens=2048,
        kv_type="q8",
        tokens_per_second=12.5,
    )
    for name, value in changes.items():
        setattr(plan, name, value)
    return plan


def timings(**changes: float) -> Timings:
    """Plausible timings of a short answer."""
    values: dict[str, float] = {
        "queued_ms": 0.1,
        "prefill_ms": 5.0,
        "prompt_tokens": 10,
        "cached_tokens": 0,
        "first_token_ms": 6.0,
        "decode_ms": 20.0,
        "completion_tokens": 4,
        "tokens_per_second": 200.0,
    }
    return Timings(**{**values, **changes})  # type: ignore[arg-type]


class Send:
    """Sends replies to one request.

    Attributes:
        request_id: as the client chose it.
        cancelled: set when the client cancels the request, and when the daemon stops.
    """

    def __init__(self, daemon: "ScriptedDaemon", envelope: list[bytes], request_id: bytes) -> None:
        self._daemon = daemon
        self._envelope = envelope
        self.request_id = request_id
        self.cancelled = threading.Event()

    def __call__(self, reply: Reply) -> None:
        self.raw(protocol.encode_reply(self.request_id, reply))

    def raw(self, frames: list[bytes]) -> None:
        """Send any frames, also such that do not follow the protocol."""
        self._daemon._post([*self._envelope, *frames])

    @property
    def identity(self) -> bytes:
        """Which connection it came from."""
        return self._envelope[0]


Handler = Callable[[Request, Send], None]


def say(*pieces: str) -> Handler:
    """A handler that streams `pieces` and ends with `stop`."""

    def handler(request: Request, send: Send) -> None:
        for piece in pieces:
            send(Delta(text=piece))
        send(Done(text="".join(pieces), finish_reason="stop", timings=timings()))

    return handler


def say_until_cancelled(*pieces: str) -> Handler:
    """A handler that streams `pieces`, then ends only when it is cancelled."""

    def handler(request: Request, send: Send) -> None:
        for piece in pieces:
            send(Delta(text=piece))
        if not send.cancelled.wait(WAIT_S):
            raise AssertionError("nobody cancelled the answer")
        send(Done(text="".join(pieces), finish_reason="cancelled", timings=timings()))

    return handler


def fail(code: protocol.ErrorCode, message: str, retry_after_ms: int | None = None) -> Handler:
    """A handler that answers with an error."""
    info = ErrorInfo(code=code, message=message, retry_after_ms=retry_after_ms)
    return lambda request, send: send(Error(error=info))


class ScriptedDaemon:
    """A ROUTER in a thread. Leaving its `with` block raises what went wrong in a handler.

    Attributes:
        endpoint: where it listens; the same after `restart`.
        bound: the same as ZeroMQ says it: with the port, where `endpoint` leaves it open.
        requests: everything received so far, in order.
    """

    def __init__(self, tmp_path: Path) -> None:
        folder = tmp_path
        self._own_folder: Path | None = None
        if len(os.fsencode(tmp_path)) > protocol.MAX_SOCKET_PATH_BYTES - 10:
            folder = self._own_folder = Path(tempfile.mkdtemp(prefix="scripted-"))
        self.endpoint = f"ipc://{folder / 'd.sock'}"
        self.requests: list[Request] = []
        self.failures: list[BaseException] = []
        self._changed = threading.Condition()
        self._handlers: dict[str, Handler] = {}
        self._thread: threading.Thread | None = None
        self._handler_threads: list[threading.Thread] = []
        self._under_way: dict[tuple[bytes, bytes], Send] = {}
        self._outbox: deque[list[bytes]] = deque()
        self.on("ping", lambda r, send: send(Done(version="0.0.test", status=status_info())))
        self.on("status", lambda r, send: send(Done(status=status_info())))
        self.on("cancel", self._cancel)

    def on(self, kind: str, handler: Handler) -> None:
        """Answer requests of this type ("chat", "models", …) with `handler` from now on."""
        self._handlers[kind] = handler

    def wait_for(self, kind: type[Request], count: int = 1) -> list[Request]:
        """Wait until `count` requests of a type were received; returns those."""

        def found() -> list[Request]:
            return [request for request in self.requests if isinstance(request, kind)]

        with self._changed:
            if not self._changed.wait_for(lambda: len(found()) >= count, WAIT_S):
                raise AssertionError(f"{len(found())} of {count} {kind.__name__} came")
            return found()

    def start(self) -> Self:
        """Listen."""
        assert self._thread is None
        started: queue.Queue[BaseException | None] = queue.Queue()
        self._wake_read, self._wake_write = os.pipe()
        self._stopping = False
        self._outbox.clear()
        self._thread = threading.Thread(target=self._run, args=(started,), name="scripted-daemon")
        self._thread.start()
        problem = started.get(timeout=WAIT_S)
        if problem is not None:
            raise problem
        return self

    restart = start

    def stop(self) -> None:
        """Vanish, as a daemon that was killed: connections break, unsent replies are lost."""
        if self._thread is None:
            return
        with self._changed:
            self._stopping = True
            os.write(self._wake_write, b"\0")
        self._thread.join(WAIT_S)
        assert not self._thread.is_alive()
        self._thread = None
        for send in list(self._under_way.values()):
            send.cancelled.set()
        for thread in self._handler_threads:
            thread.join(WAIT_S)
            assert not thread.is_alive(), "a handler does not end"
        self._handler_threads.clear()
        self._under_way.clear()
        os.close(self._wake_read)
        os.close(self._wake_write)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
        if self._own_folder is not None:
            shutil.rmtree(self._own_folder)
        if error is None and self.failures:
            raise self.failures[0]

    def _post(self, frames: list[bytes]) -> None:
        with self._changed:
            if not self._stopping:
                self._outbox.append(frames)
                os.write(self._wake_write, b"\0")

    def _run(self, started: "queue.Queue[BaseException | None]") -> None:
        context = zmq.Context()
        router = context.socket(zmq.ROUTER)
        router.set(zmq.SNDHWM, 0)  # a ROUTER drops what goes beyond it
        others = self._serve_also(context)
        try:
            self._bind(router)
            started.put(None)
        except BaseException as problem:
            started.put(problem)
            context.destroy(linger=0)
            return
        poller = zmq.Poller()
        poller.register(router, zmq.POLLIN)
        poller.register(self._wake_read, zmq.POLLIN)
        for socket in others:
            poller.register(socket, zmq.POLLIN)
        try:
            while not self._stopping:
                ready = dict(poller.poll())
                for socket, answer in others.items():
                    if socket in ready:
                        answer()
                if self._wake_read in ready:
                    os.read(self._wake_read, 4096)
                if router in ready:
                    self._receive(router.recv_multipart())
                while self._outbox and not self._stopping:
                    router.send_multipart(self._outbox.popleft())
        except BaseException as problem:
            self.failures.append(problem)
        finally:
            context.destroy(linger=0)

    def _serve_also(self, context: zmq.Context) -> dict["zmq.Socket[bytes]", Callable[[], None]]:
        """Other sockets, and what to do when one of them has something to read."""
        return {}

    def _bind(self, router: "zmq.Socket[bytes]") -> None:
        """The socket of the daemon before may take a moment to be gone."""
        deadline = time.monotonic() + WAIT_S
        while True:
            try:
                router.bind(self.endpoint)
                self.bound = router.get(zmq.LAST_ENDPOINT).rstrip(b"\0").decode()
                return
            except zmq.ZMQError:
                if time.monotonic() > deadline:
                    raise

    def _receive(self, frames: list[bytes]) -> None:
        n_envelope = 2 if frames[1] == b"" else 1  # a REQ puts an empty frame in front
        envelope, body = frames[:n_envelope], frames[n_envelope:]
        try:
            request_id, request = protocol.decode_request(body)
        except protocol.ProtocolError as error:
            info = ErrorInfo(code=error.code, message=str(error))
            self._outbox.append(
                [*envelope, *protocol.encode_reply(error.request_id or b"", Error(error=info))]
            )
            return
        send = Send(self, envelope, request_id)
        self._under_way[send.identity, request_id] = send
        with self._changed:
            self.requests.append(request)
            self._changed.notify_all()
        handler = self._handlers.get(type(request).__struct_config__.tag)
        if handler is not None:
            thread = threading.Thread(target=self._handle, args=(handler, request, send))
            self._handler_threads.append(thread)
            thread.start()

    def _handle(self, handler: Handler, request: Request, send: Send) -> None:
        try:
            handler(request, send)
        except BaseException as problem:
            self.failures.append(problem)
        finally:
            self._under_way.pop((send.identity, send.request_id), None)

    def _cancel(self, request: Request, send: Send) -> None:
        assert isinstance(request, Cancel)
        target = self._under_way.get((send.identity, request.target.encode()))
        if target is None:
            send(Done(message="nothing to cancel"))
            return
        target.cancelled.set()
        send(Done(message="cancelled"))
