"""The watch, square and round."""

import pytest
from selenium.webdriver.common.keys import Keys

from tests.clients.web.stand_in_gateway import StandInGateway
from tests.e2e.web.browser import PHONE, ROUND, WATCH, Device, Page
from tests.e2e.web.conftest import OpenPage, pair

pytestmark = pytest.mark.web
SMALLEST = Device(320, 320)
EACH = pytest.mark.parametrize("device", [WATCH, ROUND, SMALLEST], ids=["square", "round", "small"])


@pytest.fixture
def watch(new_page: OpenPage, gateway: StandInGateway) -> Page:
    page = pair(new_page(WATCH), gateway.url, gateway.open_pairing())
    page.one(".face-ready")
    return page


def ask(page: Page, text: str) -> None:
    page.tap("Type instead")
    page.type(".watch input", text, enter=True)


@EACH
def test_a_glance(new_page: OpenPage, gateway: StandInGateway, device: Device) -> None:
    page = pair(new_page(device), gateway.url, gateway.open_pairing())
    page.js("window.buzzes = []; navigator.vibrate = (pattern) => buzzes.push(pattern)")
    ask(page, "Will it rain?")
    answer = gateway.question("Will it rain?")
    assert answer.request["max_tokens"] <= 100
    assert "140" in answer.request["system"]
    assert "session" not in answer.request
    answer.say("No, it stays dry ")
    page.shows("No, it stays dry", ".glance")
    answer.say("until Thursday.")
    answer.finish()
    page.button("Ask something else")
    assert page.text(".glance .md") == "No, it stays dry until Thursday."
    assert page.js("return buzzes") == [[30]]
    assert (
        float(
            page.js(
                "return parseFloat(getComputedStyle(document.querySelector('.glance')).fontSize)"
            )
        )
        >= 20
    )
    inside(page, device)
    page.tap("Ask something else")
    inside(page, device)
    page.tap("Last answer")
    page.shows("until Thursday.", ".glance")
    page.reload()
    page.tap("Last answer")
    page.shows("until Thursday.", ".glance")


def inside(page: Page, device: Device) -> None:
    """Nothing that can be pressed is cut off, also not by a round edge; no sideways scrolling."""
    assert page.js("return document.documentElement.scrollWidth") <= device.width
    for button in page.all(".watch button"):
        box = page.js("return arguments[0].getBoundingClientRect().toJSON()", button)
        assert box["width"] >= 40 and box["height"] >= 40, box
        if "round" not in device.query:
            assert box["left"] >= 0 and box["right"] <= device.width, box
            continue
        # buttons are round themselves: centre and radius tell
        radius = device.width / 2
        x, y = (box["left"] + box["right"]) / 2 - radius, (box["top"] + box["bottom"]) / 2 - radius
        assert (x * x + y * y) ** 0.5 + box["width"] / 2 <= radius, (button.accessible_name, box)


def test_stop_and_again(watch: Page, gateway: StandInGateway) -> None:
    ask(watch, "Tell me all")
    answer = gateway.question("Tell me all")
    answer.say("Well")
    watch.shows("Well")
    watch.tap("Stop")
    watch.shows("Stopped")
    assert answer.cancelled.is_set()
    watch.tap("Ask again")
    gateway.question("Tell me all", 2)
    watch.keys(Keys.ESCAPE)
    watch.shows("Stopped")


def test_reload_in_mid_answer(watch: Page, gateway: StandInGateway) -> None:
    ask(watch, "And now?")
    answer = gateway.question("And now?")
    answer.say("It goes ")
    watch.shows("It goes")
    watch.reload()
    watch.shows("It goes", ".glance")
    answer.say("on.")
    answer.finish()
    watch.shows("It goes on.", ".glance")
    assert len(gateway.requests("chat")) == 1


def test_offline(watch: Page, gateway: StandInGateway) -> None:
    watch.expected += ["WebSocket connection", "ERR_CONNECTION_REFUSED"]
    gateway.stop()
    watch.shows("No connection", ".watch-line")
    ask(watch, "Anyone?")
    watch.shows("Waiting for the connection")
    gateway.start()
    answer = gateway.question("Anyone?")
    answer.say("Me.")
    answer.finish()
    watch.shows("Me.", ".glance")
    watch.gone(".watch-line")


def test_a_failure(watch: Page, gateway: StandInGateway) -> None:
    ask(watch, "Ready?")
    gateway.question("Ready?").fail("not_found", "no model")
    watch.shows("No model is loaded")
    watch.tap("Ask again")
    gateway.question("Ready?", 2).finish()


def test_no_ears(new_page: OpenPage, gateway: StandInGateway) -> None:
    gateway.hear = gateway.speak = False
    page = pair(new_page(WATCH), gateway.url, gateway.open_pairing())
    assert [button.accessible_name for button in page.all("button")] == ["Type instead"]
    page.tap("Type instead")
    page.type(".watch input", "Hello?", enter=True)
    gateway.question("Hello?").finish()


def test_revoked(watch: Page, gateway: StandInGateway) -> None:
    watch.expected.append("401")
    gateway.revoke_all()
    watch.shows("This device was removed")
    assert watch.js("return Object.keys(localStorage)") == []


def test_a_phone_with_its_keyboard_open_is_no_watch(
    new_page: OpenPage, gateway: StandInGateway
) -> None:
    page = pair(new_page(PHONE), gateway.url, gateway.open_pairing())
    page.devtools(
        "Emulation.setDeviceMetricsOverride",
        width=390, height=400, screenWidth=390, screenHeight=844,
        deviceScaleFactor=2, mobile=True,
    )  # fmt: skip
    page.reload()
    page.one("textarea")
