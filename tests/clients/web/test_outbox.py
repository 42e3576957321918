"""clients.web.outbox: what is joined, in which order, and how much."""

import asyncio
import json

import pytest

from assistantd import protocol
from assistantd.protocol import Delta, Done
from clients.web.outbox import DELTA, MOST_BYTES, Full, Outbox, with_id


def body(reply: protocol.Reply) -> bytes:
    """As the daemon writes it."""
    return protocol.encode_reply(b"x", reply)[2]


def test_the_daemon_writes_deltas_as_expected() -> None:
    assert body(Delta(text="x")).startswith(DELTA)


@pytest.mark.parametrize("request_id", ["a", 'q"uote', "é"])
def test_ids_come_first_and_are_quoted(request_id: str) -> None:
    assert json.loads(with_id(request_id, body(Delta(text="x")))) == {
        "id": request_id,
        "type": "delta",
        "text": "x",
    }


def test_pieces_of_each_answer_are_joined_and_order_is_kept() -> None:
    async def main() -> list[object]:
        outbox = Outbox()
        for text in "one":
            outbox.add_reply("1", body(Delta(text=text)))
            outbox.add_reply("2", body(Delta(text=text.upper())))
        outbox.add_reply("1", body(Done(text="one")))
        outbox.add_reply("2", body(Delta(text="!")))
        outbox.add_reply("1", body(Delta(text="another by the same id")))
        sent: list[str] = []

        async def send(frame: str) -> None:
            sent.append(frame)

        await outbox.flush(send)
        return [json.loads(frame) for frame in sent]

    assert asyncio.run(main()) == [
        {"type": "delta", "id": "1", "text": "one"},
        {"type": "delta", "id": "2", "text": "ONE!"},
        {"id": "1", "type": "done", "done": True, "text": "one"},
        {"type": "delta", "id": "1", "text": "another by the same id"},
    ]


def test_the_first_piece_goes_at_once_and_the_rest_together() -> None:
    async def main() -> list[str]:
        now = [100.0]
        outbox = Outbox(clock=lambda: now[0])
        sent: asyncio.Queue[str] = asyncio.Queue()

        async def send(frame: str) -> None:
            sent.put_nowait(frame)

        writer = asyncio.create_task(outbox.run(send))
        outbox.add_reply("1", body(Delta(text="first")))
        frames = [await sent.get()]
        now[0] += 0.001
        for text in ("a", "b", "c"):
            outbox.add_reply("1", body(Delta(text=text)))
        frames.append(await sent.get())
        outbox.add_reply("1", body(Delta(text="d")))
        outbox.add_reply("1", body(Done(text="firstabcd")))  # is not kept back
        frames += [await sent.get(), await sent.get()]
        writer.cancel()
        return frames

    texts = [json.loads(frame)["text"] for frame in asyncio.run(main())]
    assert texts == ["first", "abc", "d", "firstabcd"]


def test_it_is_bounded() -> None:
    async def main() -> None:
        outbox = Outbox()
        piece = body(Delta(text="x" * 100_000))
        with pytest.raises(Full):
            for _ in range(MOST_BYTES // 100_000 + 1):
                outbox.add_reply("1", piece)
        outbox.clear()
        outbox.add_reply("1", piece)

    asyncio.run(main())
