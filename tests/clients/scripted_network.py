"""A scripted daemon on the network, and a device that is paired with it.

    with NetworkDaemon(tmp_path) as daemon:
        daemon.pair("home")
        client = Client("home")

It has real CURVE and ZAP, and keeps answers: `tell` a text, and it goes on with it when it is
asked to resume. `cable` is between it and its clients.
"""

import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

import zmq
from zmq.utils import z85

from assistantd.protocol import Chat, Complete, Delta, Done, Error, ErrorInfo, Request, Resume
from clients import servers
from clients.servers import Server
from tests.cable import Cable
from tests.clients.scripted_daemon import ScriptedDaemon, Send, timings


class NetworkDaemon(ScriptedDaemon):
    """A scripted daemon with CURVE.

    Attributes:
        public_key: Z85.
        refused: keys (Z85) that it lets in no longer.
        cable: its port is the one that clients know.
    """

    def __init__(self, tmp_path: Path) -> None:
        super().__init__(tmp_path)
        public, self._secret = zmq.curve_keypair()
        self.public_key = public.decode()
        self.refused: set[str] = set()
        self._port = 0

    def pair(self, name: str) -> Server:
        """Store keys for it, as `assistant connect` does."""
        public, secret = (key.decode() for key in zmq.curve_keypair())
        endpoint = f"tcp://127.0.0.1:{self.cable.port}"
        server = Server(
            name, endpoint, self.public_key, public, secret, "abcdefgh", "one two three four"
        )
        servers.save([*servers.load(), server])
        return server

    def start(self) -> Self:
        """Listen."""
        super().start()
        if not hasattr(self, "cable"):
            self.cable = Cable(self._port)
        return self

    restart = start

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self.cable:
            super().__exit__(kind, error, traceback)

    def _bind(self, router: "zmq.Socket[bytes]") -> None:
        router.set(zmq.CURVE_SERVER, 1)
        router.set(zmq.CURVE_SECRETKEY, self._secret)
        router.set(zmq.ZAP_DOMAIN, b"assistant")
        self.endpoint = f"tcp://127.0.0.1:{self._port or '*'}"
        super()._bind(router)
        self._port = int(self.bound.rpartition(":")[2])

    def _serve_also(self, context: zmq.Context) -> dict["zmq.Socket[bytes]", Callable[[], None]]:
        gate = context.socket(zmq.REP)
        gate.bind("inproc://zeromq.zap.01")

        def answer() -> None:
            version, sequence, *_rest, key = gate.recv_multipart()
            is_in = z85.encode(key).decode() not in self.refused
            status = [b"200", b"OK"] if is_in else [b"400", b"no such device"]
            gate.send_multipart([version, sequence, *status, b"", b""])

        return {gate: answer}


class Teller:
    """Answers questions with a text, piece by piece, and keeps it for who resumes.

    Args:
        pieces: of the text.
        pause_after: it waits before the next piece until `go_on` is set.

    Attributes:
        asked: request ids of questions that were answered from the start.
        paused: set when it waits.
    """

    def __init__(self, *pieces: str, pause_after: int | None = None) -> None:
        self._pieces, self._pause_after = pieces, pause_after
        self.asked: list[bytes] = []
        self.paused, self.go_on = threading.Event(), threading.Event()
        self._lock = threading.Lock()
        self._kept: dict[bytes, str] = {}  # request id → what is written of its answer
        self._listener: dict[bytes, Send] = {}  # request id → who is told the rest

    def install(self, daemon: ScriptedDaemon) -> Self:
        """Let it answer the questions of a daemon."""
        daemon.on("chat", self._chat)
        daemon.on("complete", self._chat)
        daemon.on("resume", self._resume)
        return self

    def forget(self) -> None:
        """All that was kept, as in a restart."""
        self._kept.clear()

    def _chat(self, request: Request, send: Send) -> None:
        assert isinstance(request, Chat | Complete)
        with self._lock:
            self._listener[send.request_id] = send
            if send.request_id in self._kept:
                self._tell_rest(send.request_id, 0)
                return
            self._kept[send.request_id] = ""
            self.asked.append(send.request_id)
        for number, piece in enumerate(self._pieces):
            if number == self._pause_after:
                self.paused.set()
                while not self.go_on.wait(0.02):
                    if send.cancelled.is_set():  # the daemon stops
                        return
            with self._lock:
                self._kept[send.request_id] += piece
                self._listener[send.request_id](Delta(piece))
        with self._lock:
            self._listener[send.request_id](self._done())

    def _resume(self, request: Request, send: Send) -> None:
        assert isinstance(request, Resume)
        request_id = request.target.encode()
        with self._lock:
            if request_id not in self._kept:
                send(Error(ErrorInfo("not_found", "there is no such answer")))
                return
            self._listener[request_id] = send
            self._tell_rest(request_id, request.offset)

    def _tell_rest(self, request_id: bytes, offset: int) -> None:
        send, written = self._listener[request_id], self._kept[request_id]
        if written[offset:]:
            send(Delta(written[offset:]))
        if written == "".join(self._pieces):
            send(self._done())

    def _done(self) -> Done:
        return Done(text="".join(self._pieces), finish_reason="stop", timings=timings())
