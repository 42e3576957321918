"""clients.aio over real ipc sockets; what it shares with the sync client is tested there."""

import asyncio
import gc
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from assistantd.protocol import Cancel, Chat, Delta, Done, Ping, Request, Sessions, Status
from clients import AssistantError, AsyncClient, errors
from tests.clients.scripted_daemon import (
    WAIT_S,
    ScriptedDaemon,
    Send,
    fail,
    say,
    say_until_cancelled,
    status_info,
)
from tests.clients.test_client import VERBS


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[ScriptedDaemon]:
    with ScriptedDaemon(tmp_path) as daemon:
        yield daemon


def run(endpoint: str, test: Callable[[AsyncClient], Awaitable[None]]) -> None:
    """Run `test` with a client of `endpoint`."""

    async def main() -> None:
        async with AsyncClient(endpoint, timeout=WAIT_S) as client:
            await test(client)

    asyncio.run(main())


async def happened(wait: Callable[[], object]) -> None:
    """Wait for something in a ScriptedDaemon without stopping the loop."""
    await asyncio.to_thread(wait)


def test_an_answer_streams_and_ends(daemon: ScriptedDaemon) -> None:
    daemon.on("chat", say("Pa", "ris"))

    async def test(client: AsyncClient) -> None:
        answer = client.ask("Capital?", session="s1")
        assert [piece async for piece in answer] == ["Pa", "ris"]
        assert (answer.text, answer.finish_reason) == ("Paris", "stop")
        assert answer.timings is not None
        daemon.on("complete", say("3"))
        assert str(await client.complete("1, 2,").wait()) == "3"

    run(daemon.endpoint, test)
    assert daemon.requests[0] == Chat(text="Capital?", session="s1")


def test_requests_run_at_the_same_time_on_one_connection(daemon: ScriptedDaemon) -> None:
    everyone = threading.Barrier(8, timeout=WAIT_S)  # no answer ends before all have begun
    identities: set[bytes] = set()

    def handler(request: Request, send: Send) -> None:
        assert isinstance(request, Chat) and request.text is not None
        identities.add(send.identity)
        send(Delta(text=request.text))
        everyone.wait()
        send(Done(text=request.text * 2, finish_reason="stop"))

    daemon.on("chat", handler)

    async def test(client: AsyncClient) -> None:
        answers = [client.ask(letter) for letter in "abcdefgh"]
        texts = await asyncio.gather(*(answer.wait() for answer in answers))
        assert [str(text) for text in texts] == [letter * 2 for letter in "abcdefgh"]

    run(daemon.endpoint, test)
    assert len(identities) == 1


def test_many_pieces_and_pings_interleave(daemon: ScriptedDaemon) -> None:
    pieces = [f"{number} " for number in range(3000)]
    daemon.on("chat", say(*pieces))

    async def test(client: AsyncClient) -> None:
        async def pings() -> None:
            for _ in range(50):
                await client.ping()

        answer, _ = await asyncio.gather(client.ask("count").wait(), pings())
        assert answer.text == "".join(pieces)

    run(daemon.endpoint, test)


def test_cancel_ends_the_answer(daemon: ScriptedDaemon) -> None:
    daemon.on("chat", say_until_cancelled("begin"))

    async def test(client: AsyncClient) -> None:
        answer = client.ask("long story")
        assert await anext(answer) == "begin"
        answer.cancel()
        assert (await answer.wait()).finish_reason == "cancelled"

    run(daemon.endpoint, test)


@pytest.mark.parametrize("how", ["with", "aclose", "drop", "task"])
def test_letting_go_cancels(daemon: ScriptedDaemon, how: str) -> None:
    daemon.on("chat", say_until_cancelled("begin"))

    async def let_go(client: AsyncClient) -> None:
        answer = client.ask("long story")
        if how == "with":
            async with answer:
                assert await anext(answer) == "begin"
        elif how == "aclose":
            await answer.aclose()
            assert [piece async for piece in answer] == []
        elif how == "task":
            task = asyncio.create_task(answer.wait())
            await happened(lambda: daemon.wait_for(Chat))
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    async def test(client: AsyncClient) -> None:
        await let_go(client)
        gc.collect()
        await happened(lambda: daemon.wait_for(Cancel))
        assert (await client.ping()).version

    run(daemon.endpoint, test)


def test_errors_are_typed(daemon: ScriptedDaemon) -> None:
    daemon.on("chat", fail("busy", "the queue is full; try again", retry_after_ms=100))

    async def test(client: AsyncClient) -> None:
        with pytest.raises(errors.Busy) as caught:
            await client.ask("hi").wait()
        assert caught.value.retry_after_ms == 100
        with pytest.raises(errors.TooLarge):
            client.ask("x" * (4 * 1024 * 1024))

    run(daemon.endpoint, test)


def test_a_daemon_that_dies_and_comes_back(daemon: ScriptedDaemon) -> None:
    daemon.on("chat", say_until_cancelled("half of"))

    async def test(client: AsyncClient) -> None:
        answers = [client.ask("a"), client.ask("b")]
        for answer in answers:
            assert await anext(answer) == "half of"
        await happened(daemon.stop)
        for answer in answers:
            with pytest.raises(errors.ConnectionLost):
                await answer.wait()
        await happened(daemon.restart)
        daemon.on("chat", say("whole"))
        assert str(await client.ask("again").wait()) == "whole"

    run(daemon.endpoint, test)


def test_only_reads_are_asked_again(daemon: ScriptedDaemon) -> None:
    daemon.on("status", lambda request, send: None)

    async def test(client: AsyncClient) -> None:
        status = asyncio.create_task(client.status())
        delete = asyncio.create_task(client.delete_session("s1"))
        await happened(lambda: (daemon.wait_for(Status), daemon.wait_for(Sessions)))
        await happened(daemon.stop)
        daemon.on("status", lambda r, send: send(Done(status=status_info(pid=4711))))
        await happened(daemon.restart)
        assert (await status).pid == 4711
        with pytest.raises(errors.ConnectionLost):
            await delete

    run(daemon.endpoint, test)


def test_timeouts(daemon: ScriptedDaemon, tmp_path: Path) -> None:
    daemon.on("chat", lambda request, send: None)

    async def test(client: AsyncClient) -> None:
        client.timeout = 0.05
        with pytest.raises(errors.NoAnswer):
            await client.ask("hi").wait()
        await happened(lambda: daemon.wait_for(Cancel))
        async with AsyncClient(f"ipc://{tmp_path}/none.sock") as alone:
            with pytest.raises(errors.NoAnswer):
                await alone.ping(timeout=0.05)
            with pytest.raises(errors.NoAnswer):
                await alone.wait_ready(0.05)
            with pytest.raises(errors.ConnectionLost, match="process ended"):
                await alone.wait_ready(WAIT_S, lambda: False)

    run(daemon.endpoint, test)


def test_wait_ready_for_a_daemon_that_starts_later(tmp_path: Path) -> None:
    daemon = ScriptedDaemon(tmp_path)
    polled: list[bool] = []

    def alive() -> bool:
        polled.append(True)
        if len(polled) == 3:
            daemon.start()
        return True

    async def test(client: AsyncClient) -> None:
        try:
            assert (await client.wait_ready(WAIT_S, alive)).state == "ready"
            assert len(daemon.wait_for(Ping)) == 1
        finally:
            await happened(daemon.stop)

    run(daemon.endpoint, test)


@pytest.mark.parametrize("number", range(len(VERBS)))
def test_verbs(daemon: ScriptedDaemon, number: int) -> None:
    _, request, reply, result = VERBS[number]
    for kind in ("sessions", "models", "budget", "shutdown", "forget"):
        daemon.on(kind, lambda r, send: send(reply))
    verbs: list[Callable[[AsyncClient], Awaitable[object]]] = [
        lambda c: c.sessions(),
        lambda c: c.session("s1"),
        lambda c: c.rename_session("s1", "t"),
        lambda c: c.delete_session("s1"),
        lambda c: c.forget("s1", since=1.0, preview=True),
        lambda c: c.forget(all=True, owner="abcdefg2"),
        lambda c: c.models(),
        lambda c: c.show_model("tiny"),
        lambda c: c.show_model("tiny", budget=0),
        lambda c: c.set_budget(1 << 20),
        lambda c: c.set_budget(0),
        lambda c: c.pull("tiny"),
        lambda c: c.load("tiny"),
        lambda c: c.unload(),
        lambda c: c.remove_model("tiny"),
        lambda c: c.shutdown(),
    ]
    assert len(verbs) == len(VERBS)

    async def test(client: AsyncClient) -> None:
        got = await verbs[number](client)
        assert (got.message if isinstance(got, Done) else got) == result

    run(daemon.endpoint, test)
    assert daemon.requests == [request]


def test_closing_cancels_what_is_under_way(daemon: ScriptedDaemon) -> None:
    daemon.on("chat", say_until_cancelled("x"))

    async def main() -> None:
        client = AsyncClient(daemon.endpoint, timeout=WAIT_S)
        answer = client.ask("hi")
        waiting = asyncio.create_task(client.sessions())
        assert await anext(answer) == "x"
        await client.close()
        await client.close()
        for lost in (anext(answer), waiting):
            with pytest.raises(errors.ConnectionLost, match="closed"):
                await lost
        with pytest.raises(AssistantError, match="closed"):
            await client.ping()

    asyncio.run(main())
    daemon.wait_for(Cancel)


def test_a_client_belongs_to_one_loop(daemon: ScriptedDaemon) -> None:
    client = AsyncClient(daemon.endpoint, timeout=WAIT_S)

    async def use() -> None:
        await client.ping()

    asyncio.run(use())
    with pytest.raises(AssistantError, match="another event loop"):
        asyncio.run(use())
    asyncio.run(client.close())


def test_a_forgotten_client_is_reported(daemon: ScriptedDaemon) -> None:
    async def main() -> None:
        client = AsyncClient(daemon.endpoint)
        with pytest.warns(ResourceWarning, match="unclosed"):
            del client
            gc.collect()

    asyncio.run(main())
