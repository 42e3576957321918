"""Networks that go and come back, gateways and daemons that restart, pages that are reloaded."""

import pytest

from tests.clients.web.stand_in_gateway import StandInGateway
from tests.e2e.web.browser import Page
from tests.e2e.web.conftest import OpenPage
from tests.e2e.web.test_chat import ask

pytestmark = pytest.mark.web
CUT = ["WebSocket connection", "ERR_CONNECTION_REFUSED", "ERR_INTERNET_DISCONNECTED"]
KEPT = "return Object.keys(localStorage).filter((key) => key.includes('turn.')).length"


@pytest.fixture(autouse=True)
def cuts(phone: Page) -> None:
    phone.expected += CUT


def test_reload_in_mid_answer(phone: Page, gateway: StandInGateway) -> None:
    answer = ask(phone, gateway, "A long story")
    answer.say("Once upon 🎉 a time, ")
    phone.shows("Once upon 🎉 a time,")
    phone.reload()
    phone.shows("Once upon 🎉 a time,")
    gateway.wait(lambda: bool(gateway.requests("resume")), "resumed")
    resume = gateway.requests("resume")[0]
    assert (resume["target"], resume["offset"]) == (answer.id, len("Once upon 🎉 a time, "))
    answer.say("there was a fox.")
    phone.shows("Once upon 🎉 a time, there was a fox.", ".bot .md")
    answer.finish()
    phone.button("Copy answer")
    assert len(phone.all(".user")) == 1
    assert len(gateway.requests("chat")) == 1
    assert phone.js(KEPT) == 0


def test_reload_after_the_answer(phone: Page, gateway: StandInGateway) -> None:
    answer = ask(phone, gateway, "Short?")
    answer.say("Yes.")
    phone.shows("Yes.")
    phone.open("about:blank")
    answer.finish()
    with gateway._changed:
        gateway.answers.clear()  # so long ago that the daemon has forgotten it
    phone.open(gateway.url)
    phone.shows("Yes.", ".bot .md")
    phone.button("Copy answer")
    assert len(phone.all(".user")) == 1
    phone.until(lambda: phone.js(KEPT) == 0, "nothing is kept")


def test_the_gateway_goes_and_comes_back(phone: Page, gateway: StandInGateway) -> None:
    answer = ask(phone, gateway, "Patience?")
    answer.say("A virtue ")
    phone.shows("A virtue")
    gateway.stop()
    phone.shows("No connection", ".banner")
    phone.shows("Reconnecting", ".wait")
    gateway.start()
    phone.shows("Connected again", ".banner")
    answer.say("it is.")
    answer.finish()
    phone.shows("A virtue it is.", ".bot .md")
    assert len(gateway.requests("chat")) == 1
    phone.gone(".banner")


def test_a_question_typed_offline_is_sent_once(phone: Page, gateway: StandInGateway) -> None:
    ask(phone, gateway, "Before").finish()
    phone.button("Ask again")
    gateway.stop()
    phone.shows("No connection", ".banner")
    phone.type("textarea", "Are you back?", enter=True)
    phone.shows("Waiting for the connection")
    assert phone.js(KEPT) == 1
    gateway.start()
    answer = gateway.question("Are you back?")
    answer.say("I am.")
    answer.finish()
    phone.shows("I am.")
    assert [frame["text"] for frame in gateway.requests("chat")] == ["Before", "Are you back?"]


def test_a_question_typed_offline_outlives_the_page(phone: Page, gateway: StandInGateway) -> None:
    gateway.stop()
    phone.shows("No connection", ".banner")
    phone.type("textarea", "Still there?", enter=True)
    phone.shows("Waiting for the connection")
    phone.open("about:blank")
    gateway.start()
    phone.open(gateway.url)
    gateway.question("Still there?").finish()
    phone.until(lambda: phone.js(KEPT) == 0, "answered")
    assert len(gateway.requests("chat")) == 1


def test_the_network_goes_and_comes_back(phone: Page, gateway: StandInGateway) -> None:
    answer = ask(phone, gateway, "In the lift?")
    answer.say("Going ")
    phone.shows("Going")
    phone.network(up=False)
    gateway.cut()  # DevTools lets a WebSocket live that is open
    phone.shows("No connection", ".banner")
    answer.say("down")
    answer.finish()
    phone.type("textarea", "Which floor?", enter=True)
    phone.network(up=True)
    phone.shows("Going down", ".bot .md")
    gateway.question("Which floor?").finish()
    assert len(gateway.requests("chat")) == 2


def test_a_question_that_never_arrived_is_asked_again(phone: Page, gateway: StandInGateway) -> None:
    answer = ask(phone, gateway, "Lost on the way?")
    gateway.stop()
    with gateway._changed:  # as if it had not come
        gateway.answers.clear()
        gateway.sessions.clear()
    gateway.start()
    gateway.wait(lambda: len(gateway.requests("chat")) == 2, "sent again")
    again = gateway.question("Lost on the way?")
    assert again.id == answer.id
    again.say("No.")
    again.finish()
    phone.shows("No.")


def test_the_daemon_restarts_in_mid_answer(phone: Page, gateway: StandInGateway) -> None:
    ask(phone, gateway, "Are you sure?").say("I thi")
    phone.shows("I thi")
    gateway.daemon_away()
    phone.shows("not running on your computer", ".banner")
    gateway.daemon_back()
    phone.shows("restarted in mid-answer", ".bad")
    assert "I thi" in phone.text(".bot .md")
    phone.tap("Ask again")
    again = gateway.question("Are you sure?")
    again.say("I am.")
    again.finish()
    phone.shows("I am.")
    phone.reload()
    phone.shows("I am.")
    assert len(phone.all(".user")) == 1, "the unanswered question is shown twice"


def test_a_daemon_that_is_away_is_asked_later(phone: Page, gateway: StandInGateway) -> None:
    gateway.daemon_away()
    phone.shows("not running on your computer", ".banner")
    phone.type("textarea", "Later, then", enter=True)
    phone.shows("Waiting for the connection")
    gateway.daemon_back()
    gateway.question("Later, then").finish()
    assert len(gateway.requests("chat")) == 1


def test_stopping_without_a_connection(phone: Page, gateway: StandInGateway) -> None:
    answer = ask(phone, gateway, "Too long")
    answer.say("word ")
    phone.shows("word")
    gateway.stop()
    phone.shows("Reconnecting", ".wait")
    phone.tap("Stop")
    phone.shows("Stopping", ".wait")
    gateway.start()
    phone.shows("Stopped", ".bot .note")
    assert answer.cancelled.is_set()


def test_two_tabs_ask_once(phone: Page, gateway: StandInGateway, new_page: OpenPage) -> None:
    answer = ask(phone, gateway, "Once only")
    answer.say("Of ")
    phone.shows("Of")
    second = new_page()
    second.expected += CUT
    second.open(gateway.url)
    second.one("textarea")
    second.until(lambda: second.js(KEPT) == 1, "both tabs share the storage")
    phone.driver.switch_to.window(phone.handle)
    answer.say("course.")
    answer.finish()
    phone.shows("Of course.", ".bot .md")
    assert not gateway.requests("resume")


def test_a_conversation_that_cannot_be_fetched(phone: Page, gateway: StandInGateway) -> None:
    answer = ask(phone, gateway, "Remember?")
    answer.say("I do.")
    answer.finish()
    phone.button("Copy answer")
    gateway.sessions_fail = True
    phone.reload()
    phone.shows("busy with others")
    gateway.sessions_fail = False
    phone.tap("Try again")
    phone.shows("I do.")


def test_the_page_opens_without_a_gateway(phone: Page, gateway: StandInGateway) -> None:
    phone.js_async("await navigator.serviceWorker.ready")
    gateway.add_session("trip", "A trip", ("Where to?", "To Jeju."))
    phone.tap("Conversations")
    phone.one("dialog[open] .session").click()
    phone.shows("To Jeju.")
    gateway.stop()
    phone.reload()
    phone.shows("No connection", ".banner")
    assert phone.text("h1") == "A trip"
    names = phone.js_async("return await caches.keys()")
    assert len(names) == 1
    kept = phone.js_async(
        "const cache = await caches.open(given[0]);"
        "return (await cache.keys()).map((request) => new URL(request.url).pathname)",
        names[0],
    )
    assert not [path for path in kept if path.startswith("/api")]
    phone.type("textarea", "Anyone?", enter=True)
    gateway.start()
    gateway.question("Anyone?").finish()
    phone.shows("To Jeju.")


def test_a_new_version_is_told_of(phone: Page, gateway: StandInGateway, tmp_path) -> None:  # type: ignore[no-untyped-def]
    import shutil

    phone.js_async("await navigator.serviceWorker.ready")
    newer = tmp_path / "page"
    shutil.copytree(gateway._page, newer)
    worker = newer / "sw.js"
    worker.write_text(worker.read_text().replace('const VERSION = "', 'const VERSION = "newer-'))
    gateway.stop()
    gateway._page = newer
    gateway.start()
    phone.js("navigator.serviceWorker.getRegistration().then((one) => one.update())")
    phone.shows("A new version is ready.", "#notice")
    phone.js("window.old = true")
    phone.tap("Reload")
    phone.until(lambda: not phone.js("return window.old"), "reloaded")
    phone.one("textarea")
    phone.until(
        lambda: len(phone.js_async("return await caches.keys()")) == 1, "the old one is gone"
    )
