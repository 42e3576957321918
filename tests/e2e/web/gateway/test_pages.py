"""A browser's way through the house: paired, asked, lost, found again, sent away."""

import asyncio
import itertools
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any

import httpx2
import pytest
import websockets

from assistantd.protocol import Devices
from tests.clients.web.house import PageSocket
from tests.e2e.web.gateway.process import RunningGateway

LONG = {
    "type": "chat",
    "text": "Write a very long story about the sea.",
    "temperature": 0,
    "max_tokens": 400,
    "logit_bias": {"0": -1000, "2": -1000},  # SmolLM2's ends: it goes on to max_tokens
}
SHORT = {"type": "chat", "text": "What is the capital of France?", "temperature": 0}
WAIT_S = 30.0
ids = itertools.count(1)


def new_id() -> str:
    """As a page makes them."""
    return f"test-{next(ids)}"


@asynccontextmanager
async def page(gateway: RunningGateway, browser: httpx2.AsyncClient) -> AsyncIterator[PageSocket]:
    """The WebSocket of a paired browser."""
    cookie = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
    async with websockets.connect(
        f"ws://localhost:{gateway.port}/ws",
        origin=websockets.Origin(gateway.plain),
        additional_headers={"cookie": cookie},
        proxy=None,
    ) as socket:
        yield PageSocket(socket)


Test = Callable[[httpx2.AsyncClient, str], Awaitable[None]]


def paired(gateway: RunningGateway, test: Test) -> None:
    """Run a test with a browser that was just paired."""

    async def main() -> None:
        async with gateway.browser() as browser:
            await test(browser, await gateway.pair(browser))

    asyncio.run(main())


@pytest.fixture(scope="module")
def known(gateway: RunningGateway) -> tuple[dict[str, str], str]:
    """Cookies and id of a device that the tests share: the daemon lets nobody pair all the time."""

    async def main() -> tuple[dict[str, str], str]:
        async with gateway.browser() as browser:
            device = await gateway.pair(browser)
            return dict(browser.cookies), device

    return asyncio.run(main())


def visit(gateway: RunningGateway, known: tuple[dict[str, str], str], test: Test) -> None:
    """Run a test with the browser that they share."""

    async def main() -> None:
        async with gateway.browser(cookies=known[0]) as browser:
            await test(browser, known[1])

    asyncio.run(main())


async def text_of(page: PageSocket, request_id: str, n_characters: int = 1) -> str:
    """What has come of an answer, at least so much."""
    text = ""
    while len(text) < n_characters:
        frame = await page.read()
        assert frame["type"] in ("delta", "progress"), frame
        text += frame.get("text", "")
    return text


def test_pair_ask_and_stream(gateway: RunningGateway, known: tuple[dict[str, str], str]) -> None:
    async def test(browser: httpx2.AsyncClient, device: str) -> None:
        me = (await browser.get("/api/me")).json()
        assert me["device"]["id"] == device and me["device"]["kind"] == "web"
        assert me["device"]["words"].count(" ") == 3
        async with page(gateway, browser) as socket:
            request_id = new_id()
            await socket.send(id=request_id, session="trip", **SHORT)
            frames = await socket.end_of(request_id)
            text = "".join(frame["text"] for frame in frames if frame["type"] == "delta")
            assert "Paris" in text and frames[-1]["text"] == text
            assert frames[-1]["session"]["id"] == "trip"  # its own name of it
            await socket.send(type="sessions", id=new_id(), op="list")
            assert "trip" in [s["id"] for s in (await socket.read())["sessions"]]
            await socket.send(type="status", id=new_id())
            assert (await socket.read())["status"]["state"] == "ready"
            await socket.send(type="devices", op="whoami", id=new_id())
            assert (await socket.read())["device"]["id"] == device

    visit(gateway, known, test)


def test_cancel(gateway: RunningGateway, known: tuple[dict[str, str], str]) -> None:
    async def test(browser: httpx2.AsyncClient, device: str) -> None:
        async with page(gateway, browser) as socket:
            request_id = new_id()
            await socket.send(id=request_id, **LONG)
            await text_of(socket, request_id)
            await socket.send(type="cancel", id=new_id(), target=request_id)
            frames = await socket.end_of(request_id)
            assert frames[-1]["finish_reason"] == "cancelled"

    visit(gateway, known, test)


def test_resume_after_the_line_was_lost(
    gateway: RunningGateway, known: tuple[dict[str, str], str]
) -> None:
    async def test(browser: httpx2.AsyncClient, device: str) -> None:
        request_id = new_id()
        async with page(gateway, browser) as socket:
            await socket.send(id=request_id, **LONG)
            begun = await text_of(socket, request_id, 20)
            socket.socket.transport.abort()
        async with page(gateway, browser) as socket:
            again = new_id()
            await socket.send(type="resume", id=again, target=request_id, offset=len(begun))
            frames = await socket.end_of(again)
            rest = "".join(frame["text"] for frame in frames if frame["type"] == "delta")
            assert frames[-1]["finish_reason"] == "length" and frames[-1]["text"] == begun + rest
            # the answer is kept for a while: once more, from the beginning
            last = new_id()
            await socket.send(type="resume", id=last, target=request_id, offset=0)
            frames = await socket.end_of(last)
            assert "".join(f["text"] for f in frames if f["type"] == "delta") == begun + rest
            await socket.send(type="resume", id=new_id(), target="never-asked")
            assert (await socket.read())["error"]["code"] == "not_found"

    visit(gateway, known, test)


def test_another_device_sees_nothing_of_it(
    gateway: RunningGateway, known: tuple[dict[str, str], str]
) -> None:
    async def test(browser: httpx2.AsyncClient, device: str) -> None:
        request_id = new_id()
        async with gateway.browser() as other:
            await gateway.pair(other, "other")
            async with page(gateway, browser) as mine, page(gateway, other) as theirs:
                await mine.send(id=request_id, session="secret", **SHORT)
                await mine.end_of(request_id)
                await theirs.send(type="resume", id=new_id(), target=request_id)
                assert (await theirs.read())["error"]["code"] == "not_found"
                await theirs.send(type="sessions", id=new_id(), op="show", session="secret")
                assert (await theirs.read())["error"]["code"] == "not_found"
                await theirs.send(type="sessions", id=new_id(), op="list")
                assert (await theirs.read())["sessions"] == []

    visit(gateway, known, test)


def test_a_revoked_device_is_closed_at_once(gateway: RunningGateway) -> None:
    async def test(browser: httpx2.AsyncClient, device: str) -> None:
        async with page(gateway, browser) as socket:
            request_id = new_id()
            asked.append(request_id)
            await socket.send(id=request_id, **LONG)
            await text_of(socket, request_id)
            await asyncio.to_thread(gateway.revoke, device)
            frame = await socket.read()
            while "id" in frame:  # what was on its way, and the answer's own end
                frame = await socket.read()
            assert frame["type"] == "error" and frame["error"]["code"] == "unauthorized"
            assert await socket.closed() == 4401
        assert (await browser.get("/api/me")).status_code == 401
        with pytest.raises(websockets.InvalidStatus) as refused:
            async with page(gateway, browser):
                pass
        assert refused.value.response.status_code == 401

    asked: list[str] = []
    paired(gateway, test)
    answered = re.compile(rf"answered request={asked[0]} .*finish=(\w+)")
    until = monotonic() + WAIT_S
    with gateway.daemon.client() as client:
        while not (found := answered.search(gateway.daemon.log.read_text())):
            client.status()  # so long as it takes
            assert monotonic() < until, "the answer goes on"
    assert found[1] == "cancelled"


def test_unpair(gateway: RunningGateway) -> None:
    async def test(browser: httpx2.AsyncClient, device: str) -> None:
        cookie = dict(browser.cookies)
        assert (await browser.post("/api/unpair")).status_code == 200
        assert not browser.cookies
        browser.cookies.update(cookie)
        assert (await browser.get("/api/me")).status_code == 401
        with gateway.daemon.client() as client:
            devices = client.request(Devices(op="list")).devices or []
        assert device not in [one.id for one in devices]

    paired(gateway, test)


def test_a_code_works_once_and_only_when_right(
    gateway: RunningGateway, known: tuple[dict[str, str], str]
) -> None:
    async def test(browser: httpx2.AsyncClient, device: str) -> None:
        opened = await asyncio.to_thread(gateway.open_code)
        wrong = f"{(int(opened.code) + 1) % 1_000_000:06}"
        answers: list[Any] = []
        for code in (wrong, opened.secret, opened.secret, opened.code):
            given = {"code": code, "name": "x"}
            answers.append(await browser.post("/api/pair", json=given))
        assert [answer.status_code for answer in answers] in (
            [403, 200, 403, 403],
            [403, 200, 403, 429],
        )
        assert "code" in answers[0].json()["error"]["message"]

    visit(gateway, known, test)


def test_the_daemon_restarts_in_mid_answer(own_gateway: RunningGateway) -> None:
    async def test(browser: httpx2.AsyncClient, device: str) -> None:
        async with page(own_gateway, browser) as socket:
            request_id = new_id()
            await socket.send(id=request_id, **LONG)
            await text_of(socket, request_id)
            await asyncio.to_thread(own_gateway.daemon.kill)
            frame = await socket.read()
            while frame["type"] == "delta":
                frame = await socket.read()
            # the page's own connection and the gateway's are lost in whichever order
            offline, lost = sorted([frame, await socket.read()], key=lambda told: "id" in told)
            assert offline == {"type": "offline"}
            assert (lost["id"], lost["error"]["code"]) == (request_id, "unreachable")
            await asyncio.to_thread(own_gateway.daemon.start)
            assert await socket.read() == {"type": "online"}
            again = new_id()
            await socket.send(type="resume", id=again, target=request_id, offset=0)
            assert (await socket.read())["error"]["code"] == "not_found"
            await socket.send(id=request_id, **SHORT)
            assert "Paris" in (await socket.end_of(request_id))[-1]["text"]

    paired(own_gateway, test)
