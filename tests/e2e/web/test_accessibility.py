"""axe-core on every screen, light and dark."""

import pytest

from tests.clients.web.stand_in_gateway import StandInGateway
from tests.e2e.web.browser import DESKTOP, PHONE, ROUND, WATCH, Device, Page, violations
from tests.e2e.web.conftest import OpenPage, pair

pytestmark = pytest.mark.web
ANSWER = """\
# Title

Some **bold** and `code`, a [link](https://example.org).

### Deep

> quoted

1. one
2. two
   - nested

```python
print("a line of code that is long enough to be scrolled sideways on a phone, certainly")
```

| a | b |
|---|---|
| 1 | 2 |
"""


class Judge:
    """Collects what axe finds, in light and in dark."""

    def __init__(self, page: Page, axe: str) -> None:
        self._page, self._axe = page, axe
        self.found: list[str] = []

    def __call__(self, screen: str) -> None:
        for dark in (False, True):
            self._page.look(dark=dark)
            for violation in violations(self._page, self._axe):
                self.found.append(f"{screen}, {'dark' if dark else 'light'}: {violation}")


@pytest.mark.parametrize("device", [PHONE, DESKTOP], ids=["phone", "desktop"])
def test_phone(
    new_page: OpenPage, gateway: StandInGateway, axe_source: str, device: Device
) -> None:
    page = new_page(device)
    page.expected += ["401", "403", "WebSocket connection", "ERR_"]
    judge = Judge(page, axe_source)
    page.open(gateway.url)
    page.type("#pair-code", "123456", enter=True)
    page.shows("That code is wrong")
    judge("pairing, wrong code")
    page.type("#pair-code", gateway.open_pairing(), enter=True)
    page.one(".words")
    judge("pairing, words")
    page.tap("They are the same")
    page.shows("What can I do for you?")
    judge("greeting")
    page.type("textarea", "Show me", enter=True)
    answer = gateway.question("Show me")
    answer.progress("queued", "1 before you")
    page.shows("1 before you")
    judge("waiting")
    answer.say(ANSWER)
    answer.finish()
    page.button("Copy answer")
    judge("answer")
    if device is PHONE:
        page.tap("Conversations")
    page.tap("Rename or delete Show me")
    judge("conversations, renaming")
    page.tap("Cancel")
    judge("conversations")
    page.keys("\ue00c")
    page.tap("What it is doing")
    page.shows("182 tokens/s")
    judge("status")
    page.tap("Close")
    page.type("textarea", "Fail", enter=True)
    gateway.question("Fail").fail("internal")
    page.shows("That did not work")
    judge("failure")
    gateway.stop()
    page.shows("No connection", ".banner")
    page.type("textarea", "Later", enter=True)
    page.shows("Waiting for the connection")
    judge("offline")
    gateway.start()
    gateway.question("Later")
    gateway.revoke_all()
    page.shows("This device was removed")
    judge("revoked")
    assert not judge.found, "\n".join(judge.found)


@pytest.mark.parametrize("device", [WATCH, ROUND], ids=["square", "round"])
def test_watch(
    new_page: OpenPage, gateway: StandInGateway, axe_source: str, device: Device
) -> None:
    page = pair(new_page(device), gateway.url, gateway.open_pairing())
    page.expected += ["WebSocket connection", "ERR_"]
    judge = Judge(page, axe_source)
    judge("ready")
    page.tap("Type instead")
    judge("typing")
    page.type(".watch input", "Will it rain this evening?", enter=True)
    answer = gateway.question("Will it rain this evening?")
    judge("waiting")
    answer.say("A little, after nine. Take an umbrella if you stay out long.")
    page.shows("A little")
    judge("answering")
    answer.finish("cancelled")
    page.button("Ask something else")
    judge("answer")
    gateway.stop()
    page.shows("No connection")
    judge("offline")
    assert not judge.found, "\n".join(judge.found)
