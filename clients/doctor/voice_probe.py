"""What of the voice is there: `python -m clients.doctor.voice_probe` prints it, one JSON object.

A process of its own: looking loads numpy and PortAudio, which may print, hang or crash.
"""

import sys
from collections.abc import Callable
from typing import Any

from assistantd.protocol import to_json
from clients.errors import AssistantError


def main() -> None:
    """Look at each part; one that fails does not keep the others from being told."""
    found: dict[str, Any] = {"problems": {}}
    parts: dict[str, Callable[[], Any]] = {
        "settings": _settings,
        "devices": _devices,
        "espeak": _espeak,
        "recognisers": _recognisers,
        "piper": _piper,
    }
    for name, look in parts.items():
        try:
            found[name] = look()
        except (AssistantError, ImportError, OSError) as problem:
            found["problems"][name] = str(problem)
    sys.stdout.buffer.write(to_json(found) + b"\n")


def _settings() -> bool:
    from clients.voice import settings

    settings.load({})
    return True


def _devices() -> dict[str, list[str]]:
    from clients.voice.devices import devices

    all_of_them = devices()
    return {
        "microphones": [one.name for one in all_of_them if one.inputs],
        "speakers": [one.name for one in all_of_them if one.outputs],
    }


def _espeak() -> bool:
    from clients.voice import espeak

    return bool(espeak.languages())


def _recognisers() -> list[str]:
    from clients.voice import models

    return [model.name for model in models.installed()]


def _piper() -> list[str]:
    from clients.voice.voices import find_voices

    return [voice.name for voice in find_voices() if voice.kind == "piper"]


if __name__ == "__main__":
    main()
