"""What models write, drawn harmlessly, and the same whether it comes at once or in pieces."""

import re

import pytest

from tests.clients.web.stand_in_gateway import StandInGateway
from tests.e2e.web.browser import Page
from tests.e2e.web.conftest import OpenPage, pair
from tests.e2e.web.test_chat import ask

pytestmark = pytest.mark.web

DRAW = """
const [{ Markdown }, { Cleaner }] = await Promise.all([
  import("/static/markdown.js"), import("/static/clean.js")]);
const root = document.createElement("div");
const [markdown, cleaner] = [new Markdown(root), new Cleaner()];
for (const piece of given[0]) markdown.append(cleaner.push(piece));
markdown.finish();
for (const head of root.querySelectorAll(".code-head")) head.remove();
const outside = (link) => link.target === "_blank" && link.relList.contains("noopener");
if (![...root.querySelectorAll("a")].every(outside)) throw new Error("a link without noopener");
for (const node of root.querySelectorAll("*")) {
  for (const { name } of [...node.attributes]) if (name !== "href" && name !== "start") {
    node.removeAttribute(name);
  }
}
return root.innerHTML;
"""

CASES = {
    "Hello **bold** and *thin* and ***both*** and `a*b*`.": (
        "<p>Hello <strong>bold</strong> and <em>thin</em> and "
        "<strong><em>both</em></strong> and <code>a*b*</code>.</p>"
    ),
    "one\ntwo\n\nthree": "<p>one<br>two</p><p>three</p>",
    "# Big\n### Small\n#tag": "<h3>Big</h3><h4>Small</h4><p>#tag</p>",
    "- a\n- b\n  - c\n\n1. x\n2. y": (
        "<ul><li>a</li><li>b<ul><li>c</li></ul></li></ul><ol><li>x</li><li>y</li></ol>"
    ),
    "3. three\n\n   more\n4. four": '<ol start="3"><li>three<p>more</p></li><li>four</li></ol>',
    "- [ ] open\n- [x] done": "<ul><li>☐ open</li><li>☑ done</li></ul>",
    "> quoted\n> again\n\nafter": "<blockquote><p>quoted<br>again</p></blockquote><p>after</p>",
    "---": "<hr>",
    "```py\nif a < b:\n    **no**\n```\nafter": (
        "<div><pre><code>if a &lt; b:\n    **no**</code></pre></div><p>after</p>"
    ),
    "```\nnever closed": "<div><pre><code>never closed</code></pre></div>",
    "| a | b |\n|---|--:|\n| 1 | **2** |\n\nafter": (
        "<div><table><thead><tr><th>a</th><th>b</th></tr></thead><tbody><tr><td>1</td>"
        "<td><strong>2</strong></td></tr></tbody></table></div><p>after</p>"
    ),
    "[this](https://example.org/a_(b)) and https://example.org/x, or <https://example.org>": (
        '<p><a href="https://example.org/a_(b)">this</a> and '
        '<a href="https://example.org/x">https://example.org/x</a>, or '
        '<a href="https://example.org/">https://example.org</a></p>'
    ),
    "snake_case_name, 2 * 3 * 4, a_b, \\*no\\*, **open": (
        "<p>snake_case_name, 2 * 3 * 4, a_b, *no*, **open</p>"
    ),
    "**강조**입니다, *이것*도": "<p><strong>강조</strong>입니다, <em>이것</em>도</p>",
    # nothing of this may become an element, or leave the page
    "<script>alert(1)</script><img src=x onerror=alert(1)>": (
        "<p>&lt;script&gt;alert(1)&lt;/script&gt;&lt;img src=x onerror=alert(1)&gt;</p>"
    ),
    "[x](javascript:alert(1)) [y](data:text/html,x) [z](/api/unpair)": (
        "<p>[x](javascript:alert(1)) [y](data:text/html,x) [z](/api/unpair)</p>"
    ),
    "![pixel](https://example.org/track.gif)": (
        '<p><a href="https://example.org/track.gif">pixel</a></p>'
    ),
    '[x](https://example.org/"onclick=alert(1))': (
        '<p><a href="https://example.org/%22onclick=alert(1)">x</a></p>'
    ),
    "\x1b[31mred\x1b[0m \x1b]0;title\x07\x1b]8;;http://x\x1b\\link\x9b1m \x07bell\x00 a\r\nb": (
        "<p>red link bell a<br>b</p>"
    ),
    "un\u202edetrever\u202c": "<p>undetrever</p>",
    "\x1b]never closed\nnext": "<p>next</p>",
}


@pytest.mark.parametrize("text", CASES)
def test_drawn(new_page: OpenPage, gateway: StandInGateway, text: str) -> None:
    page = new_page()
    page.expected.append("401")
    page.open(gateway.url)
    whole = page.js_async(DRAW, [text])
    assert whole == CASES[text]
    assert page.js_async(DRAW, list(text)) == whole, "another result, letter by letter"


def test_hostile_answers(phone: Page, gateway: StandInGateway) -> None:
    hostile = "<img src=x onerror='window.hacked=1'><script>window.hacked=1</script>\x1b[2J"
    answer = ask(phone, gateway, hostile.replace("\x1b", ""))
    answer.progress("queued", hostile)
    answer.say(hostile + "\n\n<style>*{display:none}</style>\n\n[a](javascript:window.hacked=1)")
    answer.finish()
    phone.shows("<style>*{display:none}</style>", ".bot .md")
    assert "\x1b" not in phone.text("body")
    assert phone.js("return window.hacked") is None
    assert not phone.driver.find_elements("css selector", "#stage script, #stage style, .md img")
    phone.reload()
    phone.shows("<style>*{display:none}</style>", ".bot .md")
    assert phone.js("return window.hacked") is None


@pytest.mark.parametrize(
    "unit",
    [
        "*a ",
        "**",
        "_",
        "`",
        "[",
        "![x](",
        "[a](b(",
        "> ",
        "- ",
        "# ",
        "|",
        "1. ",
        "\\",
        "<",
        "~~",
        "  ",
    ],
)
def test_no_text_takes_for_ever(new_page: OpenPage, gateway: StandInGateway, unit: str) -> None:
    """Quadratic parsers would take minutes here; the script's time-out is the judge."""
    page = new_page()
    page.expected.append("401")
    page.open(gateway.url)
    page.js_async(DRAW, [unit * (200_000 // len(unit))])


def test_no_table_takes_for_ever(new_page: OpenPage, gateway: StandInGateway) -> None:
    page = new_page()
    page.expected.append("401")
    page.open(gateway.url)
    page.js_async(DRAW, ["a|b\n" + 3 * (200_000 * " " + "x|\n")])


def test_a_long_stream_is_drawn_in_time(new_page: OpenPage, gateway: StandInGateway) -> None:
    page = pair(new_page(), gateway.url, gateway.open_pairing())
    answer = ask(page, gateway, "Everything")
    for part in range(300):
        answer.say(f"Part {part} of **many**, with `code` and more words to come.\n\n")
    answer.finish()
    page.shows("Part 299", ".bot .md")
    page.button("Copy answer")
    assert len(page.driver.find_elements("css selector", ".md > p")) == 300


def test_every_language_has_every_word(new_page: OpenPage, gateway: StandInGateway) -> None:
    page = new_page()
    page.expected.append("401")
    page.open(gateway.url)
    languages = page.js_async("return (await import('/static/i18n.js')).languages")

    def holes(words: str) -> list[str]:
        return sorted(re.findall(r"\{\w+\}", words))

    for language, words in languages.items():
        assert words.keys() == languages["en"].keys(), language
        for key, text in words.items():
            assert text.strip() == text != "", (language, key)
            assert holes(text) == holes(languages["en"][key]), (language, key)
