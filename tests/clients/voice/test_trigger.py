"""clients.voice.trigger: the button, over a real ZeroMQ socket."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import zmq
import zmq.asyncio

from clients.errors import NoAnswer
from clients.voice import trigger
from clients.voice.errors import VoiceError

Story = Callable[[str, list[int]], Awaitable[None]]


def served(address: str, story: Story) -> int:
    """How often the button was pressed while `story` went on."""
    presses: list[int] = []

    async def run() -> None:
        serving = asyncio.create_task(trigger.serve(lambda: presses.append(1), address))
        try:
            assert await ask(address, b"are you there?") == b"unknown"
            await asyncio.wait_for(story(address, presses), 20)
        finally:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)

    asyncio.run(run())
    return len(presses)


async def ask(address: str, *frames: bytes) -> bytes:
    with zmq.asyncio.Context() as context, context.socket(zmq.REQ) as socket:
        socket.setsockopt(zmq.LINGER, 0)
        socket.connect(address)
        await socket.send_multipart(frames)
        return await asyncio.wait_for(socket.recv(), 10)


@pytest.fixture
def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    return "ipc://new/button"  # a folder that is made; short, whatever tmp_path is


def test_every_press(address: str) -> None:
    async def story(address: str, presses: list[int]) -> None:
        for n in range(1, 4):
            await asyncio.to_thread(trigger.press, address)
            assert len(presses) == n

    assert served(address, story) == 3


def test_other_messages(address: str) -> None:
    async def story(address: str, presses: list[int]) -> None:
        for frames in ([b"hello"], [b""], [b"trigger", b"more"], [b"TRIGGER"]):
            assert await ask(address, *frames) == b"unknown"
        assert not presses
        assert await ask(address, b"trigger") == b"listening"

    assert served(address, story) == 1


def test_a_message_that_is_too_long_does_no_harm(address: str) -> None:
    async def story(address: str, presses: list[int]) -> None:
        with zmq.asyncio.Context() as context, context.socket(zmq.REQ) as socket:
            socket.setsockopt(zmq.LINGER, 0)
            socket.connect(address)
            await socket.send(b"x" * 100_000)
            assert not await socket.poll(200)
        assert await ask(address, b"trigger") == b"listening"

    assert served(address, story) == 1


def test_only_one_at_a_time(address: str) -> None:
    async def story(address: str, presses: list[int]) -> None:
        # the other asks without letting this event loop go on, so it has one of its own
        with pytest.raises(VoiceError, match="another `assistant voice` is running"):
            await asyncio.to_thread(
                lambda: asyncio.run(trigger.serve(lambda: presses.append(2), address))
            )
        assert not presses
        await asyncio.to_thread(trigger.press, address)  # the first goes on

    assert served(address, story) == 1


def test_one_after_the_other(address: str) -> None:
    async def story(address: str, presses: list[int]) -> None:
        await asyncio.to_thread(trigger.press, address)

    assert [served(address, story), served(address, story)] == [1, 1]


def test_nobody_is_there(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trigger, "_ANSWER_MS", 100)
    with pytest.raises(NoAnswer, match="no `assistant voice` is running at ipc://new/button"):
        trigger.press(address)


def test_an_address_that_cannot_be_used() -> None:
    with pytest.raises(VoiceError, match="set ASSISTANT_VOICE_ENDPOINT"):
        asyncio.run(trigger.serve(lambda: None, "ipc:///proc/nowhere/button"))


def test_an_address_that_is_none() -> None:
    with pytest.raises(VoiceError, match=r"cannot reach a button at 'nonsense'.*ipc:///path"):
        trigger.press("nonsense")


def test_where_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("ASSISTANT_VOICE_ENDPOINT", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert trigger.endpoint() == f"ipc://{tmp_path}/assistant-voice.sock"
    monkeypatch.setenv("ASSISTANT_VOICE_ENDPOINT", "tcp://127.0.0.1:7000")
    assert trigger.endpoint() == "tcp://127.0.0.1:7000"


@pytest.mark.parametrize("who", ["main", "button"])
def test_an_error_of_either_ends_both(address: str, who: str) -> None:
    ended = []

    async def main() -> None:
        try:
            if who == "main":
                raise VoiceError("main failed")
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    async def run() -> None:
        where = address if who == "main" else "nonsense"
        try:
            await trigger.run_with_button(lambda: None, where, main())
        finally:
            assert ended

    with pytest.raises(
        VoiceError, match="main failed" if who == "main" else "cannot reach a button"
    ):
        asyncio.run(asyncio.wait_for(run(), 20))
