"""Whoever means harm, at a real gateway's sockets: each is refused and logged, and others are
answered meanwhile."""

import asyncio
import json
import resource
import socket
from collections.abc import Iterator

import pytest
import websockets

from tests.clients.scripted_daemon import WAIT_S
from tests.e2e.web.gateway.process import RunningGateway


async def raw(gateway: RunningGateway, request: str | bytes) -> bytes:
    """What is answered until the connection is closed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(request.encode() if isinstance(request, str) else request)
    async with asyncio.timeout(WAIT_S):
        answer = await reader.read()
    writer.close()
    return answer


def refused(gateway: RunningGateway, reason: str) -> bool:
    """Whether a refusal for this reason was logged."""
    return any(reason in line["reason"] for line in gateway.events("refused"))


def test_guessing_the_code_is_hopeless(own_gateway: RunningGateway) -> None:
    """10,000 guesses, as fast as they go: five are judged, and the code is void afterwards."""
    opened = own_gateway.open_code()
    guesses = [f"{n:06}" for n in range(10_001) if f"{n:06}" != opened.code][:10_000]

    def request(code: str, last: bool) -> bytes:
        body = json.dumps({"code": code, "name": "thief"})
        return (
            f"POST /api/pair HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
            f"{'Connection: close' if last else 'X: y'}\r\n\r\n{body}"
        ).encode()

    async def main() -> None:
        requests = [request(code, code == guesses[-1]) for code in guesses]
        answer = await raw(own_gateway, b"".join(requests))
        assert answer.count(b"HTTP/1.1 403 ") == 5
        assert answer.count(b"HTTP/1.1 429 ") == len(guesses) - 5
        assert b"set-cookie" not in answer.lower()
        async with own_gateway.browser() as browser:
            given = {"code": opened.code, "name": "thief"}
            assert (await browser.post("/api/pair", json=given)).status_code in (403, 429)

    asyncio.run(main())
    assert len(own_gateway.events("refused")) == len(guesses) + 1


def test_pages_of_others(gateway: RunningGateway) -> None:
    async def main() -> None:
        async with gateway.browser() as browser:
            await gateway.pair(browser)
            foreign = {"origin": "https://evil.example"}
            assert (await browser.get("/api/me", headers=foreign)).status_code == 403
            assert (await browser.post("/api/unpair", headers=foreign)).status_code == 403
            form = {**foreign, "content-type": "application/x-www-form-urlencoded"}
            answer = await browser.post("/api/pair", content=b"code=1", headers=form)
            assert answer.status_code == 403
            rebound = {"host": "evil.example", "origin": "http://evil.example"}
            assert (await browser.get("/api/me", headers=rebound)).status_code == 421
            assert (await browser.get("/api/me")).status_code == 200
            cookie = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
        with pytest.raises(websockets.InvalidStatus) as closed:
            async with websockets.connect(
                f"ws://localhost:{gateway.port}/ws",
                origin=websockets.Origin("https://evil.example"),
                additional_headers={"cookie": cookie},
                proxy=None,
            ):
                pass
        assert closed.value.response.status_code == 403

    asyncio.run(main())
    assert refused(gateway, "evil.example") and refused(gateway, "Host")


def test_paths_that_lead_elsewhere(gateway: RunningGateway) -> None:
    async def main() -> None:
        for path in ("/../../../etc/passwd", "/static/%2e%2e/%2e%2e/app.py", "/%2fetc/passwd"):
            end = "HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
            answer = await raw(gateway, f"GET {path} {end}")
            assert answer.startswith(b"HTTP/1.1 404 ") and b"root:" not in answer

    asyncio.run(main())


def test_a_gigabyte(gateway: RunningGateway) -> None:
    """Refused by its length, or as soon as too much has come; the memory does not grow by it."""
    before = gateway.rss_bytes()

    async def main() -> None:
        head = "POST /api/pair HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost\r\n"
        kind = "Content-Type: application/json\r\n"
        answer = await raw(gateway, f"{head}{kind}Content-Length: {1 << 30}\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 413 ")
        _reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        writer.write(f"{head}{kind}Transfer-Encoding: chunked\r\n\r\n".encode())
        sent = 0
        try:
            while sent < 1 << 30:
                writer.write(b"10000\r\n" + b" " * 65536 + b"\r\n")
                await writer.drain()
                sent += 65536
        except ConnectionError:
            pass
        assert sent < 64 << 20
        writer.transport.abort()

    asyncio.run(main())
    assert gateway.rss_bytes() - before < 32 << 20


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_thousand_half_open_connections(gateway: RunningGateway, many_descriptors: None) -> None:
    crowd: list[socket.socket] = []
    try:
        for _ in range(1000):
            one = socket.create_connection(("127.0.0.1", gateway.port))
            crowd.append(one)
            try:
                one.sendall(b"GET / HTTP/1.1\r\nHost: loc")
            except ConnectionError:
                continue  # sent away already

        async def main() -> None:
            async with gateway.browser() as browser:
                await gateway.pair(browser)
                for _ in range(20):
                    assert (await browser.get("/api/me")).status_code == 200

        asyncio.run(main())
    finally:
        for one in crowd:
            one.close()
    assert gateway.events("connection closed")


@pytest.mark.slow  # the real patience of a gateway is ten seconds
def test_slow_loris(gateway: RunningGateway) -> None:
    """A hundred who send a header a second: all are cut off, and others are answered meanwhile."""

    async def drip() -> float:
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        began = asyncio.get_running_loop().time()
        writer.write(b"POST /api/pair HTTP/1.1\r\nHost: localhost\r\n")
        try:
            async with asyncio.timeout(WAIT_S):
                while True:
                    writer.write(b"X-More: x\r\n")
                    try:
                        async with asyncio.timeout(1):
                            if not await reader.read(4096):
                                break
                    except TimeoutError:
                        continue
        except ConnectionError:
            pass  # cut off
        finally:
            writer.transport.abort()
        return asyncio.get_running_loop().time() - began

    async def main() -> None:
        loris = [asyncio.create_task(drip()) for _ in range(100)]
        async with gateway.browser() as browser:
            while not all(one.done() for one in loris):
                assert (await browser.get("/no/such/page")).status_code == 404
                await asyncio.wait(loris, timeout=0.2)
        for one in loris:
            one.result()

    asyncio.run(main())
    assert gateway.events("connection closed")
