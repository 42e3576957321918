"""A day with the page, once with the stand-in and once with the real gateway, daemon and model."""

import pytest

from tests.e2e.web.browser import WATCH, Page
from tests.e2e.web.conftest import OpenPage, pair
from tests.e2e.web.house import House, RealHouse

pytestmark = pytest.mark.web
LONG = "Write a very long story about the sea, with many chapters."
ANSWER = ".bot:last-child .md"


@pytest.fixture
def page(new_page: OpenPage, house: House) -> Page:
    page = pair(new_page(), house.url, house.open_pairing())
    page.expected += [
        "WebSocket connection",
        "ERR_CONNECTION_REFUSED",
        "status of 401",
        "status of 503",
    ]
    page.one("textarea")
    return page


def ask(page: Page, text: str) -> None:
    page.type("textarea", text, enter=True)


def grows(page: Page, beyond: str = "", n: int = 40) -> str:
    """Wait until the answer is longer than this by so many letters; what it is then."""
    page.until(lambda: len(page.text(ANSWER)) >= len(beyond) + n, "the answer grows")
    return page.text(ANSWER)


def complete(page: Page) -> str:
    """Wait until the answer is complete; its text."""
    page.one(".bot:last-child .acts")
    return page.text(ANSWER)


def test_ask_and_come_back(page: Page) -> None:
    ask(page, "What is the capital of France?")
    first = complete(page)
    assert first
    ask(page, "And of Italy?")
    page.until(lambda: len(page.all(".bot .acts")) == 2, "the second answer")
    second = page.text(ANSWER)
    page.reload()
    page.until(lambda: page.text(ANSWER) == second, "both are kept")
    assert len(page.all(".user")) == len(page.all(".bot")) == 2
    assert page.text("h1") == "What is the capital of France?"


def test_stop(page: Page) -> None:
    ask(page, LONG)
    grows(page)
    page.tap("Stop")
    page.shows("Stopped", ".bot .note")
    text = page.text(ANSWER)
    page.reload()
    page.until(lambda: page.text(ANSWER) == text, "what was said is kept")


def test_reload_in_mid_answer(page: Page) -> None:
    ask(page, LONG)
    begun = grows(page)
    page.reload()
    grows(page, begun)
    whole = complete(page)
    assert whole.startswith(begun[:40])
    assert len(page.all(".user")) == 1
    page.reload()
    page.until(lambda: page.text(ANSWER) == whole, "as the daemon has it")
    assert len(page.all(".user")) == len(page.all(".bot")) == 1


def test_the_gateway_goes_and_comes_back(page: Page, house: House) -> None:
    ask(page, LONG)
    begun = grows(page)
    house.stop()
    page.shows("Reconnecting", ".wait")
    page.shows("No connection", ".banner")
    house.start()
    whole = complete(page)
    assert whole.startswith(begun[:40])
    page.reload()
    page.until(lambda: page.text(ANSWER) == whole, "as the daemon has it")
    assert len(page.all(".user")) == 1


def test_the_daemon_restarts_in_mid_answer(page: Page, house: House) -> None:
    ask(page, LONG)
    grows(page)
    house.daemon_away()
    page.shows("not running on your computer", ".banner")
    ask(page, "And then?")
    page.shows("Waiting for the connection")
    house.daemon_back()
    page.shows("restarted in mid-answer", ".bad")
    page.until(lambda: page.all(".bot:last-child .acts"), "what was asked meanwhile is answered")
    page.all(".bad .word")[0].click()
    grows(page)
    page.tap("Stop")
    page.shows("Stopped")


def test_the_daemon_is_away_when_the_page_opens(page: Page, house: House) -> None:
    page.js_async("await navigator.serviceWorker.ready")
    house.daemon_away()
    page.reload()
    page.shows("not running on your computer", ".banner")
    ask(page, "Is anybody there?")
    house.daemon_back()
    complete(page)


def test_a_question_typed_offline_is_asked_once(page: Page, house: House) -> None:
    house.stop()
    page.shows("No connection", ".banner")
    ask(page, "Are you back?")
    page.shows("Waiting for the connection")
    house.start()
    complete(page)
    page.reload()
    page.one(".bot")
    assert len(page.all(".user")) == 1


def test_conversations(page: Page) -> None:
    ask(page, "Tell me of rain.")
    complete(page)
    page.tap("New conversation")
    ask(page, "Tell me of snow.")
    complete(page)
    page.tap("Conversations")
    page.tap("Rename or delete Tell me of rain.")
    page.type("#session-title", "Rain", enter=True)
    page.shows("Rain", "dialog[open]")
    page.until(lambda: "of rain" not in page.text("dialog[open]"), "the new title only")
    page.tap("Rename or delete Tell me of snow.")
    page.tap("Delete conversation")
    page.tap("Delete for good?")
    page.until(lambda: "snow" not in page.text("dialog[open]"), "deleted")
    page.one("dialog[open] .session").click()
    page.shows("Tell me of rain.", ".user")
    assert page.text("h1") == "Rain"


def test_status(page: Page) -> None:
    ask(page, "Hello")
    complete(page)
    page.tap("What it is doing")
    page.shows("ready", "dialog[open]")
    page.shows("tokens/s", "dialog[open]")
    page.shows("MB", "dialog[open]")


def test_revoked(page: Page, house: House) -> None:
    ask(page, LONG)
    grows(page)
    house.revoke_all()
    page.shows("This device was removed")
    assert page.js("return Object.keys(localStorage)") == []
    page.reload()
    page.one("#pair-code")


def test_unpairing(page: Page) -> None:
    page.tap("What it is doing")
    page.tap("Unpair this device")
    page.tap("Unpair now?")
    page.shows("no longer paired")


def test_wrong_codes(new_page: OpenPage, house: House) -> None:
    page = new_page()
    page.expected += ["status of 401", "status of 403", "status of 429"]
    house.open_pairing()
    page.open(house.url)
    page.type("#pair-code", "nonono", enter=True)
    page.shows("That code is wrong")


def test_watch(new_page: OpenPage, house: House) -> None:
    page = pair(new_page(WATCH), house.url, house.open_pairing())
    page.tap("Type instead")
    page.type(".watch input", "What is the capital of Korea?", enter=True)
    page.button("Ask something else")
    answer = page.text(".glance .md")
    assert answer
    page.reload()
    page.tap("Last answer")
    assert page.text(".glance .md") == answer


def test_over_tls(new_page: OpenPage, house_by_tls: RealHouse) -> None:
    """As phones come: another origin, another cookie, a certificate of the house's own."""
    page = new_page()
    page.expected += ["status of 401", "SSL", "ERR_CONNECTION", "WebSocket connection"]
    page.devtools("Security.setIgnoreCertificateErrors", ignore=True)
    page.open(f"https://localhost:{house_by_tls.gateway.tls_port}")
    page.tap("The browser warns of an unknown certificate?")
    page.shows("Download the certificate")
    page.type("#pair-code", house_by_tls.open_pairing(), enter=True)
    page.tap("They are the same")
    ask(page, "What is the capital of France?")
    assert complete(page)
    (cookie,) = page.devtools("Network.getCookies")["cookies"]
    assert cookie["name"] == "__Host-assistant"
    assert cookie["secure"] and cookie["httpOnly"] and cookie["sameSite"] == "Strict"
