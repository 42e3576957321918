"""Which microphones and loudspeakers there are, and which one a name means."""

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

from clients.i18n import _, marked
from clients.voice import portaudio
from clients.voice.errors import NoDevice

Kind = Literal["microphone", "speaker"]
_SHOWN = 12  # names in an error message
_KINDS: dict[Kind, str] = {"microphone": marked("microphone"), "speaker": marked("speaker")}


@dataclass(frozen=True)
class Device:
    """A device as PortAudio lists it.

    Attributes:
        number: in PortAudio's list; changes when devices come and go.
        host: the sound system it belongs to: ALSA, Core Audio ...
        inputs: channels it hears; none if it is no microphone.
        outputs: channels it plays; none if it is no loudspeaker.
        rate_hz: what it works at by itself.
    """

    number: int
    name: str
    host: str
    inputs: int
    outputs: int
    rate_hz: int
    default_input: bool
    default_output: bool

    def channels(self, kind: Kind) -> int:
        """How many it has for hearing, or for playing."""
        return self.inputs if kind == "microphone" else self.outputs

    def is_default(self, kind: Kind) -> bool:
        """Whether it is what is taken when none is named."""
        return self.default_input if kind == "microphone" else self.default_output


def devices() -> list[Device]:
    """All that were there when PortAudio last looked. Raises MissingPart, NoDevice."""
    return portaudio.call_now(listed)


def listed() -> list[Device]:
    """The same, for callers in PortAudio's thread."""
    sounddevice = portaudio.library()
    try:
        hosts, all_of_them = sounddevice.query_hostapis(), sounddevice.query_devices()
    except sounddevice.PortAudioError as error:
        raise NoDevice(
            _("the sound system cannot be reached ({problem}); is it running?").format(
                problem=error
            )
        ) from error
    default_input, default_output = (int(number) for number in sounddevice.default.device)
    return [
        Device(
            number=number,
            name=str(one["name"]),
            host=str(hosts[one["hostapi"]]["name"]),
            inputs=int(one["max_input_channels"]),
            outputs=int(one["max_output_channels"]),
            rate_hz=int(one["default_samplerate"]),
            default_input=number == default_input,
            default_output=number == default_output,
        )
        for number, one in enumerate(all_of_them)
    ]


def choose(name: str | None, kind: Kind, among: Sequence[Device]) -> Device:
    """The device of that name, of which that is a part, or of that number; else the default one.

    Raises:
        NoDevice: there is none, or several that it could be; the message names them.
    """
    usable = [device for device in among if device.channels(kind)]
    if not usable:
        raise NoDevice(
            _(
                "there is no {kind}; plug one in, and see what there is with "
                "`assistant voice devices`"
            ).format(kind=_(_KINDS[kind]))
        )
    if name is None:
        # PortAudio has no default where the sound system names none
        return next((device for device in usable if device.is_default(kind)), usable[0])
    if exact := [device for device in usable if device.name == name]:
        return exact[0]  # the same name twice is the same device by two sound systems
    part = [device for device in usable if name.casefold() in device.name.casefold()]
    if len({device.name for device in part}) == 1:
        return part[0]
    if numbered := [device for device in usable if name == str(device.number)]:
        return numbered[0]
    if part:
        raise NoDevice(
            _("{name!r} could be any of these {kind}s: {names}; write more of the name").format(
                name=name, kind=_(_KINDS[kind]), names=_names(part)
            )
        )
    near = get_close_matches(name, [device.name for device in usable], n=3, cutoff=0.5)
    if near:
        told = _("there is no {kind} {name!r}; did you mean {near}? There are: {names}")
    else:
        told = _("there is no {kind} {name!r}; There are: {names}")
    raise NoDevice(
        told.format(
            kind=_(_KINDS[kind]), name=name, near=", ".join(map(repr, near)), names=_names(usable)
        )
    )


def _names(those: Sequence[Device]) -> str:
    names = list(dict.fromkeys(device.name for device in those))
    shown = ", ".join(map(repr, names[:_SHOWN]))
    if len(names) <= _SHOWN:
        return shown
    return _("{names} and {n} more").format(names=shown, n=len(names) - _SHOWN)
