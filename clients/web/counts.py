"""What the gateway counts of itself: requests by route and status, and how many are connected.

A route is a template of ours ("/v1/models/{name}"), never a path as it was asked for, so the number
of labels has a bound whatever strangers send.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from time import time
from typing import Final

from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_METHODS: Final = frozenset(("GET", "HEAD", "POST", "OPTIONS"))
_PROGRAMS: Final = ("/api/", "/v1/", "/ws", "/metrics", "/ca.crt")
PAGE: Final = "page"
"""The route of all files of the page."""
OTHER: Final = "other"
"""What is nothing here."""
NO_STATUS: Final = "none"
"""Whoever asked was gone before there was an answer."""


class Counts:
    """Belongs to the event loop.

    Attributes:
        requests: (route, method, status) → how many have ended.
        n_sockets: WebSockets that are open.
        started_at: Unix time.
    """

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, str, str]] = Counter()
        self.n_sockets = 0
        self.started_at = time()

    def around(self, app: ASGIApp, routes: Sequence[BaseRoute]) -> ASGIApp:
        """An application that does what `app` does, counted by the templates of these routes."""
        templates = [
            (route.path_regex, _name(route.path))
            for route in routes
            if isinstance(route, Route | WebSocketRoute)
        ]

        def name_of(path: str) -> str:
            return next((name for regex, name in templates if regex.match(path)), OTHER)

        async def counted(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] not in ("http", "websocket"):
                await app(scope, receive, send)
                return
            status = NO_STATUS
            is_open = False

            async def watched(message: Message) -> None:
                nonlocal status, is_open
                kind = message["type"]
                if kind in ("http.response.start", "websocket.http.response.start"):
                    status = str(message["status"])
                elif kind == "websocket.accept":
                    status, is_open = "101", True
                    self.n_sockets += 1
                await send(message)

            try:
                await app(scope, receive, watched)
            finally:
                self.n_sockets -= is_open
                self.requests[name_of(scope["path"]), _method(scope), status] += 1

        return counted


def _name(template: str) -> str:
    return template if template.startswith(_PROGRAMS) else PAGE


def _method(scope: Scope) -> str:
    if scope["type"] == "websocket":
        return "WS"
    return scope["method"] if scope["method"] in _METHODS else OTHER


def resident_bytes() -> int | None:
    """What this process takes in memory; None where the system does not say."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    found = (line.split()[1] for line in lines if line.startswith("VmRSS:"))
    return next((int(kilobytes) * 1024 for kilobytes in found), None)
