"""What the gateway says no to, and what it cannot start with."""

from collections.abc import Mapping
from typing import Final

from assistantd.log import unquoted
from clients.errors import AssistantError, ConnectionLost, NoAnswer, RequestError


class GatewayError(AssistantError):
    """The gateway cannot start, or cannot go on; the message says what to do."""


class Refusal(Exception):  # noqa: N818  an answer to a request, not a fault
    """A request that is answered with an error.

    Attributes:
        status: of HTTP.
        code: for programs, one word as in the protocol.
        message: for people.
        retry_s: when to come again, in seconds; 0 for no advice.
        reason: for the log, where more is known than the answer should tell; else the
            message, without what it quotes.
        parameter: the field that is wrong, if it is one; OpenAI's errors tell it.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        retry_s: float = 0.0,
        reason: str = "",
        parameter: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message
        self.retry_s, self.parameter = retry_s, parameter
        self.reason = reason or unquoted(message)


_STATUS: Final[Mapping[str, int]] = {
    "bad_request": 400,
    "too_large": 413,
    "unauthorized": 403,
    "not_found": 404,
    "busy": 429,
    "deadline": 504,
    "over_budget": 503,
    "model_error": 503,
    "shutting_down": 503,
    "internal": 500,
}
"""Error code of the protocol → status of HTTP."""


def refusal_of(error: AssistantError) -> Refusal:
    """What to answer when the daemon refused, failed or is away."""
    if isinstance(error, RequestError):
        retry_s = (error.retry_after_ms or 0) / 1000
        return Refusal(_STATUS.get(error.code, 500), error.code, error.message, retry_s=retry_s)
    if isinstance(error, ConnectionLost | NoAnswer):
        return Refusal(503, "unreachable", str(error), retry_s=2)
    return Refusal(500, "internal", str(error))
