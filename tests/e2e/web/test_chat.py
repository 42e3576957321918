"""Conversations on the phone."""

import pytest
from selenium.webdriver.common.keys import Keys

from tests.clients.web.stand_in_answers import Answer
from tests.clients.web.stand_in_gateway import StandInGateway
from tests.e2e.web.browser import DESKTOP, Page
from tests.e2e.web.conftest import OpenPage, pair

pytestmark = pytest.mark.web


def ask(page: Page, gateway: StandInGateway, text: str, count: int = 1) -> Answer:
    page.type("textarea", text, enter=True)
    return gateway.question(text, count)


def test_tokens_stream(phone: Page, gateway: StandInGateway) -> None:
    answer = ask(phone, gateway, "Why is the sky blue?")
    assert answer.request["session"]
    answer.say("Because of ")
    phone.shows("Because of", ".bot .md")
    assert phone.button("Stop")
    answer.say("**Rayleigh** scattering.")
    phone.shows("Rayleigh scattering.", ".bot .md")
    answer.finish()
    phone.button("Copy answer")
    assert phone.text(".bot .md strong") == "Rayleigh"
    assert phone.text("h1") == "Why is the sky blue?"
    assert not phone.js("return Object.keys(localStorage).filter(k => k.includes('turn'))")


HOLD = """
return new Promise((held) => {
  navigator.locks.request("assistant.started", () => {
    held();
    return new Promise((release) => { globalThis.release = release; });
  });
});
"""


def test_who_types_while_the_page_starts(
    phone: Page, gateway: StandInGateway, new_page: OpenPage
) -> None:
    first = ask(phone, gateway, "First?")
    first.say("Here.")
    first.finish()
    phone.button("Copy answer")
    other = new_page()  # keeps the page from getting further than its first picture
    other.expected.append("/favicon.ico")
    other.open(f"{gateway.url}/manifest.webmanifest")
    other.js_async(HOLD)
    phone.driver.switch_to.window(phone.handle)
    phone.reload()
    phone.type("textarea", "Second?", enter=True)
    phone.shows("Second?", ".user")
    phone.driver.switch_to.window(other.handle)
    other.js("release()")
    phone.driver.switch_to.window(phone.handle)
    second = gateway.question("Second?")
    assert second.request["session"] == first.request["session"]
    second.say("There.")
    second.finish()
    phone.shows("There.", ".bot .md")
    phone.shows("Here.")
    assert phone.text("h1") == "First?"


def test_waiting_is_told(phone: Page, gateway: StandInGateway) -> None:
    answer = ask(phone, gateway, "Anybody?")
    answer.progress("queued", "2 before you")
    phone.shows("2 before you", ".wait")
    answer.progress("prefill", "reading", completed=300, total=400)
    phone.shows("75%", ".wait")
    answer.say("Yes.")
    phone.gone(".wait")
    answer.finish("length")
    phone.shows("longest length", ".bot .note")


def test_stop(phone: Page, gateway: StandInGateway) -> None:
    answer = ask(phone, gateway, "Count to a million")
    answer.say("1, 2, 3")
    phone.shows("1, 2, 3")
    phone.tap("Stop")
    phone.shows("Stopped", ".bot .note")
    assert answer.cancelled.is_set()
    assert "1, 2, 3" in phone.text(".bot .md")
    phone.type("textarea", "and on")
    assert phone.button("Send").is_enabled()


def test_retry(phone: Page, gateway: StandInGateway) -> None:
    ask(phone, gateway, "Well?").fail("internal", "it <b>broke</b>")
    phone.shows("it <b>broke</b>", ".bad")
    phone.tap("Ask again")
    again = gateway.question("Well?", 2)
    again.say("Well.")
    again.finish()
    phone.shows("Well.", ".bot .md")
    assert len(phone.all(".user")) == 1
    phone.tap("Ask again")  # of an answer that is complete, too
    gateway.question("Well?", 3).finish()


def test_busy_is_waited_for(phone: Page, gateway: StandInGateway) -> None:
    ask(phone, gateway, "Room?").fail("busy", retry_after_ms=10)
    again = gateway.question("Room?", 2)
    assert again.id != gateway.requests("chat")[0]["id"]
    again.say("Now.")
    again.finish()
    phone.shows("Now.")
    assert len(phone.all(".user")) == 1


def test_copy(phone: Page, gateway: StandInGateway) -> None:
    answer = ask(phone, gateway, "Some code?")
    answer.say("Here:\n\n```python\nprint(1)\n```")
    answer.finish()
    phone.js(
        "window.copied = [];"
        "navigator.clipboard.writeText = (text) => { copied.push(text); return Promise.resolve() }"
    )
    phone.tap("Copy code")
    phone.tap("Copy answer")
    phone.until(lambda: phone.js("return copied.length") == 2, "both copied")
    assert phone.js("return copied") == ["print(1)", "Here:\n\n```python\nprint(1)\n```"]
    phone.button("Copied")


def test_conversations(phone: Page, gateway: StandInGateway) -> None:
    gateway.add_session("trip", "A trip to Jeju", ("Where to?", "To *Jeju*."), ("When?", "In May."))
    gateway.add_session("<b>", "<img src=x onerror=alert(1)>", ("a", "b"))
    ask(phone, gateway, "A new one").finish()
    phone.tap("Conversations")
    phone.shows("A trip to Jeju", "dialog[open]")
    assert "<img src=x onerror=alert(1)>" in phone.text("dialog[open]")
    phone.one("dialog[open] li:nth-child(3) .session").click()
    phone.shows("To Jeju.", ".bot .md")
    assert phone.text("h1") == "A trip to Jeju"
    assert len(phone.all(".msg")) == 4
    answer = ask(phone, gateway, "And what with?")
    assert answer.request["session"] == "trip"
    answer.finish()

    phone.tap("Conversations")
    phone.tap("Rename or delete A trip to Jeju")
    phone.type("#session-title", "Jeju", enter=True)
    phone.until(lambda: phone.text("h1") == "Jeju", "the new title")
    assert gateway.sessions["trip"]["title"] == "Jeju"

    phone.tap("Rename or delete Jeju")
    phone.tap("Delete conversation")
    phone.tap("Delete for good?")
    gateway.wait(lambda: "trip" not in gateway.sessions, "deleted")
    phone.until(lambda: phone.text("h1") == "New conversation", "a new conversation")
    phone.shows("What can I do for you?")


def test_what_cannot_be_changed_is_said(phone: Page, gateway: StandInGateway) -> None:
    gateway.add_session("trip", "A trip to Jeju", ("Where to?", "To Jeju."))
    phone.tap("Conversations")
    phone.one("dialog[open] .session").click()
    phone.shows("A trip to Jeju", "h1")
    phone.tap("Conversations")
    phone.tap("Rename or delete A trip to Jeju")
    gateway.sessions_fail = True
    phone.type("#session-title", "Jeju", enter=True)
    phone.shows("busy with others", ".sheet [role=alert]")
    assert phone.text("h1") == "A trip to Jeju"
    phone.tap("Delete conversation")
    phone.tap("Delete for good?")
    gateway.wait(lambda: len(gateway.requests("sessions")) >= 3, "asked")
    phone.shows("busy with others", ".sheet [role=alert]")
    assert phone.text("h1") == "A trip to Jeju"
    gateway.sessions_fail = False
    phone.tap("Save")
    phone.until(lambda: phone.text("h1") == "Jeju", "the new title")
    phone.gone(".sheet")


def test_escape_while_hangul_is_composed(phone: Page, gateway: StandInGateway) -> None:
    answer = ask(phone, gateway, "Long?")
    press = (
        "document.querySelector('textarea').dispatchEvent(new KeyboardEvent("
        "'keydown', {key: 'Escape', isComposing: arguments[0], bubbles: true}))"
    )
    phone.js(press, True)
    answer.say("Still here")
    phone.shows("Still here")
    assert not gateway.requests("cancel")
    phone.js(press, False)
    gateway.wait(lambda: bool(gateway.requests("cancel")), "stopped")


def test_a_new_conversation(phone: Page, gateway: StandInGateway) -> None:
    first = ask(phone, gateway, "One")
    first.finish()
    phone.tap("New conversation")
    phone.shows("What can I do for you?")
    phone.tap("Write a short thank-you note")
    second = gateway.question("Write a short thank-you note")
    assert second.request["session"] != first.request["session"]


def test_drafts_stay_with_their_conversation(phone: Page, gateway: StandInGateway) -> None:
    gateway.add_session("trip", "A trip", ("Where to?", "To Jeju."))
    phone.type("textarea", "half a thou")
    phone.until(
        lambda: phone.js("return JSON.stringify(localStorage).includes('half a thou')"), "kept"
    )
    phone.reload()
    phone.until(lambda: phone.one("textarea").get_property("value") == "half a thou", "the draft")
    phone.tap("Conversations")
    phone.one("dialog[open] .session").click()
    phone.shows("To Jeju.")
    assert phone.one("textarea").get_property("value") == ""


def test_a_second_question_waits_for_the_first_answer(phone: Page, gateway: StandInGateway) -> None:
    first = ask(phone, gateway, "First")
    phone.type("textarea", "Second", enter=True)
    phone.shows("Waits for its turn")
    phone.type("textarea", "Third", enter=True)
    phone.until(lambda: len(phone.all(".user")) == 3, "three questions")
    phone.all(".user .word")[-1].click()
    phone.until(lambda: len(phone.all(".user")) == 2, "the third is taken back")
    assert phone.one("textarea").get_property("value") == "Third"
    assert len(gateway.requests("chat")) == 1
    first.finish()
    second = gateway.question("Second")
    second.say("2")
    second.finish()
    phone.shows("2", ".bot:last-child .md")
    assert [frame["text"] for frame in gateway.requests("chat")] == ["First", "Second"]


def test_long_conversations(phone: Page, gateway: StandInGateway) -> None:
    turns = [(f"question {n}", f"answer {n} " * 30) for n in range(500)]
    gateway.add_session("long", "Long", *turns)
    phone.tap("Conversations")
    phone.one("dialog[open] .session").click()
    phone.shows("answer 499")
    at_end = "const s = document.querySelector('.scroller');"
    at_end += "return s.scrollHeight - s.scrollTop - s.clientHeight < 2"
    phone.until(lambda: phone.js(at_end), "scrolled to the end")
    assert len(phone.driver.find_elements("css selector", ".msg")) < 100
    phone.js("document.querySelector('.scroller').scrollTop = 0")
    drawn = "return document.querySelector('.thread').textContent.includes('question 470')"
    phone.until(lambda: phone.js(drawn), "earlier messages are drawn")
    phone.button("Latest message").click()
    phone.until(lambda: phone.js(at_end), "back at the end")


def test_reading_above_is_not_disturbed(phone: Page, gateway: StandInGateway) -> None:
    gateway.add_session("long", "Long", *[("q", "a\n\n" * 20)] * 5)
    phone.tap("Conversations")
    phone.one("dialog[open] .session").click()
    answer = ask(phone, gateway, "More")
    answer.say("line\n\n" * 30)
    phone.shows("line")
    phone.js("document.querySelector('.scroller').scrollTop = 100")
    phone.button("Latest message")
    where = phone.js("return document.querySelector('.scroller').scrollTop")
    answer.say("the end")
    answer.finish()
    phone.shows("the end")
    assert phone.js("return document.querySelector('.scroller').scrollTop") == where


def test_the_panel_asks_only_while_it_is_open(phone: Page, gateway: StandInGateway) -> None:
    assert not gateway.requests("status")
    phone.tap("What it is doing")
    phone.shows("182 tokens/s", "dialog[open]")
    phone.shows("214 MB of 300 MB", "dialog[open]")
    phone.shows("Conversations 46 MB", "dialog[open]")
    gateway.status["tokens_per_second"] = 9.04
    phone.shows("9 tokens/s", "dialog[open]")
    phone.tap("Close")
    phone.gone("dialog[open]")
    n = len(gateway.requests("status"))
    ask(phone, gateway, "Quiet?").finish()
    phone.button("Ask again")
    assert len(gateway.requests("status")) <= n + 1


def test_keyboard_only(new_page: OpenPage, gateway: StandInGateway) -> None:
    gateway.add_session("trip", "A trip", ("Where to?", "To Jeju."))
    page = pair(new_page(DESKTOP), gateway.url, gateway.open_pairing())
    page.until(lambda: page.focus() == "Your message", "the field has the focus")
    page.keys("First line")
    page.chord(Keys.SHIFT, Keys.ENTER)
    page.keys("second line", Keys.ENTER)
    answer = gateway.question("First line\nsecond line")
    answer.say("Listening")
    page.shows("Listening")
    page.keys(Keys.ESCAPE)
    page.shows("Stopped")
    assert answer.cancelled.is_set()
    page.keys(Keys.TAB)
    assert page.focus() != "Your message"

    order = []
    page.js("document.activeElement.blur()")
    for _stop in range(40):
        page.keys(Keys.TAB)
        order.append(page.focus())
        if order[-1] == "Your message":
            break
        ring = "const at = document.activeElement;"
        ring += "return at === document.body || getComputedStyle(at).outlineStyle === 'solid'"
        assert page.js(ring), f"{order[-1]!r} does not show that it has the focus"
    expected = ["What it is doing", "New conversation", "Conversation", "Your message"]
    assert [name for name in order if name in expected][-4:] == expected
    page.chord(Keys.SHIFT, Keys.TAB)
    assert page.focus() == "Ask again"


def test_enter_of_an_input_method_does_not_send(phone: Page, gateway: StandInGateway) -> None:
    phone.type("textarea", "안녕")
    composing = "new KeyboardEvent('keydown', {key: 'Enter', isComposing: true, bubbles: true})"
    phone.js(f"document.querySelector('textarea').dispatchEvent({composing})")
    assert phone.one("textarea").get_property("value") == "안녕"
    phone.one("textarea").send_keys(Keys.ENTER)
    gateway.question("안녕")


def test_korean(new_page: OpenPage, gateway: StandInGateway) -> None:
    page = pair(new_page(language="ko-KR"), gateway.url, gateway.open_pairing())
    page.shows("무엇을 도와드릴까요?")
    assert page.js("return document.documentElement.lang") == "ko"
    answer = ask(page, gateway, "제주도는 어때?")
    answer.say("**제주도**는 아름답습니다.")
    answer.finish()
    page.shows("제주도는 아름답습니다.", ".bot .md")
    assert page.text(".bot strong") == "제주도"
    page.button("답 복사")
    page.tap("지금 하는 일")
    page.shows("초당 182토큰", "dialog[open]")


def test_answers_are_read_out_once(phone: Page, gateway: StandInGateway) -> None:
    answer = ask(phone, gateway, "Read to me")
    spoken = "return [...document.querySelectorAll('#said p')].map((p) => p.textContent)"
    answer.say("The first sen")
    phone.shows("The first sen", ".bot .md")
    assert phone.js(spoken) == []
    answer.say("tence. And the **second** one.\nThird")
    phone.until(lambda: len(phone.js(spoken)) == 2, "two sentences")
    answer.finish()
    phone.until(lambda: len(phone.js(spoken)) == 4, "all is said")
    assert phone.js(spoken) == [
        "The first sentence.",
        "And the second one.",
        "Third",
        "Answer complete",
    ]
    assert not phone.all(".scroller [aria-live], .scroller[aria-live]")
