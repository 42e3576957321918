"""A page's WebSocket: assistant/1 in JSON text frames, with the request id as one more field.

    page → gateway   {"type": "chat", "id": "k3x-1", "text": "…"}
    gateway → page   {"type": "delta", "id": "k3x-1", "text": "…"}   what the daemon replied
                     {"type": "offline"} {"type": "online"}          the daemon went, came back
                     {"type": "error", "error": {…}}                 without id: then it is closed

The page chooses ids and they reach the daemon as they are, so that after a lost connection it can
`resume`. What a device may do is the daemon's business; here only what no page needs is kept out.
"""

import asyncio
import logging
import re
from collections.abc import Callable
from typing import Any, Final

import msgspec
from starlette.requests import HTTPConnection
from starlette.websockets import WebSocket, WebSocketDisconnect

from assistantd.log import fields, unquoted
from assistantd.protocol import DeviceInfo, Error, ErrorCode, ErrorInfo
from clients.i18n import _
from clients.web.daemon import Daemon
from clients.web.dealer import Dealer
from clients.web.errors import Refusal
from clients.web.limits import Buckets
from clients.web.outbox import Full, Outbox, with_id
from clients.web.replies import address_of

log = logging.getLogger(__name__)

CLOSED_REVOKED: Final = 4401
CLOSED_FULL: Final = 1013
CLOSED_NOT_TEXT: Final = 1003
_ID: Final = re.compile(r"[A-Za-z0-9._:-]{1,64}")
_ALLOWED: Final[dict[str, tuple[str, ...] | None]] = {
    "chat": None,
    "cancel": None,
    "resume": None,
    "status": None,
    "ping": None,
    "sessions": ("list", "show", "rename", "delete"),
    "models": ("list", "show"),
    "devices": ("whoami",),
}
"""Types that a page may send, and of those that have an `op`, which."""
_MOST_UNDER_WAY: Final = 32
_MOST_SOCKETS: Final = 8
"""Of one device: tabs and windows that are open at the same time."""
_FRAMES_PER_MINUTE: Final = 600
_FRAMES_AT_ONCE: Final = 100
_FAILED: Final = b'{"type":"error"'
_ENDS: Final = (b'{"type":"done"', _FAILED)

_encoder = msgspec.json.Encoder()


class Sockets:
    """All pages that are connected, by device."""

    def __init__(self) -> None:
        self._by_device: dict[str, set[Bridge]] = {}
        self._frames = Buckets(_FRAMES_PER_MINUTE, _FRAMES_AT_ONCE)

    def add(self, bridge: "Bridge") -> None:
        """One more. Raises Refusal if its device has too many."""
        bridges = self._by_device.setdefault(bridge.device.id, set())
        if len(bridges) >= _MOST_SOCKETS:
            raise Refusal(
                429,
                "busy",
                _("this device has {n} pages open; close some of them").format(n=len(bridges)),
                retry_s=5,
            )
        bridges.add(bridge)

    def remove(self, bridge: "Bridge") -> None:
        """It is gone."""
        bridges = self._by_device.get(bridge.device.id, set())
        bridges.discard(bridge)
        if not bridges:
            self._by_device.pop(bridge.device.id, None)

    def of(self, device_id: str) -> list["Bridge"]:
        """Those of a device; of all with ""."""
        if device_id:
            return list(self._by_device.get(device_id, ()))
        return [bridge for bridges in self._by_device.values() for bridge in bridges]

    def look(self) -> None:
        """Tell all pages if the daemon went away or came back."""
        for bridge in self.of(""):
            bridge.look()

    def wait_s(self, device_id: str) -> float:
        """How long a device must wait until it may send another frame; 0.0 for not at all."""
        return self._frames.take(device_id)


class Bridge:
    """One page that is connected.

    Args:
        socket: not accepted yet.
        device: whose page it is; token: how that is known.
        sockets: the others.
    """

    def __init__(
        self, socket: WebSocket, device: DeviceInfo, token: str, daemon: Daemon, sockets: Sockets
    ) -> None:
        self.device, self.token = device, token
        self.address = address_of(HTTPConnection(socket.scope))
        self._socket, self._daemon, self._sockets = socket, daemon, sockets
        self._outbox = Outbox()
        self._under_way: set[str] = set()
        self._asked_ids: set[str] = set()  # those that are logged: questions
        self._offline = False
        self._dealer: Dealer | None = None
        self._closing: tuple[int, str] | None = None
        self._main: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Accept, and pass on until one end goes."""
        self._sockets.add(self)
        try:
            await self._socket.accept()
            dealer = self._dealer = Dealer(
                self._daemon.context,
                self._daemon.endpoint,
                on_reply=self._replied,
                on_change=self.look,
            )
            log.info("page opened", extra=self._fields())
            try:
                self.look()
                await self._pass_on()
            finally:
                self._dealer = None
                dealer.close()
                log.info("page closed", extra=self._fields())
        finally:
            self._sockets.remove(self)

    def revoke(self) -> None:
        """Tell the page that its device is no longer welcome, and close."""
        log.warning("page of a revoked device closed", extra=self._fields())
        text = _("this device was revoked; pair it again with `assistant pair` on the computer")
        self._outbox.clear()
        self._say(Error(ErrorInfo("unauthorized", text)))
        self._close(CLOSED_REVOKED, "revoked")

    def look(self) -> None:
        """Tell the page if the daemon went away or came back."""
        if self._dealer is None:
            return  # not accepted yet, or over
        # a connection that is still being made is as good as the gateway's own
        away = self._dealer.state == "lost" or not self._daemon.online
        if away == self._offline:
            return
        self._offline = away
        self._say({"type": "offline" if away else "online"})
        if away:
            if self._dealer.state != "lost":
                self._dealer.reset()  # or what is told to have failed would be done later
            for request_id in sorted(self._under_way):
                self._say(_unreachable(), request_id)
                self._ended(request_id, failed=True)

    # --- both directions at once ---

    async def _pass_on(self) -> None:
        writer = asyncio.create_task(self._outbox.run(self._socket.send_text), name="page writer")
        self._main = asyncio.create_task(self._read(), name="page reader")
        if self._closing is not None:  # as its device was revoked while it was being opened
            self._main.cancel()
        try:
            await asyncio.wait((writer, self._main), return_when=asyncio.FIRST_COMPLETED)
        finally:
            writer.cancel()
            self._main.cancel()
            ended = await asyncio.gather(writer, self._main, return_exceptions=True)
        for problem in ended:
            if isinstance(problem, Exception) and not isinstance(problem, WebSocketDisconnect):
                raise problem
        if self._closing is not None:
            await self._say_goodbye(*self._closing)

    async def _say_goodbye(self, code: int, reason: str) -> None:
        try:
            if code != CLOSED_FULL:
                await self._outbox.flush(self._socket.send_text)
            await self._socket.close(code, reason)
        except (WebSocketDisconnect, RuntimeError) as gone:
            log.debug("page was gone", extra=fields(problem=gone))

    def _close(self, code: int, reason: str) -> None:
        if self._closing is None:
            self._closing = (code, reason)
            if self._main is not None:
                self._main.cancel()

    # --- from the page ---

    async def _read(self) -> None:
        while True:
            message = await self._socket.receive()
            if message["type"] == "websocket.disconnect":
                return
            text = message.get("text")
            if text is None:
                self._close(CLOSED_NOT_TEXT, "text frames only")
                return
            self._asked(text)

    def _asked(self, text: str) -> None:
        try:
            request = msgspec.json.decode(text)
        except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as problem:
            self._refuse(None, "bad_request", f"cannot read the frame: {problem}")
            return
        if not isinstance(request, dict):
            self._refuse(None, "bad_request", "a frame is a JSON object")
            return
        request_id = request.pop("id", None)
        if not isinstance(request_id, str) or not _ID.fullmatch(request_id):
            text = "`id` has 1 to 64 letters, digits, `.`, `_`, `:`, `-`"
            self._refuse(None, "bad_request", text)
            return
        wait_s = self._sockets.wait_s(self.device.id)
        if wait_s:
            text = _("too many messages; wait a moment")
            self._refuse(request_id, "busy", text, round(1000 * wait_s) + 1)
            return
        self._pass_request(request_id, request)

    def _pass_request(self, request_id: str, request: dict[str, Any]) -> None:
        kind = request.get("type")
        ops = _ALLOWED.get(kind, ()) if isinstance(kind, str) else ()
        if ops is not None and request.get("op") not in ops:
            what = f"{kind!r:.40} {request.get('op', '')!r:.40}"
            self._refuse(request_id, "unauthorized", f"a page may not ask for {what}")
        elif "device" in request:
            self._refuse(request_id, "bad_request", "whose page it is, its cookie tells")
        elif request_id in self._under_way:
            self._refuse(request_id, "bad_request", "a request with this id is under way")
        elif len(self._under_way) >= _MOST_UNDER_WAY:
            text = _("{n} requests of this page are under way; wait for one to end")
            self._refuse(request_id, "busy", text.format(n=_MOST_UNDER_WAY), 1000)
        elif self._offline or self._dealer is None:
            self._say(_unreachable(), request_id)
        else:
            if kind == "chat":
                self._asked_ids.add(request_id)
                log.info("asked", extra=self._fields(request=request_id, kind=kind))
            self._under_way.add(request_id)
            request["device"] = self.device.id
            self._dealer.send(request_id.encode(), _encoder.encode(request))

    def _refuse(
        self,
        request_id: str | None,
        code: ErrorCode,
        message: str,
        retry_after_ms: int | None = None,
    ) -> None:
        log.warning(
            "refused",
            extra=self._fields(code=code, request=request_id or "", reason=unquoted(message)),
        )
        self._say(Error(ErrorInfo(code, message, retry_after_ms)), request_id)

    # --- from the daemon ---

    def _replied(self, request_id: bytes, body: bytes) -> None:
        name = request_id.decode("ascii", "replace")
        if body.startswith(_ENDS):
            self._ended(name, failed=body.startswith(_FAILED))
        if self._closing is None:
            self._guarded(lambda: self._outbox.add_reply(name, body))

    def _ended(self, name: str, *, failed: bool) -> None:
        self._under_way.discard(name)
        if name in self._asked_ids:
            self._asked_ids.discard(name)
            log.info("failed" if failed else "answered", extra=self._fields(request=name))

    # --- to the page ---

    def _say(self, what: Any, request_id: str | None = None) -> None:
        body = _encoder.encode(what)
        self._guarded(
            lambda: self._outbox.add(body if request_id is None else with_id(request_id, body))
        )

    def _guarded(self, add: Callable[[], None]) -> None:
        try:
            add()
        except Full:
            log.warning("page does not read", extra=self._fields())
            self._close(CLOSED_FULL, "too much waits")

    def _fields(self, **more: Any) -> dict[str, Any]:
        return fields(device=self.device.id, address=self.address, **more)


def _unreachable() -> dict[str, Any]:
    """The daemon has no such code: only who is between can say that it is not there."""
    message = _("the assistant is not running; it may be starting again: wait a moment")
    return {"type": "error", "error": {"code": "unreachable", "message": message}}
