"""Answers in JSON, and the one place where a refusal becomes an answer and a line of the log."""

import logging
import math
from typing import Any

import msgspec
from starlette.requests import HTTPConnection
from starlette.responses import Response

from assistantd.log import fields
from clients.web.errors import Refusal

log = logging.getLogger(__name__)

_BY_KEY = ("/v1/", "/metrics")
"""Addresses for programs, which have a key and no cookie."""

_encoder = msgspec.json.Encoder()


def json_reply(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Anything that msgspec can write."""
    return Response(_encoder.encode(value), status, headers=headers, media_type="application/json")


def address_of(connection: HTTPConnection) -> str:
    """Where a request came from, as far as the socket tells."""
    client = connection.client
    host = client.host if client is not None else ""
    return host.removeprefix("::ffff:")


def refuse(connection: HTTPConnection, refusal: Refusal) -> Response:
    """The answer to a request that is refused, which is logged."""
    scope = connection.scope
    log.log(
        logging.ERROR if refusal.status == 500 else logging.WARNING,
        "refused",
        extra=fields(
            status=refusal.status,
            code=refusal.code,
            address=address_of(connection),
            method=scope.get("method", "WS"),
            # as it came, in ASCII: unquoted it could write to the terminal of whoever reads this
            path=scope.get("raw_path", b"").decode("ascii", "replace")[:100],
            device=scope.get("state", {}).get("device", ""),
            reason=refusal.reason,
        ),
    )
    told: dict[str, Any] = {"code": refusal.code, "message": refusal.message}
    if refusal.retry_s:
        told["retry_after_ms"] = round(1000 * refusal.retry_s)
    if scope["path"].startswith("/v1/"):
        from clients.web.openai_errors import shape

        told = shape(refusal)
    headers = {}
    if refusal.retry_s:
        headers["retry-after"] = str(math.ceil(refusal.retry_s))
    if refusal.status == 401:
        headers["www-authenticate"] = "Bearer" if scope["path"].startswith(_BY_KEY) else "Cookie"
    return json_reply({"error": told}, refusal.status, headers)
