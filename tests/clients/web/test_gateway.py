"""The gateway beside its server: where it can be reached, and when that changes."""

import asyncio
import socket
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest

from clients.web import gateway
from clients.web.errors import GatewayError
from clients.web.gateway import Gateway, Options
from clients.web.server import bind
from tests.clients.scripted_daemon import WAIT_S
from tests.clients.web.house import House, trusting, visit


def test_tls_follows_the_network(tmp_path: Path) -> None:
    async def test(house: House) -> None:
        assert house.addresses.secure == []
        house.daemon.network_on = True
        house.daemon.changed()
        secure = (await house.next_addresses()).secure
        port = int(secure[0].rstrip("/").rpartition(":")[2])
        async with house.browser() as browser:
            authority = (await browser.get("/ca.crt")).content
        base = f"https://localhost:{port}"
        async with httpx2.AsyncClient(base_url=base, verify=trusting(authority)) as phone:
            assert (await phone.get("/api/me")).status_code == 401
            house.daemon.network_on = False
            house.daemon.changed()
            assert (await house.next_addresses()).secure == []
            with pytest.raises(httpx2.TransportError):
                await phone.get("/api/me")

    visit(tmp_path, test)


def test_on_one_interface_only(tmp_path: Path) -> None:
    async def test(house: House) -> None:
        (secure,) = house.addresses.secure
        assert secure.startswith("https://127.0.0.1:")

    visit(tmp_path, test, lan=True, host="127.0.0.1")


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(GatewayError, match=f"port {port} is taken.*--port"):
            bind(("127.0.0.1",), port, "--port")
        with pytest.raises(GatewayError, match=r"cannot listen at 192\.0\.2\.1"):
            bind(("192.0.2.1",), 0, "--host")

        async def test(house: House) -> None:
            pytest.fail("it was served")

        with pytest.raises(GatewayError, match="--tls-port"):
            visit(tmp_path, test, lan=True, host="127.0.0.1", tls_port=port)


def test_answers_are_not_kept_back() -> None:
    """asyncio sets TCP_NODELAY where a socket says that it is TCP; it saves 40 ms an answer."""
    listeners = bind(("127.0.0.1", "::1"), 0, "--port")
    assert {one.proto for one in listeners} == {socket.IPPROTO_TCP}
    assert len({one.getsockname()[1] for one in listeners}) == 1
    for one in listeners:
        one.close()


def test_without_a_daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It serves, and says that the daemon is away, until one is there."""
    monkeypatch.setattr(gateway, "_FIRST_S", 0.1)

    async def main() -> None:
        told: asyncio.Queue[object] = asyncio.Queue()
        options = Options(endpoint=f"ipc://{tmp_path}/none.sock", port=0)
        running = Gateway(options, told.put_nowait)
        serving = asyncio.create_task(running.run())
        async with asyncio.timeout(WAIT_S):
            found = await told.get()
        base = found.plain[0].rstrip("/")  # type: ignore[attr-defined]
        async with httpx2.AsyncClient(base_url=base) as browser:
            assert (await browser.get("/")).status_code == 200
            answer = await browser.get("/api/me", headers={"cookie": "assistant=x"})
            assert answer.status_code == 503
        running.stop()
        await serving

    asyncio.run(main())


def test_without_the_extra() -> None:
    code = (
        "import sys; sys.modules['starlette'] = None; "
        "from clients.cli.app import run; sys.exit(run(['gateway']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1 and "pip install 'assistantd[web]'" in done.stderr
    assert "Traceback" not in done.stderr
