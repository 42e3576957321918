"""Answers of the stand-in gateway, and the connections that they go to."""

import asyncio
import threading
from typing import TYPE_CHECKING, Any

from starlette.websockets import WebSocket

if TYPE_CHECKING:
    from tests.clients.web.stand_in_gateway import StandInGateway

Frame = dict[str, Any]


class Answer:
    """One answer, driven by the test: text, progress, and an end."""

    def __init__(self, gateway: "StandInGateway", request_id: str, request: Frame) -> None:
        self._gateway = gateway
        self.id, self.request = request_id, request
        self.text = ""
        self.end: Frame | None = None
        self.cancelled = threading.Event()
        self.readers: list[tuple[Link, str]] = []

    def say(self, text: str) -> None:
        """More text."""
        self._gateway.in_loop(self._say, text)

    def progress(self, stage: str, message: str, **numbers: int) -> None:
        """Tell of waiting."""
        frame = {"type": "progress", "stage": stage, "message": message, **numbers}
        self._gateway.in_loop(self._send, frame)

    def finish(self, reason: str = "stop") -> None:
        """It is complete."""
        self._gateway.in_loop(self._finish, reason)

    def fail(self, code: str, message: str = "as the test wants", **more: int) -> None:
        """It ends with an error."""
        error = {"code": code, "message": message, **more}
        self._gateway.in_loop(self._end, {"type": "error", "error": error})

    def _say(self, text: str) -> None:
        self.text += text
        self._send({"type": "delta", "text": text})

    def _finish(self, reason: str) -> None:
        if self.end is None:
            self._gateway.keep(self)
            self._end({"type": "done", "done": True, "text": self.text, "finish_reason": reason})

    def _end(self, frame: Frame) -> None:
        self.end = frame
        self._send(frame)

    def _send(self, frame: Frame) -> None:
        for link, request_id in self.readers:
            link.send({**frame, "id": request_id})

    def attach(self, link: "Link", request_id: str, offset: int) -> None:
        """Let a connection have what is after `offset` code points."""
        self.readers = [(link, request_id)]
        if self.text[offset:]:
            link.send({"type": "delta", "text": self.text[offset:], "id": request_id})
        if self.end is not None:
            link.send({**self.end, "id": request_id})


class Link:
    """One WebSocket."""

    def __init__(self, socket_: WebSocket, device: str) -> None:
        self._socket, self.device = socket_, device
        self._frames: asyncio.Queue[Frame | int] = asyncio.Queue()

    def send(self, frame: Frame) -> None:
        self._frames.put_nowait(frame)

    def close(self, code: int) -> None:
        self._frames.put_nowait(code)

    async def write(self) -> None:
        """Send what is queued, until it is to be closed."""
        while True:
            frame = await self._frames.get()
            if isinstance(frame, int):
                await self._socket.close(frame)
                return
            await self._socket.send_json(frame)
