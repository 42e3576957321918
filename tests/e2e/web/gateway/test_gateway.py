"""The gateway as a process: its memory, its addresses, its end."""

import asyncio
import os
import socket
import subprocess
import sys
from pathlib import Path

import httpx2

from assistantd.protocol import Network
from tests.clients.scripted_daemon import WAIT_S
from tests.clients.web.house import trusting
from tests.e2e.web.gateway.process import RunningGateway

MOST_BYTES = 90 << 20


def test_little_memory_and_no_engine(gateway: RunningGateway) -> None:
    async def main() -> None:
        async with gateway.browser() as browser:
            await gateway.pair(browser)
            assert (await browser.get("/api/me")).status_code == 200

    asyncio.run(main())
    maps = Path(f"/proc/{gateway.process.pid}/maps").read_text()
    for heavy in ("numpy", "numba", "llvmlite", "vosk", "onnxruntime", "soxr", "sentencepiece"):
        assert heavy not in maps
    assert gateway.rss_bytes() < MOST_BYTES


def test_tls_follows_the_network(own_gateway: RunningGateway) -> None:
    assert own_gateway.secure == []
    with own_gateway.daemon.client() as client:
        client.request(Network(op="on", address="127.0.0.1", port=_free_port()))
        own_gateway.read_addresses()
        assert own_gateway.secure and all(a.startswith("https://") for a in own_gateway.secure)
        asyncio.run(_phone(own_gateway))
        client.request(Network(op="off"))
        own_gateway.read_addresses()
        assert own_gateway.secure == []


async def _phone(gateway: RunningGateway) -> None:
    async with gateway.browser() as browser:
        authority = (await browser.get("/ca.crt")).content
    base = f"https://localhost:{gateway.tls_port}"
    headers = {"origin": base}
    async with httpx2.AsyncClient(
        base_url=base, headers=headers, verify=trusting(authority)
    ) as phone:
        await gateway.pair(phone)
        (cookie,) = phone.cookies.jar
        assert cookie.name == "__Host-assistant" and cookie.secure
        assert (await phone.get("/api/me")).status_code == 200


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _command(gateway: RunningGateway, *options: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [
            *(sys.executable, "-m", "clients.cli", "--endpoint", gateway.daemon.endpoint),
            *("gateway", *options),
        ],
        env={**os.environ, "XDG_DATA_HOME": str(gateway.data)},
        capture_output=True,
        text=True,
        timeout=WAIT_S,
    )


def test_a_port_that_is_taken(gateway: RunningGateway) -> None:
    done = _command(gateway, "--port", str(gateway.port))
    assert done.returncode == 1 and f"port {gateway.port} is taken" in done.stderr
    assert "--port" in done.stderr and "Traceback" not in done.stderr
    with socket.create_server(("0.0.0.0", 0)) as other:
        port = other.getsockname()[1]
        done = _command(gateway, "--port", "0", "--lan", "--tls-port", str(port))
    assert done.returncode == 1 and f"port {port} is taken" in done.stderr
    assert "--tls-port" in done.stderr and "Traceback" not in done.stderr


def test_half_a_certificate(gateway: RunningGateway, tmp_path: Path) -> None:
    (tmp_path / "x").write_text("x")
    done = _command(gateway, "--cert", str(tmp_path / "x"))
    assert done.returncode == 2 and "give both" in done.stderr
    done = _command(gateway, "--cert", str(tmp_path / "x"), "--key", str(tmp_path / "x"))
    assert done.returncode == 1 and "PEM" in done.stderr and "Traceback" not in done.stderr


def test_systemd_is_told(own_gateway: RunningGateway, tmp_path: Path) -> None:
    assert own_gateway.stop() == 0
    address = own_gateway.folder / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(str(address))
        channel.settimeout(WAIT_S)
        own_gateway.environment["NOTIFY_SOCKET"] = str(address)
        own_gateway.start()
        assert channel.recv(1000) == b"READY=1"
        assert own_gateway.stop() == 0
        assert channel.recv(1000) == b"STOPPING=1"
