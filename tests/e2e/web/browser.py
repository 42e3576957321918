"""Chromium without a window: tabs as phones and watches, and what a person does with them."""

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException, WebDriverException
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

T = TypeVar("T")
WAIT_S = 30.0
"""How long to wait for what must happen; long, as the test machine may be busy."""
POLL_S = 0.03


@dataclass(frozen=True)
class Device:
    """What a page is looked at with."""

    width: int
    height: int
    scale: float = 2.0
    touch: bool = True
    query: str = ""
    """Appended to the address."""


PHONE = Device(390, 844)
WATCH = Device(384, 384)
ROUND = Device(384, 384, query="?watch&round")
DESKTOP = Device(1280, 800, scale=1.0, touch=False)


def missing_programs() -> list[str]:
    """Of those that are needed, which are not installed."""
    return [
        names[0]
        for names in (("chromium", "chromium-browser"), ("chromedriver",))
        if not any(map(shutil.which, names))
    ]


def require() -> None:
    """Skip where there is no Chromium; fail if CI is set, which installs it."""
    missing = missing_programs()
    if missing and os.environ.get("CI"):
        pytest.fail(f"CI needs {', '.join(missing)}: `make web-packages`")
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)} (Debian: `make web-packages`)")


@contextlib.contextmanager
def chromium(microphone: Path | None = None) -> Iterator[webdriver.Chrome]:
    """A browser. Its microphone hears that WAV file, once."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or shutil.which("chromium-browser") or ""
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--disable-component-update",
        "--no-first-run",
        "--hide-scrollbars",
        "--mute-audio",
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
    ):
        options.add_argument(argument)
    if microphone is not None:
        options.add_argument(f"--use-file-for-fake-audio-capture={microphone}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    driver = webdriver.Chrome(options, service)
    try:
        yield driver
    finally:
        driver.quit()


class Page:
    """A tab of its own."""

    def __init__(self, driver: webdriver.Chrome, device: Device, language: str, dark: bool) -> None:
        self.driver, self.device = driver, device
        driver.switch_to.new_window("tab")
        self.handle = driver.current_window_handle
        # a tab that is closed while it fetches its service worker
        self.expected = ["An unknown error occurred when fetching the script"]
        """Parts of errors in the console that the test provokes."""
        self.resize(device)
        self.devtools("Emulation.setTouchEmulationEnabled", enabled=device.touch)
        agent = driver.execute_script("return navigator.userAgent").replace("Headless", "")
        self.devtools("Emulation.setUserAgentOverride", userAgent=agent, acceptLanguage=language)
        self.devtools("Emulation.setLocaleOverride", locale=language)
        self.look(dark=dark)

    # --- the browser ---

    def devtools(self, command: str, **values: Any) -> Any:
        """A command of the DevTools protocol."""
        return self.driver.execute_cdp_cmd(command, values)

    def resize(self, device: Device) -> None:
        """Be of another size."""
        size = {"width": device.width, "height": device.height}
        self.devtools(
            "Emulation.setDeviceMetricsOverride",
            **size,
            screenWidth=device.width,
            screenHeight=device.height,
            deviceScaleFactor=device.scale,
            mobile=device.touch,
        )

    def look(self, *, dark: bool = False, still: bool = True) -> None:
        """Prefer dark or light; still: no animations."""
        features = {
            "prefers-color-scheme": "dark" if dark else "light",
            "prefers-reduced-motion": "reduce" if still else "no-preference",
        }
        pairs = [{"name": name, "value": value} for name, value in features.items()]
        self.devtools("Emulation.setEmulatedMedia", features=pairs)

    def network(self, *, up: bool) -> None:
        """Take the network away, or give it back."""
        self.expected.append("ERR_INTERNET_DISCONNECTED")
        self.devtools("Network.enable")
        self.devtools(
            "Network.emulateNetworkConditions",
            offline=not up,
            latency=0,
            downloadThroughput=-1,
            uploadThroughput=-1,
        )

    def open(self, url: str) -> None:
        """Go there."""
        self.driver.get(url)

    def reload(self) -> None:
        """As a person does."""
        self.driver.refresh()

    def js(self, script: str, *values: Any) -> Any:
        """Run JavaScript in the page; `return` gives a value back."""
        return self.driver.execute_script(script, *values)

    def js_async(self, script: str, *values: Any) -> Any:
        """Run JavaScript with `await`; `return` gives a value back."""
        wrapped = (
            "const done = arguments[arguments.length - 1];"
            f"(async (...given) => {{ {script} }})(...arguments)"
            ".then((value) => done({value}), (error) => done({error: String(error.stack)}))"
        )
        reply = self.driver.execute_async_script(wrapped, *values)
        if "error" in reply:
            raise AssertionError(reply["error"])
        return reply.get("value")

    def complaints(self) -> list[str]:
        """Errors that the console has, but for those that were to be expected."""
        entries = self.driver.get_log("browser")
        return [
            entry["message"]
            for entry in entries
            if entry["level"] == "SEVERE"
            and not any(part in entry["message"] for part in self.expected)
        ]

    def close(self) -> None:
        """Close the tab, after its page: one that is still connecting would go on for a moment,
        without the cookies that the next test has taken away."""
        self.driver.switch_to.window(self.handle)
        self.driver.get("about:blank")
        self.driver.close()
        self.driver.switch_to.window(self.driver.window_handles[0])

    # --- looking ---

    def until(self, condition: Callable[[], T], what: str) -> T:
        """Wait until `condition()` holds; its value."""

        def check(_driver: webdriver.Chrome) -> T:
            return condition()

        wait = WebDriverWait(
            self.driver, WAIT_S, POLL_S, ignored_exceptions=[StaleElementReferenceException]
        )
        try:
            return wait.until(check)
        except WebDriverException as problem:
            shown = self.js("return document.body.innerText")
            raise AssertionError(f"{what}: did not happen; the page says:\n{shown}") from problem

    def all(self, selector: str) -> list[WebElement]:
        """Elements that are shown."""
        found = self.driver.find_elements(By.CSS_SELECTOR, selector)
        return [element for element in found if element.is_displayed()]

    def one(self, selector: str) -> WebElement:
        """Wait for an element that is shown; the first, if there are several."""
        return self.until(lambda: self.all(selector), f"{selector} shown")[0]

    def gone(self, selector: str) -> None:
        """Wait until no such element is shown."""
        self.until(lambda: not self.all(selector), f"{selector} gone")

    def text(self, selector: str) -> str:
        """What all such elements say, also outside of the window."""
        # what is not drawn because it is scrolled out of sight has no innerText
        return str(
            self.js(
                "return [...document.querySelectorAll(arguments[0])].map((one) =>"
                " one.innerText || (one.checkVisibility() ? one.textContent : '')).join('\\n')",
                selector,
            )
        ).strip()

    def shows(self, words: str, selector: str = "body") -> None:
        """Wait until these words are there."""
        self.until(lambda: words in self.text(selector), f"{words!r} in {selector}")

    def button(self, name: str) -> WebElement:
        """Wait for a button of this name, by its label or its words."""

        def named() -> list[WebElement]:
            return [
                button
                for button in self.all("button, summary")
                if (button.accessible_name or "").strip() == name
            ]

        return self.until(named, f"a button {name!r}")[0]

    # --- doing ---

    def tap(self, name: str) -> None:
        """Press a button."""
        button = self.button(name)
        self.until(button.is_enabled, f"{name!r} can be pressed")
        button.click()

    def type(self, selector: str, text: str, *, enter: bool = False) -> None:
        """Type into a field."""
        field = self.one(selector)
        field.clear()
        field.send_keys(text)
        if enter:
            field.send_keys(Keys.ENTER)

    def keys(self, *keys: str) -> None:
        """Type to whatever has the focus."""
        ActionChains(self.driver).send_keys(*keys).perform()

    def chord(self, held: str, key: str) -> None:
        """A key with another one held."""
        ActionChains(self.driver).key_down(held).send_keys(key).key_up(held).perform()

    def focus(self) -> str:
        """Name of what has the focus."""
        return str(self.driver.switch_to.active_element.accessible_name or "")

    def hold(self, name: str) -> None:
        """Press a button and keep it pressed."""
        ActionChains(self.driver).click_and_hold(self.button(name)).perform()

    def let_go(self) -> None:
        """Release it."""
        ActionChains(self.driver).release().perform()

    def screenshot(self, path: Path) -> None:
        """A picture of what is shown."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self.driver.save_screenshot(str(path))


def violations(page: Page, axe: str) -> list[str]:
    """What axe-core has against the page as it is now; `axe` is its source."""
    page.js(axe)
    results = page.js_async("return await axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{found['id']}: {found['help']}\n"
        + "\n".join(
            f"    {json.dumps(node['target'])} {node['html'][:200]}\n    {node['failureSummary']}"
            for node in found["nodes"]
        )
        for found in results["violations"]
    ]
