"""The WebSocket of a page: ids, what may be asked, losses, revocation."""

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest
import websockets
from starlette.websockets import WebSocket

from assistantd.protocol import Cancel, Chat, Delta, Done, Progress, Request, Resume, Sessions
from clients.web.bridge import Bridge
from tests.clients.scripted_daemon import Send, fail, say, say_until_cancelled
from tests.clients.web.house import House, visit


def test_ids_and_fields_reach_the_daemon_as_they_are(tmp_path: Path) -> None:
    ids: list[bytes] = []

    def handler(request: Request, send: Send) -> None:
        ids.append(send.request_id)
        say("Pa", "ris")(request, send)

    async def test(house: House) -> None:
        house.daemon.on("chat", handler)
        async with house.page() as page:
            await page.send(type="chat", id="k3x9-1", text="Capital?", session="s", seed=7)
            frames = await page.end_of("k3x9-1")
        assert "".join(f["text"] for f in frames if f["type"] == "delta") == "Paris"
        assert frames[-1]["done"] is True and frames[-1]["text"] == "Paris"
        assert {frame["id"] for frame in frames} == {"k3x9-1"}
        (asked,) = house.daemon.wait_for(Chat)
        assert asked == Chat(text="Capital?", session="s", seed=7, device="phoneaaa")

    visit(tmp_path, test)
    assert ids == [b"k3x9-1"]


def test_many_at_once_and_each_page_its_own_ids(tmp_path: Path) -> None:
    both = threading.Barrier(2, timeout=20)

    def handler(request: Request, send: Send) -> None:
        assert isinstance(request, Chat) and request.text is not None
        both.wait()
        say(request.text)(request, send)

    async def test(house: House) -> None:
        house.daemon.on("chat", handler)
        async with house.page() as one, house.page("watch-token") as other:
            await one.send(type="chat", id="1", text="phone")
            await other.send(type="chat", id="1", text="watch")
            assert (await one.end_of("1"))[-1]["text"] == "phone"
            assert (await other.end_of("1"))[-1]["text"] == "watch"
        assert {chat.device for chat in house.daemon.wait_for(Chat, 2)} == {"phoneaaa", "watchaaa"}

    visit(tmp_path, test)


def test_cancel_resume_and_sessions_are_passed_on(tmp_path: Path) -> None:
    async def test(house: House) -> None:
        house.daemon.on("chat", say_until_cancelled("Once"))
        house.daemon.on("sessions", lambda r, send: send(Done(sessions=[])))
        house.daemon.on("resume", fail("not_found", "no such answer"))
        async with house.page() as page:
            await page.send(type="chat", id="a", text="Tell")
            assert (await page.read())["text"] == "Once"
            await page.send(type="cancel", id="b", target="a")
            frames = {}
            while len(frames) < 2:
                frame = await page.read()
                frames[frame["id"]] = frame
            assert frames["a"]["finish_reason"] == "cancelled"
            await page.send(type="resume", id="c", target="a", offset=4)
            assert (await page.end_of("c"))[-1]["error"]["code"] == "not_found"
            await page.send(type="sessions", id="d", op="list")
            assert (await page.end_of("d"))[-1]["sessions"] == []
        assert house.daemon.wait_for(Cancel) == [Cancel(target="a", device="phoneaaa")]
        assert house.daemon.wait_for(Resume) == [Resume(target="a", offset=4, device="phoneaaa")]
        assert house.daemon.wait_for(Sessions)[0].device == "phoneaaa"

    visit(tmp_path, test)


FORBIDDEN: list[tuple[dict[str, object], str]] = [
    ({"type": "shutdown"}, "unauthorized"),
    ({"type": "devices", "op": "list"}, "unauthorized"),
    ({"type": "devices", "op": "authenticate", "token": "x"}, "unauthorized"),
    ({"type": "models", "op": "load", "name": "x"}, "unauthorized"),
    ({"type": "models"}, "unauthorized"),
    ({"type": "pair", "op": "open"}, "unauthorized"),
    ({"type": "network", "op": "on"}, "unauthorized"),
    ({"type": ["chat"]}, "unauthorized"),
    ({}, "unauthorized"),
    ({"type": "ping", "device": "watchaaa"}, "bad_request"),
    ({"type": "chat", "texts": "misspelt"}, "bad_request"),
]


def test_what_a_page_may_not_ask(tmp_path: Path) -> None:
    async def test(house: House) -> None:
        async with house.page() as page:
            for frame, code in FORBIDDEN:
                await page.send(id="1", **frame)
                answer = await page.read()
                assert (answer["type"], answer["id"]) == ("error", "1")
                assert answer["error"]["code"] == code, frame
            await page.send(type="ping", id="2")  # and it goes on
            assert (await page.end_of("2"))[-1]["done"] is True

    visit(tmp_path, test)


def test_frames_that_are_none(tmp_path: Path) -> None:
    async def test(house: House) -> None:
        async with house.page() as page:
            for text in ("", "{", "[]", "1", '"x"', "{}", '{"id":1}', '{"id":""}', "[" * 100_000):
                await page.socket.send(text)
                answer = await page.read()
                assert answer["error"]["code"] == "bad_request" and "id" not in answer, text[:20]
            for bad in ("x" * 65, "a b", "é", "a\n"):
                await page.send(type="ping", id=bad)
                assert (await page.read())["error"]["code"] == "bad_request"
            await page.socket.send(b"\x00")
            assert await page.closed() == 1003
        async with house.page() as page:
            with pytest.raises(websockets.ConnectionClosed):
                await page.socket.send("x" * ((1 << 20) + 1))
                await page.read()
            assert await page.closed() == 1009

    visit(tmp_path, test)


def test_an_id_that_is_under_way(tmp_path: Path) -> None:
    async def test(house: House) -> None:
        house.daemon.on("chat", say_until_cancelled("Once"))
        async with house.page() as page:
            await page.send(type="chat", id="a", text="Tell")
            await page.read()
            await page.send(type="chat", id="a", text="Tell")
            assert (await page.read())["error"]["code"] == "bad_request"
            await page.send(type="cancel", id="b", target="a")
            assert (await page.end_of("a"))[-1]["finish_reason"] == "cancelled"

    visit(tmp_path, test)


def test_too_many_messages(tmp_path: Path) -> None:
    async def test(house: House) -> None:
        async with house.page() as page:
            for n in range(300):
                await page.send(type="ping", id=str(n))
            busy = 0
            for _ in range(300):
                frame = await page.read()
                if frame["type"] == "error":
                    assert frame["error"]["code"] == "busy"
                    assert frame["error"]["retry_after_ms"] > 0
                    busy += 1
            assert busy > 100

    visit(tmp_path, test)


def test_a_device_opens_so_many_pages(tmp_path: Path) -> None:
    async def test(house: House) -> None:
        async with asyncio.timeout(20):
            pages = [house.page() for _ in range(8)]
            for page in pages:
                await page.__aenter__()
            with pytest.raises(websockets.InvalidStatus) as refused:
                await house.page().__aenter__()
            assert refused.value.response.status_code == 429
            async with house.page("watch-token"):
                pass  # another device may
            await pages[0].__aexit__(None, None, None)
            while True:  # as soon as the gateway knows of it
                try:
                    async with house.page():
                        break
                except websockets.InvalidStatus:
                    continue
            for page in pages[1:]:
                await page.__aexit__(None, None, None)

    visit(tmp_path, test)


def test_pieces_are_joined_and_in_order(tmp_path: Path) -> None:
    words = [f"{n} " for n in range(2000)]

    def handler(request: Request, send: Send) -> None:
        send(Progress("prefill", "reading", 1, 2))
        for word in words:
            send(Delta(text=word))
        send(Done(text="".join(words), finish_reason="stop"))

    async def test(house: House) -> None:
        house.daemon.on("chat", handler)
        async with house.page() as page:
            await page.send(type="chat", id="a", text="Count")
            frames = await page.end_of("a")
        deltas = [frame["text"] for frame in frames if frame["type"] == "delta"]
        assert "".join(deltas) == "".join(words)
        assert frames[0]["type"] == "progress" and frames[-1]["type"] == "done"
        assert len(deltas) < len(words) / 2

    visit(tmp_path, test)


def test_the_daemon_goes_and_comes_back(tmp_path: Path) -> None:
    async def test(house: House) -> None:
        house.daemon.on("chat", say_until_cancelled("Once"))
        async with house.page() as page:
            await page.send(type="chat", id="a", text="Tell")
            assert (await page.read())["text"] == "Once"
            await asyncio.to_thread(house.daemon.stop)
            assert await page.read() == {"type": "offline"}
            lost = await page.read()
            assert (lost["id"], lost["error"]["code"]) == ("a", "unreachable")
            await page.send(type="ping", id="b")
            assert (await page.end_of("b"))[-1]["error"]["code"] == "unreachable"
            await asyncio.to_thread(house.daemon.restart)
            assert await page.read() == {"type": "online"}
            await page.send(type="ping", id="c")
            assert (await page.end_of("c"))[-1]["done"] is True

    visit(tmp_path, test)


def test_a_page_that_opens_while_the_daemon_is_away(tmp_path: Path) -> None:
    async def test(house: House) -> None:
        async with house.page() as first:
            await asyncio.to_thread(house.daemon.stop)
            assert await first.read() == {"type": "offline"}
            async with house.page() as page:  # whose cookie is still known
                assert await page.read() == {"type": "offline"}
                await page.send(type="ping", id="a")
                assert (await page.read())["error"]["code"] == "unreachable"
                await asyncio.to_thread(house.daemon.restart)
                assert await page.read() == {"type": "online"}
                await page.send(type="ping", id="b")
                assert (await page.end_of("b"))[-1]["done"] is True

    visit(tmp_path, test)


def test_a_revoked_device_is_closed_at_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def test(house: House) -> None:
        house.daemon.on("chat", say_until_cancelled("Once"))
        async with house.page() as page, house.page("watch-token") as other:
            await page.send(type="chat", id="a", text="Tell")
            assert (await page.read())["text"] == "Once"
            house.daemon.revoke("phone-token")
            frame = await page.read()
            assert frame["type"] == "error" and "id" not in frame
            assert frame["error"]["code"] == "unauthorized"
            assert await page.closed() == 4401
            await other.send(type="ping", id="1")
            assert (await other.end_of("1"))[-1]["done"] is True
        with pytest.raises(websockets.InvalidStatus) as refused:
            async with house.page():
                pass
        assert refused.value.response.status_code == 401
        # its answer is the daemon's to end
        for send in list(house.daemon._under_way.values()):
            send.cancelled.set()

    visit(tmp_path, test)
    assert any("revoked" in record.message for record in caplog.records)


def test_revoked_while_its_page_is_being_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    accept, revoke = WebSocket.accept, Bridge.revoke

    async def test(house: House) -> None:
        revoked = asyncio.Event()

        def revoke_and_tell(self: Bridge) -> None:
            revoke(self)
            revoked.set()

        async def accept_late(self: WebSocket, *given: Any, **more: Any) -> None:
            house.daemon.revoke("phone-token")
            await revoked.wait()
            await accept(self, *given, **more)

        monkeypatch.setattr(Bridge, "revoke", revoke_and_tell)
        monkeypatch.setattr(WebSocket, "accept", accept_late)
        async with house.page() as page:
            assert (await page.read())["error"]["code"] == "unauthorized"
            assert await page.closed() == 4401

    visit(tmp_path, test)


def test_revoked_while_the_daemon_was_away(tmp_path: Path) -> None:
    async def test(house: House) -> None:
        async with house.page() as page:
            await asyncio.to_thread(house.daemon.stop)
            assert await page.read() == {"type": "offline"}
            del house.daemon.devices["phone-token"]
            await asyncio.to_thread(house.daemon.restart)
            frames = [await page.read(), await page.read()]
            assert {frame["type"] for frame in frames} == {"online", "error"}
            assert await page.closed() == 4401

    visit(tmp_path, test)


def test_compression_is_used(tmp_path: Path) -> None:
    async def test(house: House) -> None:
        async with house.page() as page:
            (extension,) = page.socket.protocol.extensions
            assert extension.name == "permessage-deflate"

    visit(tmp_path, test)
