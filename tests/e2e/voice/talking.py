"""People, rooms and `assistant voice` for the end-to-end tests: said, echoed, recorded, awaited.

    person ──play──► sink "room" ──► microphone ──► assistant voice ──► sink "speaker"
                          ▲                                               │ monitor
                          └───────────── Room.echo, if wanted ────────────┴──► Recording

Times are those of CLOCK_MONOTONIC, which all processes of a machine share.
"""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from time import monotonic
from typing import Any, Final

import numpy as np
import zmq

from clients.voice.sound import RATE_HZ, Samples, read_wav, resample, write_wav
from tests.e2e.voice.sound_server import VIRTUAL_MICROPHONE, VIRTUAL_SPEAKER, SoundServer

WAIT_S: Final = 90.0
"""For what must happen; long, as the machine may be busy with other tests."""
PERSON: Final = "ko+f5"
"""Whose "자비스" the recogniser's model takes for one, though its other Korean it does not."""
_AUDIBLE: Final = 300
"""Samples above it are sound: -40 dBFS."""


@cache
def said(text: str, voice: str = PERSON, speed: int = 150, dbfs: float = -20.0) -> Samples:
    """(n,) int16 at RATE_HZ: espeak-ng saying it, at that level while it speaks."""
    done = subprocess.run(
        ["espeak-ng", "-v", voice, "-s", str(speed), "--stdout", text],
        capture_output=True,
        check=True,
    )
    # written to a pipe, the header's length is not true
    data = done.stdout[44:]
    rate_hz = int.from_bytes(done.stdout[24:28], "little")
    sound = resample(np.frombuffer(data[: len(data) // 2 * 2], np.int16), rate_hz, RATE_HZ)
    loud = np.flatnonzero(np.abs(sound.astype(np.int32)) > 100)
    sound = sound[loud[0] : loud[-1] + 1].astype(np.float64)
    gain = 32768 * 10 ** (dbfs / 20) / np.sqrt(np.mean(sound**2))
    return np.clip(sound * gain, -32768, 32767).astype(np.int16)


class Recording:
    """What comes out of a PulseAudio source while it is being recorded."""

    def __init__(self, process: "subprocess.Popen[bytes]", rate_hz: int) -> None:
        self.rate_hz = rate_hz
        self._process = process
        self._pieces: list[Samples] = []
        self._size = 0
        self._offset_s = float("inf")  # when the first sample was heard
        self._changed = threading.Condition()
        self._ended = False
        self._thread = threading.Thread(target=self._read, name="recording")
        self._thread.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        file = self._process.stdout.fileno()
        rest = b""
        while data := os.read(file, 1 << 14):
            now_s = monotonic()
            data = rest + data
            whole = len(data) // 2 * 2
            rest = data[whole:]
            with self._changed:
                self._pieces.append(np.frombuffer(data[:whole], np.int16))
                self._size += whole // 2
                # pieces come late now and then, and never early
                self._offset_s = min(self._offset_s, now_s - self._size / self.rate_hz)
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def until(self, moment_s: float) -> None:
        """Wait until what was heard up to then has been recorded."""
        with self._changed:
            assert self._changed.wait_for(
                lambda: (
                    self._ended
                    or (self._size > 0 and self._offset_s + self._size / self.rate_hz >= moment_s)
                ),
                WAIT_S,
            ), "nothing is recorded"

    def between(self, from_s: float, to_s: float) -> Samples:
        """(n,) int16 of that time."""
        self.until(to_s)
        with self._changed:
            whole = np.concatenate(self._pieces)
            first, last = (round((t - self._offset_s) * self.rate_hz) for t in (from_s, to_s))
        return whole[max(0, first) : max(0, last)]

    def since(self, from_s: float) -> Samples:
        """(n,) int16 from then to now."""
        return self.between(from_s, monotonic())

    def wait_for_sound(self, from_s: float, timeout_s: float = WAIT_S) -> float:
        """When sound began, or went on, after `from_s`."""
        until_s = monotonic() + timeout_s
        while True:
            now_s = monotonic()
            heard = self.between(from_s, now_s)
            loud = np.flatnonzero(np.abs(heard.astype(np.int32)) > _AUDIBLE)
            if loud.size:
                return from_s + float(loud[0]) / self.rate_hz
            assert now_s < until_s, f"no sound in {timeout_s:.0f} s"
            assert not self._ended, "the recorder has ended"
            from_s = max(from_s, now_s - 0.1)
            self.until(now_s + 0.02)

    def silent_after(self, moment_s: float, quiet_s: float = 1.0) -> float:
        """When the sound of `moment_s` ended; `moment_s` if there was none."""
        self.until(moment_s + quiet_s)
        heard = self.between(moment_s, moment_s + quiet_s)
        loud = np.flatnonzero(np.abs(heard.astype(np.int32)) > _AUDIBLE)
        return moment_s + (float(loud[-1] + 1) / self.rate_hz if loud.size else 0.0)

    def onset(self, sound: Samples, from_s: float, to_s: float) -> float:
        """When `sound`, at RATE_HZ, began to be heard between those, whatever else was."""
        heard = self.between(from_s, to_s).astype(np.float64)
        wanted = resample(sound, RATE_HZ, self.rate_hz).astype(np.float64)
        n = heard.size + wanted.size
        product = np.fft.irfft(np.fft.rfft(heard, n) * np.conj(np.fft.rfft(wanted, n)), n)
        return from_s + float(np.argmax(product[: heard.size])) / self.rate_hz

    def close(self) -> None:
        """End it."""
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(20)
        self._thread.join(20)
        assert self._process.stdout is not None
        self._process.stdout.close()


class Room:
    """A sound server, and what people in it do."""

    def __init__(self, server: SoundServer, folder: Path) -> None:
        self.server, self.folder = server, folder

    @contextmanager
    def recording(self, source: str = "speaker.monitor") -> Iterator[Recording]:
        """Record it while the block runs."""
        process = subprocess.Popen(
            [
                *("parec", f"--device={source}", "--latency-msec=10", "--raw"),
                *("--channels=1", "--format=s16le", f"--rate={RATE_HZ}"),
            ],
            env=self.server.environment,
            stdout=subprocess.PIPE,
        )
        recording = Recording(process, RATE_HZ)
        try:
            recording.until(0)  # it has begun
            yield recording
        finally:
            recording.close()

    def say(self, sound: Samples | str, *, wait: bool = True) -> "subprocess.Popen[bytes]":
        """Into the microphone."""
        if isinstance(sound, str):
            sound = said(sound)
        path = self.folder / f"said-{id(sound)}.wav"
        if not path.exists():
            # PulseAudio's players end a little before their sound has
            write_wav(path, np.concatenate([sound, np.zeros(RATE_HZ // 10, np.int16)]), RATE_HZ)
        process = self.server.play_into_microphone(path)
        if wait:
            assert process.wait(WAIT_S) == 0
        return process

    @contextmanager
    def echo(self, db: float = -12.0) -> Iterator[None]:
        """What the speaker plays is heard by the microphone, too, so much quieter."""
        run = self.server._pactl
        module = run(
            *("load-module", "module-loopback", "source=speaker.monitor", "sink=room"),
            *("latency_msec=40", "adjust_time=0", "source_dont_move=true", "sink_dont_move=true"),
        ).strip()
        inputs = json.loads(run("--format=json", "list", "sink-inputs"))
        index = next(one["index"] for one in inputs if str(one["owner_module"]) == module)
        run("set-sink-input-volume", str(index), f"{db}dB")
        try:
            yield
        finally:
            run("unload-module", module)


class Talking:
    """`assistant voice --json` that runs; its events in turn.

    Attributes:
        events: all of them so far, with "at": when. Lines of stderr are notes.
    """

    def __init__(self, process: "subprocess.Popen[str]", button: str) -> None:
        self.process, self.button = process, button
        self.events: list[dict[str, Any]] = []
        self._next = 0
        self._open = 2
        self._changed = threading.Condition()
        self._threads = [
            threading.Thread(target=self._read, args=(file, parse), name="events")
            for file, parse in (
                (process.stdout, json.loads),
                (process.stderr, lambda line: {"event": "note", "text": line.rstrip("\n")}),
            )
        ]
        for thread in self._threads:
            thread.start()

    def _read(self, file: Any, parse: Callable[[str], dict[str, Any]]) -> None:
        for line in file:
            event = parse(line)
            event.setdefault("at", monotonic())
            with self._changed:
                self.events.append(event)
                self._changed.notify_all()
        with self._changed:
            self._open -= 1
            self._changed.notify_all()

    def until(
        self, event: str, text: str | None = None, *others: str, timeout_s: float = WAIT_S
    ) -> dict[str, Any]:
        """The next such event, or one of the others; the ones before it are passed over."""
        found: dict[str, Any] = {}

        def come() -> bool:
            while self._next < len(self.events):
                one = self.events[self._next]
                self._next += 1
                if one["event"] in (event, *others) and (text is None or text in one["text"]):
                    found.update(one)
                    return True
            return not self._open

        with self._changed:
            self._changed.wait_for(come, timeout_s)
        assert found, f"no {event} {text or ''} within {timeout_s} s:\n{self}"
        return found

    def happens(self, event: str, mark: int, timeout_s: float) -> bool:
        """Whether there is one within that time, among events[mark:]; passes over none."""
        with self._changed:
            return self._changed.wait_for(
                lambda: any(one["event"] == event for one in self.events[mark:]), timeout_s
            )

    def since(self, mark: int, event: str) -> list[str]:
        """Texts of such events from mark() on, up to the one that until() gave last."""
        return [e["text"] for e in self.events[mark : self._next] if e["event"] == event]

    def mark(self) -> int:
        """For since()."""
        return self._next

    def press(self) -> float:
        """The button; when it was pressed."""
        with zmq.Context() as context, context.socket(zmq.REQ) as socket:
            socket.setsockopt(zmq.LINGER, 0)
            socket.connect(self.button)
            pressed_s = monotonic()
            socket.send(b"trigger")
            assert socket.poll(20_000), f"the button does nothing:\n{self}"
            assert socket.recv() == b"listening"
        return pressed_s

    def __str__(self) -> str:
        first_s = self.events[0]["at"] if self.events else 0.0
        return "\n".join(
            f"{e['at'] - first_s:8.2f} {e['event']}: {e['text']}"
            for e in self.events
            if e["event"] != "partly"
        )

    def join(self) -> None:
        """Until all that it printed was read."""
        for thread in self._threads:
            thread.join(WAIT_S)


def arguments(*more: str) -> list[str]:
    """Of `assistant voice` in a Room."""
    return [
        *(sys.executable, "-m", "clients.cli", "voice", "--json"),
        *("--answer-language", "en", "--voice", "en_US-joe-medium"),
        *("--microphone", VIRTUAL_MICROPHONE, "--speaker", VIRTUAL_SPEAKER),
        *more,
    ]


def environment(room: Room, endpoint: str, **more: str) -> dict[str, str]:
    """For `assistant voice` in a Room."""
    return {
        **room.server.environment,
        "PYTHONFAULTHANDLER": "1",
        "ASSISTANTD_ENDPOINT": endpoint,
        "ASSISTANT_VOICE_ENDPOINT": f"ipc://{room.server.folder}/button",
        **more,
    }


@contextmanager
def talking(room: Room, endpoint: str, *more: str, **env: str) -> Iterator[Talking]:
    """`assistant voice --json` in a room; ready to hear. It must end well, and when told to."""
    variables = environment(room, endpoint, **env)
    with subprocess.Popen(
        arguments(*more),
        env=variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        client = Talking(process, variables["ASSISTANT_VOICE_ENDPOINT"])
        try:
            client.until("state", "waiting")
            yield client
            process.terminate()
            code = process.wait(30)
            client.join()
            assert code == 0, f"it ended with {code}:\n{client}"
            assert "Traceback" not in str(client), str(client)
        except BaseException:
            print(client)  # pytest shows it
            raise
        finally:
            process.kill()
            client.join()


def read_at_rate(path: Path) -> Samples:
    """A WAV file at RATE_HZ."""
    samples, rate_hz = read_wav(path)
    return resample(samples, rate_hz, RATE_HZ)
