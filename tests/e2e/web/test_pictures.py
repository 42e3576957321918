"""Pictures of the screens: to look at, and the two of the README.

WEB_PICTURES=FOLDER make web WEB=tests/e2e/web/test_pictures.py
WEB_PICTURES=docs …       also writes docs/phone.png and docs/watch.png
"""

import io
import os
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from tests.clients.web.stand_in_gateway import StandInGateway
from tests.e2e.web.browser import DESKTOP, PHONE, ROUND, WATCH, Page
from tests.e2e.web.conftest import OpenPage, pair

DOCS = Path(__file__).resolve().parents[3] / "docs"
FOLDER = os.environ.get("WEB_PICTURES", "")
pytestmark = [
    pytest.mark.web,
    pytest.mark.skipif(not FOLDER, reason="set WEB_PICTURES to the folder for the pictures"),
]
QUESTION = "How do I keep basil alive on the windowsill?"
ANSWER = """\
Basil wants **light, warmth and water from below**:

1. Give it six hours of sun, away from cold glass.
2. Set the pot in a saucer of water for ten minutes when the top of the soil is dry.
3. Cut whole stems above a pair of leaves, and it grows two for each.

> Plants from the shop are often thirty seedlings in one pot. Part them into three.
"""
CODE = """\
A list of files, the largest first:

```python
from pathlib import Path

files = [p for p in Path(".").rglob("*") if p.is_file()]
for path in sorted(files, key=lambda p: -p.stat().st_size)[:10]:
    print(f"{path.stat().st_size:>12,}  {path}")
```

| column | holds |
|---|---|
| 1 | bytes |
| 2 | the path |
"""


def take(page: Page, name: str) -> Path:
    """A picture of the page as it is."""
    path = Path(FOLDER) / f"{name}.png"
    if Path(FOLDER).resolve() != DOCS:
        page.screenshot(path)
    return path


def converse(page: Page, gateway: StandInGateway, question: str, text: str) -> None:
    page.type("textarea", question, enter=True)
    answer = gateway.question(question)
    answer.say(text)
    answer.finish()
    page.until(lambda: page.all(".bot:last-child .acts"), "complete")
    page.js("document.activeElement.blur(); document.querySelector('.scroller').scrollTop = 0")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_phone(new_page: OpenPage, gateway: StandInGateway, dark: bool) -> None:
    look = "dark" if dark else "light"
    page = new_page(PHONE, dark=dark)
    page.expected += ["401", "WebSocket connection", "ERR_"]
    page.open(gateway.url)
    page.one("#pair-code")
    take(page, f"phone-pair-{look}")
    page.type("#pair-code", gateway.open_pairing())
    page.tap("Pair")
    page.one(".words")
    take(page, f"phone-words-{look}")
    page.tap("They are the same")
    page.one(".greeting")
    take(page, f"phone-greeting-{look}")
    converse(page, gateway, QUESTION, ANSWER)
    take(page, f"phone-answer-{look}")
    if Path(FOLDER).resolve() == DOCS:
        keep(page, DOCS / f"phone-{look}.png")
    page.type("textarea", "And mint?", enter=True)
    gateway.question("And mint?").say("Mint forgives nearly")
    page.shows("Mint forgives nearly")
    take(page, f"phone-streaming-{look}")
    gateway.add_session("a", "A trip to Jeju in May", ("x", "y"))
    gateway.add_session("b", "Why is the sky blue?", ("x", "y"))
    page.tap("Conversations")
    page.one("dialog[open] .session")
    take(page, f"phone-conversations-{look}")
    page.tap("Rename or delete Why is the sky blue?")
    page.one("#session-title")
    take(page, f"phone-rename-{look}")
    page.tap("Cancel")
    page.keys("\ue00c")
    page.tap("What it is doing")
    page.shows("182 tokens/s")
    take(page, f"phone-status-{look}")
    page.tap("Close")
    gateway.question("And mint?").finish()
    gateway.stop()
    page.shows("No connection", ".banner")
    page.type("textarea", "And rosemary?", enter=True)
    page.shows("Waiting for the connection")
    take(page, f"phone-offline-{look}")


def test_code_and_tables(new_page: OpenPage, gateway: StandInGateway) -> None:
    page = pair(new_page(PHONE), gateway.url, gateway.open_pairing())
    converse(page, gateway, "Which files are the largest?", CODE)
    take(page, "phone-code")


def test_desktop(new_page: OpenPage, gateway: StandInGateway) -> None:
    gateway.add_session("a", "A trip to Jeju in May", ("x", "y"))
    page = pair(new_page(DESKTOP), gateway.url, gateway.open_pairing())
    converse(page, gateway, QUESTION, ANSWER)
    take(page, "desktop")


def test_korean(new_page: OpenPage, gateway: StandInGateway) -> None:
    page = pair(new_page(PHONE, language="ko-KR"), gateway.url, gateway.open_pairing())
    take(page, "phone-korean-greeting")
    converse(
        page,
        gateway,
        "바질을 창가에서 어떻게 키워?",
        "바질은 **햇빛과 온기**를 좋아합니다.\n\n1. 하루 여섯 시간 햇빛을 주세요.\n"
        "2. 흙이 마르면 물을 아래에서 주세요.\n3. 잎 바로 위에서 줄기를 자르세요.",
    )
    take(page, "phone-korean")
    page.tap("지금 하는 일")
    page.shows("초당 182토큰")
    take(page, "phone-korean-status")


@pytest.mark.parametrize("device", [WATCH, ROUND], ids=["square", "round"])
def test_watch(new_page: OpenPage, gateway: StandInGateway, device: object) -> None:
    shape = "round" if device is ROUND else "square"
    page = pair(new_page(device), gateway.url, gateway.open_pairing())  # type: ignore[arg-type]
    page.expected += ["WebSocket connection", "ERR_"]
    page.js("document.activeElement.blur()")
    take(page, f"watch-{shape}-ready")
    if Path(FOLDER).resolve() == DOCS:
        keep(page, DOCS / f"watch-{shape}-ready.png")
    page.tap("Type instead")
    take(page, f"watch-{shape}-typing")
    page.type(".watch input", "Will it rain this evening?", enter=True)
    answer = gateway.question("Will it rain this evening?")
    take(page, f"watch-{shape}-waiting")
    answer.say("A little, after nine. Take an umbrella if you stay out long.")
    answer.finish()
    page.button("Ask something else")
    page.js("document.activeElement.blur()")
    take(page, f"watch-{shape}-answer")
    if Path(FOLDER).resolve() == DOCS:
        keep(page, DOCS / f"watch-{shape}-answer.png")
    gateway.stop()
    page.shows("No connection")
    take(page, f"watch-{shape}-offline")


# --- the README's -----------------------------------------------------------------------------


def keep(page: Page, path: Path) -> None:
    """A part of a README's picture, which the last test puts together."""
    path.write_bytes(page.driver.get_screenshot_as_png())


def test_the_readme(request: pytest.FixtureRequest) -> None:
    if Path(FOLDER).resolve() != DOCS:
        pytest.skip("only for docs")
    side_by_side([DOCS / "phone-light.png", DOCS / "phone-dark.png"], 360, 56, DOCS / "phone.png")
    parts = ["watch-square-ready", "watch-square-answer", "watch-round-ready", "watch-round-answer"]
    watches = [DOCS / f"{name}.png" for name in parts]
    side_by_side(watches, 200, 44, DOCS / "watch.png", round_from=2)


def side_by_side(
    parts: list[Path], width: int, corner: int, target: Path, round_from: int = 99
) -> None:
    """One small picture of several, with the corners of their devices."""
    scale, gap = 2, 20
    images = []
    for number, path in enumerate(parts):
        image = Image.open(path).convert("RGB")
        image = image.resize((width * scale, image.height * width * scale // image.width))
        mask = Image.new("L", image.size)
        radius = image.width // 2 if number >= round_from else corner * scale
        ImageDraw.Draw(mask).rounded_rectangle((0, 0, *image.size), radius, fill=255)
        image.putalpha(mask)
        images.append(image)
        path.unlink()
    whole = (width * scale + gap * scale) * len(images) - gap * scale
    sheet = Image.new("RGBA", (whole, images[0].height))
    for number, image in enumerate(images):
        sheet.paste(image, (number * (width + gap) * scale, 0))
    sheet = sheet.resize((sheet.width // scale, sheet.height // scale), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    if round_from > len(parts):  # else a button's gradient would show its steps
        sheet = sheet.quantize(256, method=Image.Quantize.FASTOCTREE)
    sheet.save(file, "PNG", optimize=True)
    target.write_bytes(file.getvalue())
