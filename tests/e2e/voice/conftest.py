"""A sound server with a microphone and a loudspeaker that the tests can unplug."""

from collections.abc import Iterator

import pytest

from tests.e2e.voice.sound_server import SoundServer, missing_programs


@pytest.fixture
def sound_server() -> Iterator[SoundServer]:
    """One for each test: they unplug its devices."""
    if missing := missing_programs():
        pytest.skip(f"not installed: {', '.join(missing)} (Debian: pulseaudio, pulseaudio-utils)")
    with SoundServer() as server:
        yield server
