"""Errors in the shape that OpenAI's clients know, with the codes they act on."""

from collections.abc import Mapping
from typing import Any, Final

from clients.errors import AssistantError, RequestError
from clients.web.errors import Refusal, refusal_of

_TYPES: Final[Mapping[int, str]] = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "invalid_request_error",
    405: "invalid_request_error",
    413: "invalid_request_error",
    415: "invalid_request_error",
    421: "invalid_request_error",
    429: "rate_limit_error",
}
_CODES: Final[Mapping[str, str]] = {
    "unauthorized": "invalid_api_key",
    "busy": "rate_limit_exceeded",
}
"""Our code → OpenAI's, where it has one of its own."""


def shape(refusal: Refusal) -> dict[str, Any]:
    """What `error` holds."""
    code = refusal.code
    if refusal.status in (401, 429):
        code = _CODES.get(code, code)
    return {
        "message": refusal.message,
        "type": _TYPES.get(refusal.status, "server_error"),
        "param": refusal.parameter,
        "code": None if code == "bad_request" else code,
    }


def wrong(message: str, parameter: str | None = None) -> Refusal:
    """For a request that is not as it should be."""
    return Refusal(400, "bad_request", message, parameter=parameter)


def refusal_for(error: AssistantError) -> Refusal:
    """What the daemon's error is called here."""
    refusal = refusal_of(error)
    if isinstance(error, RequestError) and error.code == "too_large":
        return Refusal(400, "context_length_exceeded", error.message, parameter="messages")
    if isinstance(error, RequestError) and error.code == "not_found":
        return Refusal(404, "model_not_found", error.message, parameter="model")
    return refusal
