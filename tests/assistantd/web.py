"""A real HTTP server on this machine that serves one file, well or badly."""

import contextlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class FileServer:
    """What is served, and what was asked.

    Attributes:
        drop_after: close the connection after so many bytes of the next answer, once.
        sent: bytes of the file that were sent in all.
        requests: path and headers of each request.
    """

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.etag = '"v1"'
        self.ranges = True
        self.status = 200
        self.drop_after: int | None = None
        self.redirect: str | None = None
        self.extra_headers: dict[str, str] = {}
        self.sent = 0
        self.requests: list[tuple[str, dict[str, str]]] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                server.answer(self)

            def log_message(self, format: str, *args: Any) -> None:
                """Nothing on the terminal."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        self.requests.append((handler.path, {k.lower(): v for k, v in handler.headers.items()}))
        handler.close_connection = True
        if self.redirect:
            handler.send_response(302)
            handler.send_header("Location", self.redirect)
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        if self.status != 200:
            handler.send_error(self.status)
            return
        start, wanted = 0, handler.headers.get("Range")
        if wanted and self.ranges and handler.headers.get("If-Range") == self.etag:
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
        handler.send_response(206 if start else 200)
        body = self.content[start:]
        handler.send_header("Content-Length", str(len(body)))
        handler.send_header("ETag", self.etag)
        if start:
            last = len(self.content) - 1
            range_of = f"bytes {start}-{last}/{len(self.content)}"
            handler.send_header("Content-Range", range_of)
        for name, value in self.extra_headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        if self.drop_after is not None:
            body, self.drop_after = body[: self.drop_after], None
        self.sent += len(body)
        with contextlib.suppress(ConnectionError):  # whoever asked was killed
            handler.wfile.write(body)

    @contextmanager
    def running(self) -> "Iterator[FileServer]":
        thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            thread.join()
            self._server.server_close()
