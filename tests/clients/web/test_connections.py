"""Connections that ask for nothing: too many, too slow; over real sockets."""

import asyncio
import resource
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from clients.web import connections
from clients.web.connections import MOST_WAITING, Lobby
from tests.clients.scripted_daemon import WAIT_S
from tests.clients.web.house import House, trusting, visit


class Guest:
    """Somebody who waits."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.gone = False

    def send_away(self, reason: str) -> None:
        self.gone = True


def test_the_oldest_of_the_largest_crowd_goes() -> None:
    lobby = Lobby(most=5)
    crowd = [Guest(f"a{n}") for n in range(4)]
    single = Guest("b")
    lobby.enter(single, "192.168.1.9")
    for guest in crowd:
        lobby.enter(guest, "192.168.1.5")
    newcomer = Guest("c")
    lobby.enter(newcomer, "192.168.1.7")
    assert [guest.gone for guest in crowd] == [True, False, False, False]
    assert not single.gone and not newcomer.gone and len(lobby) == 5
    lobby.leave(crowd[1])
    lobby.leave(crowd[1])
    lobby.enter(Guest("d"), "192.168.1.5")
    assert not crowd[2].gone and len(lobby) == 5


def test_a_house_with_ipv6_is_one() -> None:
    lobby = Lobby(most=2)
    guests = [Guest(str(n)) for n in range(3)]
    lobby.enter(guests[0], "192.168.1.5")
    lobby.enter(guests[1], "2001:db8::1")
    lobby.enter(guests[2], "2001:db8::2")
    assert [guest.gone for guest in guests] == [False, True, False]


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    """Enough for a test that opens a thousand sockets at both ends."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def connected(port: int, n: int) -> list[socket.socket]:
    """So many connections that say nothing."""
    return [socket.create_connection(("127.0.0.1", port)) for _ in range(n)]


@pytest.mark.parametrize("secure", [False, True])
def test_a_thousand_silent_connections(
    tmp_path: Path, secure: bool, many_descriptors: None
) -> None:
    async def test(house: House) -> None:
        async with house.browser() as browser:
            authority = (await browser.get("/ca.crt")).content
        url = house.addresses.secure[0] if secure else f"{house.plain}/"
        port = int(url.rstrip("/").rpartition(":")[2])
        crowd = await asyncio.to_thread(connected, port, 1000)
        try:
            context = trusting(authority)
            base = f"{'https' if secure else 'http'}://localhost:{port}"
            async with httpx2.AsyncClient(base_url=base, verify=context) as browser:
                for _ in range(3):
                    assert (await browser.get("/ca.crt")).status_code == 200
            left = 0
            for one in crowd:
                one.setblocking(False)
                try:
                    left += one.recv(1) != b""
                except BlockingIOError:
                    left += 1
                except ConnectionResetError:
                    pass
            assert 0 < left <= MOST_WAITING
        finally:
            for one in crowd:
                one.close()

    visit(tmp_path, test, lan=True)


def test_slow_loris(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte now and then is no request: it is cut off, however often a byte comes."""
    monkeypatch.setattr(connections, "HEAD_S", 0.3)

    async def drip(house: House, first: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
        writer.write(first)
        answer = b""
        try:
            async with asyncio.timeout(WAIT_S):
                while True:
                    writer.write(b"X-A: b\r\n")
                    await writer.drain()
                    try:
                        async with asyncio.timeout(0.02):
                            data = await reader.read(65536)
                    except TimeoutError:
                        continue
                    if not data:
                        break
                    answer += data
        except ConnectionError:
            pass
        finally:
            writer.transport.abort()
        return answer

    async def test(house: House) -> None:
        assert await drip(house, b"GET / HTTP/1.1\r\nHost: localhost\r\n") == b""
        # and so for the second request of a connection
        first = b"GET /ca.crt HTTP/1.1\r\nHost: localhost\r\n\r\n"
        answer = await drip(house, first)
        assert answer.count(b"HTTP/1.1 ") == 1 and answer.startswith(b"HTTP/1.1 ")

    visit(tmp_path, test)


def test_half_a_handshake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HANDSHAKE_S", 0.3)

    async def test(house: House) -> None:
        port = int(house.addresses.secure[0].rstrip("/").rpartition(":")[2])
        for first in (b"", b"\x16\x03\x01", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(first)
            async with asyncio.timeout(WAIT_S):
                try:
                    while await reader.read(4096):
                        pass
                except ConnectionError:
                    pass
            writer.transport.abort()

    visit(tmp_path, test, lan=True)


def test_old_tls_is_refused(tmp_path: Path) -> None:
    async def test(house: House) -> None:
        port = int(house.addresses.secure[0].rstrip("/").rpartition(":")[2])
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers("AES128-SHA:AES256-GCM-SHA384")  # without forward secrecy
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="x")

    visit(tmp_path, test, lan=True)


def test_pipelined_and_kept_alive(tmp_path: Path) -> None:
    async def test(house: House) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
        request = b"GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n"
        for n in (1, 3):
            writer.write(request * n)
            for _ in range(n):
                head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), WAIT_S)
                assert head.startswith(b"HTTP/1.1 404 ")
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                await reader.readexactly(length)
        writer.close()
        await writer.wait_closed()

    visit(tmp_path, test)


def test_junk(tmp_path: Path) -> None:
    async def test(house: House) -> None:
        for junk in (
            b"\0" * 100,
            b"GET\r\n\r\n",
            b"GET / HTTP/9.9\r\n\r\n",
            b"A" * 100_000,
            b"\x16\x03\x01\x02\0",
        ):
            reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
            writer.write(junk)
            writer.write_eof()
            try:
                async with asyncio.timeout(WAIT_S):
                    answer = await reader.read()
                assert answer == b"" or answer.startswith(b"HTTP/1.1 4")
            except ConnectionError:
                pass
            writer.transport.abort()
        async with house.browser() as browser:
            assert (await browser.get("/ca.crt")).status_code == 404  # none was needed yet

    visit(tmp_path, test)
