"""Checks of the voice: sound, microphone, recogniser, voices. Nothing is heard or played.

Whatever is missing is a warning: text goes on without.
"""

import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any, Final

import msgspec

from clients.doctor.context import Context, own_environment
from clients.doctor.finding import Finding, ok, skipped, warning
from clients.i18n import _

_TIMEOUT_S: Final = 60.0


class Probed(msgspec.Struct):
    """What voice_probe.py tells; absent is what failed, and then is in `problems`."""

    problems: dict[str, str]
    settings: bool = False
    devices: dict[str, list[str]] | None = None
    espeak: bool = False
    recognisers: list[str] = []
    piper: list[str] = []


def check_voice(context: Context) -> Iterator[Finding]:
    """Is all there that `assistant voice` needs?"""
    if find_spec("vosk") is None or find_spec("sounddevice") is None:
        yield skipped("voice", _("not installed: pip install 'assistantd[voice]'"))
        return
    context.say(_("looking for microphones, recognisers and voices …"))
    found = _probe()
    if isinstance(found, str):
        yield warning(
            "voice.broken",
            _("the voice cannot be looked at: {problem}").format(problem=found),
            _("`assistant voice` does not start"),
            f"{sys.executable} -m pip install --force-reinstall 'assistantd[voice]'",
        )
        return
    faults = [*_faults_of_sound(found), *_faults_of_speech(found)]
    yield from faults
    if not faults:
        devices = found.devices or {}
        details: dict[str, Any] = {
            "microphones": devices.get("microphones"),
            "recognisers": found.recognisers,
            "piper": found.piper,
        }
        yield ok("voice", _("a microphone, a recogniser and a voice are there"), **details)


def _faults_of_sound(found: Probed) -> Iterator[Finding]:
    if "settings" in found.problems:
        why, mend = _("`assistant voice` does not start"), _("correct the file")
        yield warning("voice.settings", found.problems["settings"], why, mend)
    why = _("questions cannot be spoken, only typed")
    if found.devices is None:
        mend = "sudo apt install libportaudio2"
        yield warning("voice.portaudio", found.problems.get("devices", "?"), why, mend)
        return
    if not found.devices["microphones"]:
        mend = _("plug one in, or add yourself to the group audio; then: assistant voice devices")
        yield warning("voice.microphone", _("there is no microphone"), why, mend)
    if not found.devices["speakers"]:
        why = _("answers cannot be heard, only read")
        mend = _("plug one in; then: assistant voice devices")
        yield warning("voice.speaker", _("there is no loudspeaker"), why, mend)


def _faults_of_speech(found: Probed) -> Iterator[Finding]:
    if not found.recognisers:
        yield warning(
            "voice.model",
            found.problems.get("recognisers") or _("no recogniser's model is installed"),
            _("what is said cannot be understood"),
            "assistant voice models pull en-us",
        )
    if not found.piper:
        if not found.espeak:
            yield warning(
                "voice.espeak",
                found.problems.get("espeak") or _("espeak-ng is not installed, and no Piper voice"),
                _("answers cannot be spoken"),
                "sudo apt install espeak-ng",
            )
        elif find_spec("piper") is not None:
            yield warning(
                "voice.piper",
                _("Piper is installed, and has no voice"),
                _("espeak-ng speaks, which is harder to understand"),
                _("put a voice's .onnx and .onnx.json into the folder that docs/voice.md names"),
            )


def _probe() -> Probed | str:
    try:
        done = subprocess.run(
            [sys.executable, "-B", "-m", "clients.doctor.voice_probe"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            cwd="/",
            env=own_environment(),
            timeout=_TIMEOUT_S,
        )
        return msgspec.json.decode(done.stdout, type=Probed)
    except subprocess.TimeoutExpired:
        return _("it does not end within {n:.0f} s").format(n=_TIMEOUT_S)
    except msgspec.MsgspecError:
        lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
        return lines[-1] if lines else _("it ended with status {n}").format(n=done.returncode)
