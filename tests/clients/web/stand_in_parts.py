"""What the stand-in gateway says of itself: headers, errors, a sound, a status."""

import io
import math
import struct
import wave
from typing import Any

from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

Frame = dict[str, Any]
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data: blob:; media-src 'self' blob:; connect-src 'self'; "
    "manifest-src 'self'; worker-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "permissions-policy": "microphone=(self)",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-cache",
}


class Safe:
    """Adds the headers of the real gateway, the policy for content above all."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                extra = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message["headers"] = [*message["headers"], *extra]
            await send(message)

        await self._app(scope, receive, with_headers)


def problem(status_code: int, code: str, message: str) -> Response:
    """An error as the gateway words it."""
    return JSONResponse({"error": {"code": code, "message": message}}, status_code)


def tone(seconds: float = 0.15) -> bytes:
    """A short WAV, for what would be a voice."""
    rate = 16000
    wave_ = (round(9000 * math.sin(n / 6)) for n in range(int(rate * seconds)))
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(rate)
        writer.writeframes(b"".join(struct.pack("<h", sample) for sample in wave_))
    return file.getvalue()


def status() -> Frame:
    """A plausible status."""
    owners = {"libraries": 62, "weights": 98, "kv_cache": 46, "activations": 12, "margin": 82}
    return {
        "version": "0.1.0",
        "pid": 1,
        "uptime_s": 4000.0,
        "state": "ready",
        "model": {"name": "smollm2-135m-instruct-q4_1", "size_bytes": 98_000_000, "loaded": True},
        "queue": {"active": 1, "waiting": 0, "capacity": 64},
        "memory": {"rss": 214_000_000, "rss_anonymous": 90_000_000, "peak_rss": 230_000_000},
        "requests_served": 128,
        "tokens_generated": 9000,
        "tokens_per_second": 182.4,
        "budget": 300_000_000,
        "plan": {
            "budget": 300_000_000,
            "owners": {name: n * 1_000_000 for name, n in owners.items()},
            "resident_bytes": 98_000_000,
            "streamed_bytes": 0,
            "kv_tokens": 8192,
            "kv_type": "f16",
        },
    }
