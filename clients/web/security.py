"""The gate that every request passes: Host, Origin, sizes; and what every answer gets.

What a browser may be tricked into is refused here, before anything of the request is believed:
a name that DNS was made to point at us (Host), a page from elsewhere that uses our cookie (Origin),
a body that would fill the memory. Who is asking is left to devices.py.
"""

import asyncio
import contextlib
from typing import Final

from starlette.requests import HTTPConnection, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from clients.i18n import _
from clients.web import headers
from clients.web.addresses import Hosts
from clients.web.errors import Refusal
from clients.web.replies import refuse

MAX_BODY_BYTES: Final = 1 << 20
MAX_AUDIO_BYTES: Final = 4 << 20
AUDIO_PATH: Final = "/api/hear"
_SAFE_METHODS: Final = ("GET", "HEAD", "OPTIONS")
_BODY_S: Final = 30.0
"""A body must have come in this time; for sound it is twice as long."""
_UNREAD_BYTES: Final = 8 << 20
_UNREAD_S: Final = 1.0
_SHORT_BYTES: Final = 1 << 16


class Gate:
    """Middleware around the whole application.

    Args:
        app: the application.
        hosts: what this machine is called.
    """

    def __init__(self, app: ASGIApp, hosts: Hosts) -> None:
        self._app, self._hosts = app, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(scope, receive, send)
        try:
            self._check(HTTPConnection(scope))
        except Refusal as refusal:
            response = refuse(HTTPConnection(scope), refusal)
            await response(scope, exchange.receive, exchange.send)
            return
        await self._app(scope, exchange.receive, exchange.send)

    def _check(self, connection: HTTPConnection) -> None:
        """Raises Refusal."""
        scope = connection.scope
        hosts = connection.headers.getlist("host")
        local = scope.get("server") or ("", 0)
        if len(hosts) != 1 or not self._hosts.is_ours(hosts[0], str(local[0])):
            raise Refusal(
                421,
                "unauthorized",
                _("this server has another name; use an address that `assistant gateway` shows"),
                reason=f"Host {hosts!r:.200} is not ours",
            )
        self._check_origin(connection, hosts[0])
        if scope["type"] == "http":
            _check_length(connection)

    def _check_origin(self, connection: HTTPConnection, host: str) -> None:
        """Only pages of ours may use a browser's cookie. Raises Refusal."""
        scope = connection.scope
        secure = scope["scheme"] in ("https", "wss")
        ours = f"{'https' if secure else 'http'}://{host}".casefold()
        origins = connection.headers.getlist("origin")
        is_socket = scope["type"] == "websocket"
        if origins:
            if len(origins) != 1 or origins[0].casefold() != ours:
                raise _foreign(f"Origin {origins!r:.200} is not ours")
            return
        if is_socket or (
            scope["method"] not in _SAFE_METHODS
            # a program with a key of its own is no browser; a browser always has a cookie here
            and not ("authorization" in connection.headers and "cookie" not in connection.headers)
        ):
            raise _foreign("no Origin")
        site = connection.headers.get("sec-fetch-site", "none")
        if site not in ("none", "same-origin"):
            follows_link = connection.headers.get("sec-fetch-mode") == "navigate"
            if not follows_link or scope["path"].startswith(("/api/", "/v1/")):
                raise _foreign(f"Sec-Fetch-Site {site!r:.60}")


def _foreign(reason: str) -> Refusal:
    return Refusal(
        403,
        "unauthorized",
        _("pages of other sites may not use this assistant; open its own page"),
        reason=reason,
    )


def _check_length(connection: HTTPConnection) -> None:
    """Refuse a body that says itself that it is too long, before any of it is read."""
    length = connection.headers.get("content-length")
    if length is None:
        return
    if not length.isdecimal():
        raise Refusal(400, "bad_request", _("the length of the body is no number"))
    if int(length) > most_bytes(connection.scope["path"]):
        raise too_large(connection.scope["path"])


def most_bytes(path: str) -> int:
    """How long a body may be."""
    return MAX_AUDIO_BYTES if path == AUDIO_PATH else MAX_BODY_BYTES


def too_large(path: str) -> Refusal:
    """For a body that is longer than it may be."""
    return Refusal(
        413,
        "too_large",
        _("at most {n:,} bytes are taken here; send less").format(n=most_bytes(path)),
    )


async def read_body(request: Request) -> bytes:
    """The whole body of a request.

    Raises:
        Refusal: it is too long, comes too slowly, or breaks off.
    """
    path = request.scope["path"]
    most = most_bytes(path)
    parts: list[bytes] = []
    n_bytes = 0
    try:
        async with asyncio.timeout(_BODY_S * (2 if most > MAX_BODY_BYTES else 1)):
            while True:
                message = await request.receive()
                if message["type"] == "http.disconnect":
                    raise Refusal(400, "bad_request", _("the request broke off"))
                parts.append(message.get("body", b""))
                n_bytes += len(parts[-1])
                if n_bytes > most:
                    raise too_large(path)
                if not message.get("more_body", False):
                    return b"".join(parts)
    except TimeoutError:
        raise Refusal(408, "deadline", _("the request came too slowly; send it again")) from None


class _Exchange:
    """One request and its answer, as seen from outside of the application."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._receive, self._send = receive, send
        given = dict(scope["headers"])
        length = given.get(b"content-length", b"")
        self._unread = scope["type"] == "http" and (
            b"content-length" in given or b"transfer-encoding" in given
        )
        self._is_short = length.isdigit() and int(length) <= _SHORT_BYTES

    async def receive(self) -> Message:
        """As ASGI has it."""
        message = await self._receive()
        if message["type"] != "http.request" or not message.get("more_body", False):
            self._unread = False
        return message

    async def send(self, message: Message) -> None:
        """As ASGI has it."""
        kind = message["type"]
        if kind in ("http.response.start", "websocket.http.response.start", "websocket.accept"):
            message = {**message, "headers": headers.completed(list(message.get("headers", [])))}
            if self._unread and kind == "http.response.start":
                if self._is_short:
                    await self._skip()  # which keeps the connection for the next request
                if self._unread:
                    message["headers"].append((b"connection", b"close"))
        elif kind == "http.response.body" and self._unread and not message.get("more_body"):
            await self._send({**message, "more_body": True})
            await self._skip()
            message = {"type": kind, "body": b"", "more_body": False}
        await self._send(message)

    async def _skip(self) -> None:
        """Read some of a body that nobody wants: were it closed at once, many saw no answer."""
        n_bytes = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_UNREAD_S):
                while self._unread and n_bytes < _UNREAD_BYTES:
                    n_bytes += len((await self.receive()).get("body", b""))
