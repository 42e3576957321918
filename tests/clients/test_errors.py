"""clients.errors: every code of the protocol has an exception of its own."""

from typing import get_args

from assistantd.protocol import ErrorCode
from clients import errors
from clients.errors import AssistantError, InternalError, RequestError, request_error


def test_every_code_has_its_own_exception() -> None:
    codes = get_args(ErrorCode)
    kinds = {code: type(request_error(code, "what to do")) for code in codes}
    assert len(set(kinds.values())) == len(codes)
    for code, kind in kinds.items():
        assert kind.default_code == code
        assert issubclass(kind, RequestError)


def test_an_error_carries_what_the_daemon_said() -> None:
    error = request_error("busy", "try again in a second", 1000)
    assert isinstance(error, errors.Busy)
    assert str(error) == error.message == "try again in a second"
    assert (error.code, error.retry_after_ms) == ("busy", 1000)


def test_a_code_of_a_later_version() -> None:
    error = request_error("melted", "cool it")
    assert type(error) is InternalError
    assert error.code == "melted"


def test_one_base() -> None:
    assert issubclass(errors.BadEndpoint, AssistantError)
    assert issubclass(errors.ConnectionLost, AssistantError)
    assert issubclass(errors.NoAnswer, AssistantError)
    assert issubclass(RequestError, AssistantError)
