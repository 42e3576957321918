"""Everything the client library raises; how it is shown to a person is left to the clients.

    AssistantError
    ├── BadEndpoint           the address cannot be used at all
    │   └── NotPaired         it is elsewhere, and no keys are stored for it
    ├── ConnectionLost        the daemon went away while a request was under way
    ├── NoAnswer              nothing came within the time the caller allows
    └── RequestError          the daemon answered with an error: code, message, retry_after_ms
        ├── BadRequest        bad_request
        ├── TooLarge          too_large
        ├── Unauthorized      unauthorized
        ├── NotFound          not_found
        ├── Busy              busy, with retry_after_ms
        ├── DeadlineExceeded  deadline
        ├── OverBudget        over_budget
        ├── ModelFailed       model_error
        ├── ShuttingDown      shutting_down
        └── InternalError     internal, and any code this version does not know

`str(error)` is one sentence or two for a person, and says what to do next.
"""

# ruff: noqa: N818  the names say what happened; an Error suffix on each would only repeat the base

from typing import ClassVar


class AssistantError(Exception):
    """Base of all errors of this library."""


class BadEndpoint(AssistantError):
    """The endpoint is no address that ZeroMQ can connect to."""


class NotPaired(BadEndpoint):
    """The endpoint is another machine's, and there are no keys for it: pair first."""


class ConnectionLost(AssistantError):
    """The daemon went away while a request was under way; whether it acted on it is unknown."""


class NoAnswer(AssistantError):
    """The daemon said nothing for as long as the caller was willing to wait."""


class RequestError(AssistantError):
    """The daemon refused or failed a request.

    Attributes:
        code: the protocol's error code, for programs.
        message: what happened and what to do next, for people.
        retry_after_ms: when to try again, if the daemon said so.
    """

    default_code: ClassVar[str] = "internal"

    def __init__(
        self, message: str, *, code: str | None = None, retry_after_ms: int | None = None
    ) -> None:
        super().__init__(message)
        self.code = code if code is not None else self.default_code
        self.message = message
        self.retry_after_ms = retry_after_ms


class BadRequest(RequestError):
    """The request does not follow the protocol, or asks for something that makes no sense."""

    default_code = "bad_request"


class TooLarge(RequestError):
    """The text or the request is larger than the daemon takes."""

    default_code = "too_large"


class Unauthorized(RequestError):
    """This client may not do that; or the daemon elsewhere does not know its key (any more)."""

    default_code = "unauthorized"


class NotFound(RequestError):
    """There is no such session or model."""

    default_code = "not_found"


class Busy(RequestError):
    """The queue is full; try again after `retry_after_ms`."""

    default_code = "busy"


class DeadlineExceeded(RequestError):
    """The request's own deadline passed before any text was ready."""

    default_code = "deadline"


class OverBudget(RequestError):
    """It would not fit in the memory budget; the message says what would."""

    default_code = "over_budget"


class ModelFailed(RequestError):
    """The model cannot be downloaded, read or run."""

    default_code = "model_error"


class ShuttingDown(RequestError):
    """The daemon is stopping."""

    default_code = "shutting_down"


class InternalError(RequestError):
    """The daemon failed in a way it did not expect; its log has more."""

    default_code = "internal"


_BY_CODE: dict[str, type[RequestError]] = {
    error.default_code: error
    for error in (
        BadRequest,
        TooLarge,
        Unauthorized,
        NotFound,
        Busy,
        DeadlineExceeded,
        OverBudget,
        ModelFailed,
        ShuttingDown,
        InternalError,
    )
}


def request_error(code: str, message: str, retry_after_ms: int | None = None) -> RequestError:
    """The exception for an error code of the protocol; InternalError for a code not known here."""
    kind = _BY_CODE.get(code, InternalError)
    return kind(message, code=code, retry_after_ms=retry_after_ms)
