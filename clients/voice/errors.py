"""What can go wrong with ears and mouth; every message says what to do next.

VoiceError
├── MissingPart      a package or program is not installed
├── NoDevice         no such microphone or speaker
├── DeviceLost       it was there, and went away
├── NoModel          no recogniser's model is installed that could do it
├── ModelBroken      the recogniser's model, or a voice, cannot be loaded
└── UnknownWord      a wake word that the recogniser's model does not know
"""

from clients.errors import AssistantError


class VoiceError(AssistantError):
    """Base of all."""


class MissingPart(VoiceError):  # noqa: N818
    """A package or program is not installed."""


class NoDevice(VoiceError):  # noqa: N818
    """No microphone or speaker of that name, or none at all."""


class DeviceLost(VoiceError):  # noqa: N818
    """A microphone or speaker that was in use went away."""


class NoModel(VoiceError):  # noqa: N818
    """No recogniser's model of that name or for that language is installed, or published."""


class ModelBroken(VoiceError):  # noqa: N818
    """The recogniser's model or a voice cannot be loaded."""


class UnknownWord(VoiceError):  # noqa: N818
    """A wake word that the recogniser's model does not know."""
