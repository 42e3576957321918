"""Push-to-talk: a WAV file is the microphone."""

import io
import math
import struct
import wave
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.common.keys import Keys

from tests.clients.web.stand_in_gateway import StandInGateway
from tests.e2e.web.browser import PHONE, WATCH, Device, Page, chromium, require
from tests.e2e.web.conftest import OpenPage, pair

pytestmark = pytest.mark.web
HERTZ = 440


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    """A browser that hears a tone, again and again."""
    require()
    path = tmp_path_factory.mktemp("microphone") / "tone.wav"
    write_tone(path)
    with chromium(microphone=path) as browser:
        yield browser


def write_tone(path: Path) -> None:
    rate = 48_000
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        samples = (round(12000 * math.sin(2 * math.pi * HERTZ * n / rate)) for n in range(2 * rate))
        file.writeframes(b"".join(struct.pack("<h", sample) for sample in samples))


def loudest_hertz(samples: list[int], rate: int) -> float:
    """By counting how often the wave goes up through zero."""
    ups = [n for n in range(1, len(samples)) if samples[n - 1] < 0 <= samples[n]]
    return (len(ups) - 1) * rate / (ups[-1] - ups[0])


EACH = pytest.mark.parametrize("device", [PHONE, WATCH], ids=["phone", "watch"])


@pytest.fixture
def page(new_page: OpenPage, gateway: StandInGateway, device: Device) -> Page:
    page = pair(new_page(device), gateway.url, gateway.open_pairing())
    page.button("Hold to talk")
    return page


def listens(page: Page) -> None:
    page.one(".talk[data-phase=listening]")


def hears_for(page: Page, seconds: float) -> None:
    """Wait until so much was recorded, by the audio clock of the page."""
    page.js_async(
        "const context = new AudioContext(); await context.resume();"
        "while (context.currentTime < given[0]) await new Promise(requestAnimationFrame);"
        "await context.close()",
        seconds,
    )


@EACH
def test_held_asked_and_answered_aloud(page: Page, gateway: StandInGateway) -> None:
    gateway.transcripts = ["What time is it?"]
    page.hold("Hold to talk")
    listens(page)
    hears_for(page, 1)
    level = "return parseFloat(document.querySelector('.talk').style.getPropertyValue('--level'))"
    page.until(lambda: page.js(level) > 0.3, "the button follows the voice")
    page.let_go()
    answer = gateway.question("What time is it?")
    (sound,) = gateway.heard
    with wave.open(io.BytesIO(sound)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 16_000)
        assert file.getnframes() > 8_000
        frames = file.readframes(file.getnframes())
    samples = [sample for (sample,) in struct.iter_unpack("<h", frames)]
    # what the microphone's own processing does to it at the start is not judged
    assert abs(loudest_hertz(samples[-6_000:], 16_000) - HERTZ) < 15
    answer.say("It is noon. ")
    gateway.wait(lambda: gateway.spoken == ["It is noon."], "spoken while it is written")
    answer.say("More or less.")
    answer.finish()
    gateway.wait(lambda: len(gateway.spoken) == 2, "the rest is spoken")
    page.shows("It is noon. More or less.", ".md")


@EACH
def test_tapped_twice(page: Page, gateway: StandInGateway) -> None:
    gateway.transcripts = ["Tapped"]
    page.tap("Hold to talk")
    listens(page)
    hears_for(page, 0.6)
    page.one(".talk").click()
    gateway.question("Tapped").finish()


@EACH
def test_by_the_keyboard(page: Page, gateway: StandInGateway) -> None:
    gateway.transcripts = ["Typed"]
    page.js("document.querySelector('.talk').focus()")
    page.keys(Keys.SPACE)
    listens(page)
    hears_for(page, 0.6)
    page.keys(Keys.SPACE)
    gateway.question("Typed").finish()


@EACH
def test_escape_throws_it_away(page: Page, gateway: StandInGateway) -> None:
    page.tap("Hold to talk")
    listens(page)
    page.keys(Keys.ESCAPE)
    page.one(".talk[data-phase=idle]")
    assert not gateway.heard


@EACH
def test_nothing_was_understood(page: Page, gateway: StandInGateway) -> None:
    page.hold("Hold to talk")
    listens(page)
    hears_for(page, 0.6)
    page.let_go()
    page.shows("I did not catch that")
    assert not gateway.requests("chat")


@EACH
def test_no_microphone(page: Page, gateway: StandInGateway) -> None:
    page.js(
        "navigator.mediaDevices.getUserMedia ="
        " () => Promise.reject(new DOMException('no', 'NotAllowedError'))"
    )
    page.tap("Hold to talk")
    page.shows("No microphone. Allow it")


@EACH
def test_talking_again_silences_the_answer(page: Page, gateway: StandInGateway) -> None:
    gateway.transcripts = ["Long", "Next"]
    page.hold("Hold to talk")
    listens(page)
    hears_for(page, 0.6)
    page.let_go()
    answer = gateway.question("Long")
    answer.say("One. Two. Three. Four. ")
    gateway.wait(lambda: len(gateway.spoken) >= 1, "it speaks")
    answer.finish()
    if page.device is WATCH:
        page.tap("Ask something else")
    page.hold("Hold to talk")
    listens(page)
    hears_for(page, 0.6)
    page.let_go()
    gateway.question("Next").finish()


@pytest.mark.parametrize("device", [PHONE])
def test_read_aloud(page: Page, gateway: StandInGateway) -> None:
    page.type("textarea", "Read", enter=True)
    answer = gateway.question("Read")
    answer.say("# Title\n\nA **bold** [link](https://example.org).")
    answer.finish()
    page.tap("Read aloud")
    gateway.wait(lambda: gateway.spoken == ["Title", "A bold link."], "plain sentences")


@pytest.mark.parametrize("device", [PHONE])
def test_a_long_answer_is_read_aloud_bit_by_bit(page: Page, gateway: StandInGateway) -> None:
    """The gateway lets few wait, and refuses the others."""
    sentences = [f"Sentence {number} ends." for number in range(12)]
    page.type("textarea", "Read", enter=True)
    answer = gateway.question("Read")
    answer.say(" ".join(sentences))
    answer.finish()
    page.button("Read aloud")
    page.js(
        "const ask = fetch; let asked = 0; window.most = 0;"
        "window.fetch = async (...given) => {"
        "  most = Math.max(most, (asked += 1));"
        "  if (asked === 2 && !window.refused) {"
        "    window.refused = true; asked -= 1;"
        "    const error = {code: 'busy', message: 'others are spoken to'};"
        "    return new Response(JSON.stringify({error}), {status: 503});"
        "  }"
        "  try { return await ask(...given); } finally { asked -= 1; }"
        "};"
    )
    page.tap("Read aloud")
    gateway.wait(lambda: len(gateway.spoken) == len(sentences), "all of it")
    assert sorted(gateway.spoken) == sorted(sentences)
    assert page.js("return refused") and page.js("return most") <= 2
