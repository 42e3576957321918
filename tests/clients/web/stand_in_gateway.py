"""A gateway that says what a test tells it to: the same HTTP and WebSocket contract, no daemon.

    with StandInGateway() as gateway:
        code = gateway.open_pairing()          # … the page pairs, and asks "hello?"
        answer = gateway.question("hello?")    # waits until it has come
        answer.say("Hi ")
        answer.finish()

Requests are decoded by assistantd.protocol, so that what the page sends is what the daemon takes.
Answers outlive connections, as the daemon's do. Everything may be called from any thread.
"""

import asyncio
import contextlib
import json
import secrets
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp
from starlette.websockets import WebSocket, WebSocketDisconnect

from assistantd import protocol
from tests.clients.web.stand_in_answers import Answer, Frame, Link
from tests.clients.web.stand_in_parts import Safe, problem, status, tone

WAIT_S = 30.0
"""How long to wait for what must happen; long, as the test machine may be busy."""
PAGE = Path(__file__).resolve().parents[3] / "clients" / "web" / "page"
COOKIE = "assistant"
REVOKED = 4401
ALLOWED = {"chat", "cancel", "resume", "sessions", "status", "ping", "models", "devices"}
WORDS = "harbor lemon quiet violin"


class StandInGateway:
    """A real web server on a port of its own; the same port after `start` again.

    Attributes:
        heard: what /api/hear was sent; `transcripts` what it says to them, in order.
        spoken: what /api/speak was asked to say.
        received: every request of a WebSocket.
        auto: if set, answers questions: from the text to the pieces of the answer.
        pace_s: pause between those pieces.
    """

    hear = True
    speak = True
    pace_s = 0.0

    def __init__(self, page: Path = PAGE) -> None:
        self._page = page
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://localhost:{self.port}"
        self.auto: Callable[[str], list[str]] | None = None
        self.heard: list[bytes] = []
        self.transcripts: list[str] = []
        self.spoken: list[str] = []
        self.received: list[Frame] = []
        self.devices: dict[str, Frame] = {}  # token → device
        self.answers: dict[str, Answer] = {}
        self.sessions: dict[str, Frame] = {}
        self.status: Frame = status()
        self.sessions_fail = False
        self._telling: dict[str, tuple[Answer, Iterator[str]]] = {}  # by id, what `auto` says
        self._codes: set[str] = set()
        self._tries = 0
        self._links: list[Link] = []
        self._away = False
        self._changed = threading.Condition()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    # --- for tests ---

    def open_pairing(self) -> str:
        """A code that works once."""
        code = f"{secrets.randbelow(10**6):06}"
        self._tries = 0
        self._codes.add(code)
        return code

    def question(self, text: str, count: int = 1) -> Answer:
        """Wait until this was asked `count` times; the last of those answers."""

        def found() -> list[Answer]:
            return [a for a in self.answers.values() if a.request.get("text") == text]

        self.wait(lambda: len(found()) >= count, f"{text!r} was not asked {count} times")
        return found()[count - 1]

    def wait(self, condition: Callable[[], bool], problem: str) -> None:
        """Wait until something is so; looked at whenever a request comes or a device changes."""
        with self._changed:
            if not self._changed.wait_for(condition, WAIT_S):
                raise AssertionError(problem)

    def requests(self, kind: str) -> list[Frame]:
        """Requests of this type so far."""
        return [frame for frame in self.received if frame["type"] == kind]

    def revoke_all(self) -> None:
        """All devices are no longer."""

        def revoke() -> None:
            self.devices.clear()
            error = {"code": "unauthorized", "message": "this device was revoked"}
            for link in self._links:
                link.send({"type": "error", "error": error})
                link.close(REVOKED)

        self.in_loop(revoke)

    def cut(self) -> None:
        """All WebSockets break off, as when a phone leaves the house."""

        def cut() -> None:
            for link in self._links:
                link.close(1012)

        self.in_loop(cut)

    def daemon_away(self) -> None:
        """The daemon is gone; answers under way with it."""

        def leave() -> None:
            self._away = True
            self._broadcast({"type": "offline"})

        self.in_loop(leave)

    def daemon_back(self, *, restarted: bool = True) -> None:
        """It is there again; restarted, it knows nothing of answers that were under way."""

        def come() -> None:
            self._away = False
            if restarted:
                self.answers.clear()
            self._broadcast({"type": "online"})

        self.in_loop(come)

    def add_session(self, session: str, title: str, *turns: tuple[str, str]) -> None:
        """A conversation that there is."""
        messages = [
            {"role": role, "content": text, "created_at": time.time()}
            for turn in turns
            for role, text in zip(("user", "assistant"), turn, strict=True)
        ]
        self.sessions[session] = {"title": title, "messages": messages, "at": time.time()}

    def in_loop(self, act: Callable[..., None], *values: object) -> None:
        """Do this in the server's thread, and wait for it."""

        async def run() -> None:
            act(*values)

        assert self._loop is not None
        asyncio.run_coroutine_threadsafe(run(), self._loop).result(WAIT_S)

    # --- life ---

    def start(self) -> Self:
        """Listen."""
        assert self._thread is None
        config = uvicorn.Config(
            self._app(),
            host="127.0.0.1",
            port=self.port,
            log_level="error",
            ws="websockets-sansio",
            timeout_graceful_shutdown=1,
        )
        self._server = uvicorn.Server(config)
        ready = threading.Event()

        async def serve() -> None:
            self._loop = asyncio.get_running_loop()
            started = asyncio.create_task(self._server.serve())
            while not self._server.started:
                await asyncio.sleep(0)
            ready.set()
            await started

        self._thread = threading.Thread(target=lambda: asyncio.run(serve()), name="stand-in")
        self._thread.start()
        assert ready.wait(WAIT_S)
        for answer_id in list(self._telling):
            self.in_loop(self._tell, answer_id)
        return self

    def stop(self) -> None:
        """Vanish: nothing listens, connections are cut."""
        if self._thread is None:
            return

        self.cut()
        self._server.should_exit = True
        self._thread.join(WAIT_S)
        assert not self._thread.is_alive()
        self._thread = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    # --- HTTP ---

    def _app(self) -> ASGIApp:
        def file(name: str) -> Callable[[Request], Awaitable[Response]]:
            async def answer(request: Request) -> Response:
                return FileResponse(self._page / name)

            return answer

        async def icon(request: Request) -> Response:
            path = self._page / f"icon-{request.path_params['name']}"
            return FileResponse(path) if path.is_file() else Response(status_code=404)

        routes = [
            Route("/", file("index.html")),
            Route("/pair", file("index.html")),
            Route("/sw.js", file("sw.js")),
            Route("/manifest.webmanifest", file("manifest.webmanifest")),
            Route("/icon-{name}", icon),
            Mount("/static", StaticFiles(directory=self._page / "static")),
            Route("/api/me", self._me),
            Route("/api/pair", self._pair, methods=["POST"]),
            Route("/api/unpair", self._unpair, methods=["POST"]),
            Route("/api/hear", self._hear, methods=["POST"]),
            Route("/api/speak", self._speak, methods=["POST"]),
            WebSocketRoute("/ws", self._websocket),
        ]
        return Starlette(routes=routes, middleware=[Middleware(GZipMiddleware), Middleware(Safe)])

    def _device(self, connection: HTTPConnection) -> Frame | None:
        return self.devices.get(connection.cookies.get(COOKIE, ""))

    async def _me(self, request: Request) -> Response:
        device = self._device(request)
        if device is None:
            return problem(401, "unauthorized", "not paired")
        about = {"version": "0.0.test", "model": "stand-in", "languages": ["en", "ko"]}
        return JSONResponse({"device": device, **about, "hear": self.hear, "speak": self.speak})

    async def _pair(self, request: Request) -> Response:
        if request.headers.get("origin") != self.url:
            return problem(403, "unauthorized", "not from this page")
        given = await request.json()
        if self._tries >= 5:
            return problem(429, "busy", "too many tries")
        if given["code"] not in self._codes:
            self._tries += 1
            return problem(403, "unauthorized", "wrong code")
        self._codes.remove(given["code"])
        token = secrets.token_urlsafe(32)
        device = {
            "id": "".join(secrets.choice("abcdefgh234567") for _ in range(8)),
            "name": given["name"],
            "kind": "web",
            "rights": "chat",
            "limits": {},
            "created_at": time.time(),
            "words": WORDS,
        }
        with self._changed:
            self.devices[token] = device
            self._changed.notify_all()
        response = JSONResponse({"device": device})
        response.set_cookie(COOKIE, token, httponly=True, samesite="strict", max_age=31536000)
        return response

    async def _unpair(self, request: Request) -> Response:
        with self._changed:
            self.devices.pop(request.cookies.get(COOKIE, ""), None)
            self._changed.notify_all()
        response = JSONResponse({})
        response.delete_cookie(COOKIE)
        return response

    async def _hear(self, request: Request) -> Response:
        if self._device(request) is None:
            return problem(401, "unauthorized", "not paired")
        body = await request.body()
        with self._changed:
            self.heard.append(body)
            self._changed.notify_all()
        return JSONResponse({"text": self.transcripts.pop(0) if self.transcripts else ""})

    async def _speak(self, request: Request) -> Response:
        if self._device(request) is None:
            return problem(401, "unauthorized", "not paired")
        with self._changed:
            self.spoken.append((await request.json())["text"])
            self._changed.notify_all()
        return Response(tone(), media_type="audio/wav")

    # --- WebSocket ---

    async def _websocket(self, connection: WebSocket) -> None:
        device = self._device(connection)
        if device is None or connection.headers.get("origin") != self.url:
            await connection.close()  # before accepting: 403
            return
        await connection.accept()
        link = Link(connection, device["id"])
        self._links.append(link)
        writer = asyncio.create_task(link.write())
        if self._away:
            link.send({"type": "offline"})
        try:
            while True:
                self._receive(link, await connection.receive_json())
        except WebSocketDisconnect:
            pass
        finally:
            self._links.remove(link)
            writer.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await writer

    def _receive(self, link: Link, frame: Frame) -> None:
        request = {name: value for name, value in frame.items() if name != "id"}
        protocol.decode_request(
            [protocol.PROTOCOL, frame["id"].encode(), json.dumps(request).encode()]
        )
        assert frame["type"] in ALLOWED, frame
        if self._away:
            error = {"code": "unreachable", "message": "the daemon is away"}
            link.send({"type": "error", "error": error, "id": frame["id"]})
        else:
            reply = getattr(self, f"_on_{frame['type']}")(link, frame)
            if reply is not None:
                link.send({**reply, "id": frame["id"]})
        with self._changed:
            self.received.append(frame)
            self._changed.notify_all()

    def _on_chat(self, link: Link, frame: Frame) -> None:
        known = self.answers.get(frame["id"])
        if known is not None:
            known.attach(link, frame["id"], 0)
            return
        answer = self.answers[frame["id"]] = Answer(self, frame["id"], frame)
        answer.attach(link, frame["id"], 0)
        if "session" in frame:
            new = {"title": frame["text"][:60], "messages": []}
            session = self.sessions.setdefault(frame["session"], new)
            session["at"] = time.time()
            question = {"role": "user", "content": frame["text"], "answered": False}
            session["messages"].append({**question, "created_at": time.time()})
        if self.auto is not None:
            self._telling[answer.id] = (answer, iter(self.auto(frame["text"])))
            self._tell(answer.id)

    def _tell(self, answer_id: str) -> None:
        """Say one piece after the other, unless the answer was stopped or the daemon restarted."""
        answer, pieces = self._telling[answer_id]
        piece = next(pieces, None)
        forgotten = self.answers.get(answer_id) is not answer
        if forgotten or answer.end is not None or piece is None:
            del self._telling[answer_id]
            if not forgotten:
                answer._finish("stop")
            return
        answer._say(piece)
        assert self._loop is not None
        self._loop.call_later(self.pace_s, self._tell, answer_id)

    def keep(self, answer: Answer) -> None:
        """Store a complete answer in its session."""
        session = self.sessions.get(answer.request.get("session", ""))
        if session is not None:
            del session["messages"][-1]["answered"]
            message = {"role": "assistant", "content": answer.text, "finish_reason": "stop"}
            session["messages"].append({**message, "created_at": time.time()})

    def _on_resume(self, link: Link, frame: Frame) -> Frame | None:
        answer = self.answers.get(frame["target"])
        if answer is None:
            return {"type": "error", "error": {"code": "not_found", "message": "no such answer"}}
        answer.attach(link, frame["id"], frame.get("offset", 0))
        return None

    def _on_cancel(self, link: Link, frame: Frame) -> Frame:
        answer = self.answers.get(frame["target"])
        if answer is not None and answer.end is None:
            answer.cancelled.set()
            answer._finish("cancelled")
        return {"type": "done", "done": True, "message": "cancelled"}

    def _on_ping(self, link: Link, frame: Frame) -> Frame:
        return {"type": "done", "done": True, "version": "0.0.test", "message": "ready"}

    def _on_status(self, link: Link, frame: Frame) -> Frame:
        return {"type": "done", "done": True, "status": self.status}

    def _on_models(self, link: Link, frame: Frame) -> Frame:
        return {"type": "done", "done": True, "models": []}

    def _on_devices(self, link: Link, frame: Frame) -> Frame:
        device = next(d for d in self.devices.values() if d["id"] == link.device)
        return {"type": "done", "done": True, "device": device}

    def _on_sessions(self, link: Link, frame: Frame) -> Frame:
        if self.sessions_fail:
            return {"type": "error", "error": {"code": "busy", "message": "as the test wants"}}
        if frame["op"] == "list":
            names = sorted(self.sessions, key=lambda name: -self.sessions[name]["at"])
            infos = [self._session(name) for name in names]
            return {"type": "done", "done": True, "sessions": infos}
        name = frame["session"]
        if name not in self.sessions:
            return {"type": "error", "error": {"code": "not_found", "message": "no such session"}}
        if frame["op"] == "rename":
            self.sessions[name]["title"] = frame["title"]
        if frame["op"] == "delete":
            del self.sessions[name]
            return {"type": "done", "done": True, "message": "deleted"}
        messages = {"messages": self.sessions[name]["messages"]} if frame["op"] == "show" else {}
        return {"type": "done", "done": True, "session": {**self._session(name), **messages}}

    def _session(self, name: str) -> Frame:
        session = self.sessions[name]
        times = {"created_at": session["at"], "updated_at": session["at"]}
        return {
            "id": name,
            "title": session["title"],
            "n_messages": len(session["messages"]),
            **times,
        }

    def _broadcast(self, frame: Frame) -> None:
        for link in self._links:
            link.send(frame)
