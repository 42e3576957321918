"""clients.voice.devices: which device a name means."""

import pytest

from clients.voice.devices import Device, choose
from clients.voice.errors import NoDevice


def device(
    number: int, name: str, inputs: int, outputs: int, default_input: bool = False
) -> Device:
    return Device(number, name, "ALSA", inputs, outputs, 48_000, default_input, False)


DEVICES = [
    device(0, "HDA Intel PCH: ALC257 Analog (hw:0,0)", 2, 2),
    device(1, "HDA Intel PCH: HDMI 0 (hw:0,3)", 0, 8),
    device(2, "Jabra Speak 510 USB (hw:1,0)", 1, 2),
    device(3, "Webcam C270 USB (hw:2,0)", 1, 0, default_input=True),
    device(4, "pulse", 32, 32),
]


@pytest.mark.parametrize(
    ("name", "kind", "number"),
    [
        (None, "microphone", 3),
        (None, "speaker", 0),  # none is the default: the first
        ("pulse", "microphone", 4),
        ("jabra", "microphone", 2),
        ("HDMI", "speaker", 1),
        ("usb", "speaker", 2),  # the webcam does not play
        ("4", "speaker", 4),
    ],
)
def test_a_name_or_a_part_or_a_number(name: str | None, kind: str, number: int) -> None:
    assert choose(name, kind, DEVICES).number == number  # type: ignore[arg-type]


def test_a_part_of_two_names() -> None:
    with pytest.raises(NoDevice, match=r"any of these microphones: 'Jabra.*', 'Webcam.*more of"):
        choose("usb", "microphone", DEVICES)


def test_a_name_that_is_nearly_right() -> None:
    with pytest.raises(NoDevice, match="did you mean 'pulse'"):
        choose("pulze", "speaker", DEVICES)


def test_a_speaker_is_no_microphone() -> None:
    with pytest.raises(NoDevice, match="There are: 'HDA"):
        choose("HDMI", "microphone", DEVICES)


def test_none_at_all() -> None:
    with pytest.raises(NoDevice, match="no microphone; plug one in"):
        choose(None, "microphone", DEVICES[1:2])
