"""clients.web.devices: when the daemon is asked, and when what it said still holds."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from assistantd.protocol import Devices, Done, Request
from clients.errors import Unauthorized
from clients.web.daemon import unreachable
from clients.web.devices import Authenticator
from clients.web.errors import Refusal
from tests.clients.web.house import device


class Oracle:
    """What Authenticator needs of a Daemon: an answer now, or when the test lets it come."""

    def __init__(self) -> None:
        self.online = True
        self.asked = 0
        self.known = {"t": device("phone")}
        self.before_answer: Callable[[], None] = lambda: None

    async def request(self, request: Request) -> Done:
        assert isinstance(request, Devices)
        self.asked += 1
        if not self.online:
            raise unreachable()
        found = self.known.get(request.token or "")
        if found is None:
            raise Unauthorized("no such device")
        self.before_answer()
        return Done(device=found)


def check(test: Callable[[Oracle, Authenticator, list[float]], Any]) -> None:
    """Run a test with a clock that it may turn."""
    now = [0.0]
    oracle = Oracle()
    asyncio.run(test(oracle, Authenticator(oracle, lambda: now[0]), now))  # type: ignore[arg-type]


async def status(authenticator: Authenticator, token: str = "t") -> int:
    try:
        await authenticator.device(token, "web", "192.168.1.5")
    except Refusal as refusal:
        return refusal.status
    return 200


def test_for_a_minute_it_is_remembered() -> None:
    async def test(oracle: Oracle, authenticator: Authenticator, now: list[float]) -> None:
        assert [await status(authenticator) for _ in range(3)] == [200] * 3
        assert oracle.asked == 1
        now[0] = 61
        assert await status(authenticator) == 200 and oracle.asked == 2
        del oracle.known["t"]
        assert await status(authenticator) == 200  # until it is told, or the minute is over
        authenticator.forget("phoneaaa")
        assert await status(authenticator) == 401

    check(test)


def test_what_was_revoked_meanwhile_is_not_remembered() -> None:
    async def test(oracle: Oracle, authenticator: Authenticator, now: list[float]) -> None:
        oracle.before_answer = lambda: authenticator.forget("phoneaaa")
        assert await status(authenticator) == 200
        oracle.before_answer = lambda: None
        assert await status(authenticator) == 200 and oracle.asked == 2

    check(test)


def test_while_the_daemon_is_away() -> None:
    async def test(oracle: Oracle, authenticator: Authenticator, now: list[float]) -> None:
        assert await status(authenticator) == 200
        oracle.online, now[0] = False, 1000
        assert await status(authenticator) == 200 and oracle.asked == 1
        assert await status(authenticator, "other") == 503
        oracle.online = True
        assert await status(authenticator) == 200 and oracle.asked == 3

    check(test)


@pytest.mark.parametrize("token", ["", "a b", "é", "x" * 257, "a\n", "a\x00"])
def test_what_cannot_be_a_token_is_not_asked_for(token: str) -> None:
    async def test(oracle: Oracle, authenticator: Authenticator, now: list[float]) -> None:
        assert await status(authenticator, token) == 401 and oracle.asked == 0

    check(test)


def test_our_own_looks_are_not_counted() -> None:
    async def test(oracle: Oracle, authenticator: Authenticator, now: list[float]) -> None:
        for _ in range(100):
            with pytest.raises(Refusal) as refused:
                await authenticator.device("gone", "web", None)
            assert refused.value.status == 401
        assert await status(authenticator) == 200

    check(test)
