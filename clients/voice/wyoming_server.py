"""Ears, mouth and answers for others, by the Wyoming protocol: what Home Assistant speaks.

It owns the connections and the order of events. Hearing is left to clients.voice.recogniser,
speaking to a Voice, answering to the daemon. A connection reads events into a short queue, and one
worker deals with them in turn; hearing and speaking happen in threads, never in the event loop.

Protocol: https://github.com/OHF-Voice/wyoming
"""

import asyncio
import contextlib
import hashlib
import json
import logging
import os
import re
import stat
import threading
import uuid
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar
from urllib.parse import urlparse

import numpy as np
import numpy.typing as npt
import soxr

from clients.aio import AsyncClient
from clients.errors import AssistantError
from clients.i18n import _
from clients.voice.errors import MissingPart, VoiceError
from clients.voice.recogniser import Heard, Listening, Recogniser
from clients.voice.sentences import SentenceStream
from clients.voice.sound import RATE_HZ, Samples

try:
    from wyoming.asr import (
        Transcribe,
        Transcript,
        TranscriptChunk,
        TranscriptStart,
        TranscriptStop,
    )
    from wyoming.audio import AudioChunk, AudioFormat, AudioStart, AudioStop
    from wyoming.error import Error
    from wyoming.event import Event, Eventable
    from wyoming.handle import Handled, HandledChunk, HandledStart, HandledStop, NotHandled
    from wyoming.info import (
        AsrModel,
        AsrProgram,
        Attribution,
        Describe,
        HandleModel,
        HandleProgram,
        Info,
        TtsProgram,
        TtsVoice,
    )
    from wyoming.ping import Ping, Pong
    from wyoming.server import AsyncEventHandler, AsyncServer
    from wyoming.tts import (
        Synthesize,
        SynthesizeChunk,
        SynthesizeStart,
        SynthesizeStop,
        SynthesizeStopped,
    )
except ImportError as missing:
    raise MissingPart(
        _("the Python package {name} is not installed; pip install 'assistantd[voice]'").format(
            name=missing.name
        )
    ) from missing

log = logging.getLogger(__name__)

DAEMON_TIMEOUT_S: Final = 5.0
"""Silence of the daemon after which a question is not handled."""
_MOST_CONNECTIONS: Final = 32
_MOST_DATA_BYTES: Final = 1 << 20
_MOST_SOUND_BYTES: Final = 4 << 20  # of one event; a second at 48 kHz in stereo has 0.2 MB
_QUEUED_EVENTS: Final = 32  # beyond it the sender waits
_SOUND_BYTES: Final = 8192  # of one event that we send
_MOST_CHARS: Final = 200_000  # of streamed text to speak; four hours
_RATES_HZ: Final = range(4_000, 384_001)
_CHANNELS: Final = range(1, 9)
_SESSION: Final = re.compile(r"[A-Za-z0-9._-]{1,56}")

T = TypeVar("T")
E = TypeVar("E", bound=Eventable)


class Voice(Protocol):
    """What speaks. Several threads may call `speak` at once; each gets an iterator of its own.

    Attributes:
        name: as "joe".
        language: as "en" or "en_US".
        rate_hz: of the samples.
    """

    @property
    def name(self) -> str: ...
    @property
    def language(self) -> str: ...
    @property
    def rate_hz(self) -> int: ...

    def speak(self, text: str) -> Iterator[Samples]:
        """Sound of the text, piece by piece. Raises VoiceError."""
        ...


@dataclass(frozen=True)
class Services:
    """What is offered.

    Attributes:
        client: the daemon.
        recogniser, voice: None for none.
        languages: that the daemon's model speaks, as "en".
        system: what the model is told about conversations by voice.
        max_tokens: length of an answer at most; None leaves it to the daemon.
        daemon_timeout_s: see DAEMON_TIMEOUT_S.
        pool: threads that hear and speak.
    """

    client: AsyncClient
    recogniser: Recogniser | None
    voice: Voice | None
    languages: Sequence[str]
    system: str | None
    max_tokens: int | None
    daemon_timeout_s: float
    pool: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(thread_name_prefix="wyoming")
    )

    def info(self) -> Info:
        """The answer to Describe."""
        return Info(
            asr=[self._asr(self.recogniser)] if self.recogniser else [],
            tts=[self._tts(self.voice)] if self.voice else [],
            handle=[self._handle()],
        )

    def _asr(self, recogniser: Recogniser) -> AsrProgram:
        maker = Attribution("Alpha Cephei", "https://alphacephei.com/vosk/")
        name = _name(recogniser)
        languages = [recogniser.language] if recogniser.language else []
        model = AsrModel(name, maker, True, f"Vosk model {name}", None, languages)
        program = "Speech to text on this machine, by Vosk"
        return AsrProgram(
            "vosk",
            maker,
            True,
            program,
            _version("vosk"),
            [model],
            supports_transcript_streaming=True,
        )

    def _tts(self, voice: Voice) -> TtsProgram:
        maker, version = _ourselves()
        languages = [voice.language] if voice.language else []
        one = TtsVoice(voice.name, maker, True, f"Voice {voice.name}", None, languages)
        program = "Text to speech on this machine"
        return TtsProgram(
            "assistantd-voice",
            maker,
            True,
            program,
            version,
            [one],
            supports_synthesize_streaming=True,
        )

    def _handle(self) -> HandleProgram:
        maker, version = _ourselves()
        text = "Conversation with the model of this machine's assistantd"
        model = HandleModel("assistantd", maker, True, text, version, list(self.languages))
        return HandleProgram(
            "assistantd", maker, True, text, version, [model], supports_handled_streaming=True
        )


async def serve(
    uri: str,
    *,
    recogniser: Recogniser | None,
    voice: Voice | None,
    make_client: Callable[[], AsyncClient],
    languages: Sequence[str] = ("en",),
    system: str | None = None,
    max_tokens: int | None = None,
    daemon_timeout_s: float = DAEMON_TIMEOUT_S,
    on_ready: Callable[[], None] | None = None,
) -> None:
    """Serve until cancelled; then connections are closed and answers under way cancelled.

    Args:
        uri: tcp://HOST:PORT or unix:///PATH; a socket of the latter kind is for this user only.
            Over tcp, whoever reaches the port may talk to the assistant.
        make_client: opens the connection to the daemon; called once.
        languages, system, max_tokens: see Services.
        on_ready: called when connections are accepted.

    Raises:
        VoiceError: the address cannot be used.
    """
    _check_socket_path(uri)
    server = _server(uri)
    async with make_client() as client:
        services = Services(
            client, recogniser, voice, languages, system, max_tokens, daemon_timeout_s
        )
        under_way: set[asyncio.Task[Any]] = set()
        try:
            try:
                with _private_files():
                    await server.start(partial(_Connection, services, under_way))
            except OSError as error:
                raise VoiceError(
                    _(
                        "cannot listen at {address}: {problem}; is another server "
                        "running there? stop it, or choose another address"
                    ).format(address=uri, problem=error.strerror or error)
                ) from error
            log.info("serving Wyoming at %s", uri)
            if on_ready is not None:
                on_ready()
            await asyncio.Event().wait()
        finally:
            await server.stop()
            for task in under_way:
                task.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)
            await asyncio.to_thread(services.pool.shutdown)  # what is being heard takes a moment


def _server(uri: str) -> AsyncServer:
    try:
        if urlparse(uri).scheme not in ("tcp", "unix"):
            raise ValueError(_("only tcp:// and unix:// are served"))
        return AsyncServer.from_uri(uri)
    except ValueError as error:
        raise VoiceError(
            _(
                "{address} is no address to serve Wyoming at ({problem}); give one like "
                "tcp://127.0.0.1:10300 or unix:///run/user/1000/wyoming.sock"
            ).format(address=uri, problem=error)
        ) from error


@contextlib.contextmanager
def _private_files() -> Iterator[None]:
    """What is made within is for this user only, from the first moment."""
    before = os.umask(0o177)
    try:
        yield
    finally:
        os.umask(before)


def _check_socket_path(uri: str) -> None:
    """wyoming deletes what is where a unix socket will be, so that must be a socket."""
    if urlparse(uri).scheme != "unix":
        return
    path = Path(urlparse(uri).path)
    if path.exists() and not stat.S_ISSOCK(path.stat().st_mode):
        raise VoiceError(
            _("{path} is there and is no socket; remove it, or choose another address").format(
                path=path
            )
        )


def _name(recogniser: Recogniser) -> str:
    place = recogniser.folder
    return place.parent.name if place.name == "model" else place.name


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _ourselves() -> tuple[Attribution, str | None]:
    return Attribution("assistantd", ""), _version("assistantd")


class _Refused(Exception):  # noqa: N818  never leaves this file
    """What came cannot be served. Ends the connection, as many clients wait for their answer only.

    Attributes:
        code: for programs, in the Error event.
    """

    def __init__(self, text: str, code: str) -> None:
        super().__init__(text)
        self.code = code


class _BrokenEvent(_Refused):
    """What came does not follow the protocol."""

    def __init__(self, text: str) -> None:
        super().__init__(text, "bad-event")


class _Connection(AsyncEventHandler):
    """One client of ours, from its first event to its last."""

    def __init__(
        self,
        services: Services,
        under_way: set[asyncio.Task[Any]],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        super().__init__(reader, writer)
        self._services = services
        self._under_way = under_way
        self._peer = writer.get_extra_info("peername") or "a local client"
        self._session = uuid.uuid4().hex
        self._gone = asyncio.Event()
        self._ear: _Ear | None = None
        self._transcribe = Transcribe()
        self._mouth: _Mouth | None = None  # while text to speak is streamed
        self._n_chars = 0  # of it

    # --- life ---

    async def run(self) -> None:
        """Deal with events until either side ends the connection; logs why, and raises nothing."""
        task = asyncio.current_task()
        assert task is not None
        if len(self._under_way) >= _MOST_CONNECTIONS:
            log.warning("refused %s: %d connections are open", self._peer, _MOST_CONNECTIONS)
            self.writer.close()
            return
        self._under_way.add(task)
        queue: asyncio.Queue[Event | _BrokenEvent | None] = asyncio.Queue(_QUEUED_EVENTS)
        reading = asyncio.create_task(self._read_all(queue), name="wyoming reader")
        try:
            while (event := await queue.get()) is not None:
                if isinstance(event, _BrokenEvent):
                    raise event
                await self.handle_event(event)
        except (_Refused, VoiceError) as error:
            log.warning("ended the connection of %s: %s", self._peer, error)
            code = error.code if isinstance(error, _Refused) else "voice-error"
            with contextlib.suppress(OSError):  # it may be gone by now, which is what we want
                await self._send(Error(str(error), code))
        except OSError as error:
            log.info("lost the connection of %s: %s", self._peer, error)
        except Exception:
            log.exception("ended the connection of %s, as something failed", self._peer)
        finally:
            reading.cancel()
            self._under_way.discard(task)
            self.writer.close()

    async def _read_all(self, queue: "asyncio.Queue[Event | _BrokenEvent | None]") -> None:
        last: _BrokenEvent | None = None
        try:
            while (event := await self._read()) is not None:
                await queue.put(event)
        except _BrokenEvent as error:
            last = error
        except OSError as error:
            log.info("lost the connection of %s: %s", self._peer, error)
        self._gone.set()
        await queue.put(last)

    async def _read(self) -> Event | None:
        """The next event; wyoming's own reader knows no bounds and hides what is broken."""
        try:
            line = await self.reader.readline()
            if not line:
                return None
            head = json.loads(line)
            kind, data = head["type"], head.get("data") or {}
            if not isinstance(kind, str) or not isinstance(data, dict):
                raise TypeError("type and data are of another kind")
            more = await self._bytes(head.get("data_length"), _MOST_DATA_BYTES)
            if more:
                data.update(json.loads(more))
            payload = await self._bytes(head.get("payload_length"), _MOST_SOUND_BYTES)
            return Event(kind, data, payload)
        except asyncio.IncompleteReadError as error:
            raise _BrokenEvent("the connection ended within an event") from error
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise _BrokenEvent(f"this is no Wyoming event ({error!r:.200})") from error

    async def _bytes(self, length: Any, most: int) -> bytes:
        if length is None:
            return b""
        if type(length) is not int or not 0 <= length <= most:
            raise ValueError(f"a length of {length!r}, where at most {most} bytes are taken")
        return await self.reader.readexactly(length)

    async def _send(self, event: Eventable) -> None:
        await self.write_event(event.event())

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._services.pool, work)

    # --- events ---

    async def handle_event(self, event: Event) -> bool:
        """Deal with one event; others than these are dropped, as the protocol wants."""
        kind = event.type
        if Describe.is_type(kind):
            await self._send(self._services.info())
        elif Ping.is_type(kind):
            await self._send(Pong(_parsed(Ping, event).text))
        elif Transcript.is_type(kind):
            await self._converse(_parsed(Transcript, event))
        elif Transcribe.is_type(kind):
            self._transcribe, self._ear = _parsed(Transcribe, event), None
        elif AudioStart.is_type(kind):
            await self._listen(_parsed(AudioStart, event))
        elif AudioChunk.is_type(kind):
            await self._hear(_parsed(AudioChunk, event))
        elif AudioStop.is_type(kind):
            await self._transcript()
        elif Synthesize.is_type(kind):
            await self._speak(_parsed(Synthesize, event))
        elif SynthesizeStart.is_type(kind):
            self._mouth = self._new_mouth(_parsed(SynthesizeStart, event).text_format)
            self._n_chars = 0
        elif SynthesizeChunk.is_type(kind):
            await self._speak_on(_parsed(SynthesizeChunk, event).text)
        elif SynthesizeStop.is_type(kind):
            await self._stop_speaking()
        # room for Detect (wake words)
        return True

    # --- asr ---

    async def _listen(self, sound: AudioFormat) -> None:
        recogniser = self._services.recogniser
        if recogniser is None:
            raise _Refused(_("there is no recogniser here; choose another server"), "no-asr")
        listening = await self._in_thread(recogniser.listen)
        self._ear = _Ear(listening, sound)
        await self._send(TranscriptStart(self._transcribe.context, recogniser.language or None))

    async def _hear(self, chunk: AudioChunk) -> None:
        if self._ear is not None:  # without AudioStart, or a recogniser, there is none
            await self._understood(await self._in_thread(partial(self._ear.hear, chunk)))

    async def _transcript(self) -> None:
        ear, self._ear = self._ear, None
        recogniser = self._services.recogniser
        if ear is None or recogniser is None:
            return
        await self._understood(await self._in_thread(ear.finish), ear)
        context, self._transcribe = self._transcribe.context, Transcribe()
        await self._send(Transcript("".join(ear.texts), context, recogniser.language or None))
        await self._send(TranscriptStop())

    async def _understood(self, heard: Heard, ear: "_Ear | None" = None) -> None:
        """Send what is certain; together the pieces are the transcript."""
        ear = ear or self._ear
        assert ear is not None
        if heard.final and heard.text:
            ear.texts.append(f" {heard.text}" if ear.texts else heard.text)
            await self._send(TranscriptChunk(ear.texts[-1]))

    # --- tts ---

    async def _speak(self, request: Synthesize) -> None:
        if self._mouth is not None:
            return  # sent for servers that cannot stream: the same text comes in pieces, too
        mouth = self._new_mouth(request.text_format)
        await mouth.start()
        await mouth.speak(request.text)
        await mouth.stop()

    async def _speak_on(self, text: str) -> None:
        if self._mouth is not None:
            self._n_chars += len(text)
            if self._n_chars > _MOST_CHARS:
                raise _Refused(
                    _("more than {n} characters to speak; send less").format(n=_MOST_CHARS),
                    "too-long",
                )
            for sentence in self._mouth.sentences.feed(text):
                await self._mouth.speak(sentence)

    async def _stop_speaking(self) -> None:
        mouth, self._mouth = self._mouth, None
        if mouth is None:
            return
        for sentence in mouth.sentences.finish():
            await mouth.speak(sentence)
        await mouth.stop()
        await self._send(SynthesizeStopped())

    def _new_mouth(self, text_format: str | None) -> "_Mouth":
        if self._services.voice is None:
            raise _Refused(_("there is no voice here; choose another server"), "no-tts")
        if text_format not in (None, "text"):
            kind = getattr(text_format, "value", text_format)
            raise _Refused(
                _("{kind} is not spoken here; send plain text").format(kind=kind), "no-ssml"
            )
        return _Mouth(self, self._services.voice)

    # --- handle ---

    async def _converse(self, question: Transcript) -> None:
        """Answer, unless the client leaves: then the daemon need not go on."""
        answering = asyncio.create_task(self._answer(question), name="wyoming answer")
        leaving = asyncio.create_task(self._gone.wait(), name="wyoming leaving")
        try:
            await asyncio.wait((answering, leaving), return_when=asyncio.FIRST_COMPLETED)
        finally:
            leaving.cancel()
            if not answering.done():
                answering.cancel()
                await asyncio.wait((answering,))
        if not answering.cancelled():
            answering.result()

    async def _answer(self, question: Transcript) -> None:
        client, context = self._services.client, question.context
        if not question.text.strip():
            await self._send(NotHandled(_("nothing was said; say it again"), context))
            return
        started = False
        try:
            # one that is away is told from one that is thinking
            await client.ping(self._services.daemon_timeout_s)
            answer = client.ask(
                question.text,
                session=self._session_of(context),
                system=self._services.system,
                max_tokens=self._services.max_tokens,
            )
            async with answer:
                async for piece in answer:
                    if not started:
                        started = True
                        await self._send(HandledStart(context))
                    await self._send(HandledChunk(piece))
        except AssistantError as error:
            log.warning("%s got no answer: %s", self._peer, error)
            await self._send(NotHandled(str(error), context))
        else:
            if not started:
                await self._send(HandledStart(context))
                started = True
            await self._send(Handled(answer.text, context))
        if started:
            await self._send(HandledStop())

    def _session_of(self, context: dict[str, Any] | None) -> str:
        """The daemon's conversation: that of the client's own, or of this connection."""
        given = str((context or {}).get("conversation_id") or self._session)
        if not _SESSION.fullmatch(given):
            given = hashlib.sha256(given.encode()).hexdigest()[:32]
        return f"wyoming-{given}"  # so that no client reaches into conversations by other ways


class _Ear:
    """Hears one stretch of sound of any format. In threads, one call at a time.

    Attributes:
        texts: pieces of the transcript so far.
    """

    def __init__(self, listening: Listening, sound: AudioFormat) -> None:
        self.texts: list[str] = []
        self._listening = listening
        self._format = (sound.rate, sound.width, sound.channels)
        if (
            any(type(number) is not int for number in self._format)
            or sound.rate not in _RATES_HZ
            or sound.channels not in _CHANNELS
            or sound.width not in (1, 2, 4)
        ):
            raise _BrokenEvent(
                f"sound of {sound.rate!r} Hz, {sound.width!r} bytes, {sound.channels!r} channels; "
                f"taken are {_RATES_HZ[0]} to {_RATES_HZ[-1]} Hz, 1, 2 or 4 bytes, "
                f"{_CHANNELS[0]} to {_CHANNELS[-1]} channels"
            )
        self._stream = (
            soxr.ResampleStream(sound.rate, RATE_HZ, 1, dtype="int16")
            if sound.rate != RATE_HZ
            else None
        )

    def hear(self, chunk: AudioChunk) -> Heard:
        """Listen to more. Raises _BrokenEvent for sound of another format than at the start."""
        _, width, channels = self._format
        if (chunk.rate, chunk.width, chunk.channels) != self._format:
            raise _BrokenEvent("the format of the sound changed without an audio-start")
        if len(chunk.audio) % (width * channels):
            raise _BrokenEvent(
                f"{len(chunk.audio)} bytes of sound are no whole number of samples of "
                f"{width * channels} bytes"
            )
        samples = self._resampled(_mono(chunk.audio, width, channels), False)
        return self._listening.hear(samples) if samples.size else Heard("", [], False)

    def finish(self) -> Heard:
        """The sound has ended."""
        rest = self._resampled(np.zeros(0, np.int16), True)
        before = self._listening.hear(rest) if rest.size else None
        heard = self._listening.finish()
        if before is not None and before.final and before.text:
            text = f"{before.text} {heard.text}".strip()
            return Heard(text, before.words + heard.words, True)
        return heard

    def _resampled(self, samples: Samples, last: bool) -> Samples:
        if self._stream is None:
            return samples
        return np.asarray(self._stream.resample_chunk(samples, last=last), np.int16)


def _mono(audio: bytes, width: int, channels: int) -> Samples:
    """(n,) int16 of little-endian PCM; with one byte, samples are unsigned as in WAV files."""
    samples: npt.NDArray[Any]
    if width == 1:
        samples = (np.frombuffer(audio, np.uint8).astype(np.int16) - 128) << 8
    elif width == 2:
        samples = np.frombuffer(audio, "<i2")
    else:
        samples = (np.frombuffer(audio, "<i4") >> 16).astype(np.int16)
    if channels > 1:
        samples = samples.reshape(-1, channels).mean(axis=1)
    return samples.astype(np.int16)


class _Mouth:
    """Speaks into a connection: AudioStart, chunks and AudioStop once, however many texts.

    Attributes:
        sentences: cuts text that comes in pieces.
    """

    def __init__(self, connection: _Connection, voice: Voice) -> None:
        self.sentences = SentenceStream()
        self._connection = connection
        self._voice = voice
        self._started = False

    async def start(self) -> None:
        """Announce sound, if that was not done."""
        if not self._started:
            self._started = True
            await self._connection._send(AudioStart(self._voice.rate_hz, 2, 1))

    async def speak(self, text: str) -> None:
        """Send the sound of a text. Raises VoiceError."""
        if not text.strip():
            return
        async with contextlib.aclosing(self._pieces(text)) as pieces:
            async for samples in pieces:
                await self.start()
                audio = samples.astype("<i2").tobytes()
                for first in range(0, len(audio), _SOUND_BYTES):
                    part = audio[first : first + _SOUND_BYTES]
                    await self._connection._send(AudioChunk(self._voice.rate_hz, 2, 1, part))

    async def stop(self) -> None:
        """Announce the end of the sound, if there was any."""
        if self._started:
            await self._connection._send(AudioStop())

    async def _pieces(self, text: str) -> AsyncGenerator[Samples, None]:
        pulled = _Pulled(partial(self._voice.speak, text))
        try:
            while (samples := await self._connection._in_thread(pulled.next)) is not None:
                yield samples
        finally:
            # in a thread, too: it waits for a piece that is being made
            self._connection._services.pool.submit(pulled.close)


class _Pulled:
    """An iterator that threads take from, one at a time."""

    def __init__(self, start: Callable[[], Iterator[Samples]]) -> None:
        self._start = start
        self._pieces: Iterator[Samples] | None = None
        self._lock = threading.Lock()

    def next(self) -> Samples | None:
        """The next piece; None at the end."""
        with self._lock:
            if self._pieces is None:
                self._pieces = iter(self._start())
            return next(self._pieces, None)

    def close(self) -> None:
        """Let a generator clean up."""
        with self._lock:
            close = getattr(self._pieces, "close", None)
            if close is not None:
                close()


def _parsed(kind: type[E], event: Event) -> E:
    """The event as wyoming's class. Raises _BrokenEvent."""
    try:
        found = kind.from_event(event)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _BrokenEvent(f"a broken {event.type} event ({error!r:.200})") from error
    for name in ("text", "context", "text_format"):
        value = getattr(found, name, None)
        wanted = dict if name == "context" else str
        if value is not None and not isinstance(value, wanted):
            raise _BrokenEvent(f"a broken {event.type} event: {name} is no {wanted.__name__}")
        if name == "text" and value is None and hasattr(found, "text") and kind is not Ping:
            raise _BrokenEvent(f"a broken {event.type} event: it has no text")
    assert isinstance(found, kind)
    return found
