"""What is on its way to a page: frames in order, with the pieces of one answer joined.

A model writes hundreds of tokens a second; a frame for each would keep a watch's radio awake. So
the first piece goes at once, and what comes within the next 40 ms goes together, as does whatever
comes while the page does not read. Anything but a piece of an answer is not kept back.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Final

import msgspec

JOIN_S: Final = 0.04
MOST_BYTES: Final = 8 << 20
"""More than any answer: whoever has so much waiting is not there."""
DELTA: Final = b'{"type":"delta"'

_encoder = msgspec.json.Encoder()


class _Delta(msgspec.Struct):
    text: str


_delta_decoder = msgspec.json.Decoder(_Delta)


class Full(Exception):  # noqa: N818
    """The page reads nothing, and too much waits for it."""


class _Pieces:
    """Pieces of one answer, which will be one frame."""

    def __init__(self, request_id: str) -> None:
        self.request_id = request_id
        self.texts: list[str] = []
        self.n_bytes = 0


class Outbox:
    """Frames for one page. `add` from the event loop's thread; `run` sends them.

    Args:
        clock: seconds; replaced in tests.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._waiting: deque[_Pieces | bytes] = deque()
        self._last: dict[str, _Pieces] = {}  # of each answer, the pieces that may still grow
        self._n_bytes = 0
        self._any, self._urgent = asyncio.Event(), asyncio.Event()
        self._sent_at = -JOIN_S

    def add_reply(self, request_id: str, body: bytes) -> None:
        """A reply of the daemon, as it wrote it.

        Raises:
            Full: drop the page.
        """
        if not body.startswith(DELTA):
            self._last.pop(request_id, None)  # what comes after this must stay behind it
            self.add(with_id(request_id, body))
            return
        text = _delta_decoder.decode(body).text
        pieces = self._last.get(request_id)
        if pieces is None:
            pieces = self._last[request_id] = _Pieces(request_id)
            self._waiting.append(pieces)
        pieces.texts.append(text)
        pieces.n_bytes += len(body)
        self._count(len(body))
        self._any.set()

    def add(self, frame: bytes) -> None:
        """A frame that is not kept back, JSON. Raises Full."""
        self._waiting.append(frame)
        self._count(len(frame))
        self._any.set()
        self._urgent.set()

    async def run(self, send: Callable[[str], Awaitable[None]]) -> None:
        """Send until cancelled, or until `send` raises."""
        while True:
            await self._any.wait()
            await self._more()
            while self._waiting:
                frame = self._next()
                await send(frame.decode())
            self._sent_at = self._clock()
            self._any.clear()
            self._urgent.clear()

    async def flush(self, send: Callable[[str], Awaitable[None]]) -> None:
        """Send what waits, and no more; for the last words, after `run` was cancelled."""
        while self._waiting:
            await send(self._next().decode())

    async def _more(self) -> None:
        """Wait for more pieces, unless something else waits or enough time has passed."""
        left_s = self._sent_at + JOIN_S - self._clock()
        if left_s > 0 and not self._urgent.is_set():
            try:
                async with asyncio.timeout(left_s):
                    await self._urgent.wait()
            except TimeoutError:
                return

    def clear(self) -> None:
        """Forget what waits."""
        self._waiting.clear()
        self._last.clear()
        self._n_bytes = 0

    def _next(self) -> bytes:
        item = self._waiting.popleft()
        if isinstance(item, bytes):
            self._n_bytes -= len(item)
            return item
        if self._last.get(item.request_id) is item:
            del self._last[item.request_id]
        self._n_bytes -= item.n_bytes
        text = "".join(item.texts)
        return _encoder.encode({"type": "delta", "id": item.request_id, "text": text})

    def _count(self, n_bytes: int) -> None:
        self._n_bytes += n_bytes
        if self._n_bytes > MOST_BYTES:
            raise Full


def with_id(request_id: str, body: bytes) -> bytes:
    """A JSON object with the id as its first field."""
    return b'{"id":' + _encoder.encode(request_id) + b"," + body[1:]
