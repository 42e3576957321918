"""From a stranger's browser to a paired device, and back."""

import pytest

from tests.clients.web.stand_in_gateway import WORDS, StandInGateway
from tests.e2e.web.browser import Page
from tests.e2e.web.conftest import OpenPage

pytestmark = pytest.mark.web
UNPAIRED = "/api/me - Failed to load resource: the server responded with a status of 401"
REFUSED = "/api/pair - Failed to load resource"


def stranger(new_page: OpenPage, url: str, **look: str) -> Page:
    page = new_page(**look)
    page.expected += [UNPAIRED, REFUSED]
    page.open(url)
    return page


def test_the_code_is_typed(new_page: OpenPage, gateway: StandInGateway) -> None:
    code = gateway.open_pairing()
    page = stranger(new_page, gateway.url)
    page.shows("assistant pair")
    page.type("#pair-code", f"{code[:3]} {code[3:]}")
    page.type("#pair-name", "my phone")
    page.tap("Pair")
    page.shows("They must be these")
    assert page.text(".words").split() == WORDS.split()
    assert [device["name"] for device in gateway.devices.values()] == ["my phone"]
    page.tap("They are the same")
    page.one("textarea")


def test_the_code_is_scanned(new_page: OpenPage, gateway: StandInGateway) -> None:
    page = stranger(new_page, f"{gateway.url}/pair#{gateway.open_pairing()}")
    page.shows("The code is filled in")
    page.until(lambda: page.one("#pair-name").get_property("value"), "a name is suggested")
    assert page.js("return location.href") == f"{gateway.url}/", "the code stays in the history"
    page.tap("Pair")
    page.one(".words")
    page.reload()  # whoever reloads here is paired all the same
    page.one("textarea")


def test_an_address_with_nonsense(new_page: OpenPage, gateway: StandInGateway) -> None:
    page = stranger(new_page, f"{gateway.url}/pair#%")
    assert page.one("#pair-code").get_property("value") == ""


def test_a_wrong_code(new_page: OpenPage, gateway: StandInGateway) -> None:
    page = stranger(new_page, gateway.url)
    gateway.open_pairing()
    for _try in range(5):
        page.type("#pair-code", "nonono")
        page.tap("Pair")
        page.shows("That code is wrong")
        page.until(lambda: not page.one("#pair-code").get_property("value"), "field is emptied")
    page.type("#pair-code", "nonono", enter=True)
    page.shows("Too many wrong tries")
    assert page.focus() == "Code"
    assert not gateway.devices


def test_words_that_differ(new_page: OpenPage, gateway: StandInGateway) -> None:
    page = stranger(new_page, f"{gateway.url}/pair#{gateway.open_pairing()}")
    page.tap("Pair")
    page.tap("They differ: unpair")
    page.shows("no longer paired")
    assert not gateway.devices


def test_the_computer_cannot_be_reached(new_page: OpenPage, gateway: StandInGateway) -> None:
    page = stranger(new_page, gateway.url)
    page.one("#pair-code")
    gateway.stop()
    page.expected.append("ERR_")
    page.type("#pair-code", "123456", enter=True)
    page.shows("cannot be reached")
    gateway.start()
    page.type("#pair-code", gateway.open_pairing(), enter=True)
    page.one(".words")


def test_revoked(phone: Page, gateway: StandInGateway) -> None:
    answer = phone_asks(phone, gateway, "What do you know of me?")
    answer.say("Quite a lot")
    phone.shows("Quite a lot")
    phone.expected.append(UNPAIRED)
    answer.say(" and more")  # which is not in storage yet
    gateway.revoke_all()
    phone.shows("This device was removed")
    phone.one("#pair-code")
    phone.js("dispatchEvent(new Event('pagehide'))")  # when pages keep what they have not kept yet
    assert "Quite" not in phone.text("body"), "what was said is still shown"
    assert phone.js("return Object.keys(localStorage)") == []


def test_revoked_while_the_page_was_closed(phone: Page, gateway: StandInGateway) -> None:
    phone_asks(phone, gateway, "Still there?").finish()
    phone.open("about:blank")
    gateway.revoke_all()
    phone.expected += [UNPAIRED, "WebSocket connection"]
    phone.open(gateway.url)
    phone.shows("This device was removed")
    assert phone.js("return Object.keys(localStorage)") == []


def test_revoked_with_a_sheet_open(phone: Page, gateway: StandInGateway) -> None:
    phone.expected.append(UNPAIRED)
    phone.tap("What it is doing")
    phone.shows(WORDS, "dialog[open]")
    gateway.revoke_all()
    phone.shows("This device was removed")
    assert not phone.all("dialog"), "it lies over the screen"
    phone.type("#pair-code", gateway.open_pairing(), enter=True)
    phone.tap("They are the same")
    phone.one("textarea")
    phone.reload()  # the new device is kept
    phone.one("textarea")


def test_unpairing(phone: Page, gateway: StandInGateway) -> None:
    phone.expected.append(UNPAIRED)
    phone.tap("What it is doing")
    phone.shows(WORDS, "dialog[open]")
    phone.tap("Unpair this device")
    phone.tap("Unpair now?")
    phone.shows("no longer paired")
    assert not gateway.devices
    phone.reload()
    phone.one("#pair-code")


def phone_asks(phone: Page, gateway: StandInGateway, text: str):  # type: ignore[no-untyped-def]
    phone.type("textarea", text, enter=True)
    return gateway.question(text)
