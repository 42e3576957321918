"""What of hearing and speaking is installed: `python -m clients.web.speech_probe` prints it.

A process of its own, because looking needs numpy and more, which the gateway is to have in memory
only once somebody speaks.
"""

import sys

from assistantd.protocol import to_json
from clients.errors import AssistantError


def main() -> None:
    """One line of JSON: languages that can be heard, and spoken; and why not."""
    found: dict[str, object] = {"hear": [], "speak": [], "problems": []}
    problems: list[str] = []
    for name, look in (("hear", _hear), ("speak", _speak)):
        try:
            found[name] = look()
        except (AssistantError, ImportError, OSError) as problem:
            problems.append(f"{name}: {problem}")
    found["problems"] = problems
    sys.stdout.buffer.write(to_json(found) + b"\n")


def _hear() -> list[str]:
    from importlib.util import find_spec

    if find_spec("vosk") is None:
        return []
    from clients.voice import models, settings
    from clients.voice.recogniser import language_of

    wanted = settings.load({})
    folder = models.find(wanted.recogniser or None, wanted.language)
    return [wanted.language or language_of(folder) or "en"]


def _speak() -> list[str]:
    from clients.voice.voices import find_voices

    return sorted({voice.language.partition("-")[0].casefold() for voice in find_voices()})


if __name__ == "__main__":
    main()
