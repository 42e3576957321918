"""A private PulseAudio with a microphone and a loudspeaker that exist only in it.

    play_into_microphone(wav) ──> sink "room" ──monitor──> source "microphone" ──> PortAudio
    record_speaker(wav) <──monitor── sink "speaker" <── PortAudio

PortAudio sees them through ALSA by the names VIRTUAL_MICROPHONE and VIRTUAL_SPEAKER, in every
process that is started with `environment`. (PortAudio looks at the environment when it is first
imported, so tests use it in child processes.)
"""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

VIRTUAL_MICROPHONE: Final = "virtual_microphone"
VIRTUAL_SPEAKER: Final = "virtual_speaker"
_COMMAND_TIMEOUT_S: Final = 20
_NEEDED: Final = ("pulseaudio", "pactl", "paplay", "parec")

# `default` is there because PortAudio's own default is the ALSA device of that name
_ALSA: Final = f"""
pcm.{VIRTUAL_MICROPHONE} {{
    type pulse
    device microphone
    hint {{ show on description "{VIRTUAL_MICROPHONE}" }}
}}
pcm.{VIRTUAL_SPEAKER} {{
    type pulse
    device speaker
    hint {{ show on description "{VIRTUAL_SPEAKER}" }}
}}
pcm.default {{
    type pulse
    hint {{ show on description "default" }}
}}
ctl.default {{ type pulse }}
"""


def missing_programs() -> list[str]:
    """What of PulseAudio is not installed; nothing of it can run then."""
    return [name for name in _NEEDED if shutil.which(name) is None]


@dataclass
class SoundServer:
    """A running server; `with SoundServer() as server`."""

    rate_hz: int = 48_000
    environment: dict[str, str] = field(default_factory=dict)
    """For processes that are to hear and speak through it: all of os.environ, and more."""

    def __post_init__(self) -> None:
        self._modules: dict[str, list[str]] = {}
        self._process: subprocess.Popen[bytes] | None = None
        # without norewinds they work in pieces of up to two seconds
        self._sink_options = (f"rate={self.rate_hz}", "norewinds=1")

    def __enter__(self) -> "SoundServer":
        """Start it, with both devices plugged in."""
        self.folder = Path(tempfile.mkdtemp(prefix="pa-"))
        for name in ("run", "home", "state"):
            (self.folder / name).mkdir(mode=0o700)
        (self.folder / "asound.conf").write_text(_ALSA)
        native = self.folder / "run" / "native"
        self._commands = self.folder / "run" / "commands"
        server = {
            **os.environ,
            "HOME": str(self.folder / "home"),
            "XDG_RUNTIME_DIR": str(self.folder / "run"),
            "PULSE_RUNTIME_PATH": str(self.folder / "run"),
            "PULSE_STATE_PATH": str(self.folder / "state"),
        }
        self.environment = {
            **os.environ,
            "PULSE_SERVER": f"unix:{native}",
            "PULSE_COOKIE": str(self.folder / "cookie"),
            "ALSA_CONFIG_PATH": str(self.folder / "asound.conf"),
        }
        try:
            with (self.folder / "log").open("wb") as log:
                self._process = subprocess.Popen(
                    [
                        "pulseaudio",
                        "-n",
                        "--daemonize=no",
                        "--exit-idle-time=-1",
                        "--disable-shm=yes",
                        "--use-pid-file=no",
                        "--log-target=stderr",
                        "--log-level=info",
                        "-L",
                        f"module-native-protocol-unix socket={native} auth-anonymous=1",
                        "-L",
                        f"module-cli-protocol-unix socket={self._commands}",
                    ],
                    env=server,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                )
            self._wait_until_up()
            self.plug_microphone()
            self.plug_speaker()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(_COMMAND_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        shutil.rmtree(self.folder)

    def log(self) -> str:
        """What the server said, for a test that failed."""
        return (self.folder / "log").read_text(errors="replace")

    # ---------------------------------------------------------------- devices come and go

    def plug_microphone(self) -> None:
        """The microphone is there (again), and is the default one."""
        self._modules["microphone"] = [
            self._load("module-null-sink", "sink_name=room", *self._sink_options),
            self._load("module-remap-source", "master=room.monitor", "source_name=microphone"),
        ]
        self._pactl("set-default-source", "microphone")

    def unplug_microphone(self) -> None:
        """The microphone goes away under whoever listens to it."""
        self._unplug("microphone", "source-output")

    def plug_speaker(self) -> None:
        """The loudspeaker is there (again), and is the default one."""
        self._modules["speaker"] = [
            self._load(
                "module-null-sink", "sink_name=speaker", "norewinds=1", f"rate={self.rate_hz}"
            )
        ]
        self._pactl("set-default-sink", "speaker")

    def unplug_speaker(self) -> None:
        """The loudspeaker goes away under whoever plays on it."""
        self._unplug("speaker", "sink-input")

    # ---------------------------------------------------------------- sound

    def play_into_microphone(self, wav: Path) -> "subprocess.Popen[bytes]":
        """Say it to the microphone; wait() for the end of it on what is returned."""
        return subprocess.Popen(
            ["paplay", "--device=room", "--latency-msec=20", str(wav)], env=self.environment
        )

    @contextmanager
    def record_speaker(self, wav: Path) -> Iterator[None]:
        """While the block runs, what comes out of the loudspeaker is written to a WAV file."""
        recorder = subprocess.Popen(
            [
                "parec",
                "--device=speaker.monitor",
                "--latency-msec=10",
                "--channels=1",
                "--format=s16le",
                f"--rate={self.rate_hz}",
                "--file-format=wav",
                str(wav),
            ],
            env=self.environment,
        )
        try:
            self._wait_for_recorder(recorder)
            yield
        finally:
            recorder.send_signal(signal.SIGTERM)
            recorder.wait(_COMMAND_TIMEOUT_S)

    def couple(self) -> None:
        """From now on the microphone hears the speaker, until one of them is unplugged."""
        self._load(
            "module-loopback",
            "source=speaker.monitor",
            "sink=room",
            "latency_msec=120",
            "adjust_time=0",  # or it changes its speed, which no room does
        )

    # ---------------------------------------------------------------- how

    def _wait_until_up(self) -> None:
        from time import monotonic, sleep

        assert self._process is not None
        until = monotonic() + _COMMAND_TIMEOUT_S
        # it tells nobody when it is up, other than by answering
        while subprocess.run(
            ["pactl", "info"], env=self.environment, capture_output=True, check=False
        ).returncode:
            if self._process.poll() is not None or monotonic() > until:
                raise RuntimeError(f"pulseaudio did not start: {self.log()}")
            sleep(0.05)

    def _wait_for_recorder(self, recorder: "subprocess.Popen[bytes]") -> None:
        """Until the server knows of it: what is played from now on is recorded."""
        with subprocess.Popen(
            ["pactl", "subscribe"], env=self.environment, stdout=subprocess.PIPE, text=True
        ) as events:
            try:
                while not self._pactl("list", "short", "source-outputs").strip():
                    assert recorder.poll() is None, self.log()
                    assert events.stdout is not None
                    events.stdout.readline()
            finally:
                events.terminate()

    def _load(self, *module: str) -> str:
        return self._pactl("load-module", *module).strip()

    def _unplug(self, name: str, stream: str) -> None:
        """Take a device away, and the streams on it, which PulseAudio would give another one."""
        streams = [row.split() for row in self._pactl("list", "short", f"{stream}s").splitlines()]
        device = self._index_of(name, "source" if stream == "source-output" else "sink")
        for module in reversed(self._modules.pop(name)):
            self._pactl("unload-module", module)
        with socket.socket(socket.AF_UNIX) as commands:
            commands.connect(str(self._commands))
            for index in (row[0] for row in streams if row[1] == device):
                commands.sendall(f"kill-{stream} {index}\n".encode())
            commands.shutdown(socket.SHUT_WR)
            while commands.recv(4096):  # until it has done all that
                pass

    def _index_of(self, name: str, kind: str) -> str:
        rows = [row.split() for row in self._pactl("list", "short", f"{kind}s").splitlines()]
        return next(row[0] for row in rows if row[1] == name)

    def _pactl(self, *arguments: str) -> str:
        done = subprocess.run(
            ["pactl", *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=_COMMAND_TIMEOUT_S,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"pactl {' '.join(arguments)}: {done.stderr.strip()}\n{self.log()}")
        return done.stdout
