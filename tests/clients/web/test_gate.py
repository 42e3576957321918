"""What is refused before anything of a request is believed, over real sockets."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest
import websockets

from clients.web.headers import CONTENT_SECURITY_POLICY
from tests.clients.scripted_daemon import WAIT_S
from tests.clients.web.house import CODE, House, visit


def refusals(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Reasons that were logged."""
    return [
        record.fields["reason"]  # type: ignore[attr-defined]
        for record in caplog.records
        if record.message == "refused"
    ]


async def raw(house: House, request: bytes) -> bytes:
    """What a server answers to these bytes, until it closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
    writer.write(request)
    async with asyncio.timeout(WAIT_S):
        answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


def test_every_answer_has_the_headers(tmp_path: Path) -> None:
    async def test(house: House) -> None:
        async with house.browser() as browser:
            for path in ("/", "/api/me", "/no/such", "/v1/models"):
                headers = (await browser.get(path)).headers
                assert headers["content-security-policy"] == CONTENT_SECURITY_POLICY, path
                assert headers["x-content-type-options"] == "nosniff"
                assert headers["referrer-policy"] == "no-referrer"
                assert headers["permissions-policy"].startswith("microphone=(self)")
                assert headers["cross-origin-opener-policy"] == "same-origin"
                assert headers["cross-origin-resource-policy"] == "same-origin"
                assert "date" in headers and "server" not in headers
            assert headers["cache-control"] == "no-store"

    visit(tmp_path, test)


def test_the_policy_has_no_loophole() -> None:
    assert "default-src 'none'" in CONTENT_SECURITY_POLICY
    for loophole in ("unsafe", "*", "http:", "https:", "ws:"):
        assert loophole not in CONTENT_SECURITY_POLICY


def test_another_name_is_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """DNS rebinding: a name of somebody else's that points at us."""

    async def test(house: House) -> None:
        async with house.browser() as browser:
            for host in (
                "evil.example",
                "evil.example:8080",
                "localhost.evil.example",
                "192.0.2.7",
                "[2001:db8::1]",
                "",
                "local host",
                "localhost:80:80",
                "127.0.0.1@evil.example",
            ):
                answer = await browser.get("/api/me", headers={"host": host})
                assert answer.status_code == 421, host
                assert answer.json()["error"]["code"] == "unauthorized"
            for host in (f"LOCALHOST:{house.port}", "127.0.0.1", "localhost.", "[::1]"):
                # another name of ours; but the page at it has another origin
                answer = await browser.get("/api/me", headers={"host": host, "origin": ""})
                assert answer.status_code != 421, host
        answer = await raw(house, b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil\r\n\r\n")
        assert answer.split(b"\r\n")[0].split(b" ")[1] in (b"400", b"421")

    visit(tmp_path, test)
    assert len(refusals(caplog)) >= 9


def test_other_origins_are_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def test(house: House) -> None:
        async with house.browser() as browser:
            for origin in ("https://evil.example", "null", house.plain.replace("http", "https")):
                for method, path in (("POST", "/api/unpair"), ("GET", "/api/me"), ("POST", "/ws")):
                    answer = await browser.request(method, path, headers={"origin": origin})
                    assert answer.status_code == 403, (origin, method, path)
            # another program of this machine's, of which the browser thinks it is the same site
            headers = {"sec-fetch-site": "same-site", "sec-fetch-mode": "no-cors"}
            del browser.headers["origin"]
            assert (await browser.get("/api/me", headers=headers)).status_code == 403
            assert (await browser.get("/api/me")).status_code == 200
            # a link to the page may be followed
            headers = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
            assert (await browser.get("/nothing", headers=headers)).status_code == 404

    visit(tmp_path, test)
    assert any("evil.example" in reason for reason in refusals(caplog))


def test_a_form_of_another_site_is_refused(tmp_path: Path) -> None:
    async def test(house: House) -> None:
        form = {"content-type": "text/plain"}
        body = json.dumps({"code": CODE, "name": "x"}).encode()
        async with house.browser() as browser:
            answer = await browser.post("/api/pair", content=body, headers=form)
            assert answer.status_code == 415  # even from our own page
            form["origin"] = "https://evil.example"
            answer = await browser.post("/api/pair", content=body, headers=form)
            assert answer.status_code == 403
            del browser.headers["origin"]
            answer = await browser.post("/api/unpair")
            assert answer.status_code == 403 and "Origin" not in answer.json()["error"]["message"]

    visit(tmp_path, test)


def test_a_socket_of_another_site_is_refused(tmp_path: Path) -> None:
    async def test(house: House) -> None:
        for origin in ("https://evil.example", "null"):
            with pytest.raises(websockets.InvalidStatus) as refused:
                async with house.page(origin=origin):
                    pass
            assert refused.value.response.status_code == 403
        with pytest.raises(websockets.InvalidStatus) as refused:
            async with house.page(token=None):
                pass
        assert refused.value.response.status_code == 401
        assert json.loads(refused.value.response.body)["error"]["code"] == "unauthorized"
        key = b"Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\nSec-WebSocket-Version: 13\r\n"
        upgrade = b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
        cookie = b"Connection: Upgrade\r\nCookie: assistant=phone-token\r\n"
        answer = await raw(house, upgrade + cookie + key + b"\r\n")
        assert answer.startswith(b"HTTP/1.1 403 ")  # no Origin at all

    visit(tmp_path, test)


def test_bodies_are_bounded(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def test(house: House) -> None:
        head = "POST /api/pair HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost\r\n"
        kind = "Content-Type: application/json\r\n"
        async with house.browser() as browser:
            # said to be a gigabyte: refused without waiting for it
            answer = await raw(
                house, f"{head}{kind}Content-Length: {1 << 30}\r\n\r\n".encode() + b"x" * 100_000
            )
            assert answer.startswith(b"HTTP/1.1 413 ") and b"connection: close" in answer.lower()

            async def endless() -> AsyncIterator[bytes]:
                for _ in range(64):
                    yield b" " * (1 << 16)

            answer = await browser.post(
                "/api/pair", content=endless(), headers={"content-type": "application/json"}
            )
            assert answer.status_code == 413
            too_long = b"R" * ((1 << 22) + 1)
            answer = await browser.post(
                "/api/hear", content=too_long, headers={"content-type": "audio/wav"}
            )
            assert answer.status_code == 413
            answer = await browser.post("/api/hear", content=b"x" * (1 << 21))
            assert answer.status_code == 415  # so long is fine here, but it is no sound

    visit(tmp_path, test)
    assert len(refusals(caplog)) >= 3


def test_paths_lead_nowhere_else(tmp_path: Path) -> None:
    async def test(house: House) -> None:
        for path in (
            "/../../../../etc/passwd",
            "/static/../app.py",
            "/static/%2e%2e/%2e%2e/app.py",
            "/..%2fapp.py",
            "/%2e%2e%2fapp.py",
            "//etc/passwd",
            "/static//etc/passwd",
            "/app.py",
            "/.git/config",
            "/%00",
            "/static/..%5c..%5capp.py",
        ):
            request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
            answer = await raw(house, request.encode())
            assert answer.split(b"\r\n")[0].split(b" ")[1] in (b"404", b"400"), path
            assert b"root:" not in answer and b"import" not in answer

    visit(tmp_path, test)


def test_methods_that_are_not_taken(tmp_path: Path) -> None:
    async def test(house: House) -> None:
        async with house.browser() as browser:
            for method, path in (("GET", "/api/pair"), ("PUT", "/"), ("DELETE", "/v1/models")):
                answer = await browser.request(method, path)
                assert answer.status_code == 405 and "allow" in answer.headers, path
                assert "error" in answer.json()
            assert (await browser.request("OPTIONS", "/api/me")).status_code == 405

    visit(tmp_path, test)


def test_a_log_line_tells_no_secret(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "clients")

    async def test(house: House) -> None:
        async with house.browser("secret-token") as browser:
            assert (await browser.get("/api/me?code=secret-query")).status_code == 401
            answer = await browser.post("/api/pair", json={"code": "secret-code", "name": "n"})
            assert answer.status_code == 403
        async with httpx2.AsyncClient(base_url=house.plain) as program:
            key = {"authorization": "Bearer secret-key"}
            assert (await program.get("/v1/models", headers=key)).status_code == 401

    visit(tmp_path, test)
    # the browser of the test logs as well, as soon as another test has set the root's level
    ours = [record for record in caplog.records if not record.name.startswith("httpx")]
    told = "".join(f"{r.message} {getattr(r, 'fields', '')}" for r in ours)
    assert "refused" in told and "secret" not in told
